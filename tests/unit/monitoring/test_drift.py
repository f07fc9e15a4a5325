"""Drift is found in the column where it is, and no verdict is given without evidence."""

import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.profile.calibration import calibrate
from feature_repo.profile.distances import distance
from mlplatform.contracts import Window
from mlplatform.contracts.drift import DriftCalibration, DriftSign
from mlplatform.errors import PlatformError
from monitoring import drift
from monitoring.drift import detect

Floats = npt.NDArray[np.float64]
START = datetime(2013, 1, 1, tzinfo=UTC)
ROWS = 300
"""In each day."""
COMPARED = ("distance", "waiting", "carrier", "cancelled", "weather", "score")
OF = Window(start=START, end=START + timedelta(days=1))


def day(rng: np.random.Generator, number: int = 0, rows: int = ROWS) -> pl.DataFrame:
    """One day of rows: a normal column, a heavy tail, a category, a flag, and the day's weather."""
    minutes = np.sort(rng.uniform(0, 24 * 60, rows))
    weather = rng.normal()
    numbers = rng.normal(size=rows)
    numbers[rng.random(rows) < 0.15] = np.nan
    return pl.DataFrame(
        {
            "event_timestamp": [
                START + timedelta(days=number, minutes=float(one)) for one in minutes
            ],
            "distance": numbers,
            "waiting": rng.lognormal(0, 1, rows),
            "carrier": rng.choice(["AA", "B6", "DL", "UA"], rows, p=[0.5, 0.3, 0.15, 0.05]),
            "cancelled": rng.random(rows) < 0.1,
            "weather": weather + rng.normal(scale=0.1, size=rows),
            "score": rng.beta(2, 5, rows),
        }
    )


def days(rng: np.random.Generator, several: int) -> pl.DataFrame:
    return pl.concat([day(rng, number) for number in range(several)])


@pytest.fixture(scope="module")
def reference() -> pl.DataFrame:
    return days(np.random.default_rng(1), 60)


@pytest.fixture(scope="module")
def calibration(reference: pl.DataFrame) -> DriftCalibration:
    return calibrate(reference, window_hours=24, false_alarm_rate=0.01)


def test_methods_follow_the_shape_of_the_column(calibration: DriftCalibration) -> None:
    found = {one.column: one.method for one in calibration.columns}

    expected = {
        "distance": "wasserstein",
        "waiting": "ed",
        "carrier": "jensenshannon",
        "cancelled": "jensenshannon",
        "weather": "wasserstein",
        "score": "wasserstein",
    }
    assert expected == found


@pytest.mark.parametrize(
    ("column", "sign", "plant"),
    [
        pytest.param("distance", "mean", pl.col("distance") + 0.5, id="mean"),
        pytest.param("distance", "spread", pl.col("distance") * 1.6, id="variance"),
        pytest.param(
            "carrier",
            "distribution",
            pl.col("carrier").replace({"AA": "UA", "UA": "AA"}),
            id="category swap",
        ),
        pytest.param(
            "carrier", "new_categories", pl.col("carrier").replace({"UA": "ZZ"}), id="new category"
        ),
        pytest.param(
            "distance",
            "nulls",
            pl.when(pl.int_range(pl.len()) % 5 > 0).then("distance"),
            id="null share",
        ),
        pytest.param(
            "distance",
            "high_tail",
            pl.when(pl.int_range(pl.len()) % 20 > 0).then("distance").otherwise(8.0),
            id="tail",
        ),
    ],
)
def test_a_planted_shift_is_found_in_its_column_and_nowhere_else(
    reference: pl.DataFrame,
    calibration: DriftCalibration,
    column: str,
    sign: DriftSign,
    plant: pl.Expr,
) -> None:
    window = day(np.random.default_rng(5))

    before = detect(reference, window, calibration, OF)
    after = detect(reference, window.with_columns(plant.alias(column)), calibration, OF)

    assert "no_drift" == before.verdict, before.reason
    assert ("drift", (column,)) == (after.verdict, after.drifted)
    (found,) = (one for one in after.columns if one.column == column)
    assert sign in found.signs
    assert column in after.reason


def test_days_without_change_hardly_ever_alarm_though_a_day_has_one_weather(
    reference: pl.DataFrame, calibration: DriftCalibration
) -> None:
    rng = np.random.default_rng(11)

    verdicts = [detect(reference, day(rng), calibration, OF).verdict for _ in range(120)]

    assert verdicts.count("drift") <= 5  # of 120 windows at 1 %: more has a chance of 1 in 700
    assert "inconclusive" not in verdicts
    seen = {one.column: one.detectable for one in calibration.columns}
    assert 4.0 < seen["weather"]  # type: ignore[operator]  # a number; independent rows: 0.3
    assert 0.35 > seen["distance"]  # type: ignore[operator]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["normal", "whole", "heavy", "category", "constant"]),
)
def test_distances_are_those_of_evidently(seed: int, kind: str) -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import energy_distance, wasserstein_distance

    rng = np.random.default_rng(seed)
    draw: dict[str, Callable[[int], Floats]] = {
        "normal": lambda n: rng.normal(size=n),
        "whole": lambda n: rng.integers(-3, 30, n).astype(float),
        "heavy": lambda n: rng.standard_cauchy(size=n),
        "category": lambda n: rng.integers(0, 4, n).astype(float),
        "constant": lambda n: np.full(n, 2.5),
    }
    first, second = (draw[kind](int(rng.integers(1, 200))) for _ in range(2))
    values = np.unique(np.concatenate([first, second]))
    counts = [np.searchsorted(values, one) for one in (first, second)]
    known, found = (np.bincount(one, minlength=len(values)) for one in counts)

    std = max(float(np.std(first)), 0.001)
    expected = {
        "wasserstein": wasserstein_distance(first, second) / std,
        "ed": energy_distance(first, second),
        "jensenshannon": np.nan_to_num(jensenshannon(known / known.sum(), found / found.sum())),
    }
    for method in ("wasserstein", "ed", "jensenshannon"):
        ours = distance(method, values, known, found)
        assert expected[method] == pytest.approx(ours, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(lambda config, value: ({**config, "method": "psi"}, value), id="method"),
        pytest.param(lambda config, value: ({**config, "threshold": 0.1}, value), id="threshold"),
        pytest.param(lambda config, value: (config, value * 1.01), id="formula"),
    ],
)
def test_an_evidently_that_does_something_else_than_was_pinned_is_refused(
    reference: pl.DataFrame,
    calibration: DriftCalibration,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told: Callable[[dict[str, Any], float], tuple[dict[str, Any], float]],
) -> None:
    honest = drift._read_back

    def read_back(metrics: list[dict[str, Any]]) -> Any:
        first, *others = metrics
        config, value = told(first["config"], float(first["value"]))
        return honest([{"config": config, "value": value}, *others])

    monkeypatch.setattr(drift, "_read_back", read_back)

    with pytest.raises(PlatformError, match=r"column distance .* was calibrated"):
        detect(reference, day(np.random.default_rng(5)), calibration, OF, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda rows: rows.clear(), "0 rows; thresholds hold from", id="empty"),
        pytest.param(lambda rows: rows.head(3), "3 rows; thresholds hold from", id="tiny"),
        pytest.param(
            lambda rows: rows.with_columns(distance=pl.lit(None)), "all rows are null", id="null"
        ),
        pytest.param(
            lambda rows: rows.with_columns(distance=pl.lit(float("nan"))), "all rows are", id="nan"
        ),
        pytest.param(
            lambda rows: rows.with_columns(carrier=pl.lit("ZZ")), "no row holds a cat", id="new"
        ),
        pytest.param(lambda rows: rows.drop("distance"), "no such column", id="missing"),
        pytest.param(
            lambda rows: rows.with_columns(distance=pl.lit("far")), "not numbers", id="type"
        ),
    ],
)
def test_what_cannot_be_compared_is_inconclusive_and_says_why(
    reference: pl.DataFrame,
    calibration: DriftCalibration,
    change: Callable[[pl.DataFrame], pl.DataFrame],
    said: str,
) -> None:
    window = change(day(np.random.default_rng(5)))

    report = detect(reference, window, calibration, OF)

    assert ("inconclusive", ()) == (report.verdict, report.drifted)
    assert said in report.reason


def test_a_window_of_nothing_but_nulls_is_inconclusive(
    reference: pl.DataFrame, calibration: DriftCalibration
) -> None:
    window = day(np.random.default_rng(5)).with_columns(pl.lit(None).alias(n) for n in COMPARED)

    report = detect(reference, window, calibration, OF)

    assert "inconclusive" == report.verdict
    assert {"inconclusive"} == {one.verdict for one in report.columns}
    assert {1.0} == {one.null_share for one in report.columns if one.column != "score"}


def test_a_window_without_scores_is_judged_by_its_features(
    reference: pl.DataFrame, calibration: DriftCalibration
) -> None:
    window = day(np.random.default_rng(5)).with_columns(score=pl.lit(None, dtype=pl.Float64))

    report = detect(reference, window, calibration, OF)

    assert "no_drift" == report.verdict
    (score,) = (one for one in report.columns if one.column == "score")
    assert "inconclusive" == score.verdict


def test_a_statistic_is_shown_beside_its_interval_and_the_furthest_names_the_drift(
    reference: pl.DataFrame, calibration: DriftCalibration
) -> None:
    window = day(np.random.default_rng(5)).with_columns(
        (pl.col("distance") + 1), (pl.col("waiting") * 1.5)
    )

    report = detect(reference, window, calibration, OF)

    assert ("distance", "waiting") == report.drifted
    for one in report.columns:
        assert sorted((s.excess for s in one.statistics), reverse=True) == [
            s.excess for s in one.statistics
        ]
        for shown in one.statistics:
            outside = (shown.low is not None and shown.value < shown.low) or (
                shown.high is not None and shown.value > shown.high
            )
            assert outside is (shown.excess > 1)
            assert outside is (shown.sign in one.signs)


def test_a_page_is_drawn_and_nothing_is_sent(
    reference: pl.DataFrame,
    calibration: DriftCalibration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something is sent")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    page = tmp_path / "window.html"

    with_page = detect(reference, day(np.random.default_rng(5)), calibration, OF, page)
    without = detect(reference, day(np.random.default_rng(5)), calibration, OF)

    assert "distance" in page.read_text(encoding="utf-8")
    assert without.model_dump(exclude={"columns"}) == with_page.model_dump(exclude={"columns"})
    assert [one.distance for one in with_page.columns] == pytest.approx(
        [one.distance for one in without.columns]
    )
    assert not (tmp_path / "home").exists()  # where the identity of a sender would be kept
    telemetry = sys.modules.get("evidently.telemetry")
    assert telemetry is None or not telemetry.event_logger.enabled()
