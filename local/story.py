"""One performance of the story: servers up, traffic on, acts played, everything told.

What the story is about is in `local.acts`, how a window is lived through in `local.loop`.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

import polars as pl
from rich.console import Console

from feature_repo import ingest, predictions
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from feature_repo.labels import labels_of
from local import staging
from local.acts import acts, claims, play
from local.audited import audited
from local.broken_model import register_broken
from local.followed import Followed, Rolled
from local.live_traffic import LiveTraffic
from local.loop import Loop
from local.pages import Pages
from local.progress import Progress
from local.replayed import outcome
from local.serving import Serving, serving
from local.told import Day, Line, Told, line
from local.workspace import Workspace, git_commit
from mlplatform.contracts import Window
from mlplatform.contracts.performance import PairedPerformance
from mlplatform.contracts.skew import SkewReport
from mlplatform.ledger import Ledger
from mlplatform.signing import KeyPair
from monitoring.cohort import COLUMNS
from monitoring.performance import compare
from serving.rollout import machine


def perform(
    console: Console,
    progress: Progress,
    workspace: Workspace,
    code: UseCaseCode,
    trained_as_of: datetime,
    start: datetime,
    planned: Sequence[Window],
    *,
    per_second: float,
) -> Told:
    """Play the story; return it.

    Args:
        console: Where traffic is shown.
        progress: Where everything else is said.
        workspace: Has the first version.
        code: The use case.
        trained_as_of: The time that the first version was trained from.
        start: Live traffic begins.
        planned: At most these windows are lived through; at least one.
        per_second: Pace of the traffic.

    Raises:
        PlatformError: A part of the platform failed.
    """
    spec, began = code.spec, progress.seconds
    feed = spec.serving.required_views[-1] if spec.serving.required_views else None
    data = str(workspace.data)
    ingest.extend(spec.name, stores.open_store(data), data, start)
    progress.say("start", f"{(start - trained_as_of).days} days later: live traffic begins")
    with serving(workspace, code, start, progress.say) as running:
        followed = Followed(running, progress.say)
        with Pages() as pages, LiveTraffic(
            console, workspace, running, start, planned[-1].end, per_second,
            spec.serving.latency_ms, followed.watch,
        ) as traffic:  # fmt: skip
            parts = staging.parts(workspace, code, running, traffic, followed, pages, progress)
            loop = Loop(parts, start)
            broken = _Broken(workspace, running, followed)
            agreeing, _ = spec.monitoring.persistence
            planted = acts(loop, feed, agreeing, broken.roll_out)
            lived = play(loop, planted, planned, lambda day: _tell(progress, day))
            ledger, archived = traffic.ledger(), traffic.archived()
        rolled = followed.rolled
    end = lived[-1].window.end
    replayed = outcome(
        code, running.model.version, Window(start=start, end=end), per_second, ledger, archived,
        audited(_audits(lived)),
    )  # fmt: skip
    return Told(
        usecase=spec.name,
        goal=spec.goal.business,
        trained_as_of=trained_as_of,
        start=start,
        end=end,
        git_commit=git_commit(),
        seconds=round(progress.seconds - began, 1),
        claims=claims(lived, rolled, replayed, feed=feed, broken=broken.version),
        days=lived,
        rollouts=rolled,
        replaced=_replaced(workspace, code, rolled, lived),
        traffic=replayed,
        decisions=_decisions(workspace, spec.name, loop.before, lived),
    )


class _Broken:
    """The version of the last act: a copy of what serves by then, with a bug."""

    def __init__(self, workspace: Workspace, running: Serving, followed: Followed) -> None:
        self._workspace, self._running, self._followed = workspace, running, followed
        self.version: int | None = None

    def roll_out(self) -> None:
        """Register it and ask for its rollout."""
        running, rollout = self._running, self._running.rollout
        sound = running.model.version if rollout is None else machine.serves(rollout).version
        ref = register_broken(
            running.registry, running.usecase, sound, keys=KeyPair(*self._workspace.keys),
            workdir=self._workspace.replay, now=running.clock.now(),
        )  # fmt: skip
        self.version = ref.version
        title = f"version {ref.version} is broken: it takes all its inputs in the wrong unit"
        self._followed.ask(ref.version, title)


def _audits(days: Sequence[Day]) -> Iterator[SkewReport]:
    """Yield how served vectors compare with the offline join, while no feed was stopped."""
    for day in days:
        if day.report.skew is not None and not day.withheld:
            yield day.report.skew


def _replaced(
    workspace: Workspace, code: UseCaseCode, rolled: Sequence[Rolled], days: Sequence[Day]
) -> PairedPerformance | None:
    """Return the version that took over beside the one that it replaced, on rows that both saw."""
    took = next((one for one in rolled if one.phase == "promoted"), None)
    if took is None:
        return None
    window = Window(start=days[0].window.start, end=days[-1].window.end)
    rows = predictions.read(workspace.predictions, code.spec.name, window, COLUMNS)
    labels: pl.DataFrame = labels_of(code)(window.start, window.end)
    return compare(
        code.spec, rows, labels, champion=took.champion, challenger=took.version, window=window,
        as_of=window.end,
    )  # fmt: skip


def _decisions(
    workspace: Workspace, usecase: str, before: int, days: Sequence[Day]
) -> tuple[Line, ...]:
    """Return all rows of the ledger, each with the window in which it was added.

    What came after the last window was told, as its servers ended, counts as that window's.
    """
    entries = Ledger(workspace.ledger_url).entries(usecase)
    first = [line(entry.decision, None) for entry in entries if entry.seq <= before]
    lived = [row for day in days for row in day.decisions]
    late = entries[len(first) + len(lived) :]
    return (*first, *lived, *(line(entry.decision, days[-1].window.end) for entry in late))


def _tell(progress: Progress, day: Day) -> None:
    """Say what a window brought, in a line or two."""
    report = day.report
    for found in report.findings:
        about = f" of {', '.join(found.blamed[:4])}" if found.blamed else ""
        count = f"{report.whole.rows:,} requests, " if found.watch == "inputs" else ""
        progress.say(
            "judge",
            f"{found.window.start:%b %d}  {count}{found.watch}: "
            f"{found.cause.replace('_', ' ')}{about}",
            "" if found.cause in {"healthy", "inconclusive"} else "bold yellow",
        )
    for row in day.decisions:
        if row.kind == "retrain":
            progress.say("trigger", f"{row.verdict}: {row.reason}", "bold")
