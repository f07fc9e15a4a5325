"""The benchmark of the join runs, compares outputs and writes what its readers expect."""

import json
from pathlib import Path

import polars as pl
import pytest

from bench import report
from bench.pit import __main__ as bench
from bench.pit import data

KEYS = ["name", "ours", "peer", "unit", "ratio", "spread", "goal", "met"]


def arguments(folder: Path) -> list[str]:
    sizes = ["--feature-rows", "2000", "--labels", "400", "--views", "2", "--repeats", "1"]
    places = ["--data", str(folder / "data"), "--output", str(folder / "pit.json")]
    return [*sizes, *places, "--late", "0.1", "--parts", "2"]


def test_a_tiny_run_finds_equal_outputs_and_writes_its_comparisons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.main([*arguments(tmp_path), "--peers", "duckdb", "asof"])

    found = json.loads((tmp_path / "pit.json").read_text())
    assert 7 == len(found)
    assert [KEYS] * 7 == [list(one) for one in found]
    assert all(one["ours"] >= 0 and one["peer"] >= 0 for one in found)
    assert [5.0] == [one["goal"] for one in found if one["goal"]]
    said = capsys.readouterr().out
    assert "duckdb: 400 rows (0 lost), equal to ours" in said
    assert "asof: 400 rows (0 lost), equal to ours" in said


@pytest.mark.parametrize(
    ("change", "said", "expected"),
    [
        pytest.param(pl.col("v0_count"), "0 lost), equal to ours", False, id="equal"),
        pytest.param(pl.col("v0_count") + 1, "0 lost), DIFFERENT", True, id="another value"),
        pytest.param(
            pl.when(pl.col("label_id") == 1).then("v0_count"), "DIFFERENT", True, id="a null more"
        ),
    ],
)
def test_outputs_are_compared_value_by_value(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: pl.Expr,
    said: str,
    expected: bool,
) -> None:
    size = data.Size(feature_rows=10, labels=3, views=1)
    values = {name: [1.0, None, 3.0] for name in data.features(0)}
    ours = pl.DataFrame({"label_id": [2, 1, 0]} | values).with_columns(v0_count=pl.lit(5))

    def write(name: str, _folder: Path, output: Path) -> None:
        frame = ours if name == "ours" else ours.with_columns(change.alias("v0_count")).reverse()
        frame.write_parquet(output)

    monkeypatch.setattr(bench, "_measure", write)
    differ, lost = bench._outputs_differ(tmp_path, ["asof"], size)

    assert (expected, {"asof": 0}) == (differ, lost)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        pytest.param(2.0, True, id="reached"),
        pytest.param(3.1, False, id="missed"),
        pytest.param(None, None, id="none"),
    ],
)
def test_a_comparison_is_of_medians_and_its_spread_of_neighbours(
    goal: float | None, met: bool | None
) -> None:
    one = report.compare("x", [1.0, 2.0, 1.0], [3.0, 4.0, 2.0], "s", goal)

    assert report.Comparison("x", 1.0, 3.0, "s", 3.0, (2.0, 3.0), goal, met) == one
