"""What a replay of live traffic showed: nothing lost, everything logged, in budget, no skew.

It starts the servers, replays the window in a process of its own while versions are rolled out,
waits until the archive holds every answer, and compares the client's ledger with it.
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
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_repo import predictions
from feature_repo.catalog import UseCaseCode
from local import live
from local.parity import parity
from local.progress import Progress
from local.rehearsal import Rehearsal, Rolled, acts
from local.serving import Serving, serving
from local.workspace import Workspace
from mlplatform.contracts import Contract, UtcDatetime, Window
from mlplatform.errors import PlatformError

PARITY_ROWS: Final = 10_000
"""At least so many vectors are joined again offline, spread evenly over the window."""

_ARCHIVED_SECONDS: Final = 60.0
"""Longest wait for the archive; it writes a file each second."""
_OK: Final = 200
_STOP_SECONDS: Final = 5.0


class Hop(Contract):
    """Milliseconds of one hop over all answers."""

    p50: float
    p99: float
    budget: float


class Replayed(Contract):
    """One replay."""

    usecase: str
    version: int = Field(description="Served when it began.")
    start: UtcDatetime
    end: UtcDatetime = Field(description="Of the window; rollouts that are over end it earlier.")
    per_second: float = Field(description="Pace at which requests left.")
    sent: int
    answered: int = Field(description="Status 200.")
    refused: int = Field(description="Any other status.")
    lost: int = Field(description="No answer.")
    unlogged: int = Field(description="Answered, but not in the archive.")
    doubled: int = Field(description="More than once in the archive.")
    mislogged: int = Field(description="In the archive with another answer than was given.")
    degraded: int
    fallback: int
    positive: int
    p999_ms: float = Field(description="From the moment at which a request should have left.")
    hops: dict[str, Hop]
    compared: int = Field(description="Vectors compared with the point-in-time join.")
    equal: int
    differing: dict[str, int] = Field(description="Feature → rows in which it differed.")
    rollouts: tuple[Rolled, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing was lost, serving saw what training would and rollouts ended rightly.

        Says nothing of speed.
        """
        broken = self.lost + self.refused + self.unlogged + self.doubled + self.mislogged
        by_the_model = self.answered - self.fallback
        whole = self.equal == self.compared > 0 and by_the_model > self.answered / 2
        return not broken and whole and all(rolled.good for rolled in self.rollouts)


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
) -> Replayed:
    """Serve the champion with the features known at `start` and replay what came after.

    With `rollouts` the newest version and a broken one are rolled out meanwhile, and the replay
    ends with them.

    Raises:
        PlatformError: A server did not start, or the replaying process failed.
    """
    end = start + timedelta(days=days)
    with serving(workspace, code, start, progress.say) as running:
        progress.say("replay", f"{days:g} days of live traffic at {per_second:g} requests/s")
        began = datetime.now(UTC)
        workspace.replay.mkdir(parents=True, exist_ok=True)
        planned = acts(running, workspace, running.clock.now) if rollouts else ()
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
    found = _outcome(progress, workspace, code, version, start, end, per_second, ledger, archived)
    return found.model_copy(update={"rollouts": rolled})


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
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise PlatformError(f"the replay ended with {status}; the end of {log}:\n{tail}")


def _archived(
    workspace: Workspace,
    usecase: str,
    start: datetime,
    end: datetime,
    began: datetime,
    ledger: pl.DataFrame,
) -> pl.DataFrame:
    """Return this replay's rows of the archive, once they are all there or the time is up."""
    expected = ledger.filter(pl.col("status") == _OK).height
    deadline = time.monotonic() + _ARCHIVED_SECONDS
    while True:
        rows = predictions.read(workspace.predictions, usecase, Window(start=start, end=end))
        mine = rows.filter(pl.col("received_at") >= began, pl.col("arm") != "shadow")
        if mine.height >= expected or time.monotonic() > deadline:
            return mine
        time.sleep(0.5)


def _outcome(
    progress: Progress,
    workspace: Workspace,
    code: UseCaseCode,
    version: int,
    start: datetime,
    end: datetime,
    per_second: float,
    ledger: pl.DataFrame,
    archived: pl.DataFrame,
) -> Replayed:
    answered = ledger.filter(pl.col("status") == _OK)
    logged = archived.group_by("request_id").len()
    # A request whose features came too late, or that found no route, was answered without them.
    unread = pl.col("reasons").list.eval(pl.element().str.starts_with("features_")).list.any()
    whole = archived.filter(~unread.fill_null(value=False), pl.col("features").list.len() > 0).sort(
        "event_time"
    )
    given = ["score", "decision", "degraded", "fallback", "version", "arm"]
    both = answered.join(archived, on="request_id", suffix="_logged")
    mislogged = both.filter(
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_logged")) for name in given)
    ).height
    chosen = whole.gather_every(max(1, whole.height // PARITY_ROWS))
    compared = parity(code, chosen, workspace.replay / "offline", end)
    progress.say(
        "parity", f"{compared.equal:,} of {compared.rows:,} logged vectors equal the offline join"
    )
    millis = {
        "features": answered["features_us"] / 1000,
        "inference": answered["inference_us"] / 1000,
        "decision": answered["decision_us"] / 1000,
        "client": answered["ms"],
    }
    budgets = live.limits(code.spec.serving.latency_ms)
    return Replayed(
        usecase=code.spec.name,
        version=version,
        start=start,
        end=end,
        per_second=per_second,
        sent=ledger.height,
        answered=answered.height,
        refused=ledger.filter((pl.col("status") != _OK) & (pl.col("status") != 0)).height,
        lost=ledger.filter(pl.col("status") == 0).height,
        unlogged=answered.join(logged, on="request_id", how="anti").height,
        doubled=logged.filter(pl.col("len") > 1).height,
        mislogged=mislogged,
        degraded=int(answered["degraded"].sum()),
        fallback=int(answered["fallback"].sum()),
        positive=int(answered["decision"].sum()),
        p999_ms=_quantile(answered["ms"], 0.999),
        hops={
            name: Hop(p50=_quantile(values, 0.5), p99=_quantile(values, 0.99), budget=budgets[name])
            for name, values in millis.items()
        },
        compared=compared.rows,
        equal=compared.equal,
        differing=compared.differing,
    )


def _quantile(values: pl.Series, share: float) -> float:
    found = values.quantile(share)
    return 0.0 if found is None else round(found, 3)


def tell(console: Console, found: Replayed) -> None:
    """Print the outcome of a replay."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    good, bad = "bold green", "bold red"
    unlogged = found.unlogged + found.doubled + found.mislogged
    nothing_lost = not (found.lost or found.refused or unlogged)
    table.add_row(
        "live traffic",
        Text(
            f"{found.answered:,} of {found.sent:,} answered, {found.lost} lost, "
            f"{found.refused} refused, {unlogged} not logged once as answered",
            style=good if nothing_lost else bad,
        ),
    )
    table.add_row("", f"{found.degraded:,} degraded, {found.fallback:,} by the rules")
    for name, hop in found.hops.items():
        style = good if hop.p99 <= hop.budget else bad
        text = f"p50 {hop.p50:.1f} ms, p99 {hop.p99:.1f} ms of {hop.budget:g} ms"
        table.add_row(f"{name} latency", Text(text, style=style if name == "client" else ""))
    for rolled in found.rollouts:
        text = f"{rolled.phase.replace('_', ' ')} after {rolled.hours:g} h: {rolled.reason}"
        table.add_row(f"version {rolled.version}", Text(text, style=good if rolled.good else bad))
    same = found.equal == found.compared
    table.add_row(
        "skew",
        Text(
            f"{found.equal:,} of {found.compared:,} vectors equal the point-in-time join",
            style=good if same else bad,
        ),
    )
    console.print(table)
