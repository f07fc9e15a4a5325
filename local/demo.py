"""`make demo`: the loop on one machine, with real parts and no cluster.

The composition root. It stands in the middle of the source's time. It lands the raw events up to
there, starts a real MLflow server, compiles the training pipeline and runs that file with KFP's
local runner: once as of now, and before it, where no version serves yet, as of two months earlier,
which gives the first champion. Then it serves the champion and replays what came next as live
traffic, on which the newer version is rolled out, and after it a broken one. It leaves
`summary.json`, `report.html`, `replay.json` and `live.html` in its folder. What has not changed
since the last run is not done again.
"""

import argparse
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console
from rich.text import Text

from feature_repo import catalog
from local.interrupts import interrupts
from local.live_report import write_live_report
from local.live_traffic import run_replay
from local.mlflow_server import mlflow_server
from local.moments import default_moment, moment_of
from local.progress import Progress
from local.replayed import tell
from local.story_page import write_story
from local.training import UI_PORT, land, run
from local.workspace import Workspace
from mlplatform.errors import NotFoundError, PlatformError
from mlplatform.ledger import Ledger
from serving.rollout.store import RolloutStore
from serving.rollout.story import tell as story_of

_REPLAY_DAYS: Final = 31
_HEAD_START_DAYS: Final = 61


def main() -> None:
    """Read the command line, run, and end with 0 unless the run failed."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    parser.add_argument("--as-of", type=moment_of, help="time the run looks from, UTC; default: "
                        "after seven twelfths of the source's time")  # fmt: skip
    parser.add_argument("--replay-days", type=float, default=_REPLAY_DAYS, help="at most so many "
                        "days after it are replayed as live traffic; 0: only train, once "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--rollouts", action=argparse.BooleanOptionalAction, default=True,
                        help="roll a newer and a broken version out on the live traffic, which "
                        "ends with them; without, the whole window is replayed")  # fmt: skip
    parser.add_argument("--head-start-days", type=float, default=_HEAD_START_DAYS, help="the first "
                        "champion is as much older than the version that is to replace it "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--rate", type=float, default=200, help="requests/s (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("build/demo"), help="folder to work in")
    parser.add_argument("--ui", action="store_true", help="only serve the MLflow UI, until Ctrl-C")
    parser.add_argument("--port", type=int, default=UI_PORT, help="port of --ui (%(default)s)")
    options = parser.parse_args()
    console = Console()
    interrupts()
    try:
        workspace = Workspace(options.root)
        if options.ui:
            _serve_ui(console, workspace, options.port)
            return
        with workspace.lock():
            good = _loop(console, workspace, options)
    except PlatformError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nstopped; every process that was started has been ended")
        sys.exit(130)
    sys.exit(0 if good else 1)


def _loop(console: Console, workspace: Workspace, options: argparse.Namespace) -> bool:
    """Train, then serve, replay and roll out; return whether everything held."""
    code, progress = catalog.load(options.usecase), Progress(console)
    moment: datetime = options.as_of or default_moment(code)
    title = Text.assemble((code.spec.name, "bold"), f": {code.spec.goal.ml_objective}\n")
    console.print(title, soft_wrap=True)
    if options.rollouts and options.replay_days and not _has_champion(workspace, code.spec.name):
        # All of the data first: both runs are then made from the same, and stay what they are.
        land(progress, workspace, code.spec.name, moment)
        first = run(
            console, progress, workspace, code, moment - timedelta(days=options.head_start_days)
        )
        console.print()
        if first.verdict != "registered":
            days = f"{options.head_start_days:g} days"
            progress.say("champion", f"none from {days} earlier: the next version serves at once")
    summary = run(console, progress, workspace, code, moment)
    if summary.verdict == "failed" or not options.replay_days:
        return summary.verdict != "failed"
    console.print()
    try:
        found = run_replay(
            console, progress, workspace, code, moment, days=options.replay_days,
            per_second=options.rate, rollouts=options.rollouts,
            trained=summary.model.version if summary.model else None,
        )  # fmt: skip
    except NotFoundError as error:  # no candidate has passed its gates yet: that is an answer
        console.print(Text(f"nothing to serve: {error}"), soft_wrap=True)
        return summary.verdict == "rejected"
    workspace.replay_summary.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_live_report(workspace.live_report, found, pl.read_parquet(workspace.answers))
    console.print()
    tell(console, found)
    console.print(f"report {workspace.live_report}", highlight=False)
    ledger, rollouts = Ledger(workspace.ledger_url), RolloutStore(workspace.ledger_url)
    for version in (rolled.version for rolled in found.rollouts):
        page = workspace.story(found.usecase, version)
        write_story(page, story_of(ledger, rollouts, found.usecase, version))
        console.print(f"story  {page}; here: `make why VERSION={version}`", highlight=False)
    console.print(f"{progress.seconds:.0f} s in all; `make serve` leaves the servers running")
    return found.good


def _has_champion(workspace: Workspace, usecase: str) -> bool:
    """Return whether a version serves already, which the next one is to replace."""
    registered = (workspace.mlflow / "mlflow.db").exists()
    return registered and bool(Ledger(workspace.ledger_url).entries(usecase, "route", limit=1))


def _serve_ui(console: Console, workspace: Workspace, port: int) -> None:
    """Serve what the runs registered until Ctrl-C."""
    with mlflow_server(workspace.mlflow, port=port) as server:
        console.print(f"MLflow UI at {server.url}; Ctrl-C ends it")
        signal.pause()


if __name__ == "__main__":
    main()
