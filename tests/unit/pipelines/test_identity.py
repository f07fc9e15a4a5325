"""The identity of a run: equal where nothing that counts has changed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.identity import run_identity

AS_OF = datetime(2014, 1, 2, tzinfo=UTC)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    usecase, raw = tmp_path / "usecase", tmp_path / "raw"
    (raw / "flights").mkdir(parents=True)
    usecase.mkdir()
    (usecase / "usecase.yaml").write_text("name: x\n")
    (raw / "flights" / "part-1.parquet").write_bytes(b"rows")
    return usecase, raw


def test_nothing_changed(inputs: tuple[Path, Path]) -> None:
    usecase, raw = inputs

    assert run_identity(usecase, str(raw), AS_OF) == run_identity(usecase, str(raw), AS_OF)


@pytest.mark.parametrize(
    "change", ["spec", "code", "data", "new data", "moved data", "time", "feedback"]
)
def test_each_input_counts(change: str, inputs: tuple[Path, Path]) -> None:
    usecase, raw = inputs
    before, moment, live = run_identity(usecase, str(raw), AS_OF), AS_OF, ""
    part = raw / "flights" / "part-1.parquet"
    match change:
        case "spec":
            (usecase / "usecase.yaml").write_text("name: y\n")
        case "code":
            (usecase / "features.py").write_text("DAYS = 30\n")
        case "data":
            part.write_bytes(b"other rows")
        case "new data":
            (raw / "flights" / "part-2.parquet").write_bytes(b"rows")
        case "moved data":
            part.rename(raw / "flights" / "part-0.parquet")
        case "feedback":
            live = "digest"
        case _:
            moment += timedelta(days=1)

    assert before != run_identity(usecase, str(raw), moment, live)
