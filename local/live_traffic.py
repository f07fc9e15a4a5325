"""Replays live traffic: starts the servers, sends the window from a process of its own, waits.

While it passes, versions are rolled out. The outcome is taken when the archive holds every answer.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console

from feature_repo import predictions
from feature_repo.catalog import UseCaseCode
from local import live
from local.processes import tail
from local.progress import Progress
from local.rehearsal import Rehearsal, abandon, acts
from local.replayed import OK, Replayed, outcome
from local.serving import Serving, serving
from local.workspace import Workspace
from mlplatform.contracts import Window
from mlplatform.errors import PlatformError

_ARCHIVED_SECONDS: Final = 60.0
"""Longest wait for the archive, which writes a file twice a second (`Workspace`)."""
_STOP_SECONDS: Final = 5.0


def run_replay(
    console: Console,
    progress: Progress,
    workspace: Workspace,
    code: UseCaseCode,
    start: datetime,
    *,
    days: float,
    per_second: float,
    rollouts: bool,
    trained: int | None,
) -> Replayed:
    """Serve the champion with the features known at `start` and replay what came after.

    With `rollouts` the version `trained` and a broken one are rolled out meanwhile, and the replay
    ends with them.

    Raises:
        PlatformError: A server did not start, or the replaying process failed.
    """
    end = start + timedelta(days=days)
    if rollouts and (left := abandon(workspace, code.spec)) is not None:
        progress.say("rollout", f"{left.id}, which an earlier replay left, is aborted")
    with serving(workspace, code, start, progress.say) as running:
        progress.say("replay", f"{days:g} days of live traffic at {per_second:g} requests/s")
        began = datetime.now(UTC)
        workspace.replay.mkdir(parents=True, exist_ok=True)
        planned = acts(running, workspace, trained) if rollouts else ()
        rehearsal = Rehearsal(running, planned, progress.say)
        follow = rehearsal.step if planned else _to_the_end(running)
        with contextlib.closing(
            _replay(workspace, running, start, end, per_second, workspace.answers, follow)
        ) as lines:
            live.show(console, lines, code.spec.serving.latency_ms)
        rolled = rehearsal.end()
        ledger = pl.read_parquet(workspace.answers)
        archived = _archived(workspace, code.spec.name, start, end, began, ledger)
    progress.say("replay", f"{ledger.height:,} sent, {archived.height:,} rows in the archive")
    version = running.model.version
    found = outcome(progress, workspace, code, version, start, end, per_second, ledger, archived)
    return found.model_copy(update={"rollouts": rolled, "missed": rehearsal.missed})


def _to_the_end(running: Serving) -> Callable[[dict[str, Any]], bool]:
    """Return what takes the lines of a replay without rollouts: only the time is followed."""

    def follow(line: dict[str, Any]) -> bool:
        running.clock.seen(datetime.fromisoformat(line["event_time"]))
        return True

    return follow


def _replay(
    workspace: Workspace,
    running: Serving,
    start: datetime,
    end: datetime,
    per_second: float,
    out: Path,
    follow: Callable[[dict[str, Any]], bool],
) -> Generator[dict[str, Any], None, None]:
    """Run the replaying process and yield what it says, until it has ended or is not followed."""
    command = [
        sys.executable, "-m", "local.replay", "--usecase", running.usecase,
        "--start", start.isoformat(), "--end", end.isoformat(), "--rate", str(per_second),
        "--gateway", running.url, "--redis", running.redis_url,
        "--data-root", str(workspace.data), "--out", str(out),
    ]  # fmt: skip
    log = workspace.root / "replay.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        asked = False
        for line in process.stdout or ():
            said = json.loads(line)
            if not asked and not follow(said):
                process.send_signal(signal.SIGTERM)  # it finishes what is open
                asked = True
            yield said
        status = process.wait()
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if status:
        raise PlatformError(f"the replay ended with {status}; the end of {log}:\n{tail(log)}")


def _archived(
    workspace: Workspace,
    usecase: str,
    start: datetime,
    end: datetime,
    began: datetime,
    ledger: pl.DataFrame,
) -> pl.DataFrame:
    """Return this replay's rows of the archive, once they are all there or the time is up."""
    expected = ledger.filter(pl.col("status") == OK).height
    deadline = time.monotonic() + _ARCHIVED_SECONDS
    while True:
        rows = predictions.read(workspace.predictions, usecase, Window(start=start, end=end))
        mine = rows.filter(pl.col("received_at") >= began, pl.col("arm") != "shadow")
        if mine.height >= expected or time.monotonic() > deadline:
            return mine
        time.sleep(0.5)
