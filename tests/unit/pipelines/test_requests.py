"""A run that answers a request takes it before any work; the second run of a request ends there."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.contracts.retrain import owner, ownership_key
from mlplatform.ledger import Ledger
from pipelines import steps, tasks
from pipelines.earlier_runs import take_request
from pipelines.journal import Journal

USECASE, KEY = "flight_delay", "k" * 32


class _WorkedError(Exception):
    """The work began."""


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger of a workplace in which the work itself is planted to fail."""

    def land(*_: object) -> None:
        raise _WorkedError

    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("MLPLATFORM_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("MLPLATFORM_LEDGER_URL", url)
    monkeypatch.setattr("feature_repo.ingest.land", land)
    monkeypatch.setattr(steps, "validate", None, raising=False)  # its libraries load for seconds
    yield Ledger(url)
    logger = logging.getLogger("mlplatform")
    logger.handlers.clear()
    logger.propagate = True


def validate(run: str, tmp_path: Path, request: str = KEY) -> None:
    tasks.validate(USECASE, "2013-07-01T00:00:00Z", run, str(tmp_path / "report"), request)


def test_the_first_run_takes_the_request_and_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    for _ in range(2):  # the second time as a step that is repeated
        with pytest.raises(_WorkedError):
            validate("run-1", tmp_path)

    (row,) = ledger.entries(USECASE, "retrain")
    assert (ownership_key(USECASE, KEY), KEY) == (row.decision.key, row.decision.subject)
    assert "run-1" == owner(row.decision)


def test_the_second_run_ends_and_is_no_failure_of_the_platform(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(_WorkedError):
        validate("run-1", tmp_path)
    with pytest.raises(SystemExit):
        validate("run-2", tmp_path)
    tasks.record(USECASE, "run-2", "FAILED", "task validate failed")

    assert f"run run-1 trains what request {KEY} asked for already" in capsys.readouterr().err
    ended = ledger.entries(USECASE, "run")[-1].decision
    assert ("run-2", "duplicate") == (ended.subject, ended.verdict)
    assert ended.reason.startswith("run run-1 trains what was asked for already")
    assert KEY == ended.evidence["request"]
    assert 1 == len(ledger.entries(USECASE, "retrain"))


def test_without_a_request_none_is_taken(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(_WorkedError):
        validate("run-1", tmp_path, "")

    assert () == ledger.entries()
    assert "request" not in Journal(str(tmp_path), USECASE, "run-1").read()["validate"]


def test_requests_of_two_use_cases_do_not_meet(ledger: Ledger) -> None:
    for usecase in (USECASE, "another"):
        take_request(ledger, usecase, KEY, f"run of {usecase}", {}, datetime.now(UTC))

    assert [f"run of {USECASE}", "run of another"] == [
        owner(row.decision) for row in ledger.entries(kind="retrain")
    ]


@pytest.mark.usefixtures("ledger")
def test_a_run_without_a_time_looks_from_where_its_validation_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[datetime] = []

    def read(_usecase: str, _root: str, as_of: datetime) -> None:
        asked.append(as_of)
        raise _WorkedError

    monkeypatch.setattr("feature_repo.ingest.read_raw", read)
    with pytest.raises(SystemExit):
        tasks.build_training_set(USECASE, "", "run-1", str(tmp_path / "set"))
    Journal(str(tmp_path), USECASE, "run-1").write("validate", {"as_of": "2013-07-01T00:00:00Z"})
    with pytest.raises(_WorkedError):
        tasks.build_training_set(USECASE, "", "run-1", str(tmp_path / "set"))

    assert "run run-1 has no validation that says" in capsys.readouterr().err
    assert [datetime(2013, 7, 1, tzinfo=UTC)] == asked


@pytest.mark.parametrize("shift", [0, -3600])
def test_a_run_without_a_time_looks_from_the_platforms_time(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    del ledger
    asked: list[datetime] = []
    monkeypatch.setattr("feature_repo.ingest.land", lambda *given: asked.append(given[2]))
    monkeypatch.setattr(
        "feature_repo.ingest.read_raw", lambda *_: (_ for _ in ()).throw(_WorkedError)
    )
    monkeypatch.setenv("MLPLATFORM_CLOCK_SHIFT_SECONDS", str(shift))
    with pytest.raises(_WorkedError):
        tasks.validate(USECASE, "", "run-1", str(tmp_path / "report"))

    (moment,) = asked
    assert abs((moment - datetime.now(UTC)).total_seconds() - shift) < 60
    assert (
        moment.isoformat() == Journal(str(tmp_path), USECASE, "run-1").read()["validate"]["as_of"]
    )
