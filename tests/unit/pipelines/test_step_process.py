"""However a step ends, its record says so; times that a run is given are read strictly."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.errors import DataError, PlatformError
from pipelines import times
from pipelines.journal import Journal
from pipelines.step_process import step_process


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    logger = logging.getLogger("mlplatform")
    before = logger.handlers[:], logger.propagate, logger.level
    yield Journal(str(tmp_path), "flight_delay", "run-1")
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.mark.parametrize(
    ("error", "raised", "kept"),
    [
        (DataError("a rule is broken"), SystemExit, "a rule is broken"),
        (ZeroDivisionError("by nought"), ZeroDivisionError, "ZeroDivisionError: by nought"),
        (KeyboardInterrupt(), KeyboardInterrupt, "interrupted"),
    ],
    ids=["on purpose", "by mistake", "from outside"],
)
def test_a_step_that_fails_keeps_what_it_found_and_why_it_ended(
    journal: Journal,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    raised: type[BaseException],
    kept: str,
) -> None:
    def fail() -> None:
        with step_process("train", journal) as record:
            record["found"] = 3
            raise error

    with pytest.raises(raised) as caught:
        fail()

    (step,) = journal.read().values()
    assert (3, kept) == (step["found"], step["error"])
    assert isinstance(step["seconds"], float)
    if isinstance(caught.value, SystemExit):
        assert 1 == caught.value.code
        assert "mlplatform.train | ERROR | a rule is broken\n" == capsys.readouterr().err


def test_a_step_that_ends_well_has_no_error(journal: Journal) -> None:
    with step_process("train", journal) as record:
        record["found"] = 3

    assert {"started_at", "found", "seconds"} == journal.read()["train"].keys()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("yesterday", "is not a time"), ("", "is not a time"), ("2013-07-01T00:00:00", "has no zone")],
)
def test_what_is_no_time_is_refused_with_one_that_is(text: str, problem: str) -> None:
    with pytest.raises(PlatformError, match=problem):
        times.moment(text)


def test_a_window_is_read_in_utc_and_names_a_folder_that_sorts() -> None:
    window = times.window("2013-07-01T02:00:00+02:00", "2013-07-02T00:00:00Z")

    assert datetime(2013, 7, 1, tzinfo=UTC) == window.start
    assert "20130701T000000000000Z-20130702T000000000000Z" == times.folder_name(window)
    with pytest.raises(DataError, match="its end is not after its start"):
        times.window("2013-07-02T00:00:00Z", "2013-07-02T02:00:00+02:00")
