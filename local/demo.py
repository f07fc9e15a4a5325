"""`make demo`: the whole loop on one machine, with real parts and no cluster.

It trains a first model on what the source holds up to a moment, serves it eight weeks later, and
replays what came then as live traffic: each window is judged, the trigger decides, the pipeline
retrains, a rollout decides on evidence (`local.loop`). What happens is in `local.acts`: what the
data hold, then a feed that is stopped and a version that is broken, both on purpose. It leaves
`report.html` and `summary.json` in its folder.

The story starts over each time; what the last one left is moved aside. `--only-traffic` trains and
replays a window without a story, in the folder as it is.
"""

import argparse
import math
import shutil
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_repo import catalog
from feature_repo.catalog import UseCaseCode
from local.ending import STOPPED, status_of
from local.interrupts import interrupts
from local.live_report import write_live_report
from local.mlflow_server import mlflow_server
from local.moments import default_moment, moment_of
from local.plain_replay import replay_only
from local.progress import Progress
from local.replayed import Replayed, tell
from local.story import perform
from local.story_page import write_story
from local.told import Told
from local.told_page import write_page
from local.training import UI_PORT, run
from local.workspace import Workspace
from mlplatform.contracts import Window
from mlplatform.errors import NotFoundError, PlatformError
from mlplatform.ledger import Ledger
from monitoring.windows import windows
from serving.rollout.store import RolloutStore
from serving.rollout.story import tell as story_of

_REPLAY_DAYS: Final = 45
_LEFT: Final = frozenset({"data", "ledger.db", "mlflow"})
"""What every run leaves, wherever it ended."""
_AGE_DAYS: Final = 55
"""Of the first model when the story begins: the season that it learnt from is over."""


def main() -> None:
    """Read the command line, run, and end with 0 if everything that was claimed held."""
    options = _options()
    console = Console()
    interrupts()

    def work() -> int:
        workspace = Workspace(options.root)
        if options.ui:
            _serve_ui(console, workspace, options.port)
            return 0
        with workspace.lock():
            return 0 if _run(console, workspace, options) else 1

    sys.exit(status_of(console, work, stopped=STOPPED))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    parser.add_argument("--as-of", type=moment_of, help="time that the first training looks from, "
                        "UTC; default: after a quarter of the source's time")  # fmt: skip
    parser.add_argument("--live-from", type=moment_of, help="midnight at which live traffic "
                        f"begins, UTC; default: {_AGE_DAYS} days after it")  # fmt: skip
    parser.add_argument("--replay-days", type=float, default=_REPLAY_DAYS, help="at most so many "
                        "days of live traffic; 0: only train (%(default)s)")  # fmt: skip
    parser.add_argument("--only-traffic", action="store_true", help="no story: replay what "
                        "came after --as-of, and compare it with the offline join")  # fmt: skip
    parser.add_argument("--rate", type=_pace, default=200, help="requests/s (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("build/demo"), help="folder to work in")
    parser.add_argument("--ui", action="store_true", help="only serve the MLflow UI, until Ctrl-C")
    parser.add_argument("--port", type=int, default=UI_PORT, help="port of --ui (%(default)s)")
    return parser.parse_args()


def _pace(text: str) -> float:
    """Return a pace of the command line."""
    pace = float(text)
    if not 0 < pace < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no pace: give a number above 0")
    return pace


def _run(console: Console, workspace: Workspace, options: argparse.Namespace) -> bool:
    """Train, then live through the story or a plain replay; return whether everything held."""
    code, progress = catalog.load(options.usecase), Progress(console)
    moment: datetime = options.as_of or default_moment(code)
    story = bool(options.replay_days) and not options.only_traffic
    age = timedelta(days=_AGE_DAYS if story else 0)
    start: datetime = options.live_from or moment + age
    if start < moment:
        raise PlatformError(
            f"live traffic from {start:%Y-%m-%d %H:%M} UTC would show the first model what it has "
            f"learnt, up to {moment:%Y-%m-%d %H:%M}: choose a later --live-from"
        )
    planned = _windows(code, start, options.replay_days) if story else ()
    if story:
        _start_over(progress, workspace)
    title = Text.assemble((code.spec.name, "bold"), f": {code.spec.goal.ml_objective}\n")
    console.print(title, soft_wrap=True)
    summary = run(console, progress, workspace, code, moment)
    if summary.verdict == "failed" or not options.replay_days:
        return summary.verdict != "failed"
    console.print()
    try:
        if story:
            told = perform(
                console, progress, workspace, code, moment, start, planned,
                per_second=options.rate,
            )  # fmt: skip
            return _story(console, progress, workspace, told)
        found = replay_only(
            console, progress, workspace, code, start, days=options.replay_days,
            per_second=options.rate,
        )  # fmt: skip
        return _traffic(console, workspace, found)
    except NotFoundError as error:
        if summary.verdict != "rejected":
            raise
        # No candidate has passed its gates yet: that is an answer.
        console.print(Text(f"nothing to serve: {error}"), soft_wrap=True)
        return True


def _windows(code: UseCaseCode, start: datetime, days: float) -> tuple[Window, ...]:
    """Return the windows that a story may live through."""
    hours = code.spec.monitoring.window_hours
    found = windows(hours, start, start + timedelta(days=days))
    if not found:
        raise PlatformError(
            f"{days:g} days from {start:%Y-%m-%d %H:%M} UTC hold no whole window of {hours:g} h, "
            "which monitoring judges: give more --replay-days"
        )
    return found


def _story(console: Console, progress: Progress, workspace: Workspace, told: Told) -> bool:
    """Leave what was told, and print it; return whether the story held."""
    told.write(workspace.summary)
    write_page(workspace.report, told, pl.read_parquet(workspace.answers))
    _keep_traffic(workspace, told.traffic)
    _stories(workspace, told)
    console.print()
    tell(console, told.traffic)
    console.print()
    _tell(console, told)
    console.print(f"\nreport {workspace.report}", highlight=False)
    console.print(
        f"{progress.seconds:.0f} s in all; `make serve` leaves the servers running, "
        "`make why VERSION=2` tells why a version serves, `make trigger` what retraining waits for"
    )
    return told.good


def _traffic(console: Console, workspace: Workspace, found: Replayed) -> bool:
    """Leave what a replay showed, and print it; return whether it was good."""
    _keep_traffic(workspace, found)
    console.print()
    tell(console, found)
    console.print(f"report {workspace.live_report}", highlight=False)
    return found.good


def _start_over(progress: Progress, workspace: Workspace) -> None:
    """Move what an earlier run left aside, in place of what lay there.

    Raises:
        PlatformError: One of the two folders holds something else: that is nobody's to remove.
    """
    left = [path for path in workspace.root.iterdir() if path.name != workspace.LOCK]
    if not left:
        return
    root = workspace.root.resolve()
    before = root.with_name(f"{root.name}-before")
    for folder, known in ((root, _LEFT), (before, {*_LEFT, workspace.LOCK})):
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if names and not names & known:
            raise PlatformError(
                f"{folder} holds something that no run has left: choose another --root, or "
                "move it away"
            )
    if before.exists():
        shutil.rmtree(before)
    before.mkdir()
    (before / workspace.LOCK).touch()
    # Last what both folders are known by: who is killed in between starts over the next time.
    for path in sorted(left, key=lambda path: path.name in _LEFT):
        path.rename(before / path.name)
    shown = before.relative_to(Path.cwd()) if before.is_relative_to(Path.cwd()) else before
    progress.say("start", f"what an earlier run left is in {shown}")


def _keep_traffic(workspace: Workspace, found: Replayed) -> None:
    workspace.replay_summary.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_live_report(workspace.live_report, found, pl.read_parquet(workspace.answers))


def _stories(workspace: Workspace, told: Told) -> None:
    """Write the story of each version that was rolled out."""
    ledger, rollouts = Ledger(workspace.ledger_url), RolloutStore(workspace.ledger_url)
    for version in {rolled.version for rolled in told.rollouts}:
        page = workspace.story(told.usecase, version)
        write_story(page, story_of(ledger, rollouts, told.usecase, version))


def _tell(console: Console, told: Told) -> None:
    """Print what the story claimed, and what was seen."""
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column()
    table.add_column(max_width=110)
    for claim in told.claims:
        mark = Text("yes", style="bold green") if claim.held else Text("NO", style="bold red")
        table.add_row(mark, Text.assemble((claim.text, "bold"), f"\n{claim.seen}"))
    console.print(table)


def _serve_ui(console: Console, workspace: Workspace, port: int) -> None:
    """Serve what the runs registered until Ctrl-C."""
    with mlflow_server(workspace.mlflow, port=port) as server:
        console.print(f"MLflow UI at {server.url}; Ctrl-C ends it")
        signal.pause()


if __name__ == "__main__":
    main()
