"""Two programs for the tests of the local orchestrator: a submitter, and a pipeline's stand-in.

Both can kill the submitter, or the run, with SIGKILL at a named point.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from rich.console import Console

from local.orchestrator import LocalOrchestrator
from local.progress import Progress
from local.workspace import Workspace
from mlplatform.contracts import Decision
from mlplatform.contracts.retrain import ownership
from mlplatform.errors import LedgerError
from mlplatform.ledger import Ledger
from monitoring.gain import gain
from monitoring.requests import RequestStore
from monitoring.submit import Submitter

USECASE = "flight_delay"


def orchestrator(root: Path, point: str = "") -> LocalOrchestrator:
    """Return the orchestrator of a workspace whose pipelines are the stand-in."""

    def command(_pipeline: str, parameters: Mapping[str, str]) -> list[str]:
        return [sys.executable, __file__, "run", str(root), point, parameters["request"]]

    progress = Progress(Console(file=StringIO()))
    return LocalOrchestrator(Workspace(root), progress, "http://127.0.0.1:9", command)


def submitter(root: Path, now: datetime, runs: LocalOrchestrator) -> Submitter:
    url = Workspace(root).ledger_url
    ledger = Ledger(url)
    return Submitter(
        USECASE,
        "training",
        RequestStore(url),
        runs,
        lambda run: gain(ledger, USECASE, run),
        ledger,
        lambda: now,
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _submit(root: Path, point: str, now: datetime) -> None:
    """Take the request one step further, and die at the point."""
    runs = orchestrator(root, point)
    submit, run = runs.submit, runs._run

    def submit_and_die(pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        if point == "before the lock":
            _die()
        found = submit(pipeline, parameters, key)
        if point == "after the end":
            _die()
        return found

    def die_and_run(pipeline: str, parameters: Mapping[str, str], lock: int) -> object:
        if point == "before the start":
            _die()
        return run(pipeline, parameters, lock)

    runs.submit = submit_and_die  # type: ignore[method-assign]
    runs._run = die_and_run  # type: ignore[method-assign,assignment]
    submitter(root, now, runs).tick()


def _run(root: Path, point: str, request: str) -> None:
    """Do what a training run does to the ledger; its effect is a line in a file."""
    ledger, run, now = Ledger(Workspace(root).ledger_url), f"run-{os.getpid()}", datetime.now(UTC)
    _reach(root, point, "not taken yet")
    try:
        ledger.append(ownership(USECASE, request, run, now))
    except LedgerError:
        return
    _reach(root, point, "taken")
    with (root / "effects").open("a") as file:
        file.write(f"{request} {run}\n")
    ledger.append(
        Decision(
            key=f"{USECASE}/{run}/run",
            usecase=USECASE,
            kind="run",
            subject=run,
            verdict="rejected",
            reason="a test",
            evidence={"run": run},
            actor="test",
            at=now,
        )
    )


def _reach(root: Path, point: str, here: str) -> None:
    """Kill the submitter here, and with it perhaps this run; else go on when the test says so."""
    if point.startswith(f"run, {here}"):
        os.kill(os.getppid(), signal.SIGKILL)
        if point.endswith("both"):
            _die()
        deadline = time.monotonic() + 60  # a test that failed must not leave it running
        while not (root / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["submit", "run"])
    parser.add_argument("root", type=Path)
    parser.add_argument("point")
    parser.add_argument("rest")
    options = parser.parse_args()
    if options.what == "submit":
        _submit(options.root, options.point, datetime.fromisoformat(options.rest))
    else:
        _run(options.root, options.point, options.rest)
