"""`make rollout`, `rollout-status`, `promote`, `rollback`, `abort`, `pause`, `resume`, `why`.

A command writes what is asked into the rollout's stored state, also while `make serve` or a replay
runs in another process, waits a moment for that one to bring it about, and shows how far it is.
It refuses what the state machine refuses.
"""

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from feature_repo import catalog
from feature_repo.labels import labels_of
from local import clock
from local.ending import status_of
from local.mlflow_server import mlflow_server
from local.rollout_status import shown
from local.story_page import write_story
from local.story_text import told
from local.workspace import Workspace
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Rollout, Statistics
from mlplatform.errors import NotFoundError, PlatformError
from mlplatform.ledger import Ledger
from mlplatform.people import actor
from mlplatform.settings import RegistrySettings
from serving.rollout import machine
from serving.rollout.desk import Orders
from serving.rollout.evidence import EvidenceReader
from serving.rollout.judge import judge
from serving.rollout.store import RolloutStore
from serving.rollout.story import tell

_SHOW_SECONDS: Final = 10.0
"""Longest wait for what was asked; a server starts in two seconds, a route is followed in one."""
_POLL_SECONDS: Final = 0.1
_WATCH_SECONDS: Final = 1.0
_ORDERS: Final = {
    "promote": "go on to the soak without further evidence; asked in the soak, end it",
    "rollback": "give all traffic back to the version before, also after a promotion",
    "abort": "end the rollout: no traffic for the new version",
    "pause": "stay in this step; the evidence is watched on, and harm still ends it",
    "resume": "go on after a pause",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console()

    def work() -> int:
        options.run(_Desk(options, console), options)
        return 0

    return status_of(console, work)


class _Desk:
    """What the commands of one workspace work with."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.usecase, self.console = options.usecase, console
        self.workspace = Workspace(options.root)
        spec = catalog.spec(self.usecase)
        self.ledger = Ledger(self.workspace.ledger_url, create=False)
        self.rollouts = RolloutStore(self.workspace.ledger_url)
        self.orders = Orders(
            spec, self.rollouts, self.ledger, self._now, lambda: self.workspace.served
        )
        self._reader = EvidenceReader(spec, self.workspace.predictions, self._labels, self._now)

    def status(self) -> RenderableType:
        """Return how far the newest rollout is.

        Raises:
            NotFoundError: There was none.
        """
        rollout, now = self._newest(), self._now()
        statistics, trouble = self._statistics(rollout)
        watched = rollout.phase in machine.WATCHED
        verdict = judge(rollout, statistics, now) if watched else rollout.story[-1].looked
        parts = [shown(rollout, statistics, verdict, now)]
        if trouble:
            parts.append(Text(f"\n{trouble}", style="yellow"))
        if not rollout.at_rest and not self.workspace.served:
            where = self.workspace.root
            parts.append(Text(f"\nno servers run in {where}: it goes on with `make serve`"))
        return Group(*parts)

    def show(self) -> None:
        """Give the driver a moment to bring about what was asked, and print how far it is."""
        deadline = time.monotonic() + _SHOW_SECONDS
        while self.workspace.served and time.monotonic() < deadline:
            rollout = self._newest()
            if rollout.phase not in {"pending", "verifying"} and rollout.committed >= rollout.epoch:
                break
            time.sleep(_POLL_SECONDS)
        self.console.print(self.status())

    def over(self) -> bool:
        """Return whether the newest rollout is at rest."""
        return self._newest().at_rest

    def _newest(self) -> Rollout:
        stored = self.rollouts.read(self.usecase)
        if stored is None:
            raise NotFoundError(
                f"{self.usecase} has had no rollout: ask for one with `make rollout`"
            )
        return stored.rollout

    def _statistics(self, rollout: Rollout) -> tuple[Statistics | None, str]:
        if not any(routed.weight or routed.shadow for routed in rollout.routes):
            return None, ""  # nobody has seen it
        try:
            return self._reader.read(rollout), ""
        except PlatformError as error:
            return None, str(error)

    def _labels(self, start: datetime, now: datetime) -> pl.DataFrame:
        """Return the labels; a command that needs none does not wait for the use case's code."""
        return labels_of(catalog.load(self.usecase))(start, now)

    def _now(self) -> datetime:
        return clock.read(self.workspace.clock)


def _rollout(desk: _Desk, options: argparse.Namespace) -> None:
    who = actor()
    with mlflow_server(desk.workspace.mlflow) as server:
        asked = desk.orders.start(
            Registry(RegistrySettings(tracking_uri=server.url)),
            options.version,
            actor=who,
            reason=options.reason,
            again=options.again,
        )
    desk.console.print(f"rollout {asked.id} of version {asked.challenger.version} begins\n")
    desk.show()


def _order(desk: _Desk, options: argparse.Namespace) -> None:
    asked = desk.orders.give(options.command, actor=actor(), reason=options.reason)
    desk.console.print(f"{options.command} of rollout {asked.id} is asked for\n")
    desk.show()


def _status(desk: _Desk, options: argparse.Namespace) -> None:
    if not options.watch:
        desk.console.print(desk.status())
        return
    with Live(desk.status(), console=desk.console, auto_refresh=False) as live:
        while not desk.over():
            time.sleep(_WATCH_SECONDS)
            live.update(desk.status(), refresh=True)


def _why(desk: _Desk, options: argparse.Namespace) -> None:
    story = tell(desk.ledger, desk.rollouts, desk.usecase, options.version)
    desk.console.print(told(story))
    page = desk.workspace.story(desk.usecase, options.version)
    write_story(page, story)
    desk.console.print(f"\npage {page}", highlight=False)


def _parser() -> argparse.ArgumentParser:
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    place.add_argument("--root", type=Path, default=Path("build/demo"), help="where it runs")
    why = argparse.ArgumentParser(add_help=False)
    why.add_argument("--reason", default="", help="for the ledger")
    parser = argparse.ArgumentParser(prog="python -m local.rollout", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    begin = commands.add_parser("rollout", parents=[place, why], help="roll a version out")
    begin.add_argument("--version", type=int, help="registered version; default: the newest")
    begin.add_argument(
        "--again",
        action="store_true",
        help="also a model that was promoted or rolled back before",
    )
    begin.set_defaults(run=_rollout)
    status = commands.add_parser("status", parents=[place], help="how far the newest rollout is")
    status.add_argument("--watch", action="store_true", help="until it is over, or Ctrl-C")
    status.set_defaults(run=_status)
    for name, text in _ORDERS.items():
        commands.add_parser(name, parents=[place, why], help=text).set_defaults(run=_order)
    story = commands.add_parser("why", parents=[place], help="the story of a version")
    story.add_argument("--version", type=int, required=True, help="registered version")
    story.set_defaults(run=_why)
    return parser


if __name__ == "__main__":
    sys.exit(main())
