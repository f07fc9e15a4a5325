"""A run in one pod: what its steps are told, how it ends, and that another pod may take it up."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform.contracts import Decision
from mlplatform.contracts.decision import DecisionKind
from mlplatform.contracts.retrain import run_name
from mlplatform.ledger import Ledger
from pipelines.journal import Journal

AS_OF = "2013-07-01T00:00:00+00:00"
KEY = "0123456789abcdef" * 2
NAME = f"training-flight-delay-{KEY}"


def command(folder: Path, *more: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of a Job's container and its environment."""
    arguments = ["--usecase", "flight_delay", "--as-of", AS_OF, "--request", KEY, *more]
    environment = os.environ | {
        "NOTES": str(folder),
        "MLPLATFORM_DATA_ROOT": str(folder / "data"),
        "MLPLATFORM_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "MLPLATFORM_COMPUTE_CPUS": "1",
        "TMPDIR": str(folder),
    }
    environment.pop("OMP_NUM_THREADS", None)
    return [sys.executable, "-m", "tests.unit.pipelines.small_pipeline", *arguments], environment


def finish(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    line, environment = command(folder, *more)
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def test_the_steps_are_told_the_jobs_name_as_the_runs_id(tmp_path: Path) -> None:
    stale = Journal(str(tmp_path / "data"), "flight_delay", "a-job")
    stale.write("train", {"error": "interrupted"})
    ended = finish(tmp_path, "--run", "a-job")
    told = json.loads((tmp_path / "noted").read_text())

    assert 0 == ended.returncode, ended.stderr
    assert {
        "usecase": "flight_delay",
        "as_of": AS_OF,
        "request": KEY,
        "run_id": "a-job",
        "threads": "1",
    } == told
    assert "SUCCEEDED" == (tmp_path / "closed").read_text()
    assert "run a-job: flight_delay as of" in ended.stdout
    assert {} == stale.read(), "what an attempt before left is no result of this one"
    assert [] == list(tmp_path.glob("run-*")), "no artifact is left behind"


def test_a_step_that_fails_fails_the_job_and_the_end_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    ended = finish(tmp_path)

    assert 1 == ended.returncode
    assert "the pipeline failed" in ended.stderr
    assert "FAILED" == (tmp_path / "closed").read_text()
    assert NAME == json.loads((tmp_path / "noted").read_text())["run_id"]


def test_a_pod_that_is_asked_to_end_ends_its_steps_and_records_no_end(tmp_path: Path) -> None:
    line, environment = command(tmp_path)
    environment["SECONDS_OF_WORK"] = "120"
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as pod:
        try:
            wait_for(tmp_path / "working")
            step = int((tmp_path / "working").read_text())
            pod.send_signal(signal.SIGTERM)
            _, said = pod.communicate(timeout=30)
        finally:
            pod.kill()

    assert 143 == pod.returncode  # 128 + SIGTERM
    assert "the run is not finished" in said
    assert not Path(f"/proc/{step}").exists()
    assert not (tmp_path / "closed").exists(), "the next pod of the Job goes on"


@pytest.mark.parametrize(
    ("verdict", "code"), [("registered", 0), ("rejected", 0), ("failed", 1), ("duplicate", 1)]
)
def test_a_run_that_has_ended_is_not_repeated(tmp_path: Path, verdict: str, code: int) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.append(row("run", NAME, verdict))
    ended = finish(tmp_path)

    assert code == ended.returncode
    assert f"has ended already: {verdict}" in ended.stdout
    assert not (tmp_path / "noted").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--as-of", "now"], "'now' is not a time", id="no time"),
        pytest.param(["--as-of", "2013-07-01T00:00"], "has no zone", id="no zone"),
        pytest.param(["--run", "A_Job"], "the name of a Job", id="no name"),
    ],
)
def test_a_job_that_means_nothing_is_refused_with_2(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    ended = finish(tmp_path, *arguments)

    assert 2 == ended.returncode  # it cannot be started
    assert said in ended.stderr


def test_the_name_of_a_run_is_one_for_a_job_and_never_that_of_another() -> None:
    long = "a_use_case_whose_name_is_as_long_as_it_ma"

    assert NAME == run_name("training", "flight_delay", KEY)
    names = {run_name("training", long, f"{number:032x}") for number in range(50)}
    assert 50 == len(names)  # one for each key
    assert {63} == {len(name) for name in names}
    assert all(name.startswith("training-a-use-case-whose-name-is") for name in names)


def row(kind: DecisionKind, subject: str, verdict: str) -> Decision:
    return Decision(
        key=f"{kind}/{subject}",
        usecase="flight_delay",
        kind=kind,
        subject=subject,
        verdict=verdict,
        reason="so it was",
        evidence={"run": subject},
        actor="test",
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)
