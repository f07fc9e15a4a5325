"""On one machine too, a request has the effect of one run, whoever is killed and when."""

import contextlib
import fcntl
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.orchestrator import LocalOrchestrator
from local.progress import Progress
from local.workspace import Workspace
from mlplatform.contracts import Decision
from mlplatform.contracts.retrain import History, RunState, owner, ownership
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.ledger import Ledger
from monitoring.requests import RequestStore, notice
from monitoring.submit import CLAIM
from tests.unit.local import retraining_processes
from tests.unit.local.retraining_processes import orchestrator, submitter
from tests.unit.monitoring.signals import MONITORING, USECASE, at, drifted, last

NOW = at(2)
PARAMETERS = {"usecase": USECASE, "as_of": NOW.isoformat()}
KEY = "k" * 32


def history(root: Path) -> History:
    stored = RequestStore(Workspace(root).ledger_url).read(USECASE)
    assert stored is not None
    return stored.history


def ask(root: Path) -> str:
    """Have the trigger ask for a run; return the request's key."""
    url = Workspace(root).ledger_url
    asked = notice(RequestStore(url), Ledger(url), USECASE, drifted(0), MONITORING, NOW)
    return last(asked).request.key


def effects(root: Path) -> list[str]:
    file = root / "effects"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def play(root: Path, now: datetime) -> tuple[str, str]:
    """Tick as a process that nobody kills; return the phase at once, and when all has ended."""
    mine = submitter(root, now, orchestrator(root))

    def tick() -> str:
        with contextlib.suppress(ServiceError):  # a run that was left has not taken the request yet
            mine.tick()
        return last(history(root)).phase

    first = tick()
    (root / "go").touch()
    wait_for(lambda: tick() in {"no_gain", "failed"})
    return first, tick()


def lives(root: Path, key: str) -> bool:
    """Return whether a process holds the lock of a request."""
    with (root / "requests" / f"{key}.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("point", "first", "phase", "trained"),
    [
        ("before the lock", "submitted", "no_gain", 1),
        ("before the start", "submitted", "no_gain", 1),
        ("run, not taken yet", "ready", "no_gain", 1),  # the run is left, and nobody else starts
        ("run, not taken yet, both", "submitted", "no_gain", 1),
        ("run, taken", "submitted", "no_gain", 1),
        ("run, taken, both", "submitted", "failed", 0),
        ("after the end", "submitted", "no_gain", 1),
    ],
)
def test_a_submitter_killed_at_any_point_leaves_the_effect_of_one_run(
    tmp_path: Path, point: str, first: str, phase: str, trained: int
) -> None:
    key = ask(tmp_path)
    command = [sys.executable, retraining_processes.__file__ or "", "submit"]
    killed = subprocess.run([*command, tmp_path, point, NOW.isoformat()], check=False)
    if point.endswith("both"):  # the kernel opens the lock when the killed run is gone
        wait_for(lambda: not lives(tmp_path, key))

    found = play(tmp_path, NOW + CLAIM)

    assert -signal.SIGKILL == killed.returncode
    assert (first, phase) == found
    assert [key] * trained == effects(tmp_path)
    rows = [row.decision for row in Ledger(Workspace(tmp_path).ledger_url).entries(kind="retrain")]
    assert 1 == sum(row.verdict == "running" for row in rows)
    assert 1 == sum(row.verdict == "submitted" for row in rows)


def test_a_request_that_has_a_run_gets_no_other_one(tmp_path: Path) -> None:
    runs = orchestrator(tmp_path)
    first = runs.submit("training", PARAMETERS, KEY)

    assert first == orchestrator(tmp_path).submit("training", PARAMETERS, KEY)
    assert [KEY] == effects(tmp_path)
    assert "succeeded" == runs.state(first)


def test_of_two_who_start_a_run_at_once_one_does(tmp_path: Path) -> None:
    together, both = threading.Barrier(2), [orchestrator(tmp_path) for _ in range(2)]

    def submit(runs: LocalOrchestrator) -> str:
        together.wait(10)
        try:
            return runs.submit("training", PARAMETERS, KEY)
        except ServiceError as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        found = set(threads.map(submit, both))

    runs = {text for text in found if "another process runs request" not in text}
    assert 1 == len(runs)
    assert "succeeded" == both[0].state(runs.pop())
    assert [KEY] == effects(tmp_path)


def told(root: Path, kind: str, verdict: str) -> None:
    Ledger(Workspace(root).ledger_url).append(
        Decision(
            key=f"{USECASE}/r1/{kind}",
            usecase=USECASE,
            kind="run",
            subject="r1",
            verdict=verdict,
            reason="a test",
            actor="test",
            at=NOW,
        )
    )


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("registered", "succeeded"),
        ("rejected", "succeeded"),
        ("failed", "failed"),
        ("duplicate", "failed"),
    ],
)
def test_how_a_run_ended_is_what_its_row_says(
    tmp_path: Path, verdict: str, state: RunState
) -> None:
    told(tmp_path, "run", verdict)

    assert state == orchestrator(tmp_path).state("r1")


def test_a_run_without_a_row_of_its_end_is_running_while_its_process_lives(tmp_path: Path) -> None:
    runs = orchestrator(tmp_path)
    Ledger(Workspace(tmp_path).ledger_url).append(ownership(USECASE, KEY, "r1", NOW))

    assert "unknown" == runs.state("r1")
    with runs._starting(KEY):
        assert "running" == orchestrator(tmp_path).state("r1")
        assert "unknown" == runs.state("another run")
    assert "unknown" == runs.state("r1")


def test_a_run_that_its_submitter_left_behind_is_running(tmp_path: Path) -> None:
    ask(tmp_path)
    command = [sys.executable, retraining_processes.__file__ or "", "submit"]
    subprocess.run([*command, tmp_path, "run, taken", NOW.isoformat()], check=False)
    taken = next(iter(Ledger(Workspace(tmp_path).ledger_url).entries(kind="retrain")[-1:]))
    run, runs = owner(taken.decision), orchestrator(tmp_path)

    assert "running" == runs.state(run)
    (tmp_path / "go").touch()
    wait_for(lambda: "succeeded" == runs.state(run))


def test_a_run_that_never_took_its_request_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    progress = Progress(Console(file=StringIO()))
    broken = [sys.executable, "-c", "import sys; sys.exit('no such module')"]
    runs = LocalOrchestrator(Workspace(tmp_path), progress, "http://x", lambda *_: broken)

    with pytest.raises(ServiceError, match=r"ended with 1 before .*\n.*no such module"):
        runs.submit("training", PARAMETERS, KEY)
    assert orchestrator(tmp_path).submit("training", PARAMETERS, KEY)
    assert [KEY] == effects(tmp_path)


def test_the_command_runs_the_compiled_pipeline_with_the_request(tmp_path: Path) -> None:
    runs = LocalOrchestrator(Workspace(tmp_path), Progress(Console(file=StringIO())), "http://x")

    command = runs._compiled("training", {**PARAMETERS, "request": KEY})

    assert [sys.executable, "-m", "pipelines.local_run"] == command[:3]
    assert "training.yaml" == Path(command[3]).name
    assert {f"as_of={PARAMETERS['as_of']}", f"request={KEY}"} <= {*command}
    with pytest.raises(NotFoundError, match="no pipeline is called trainig; there are training"):
        runs._compiled("trainig", PARAMETERS)
