"""`make retrain`, `trigger`, `approve`, `deny`, `reset-trigger`, `review`: the trigger by hand.

A command writes what is asked into the trigger's stored history, also while servers run in another
process. What it lets run it runs here, as a run that evidence asks for: within the same limits, and
once. It refuses what the trigger refuses.
"""

import argparse
import contextlib
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_repo import catalog
from local import clock
from local.ending import status_of
from local.interrupts import interrupts
from local.orchestrator import LocalOrchestrator
from local.progress import Progress
from local.workspace import Workspace
from mlplatform.contracts.retrain import History
from mlplatform.errors import DataError
from mlplatform.ledger import Ledger
from mlplatform.people import actor
from mlplatform.reviews import ReviewStore
from monitoring import orders
from monitoring.gain import gain
from monitoring.requests import RequestStore
from monitoring.standing import standing
from monitoring.submit import Submitter
from pipelines.training import NAME as TRAINING

_MOST_ITEMS: Final = 20
"""Decisions of the review queue that one screen shows."""


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
        self.usecase, self.console = str(options.usecase), console
        self.workspace = Workspace(options.root)
        self.monitoring = catalog.spec(self.usecase).monitoring
        self.ledger = Ledger(self.workspace.ledger_url, create=False)
        self.store = RequestStore(self.workspace.ledger_url)
        self.reviews = ReviewStore(self.workspace.ledger_url)

    def now(self) -> datetime:
        """Return the servers' time."""
        return clock.read(self.workspace.clock)

    def history(self) -> History | None:
        """Return what the trigger knows; None: it was never asked."""
        stored = self.store.read(self.usecase)
        return None if stored is None else stored.history

    def bring_about(self) -> None:
        """Run what may run, here and until it has ended; what has run is followed to its end."""
        history = self.history()
        current = None if history is None else history.in_flight
        if current is None or current.phase == "awaiting_approval":
            return
        submitter = Submitter(
            self.usecase,
            TRAINING,
            self.store,
            LocalOrchestrator(self.workspace, Progress(self.console)),
            lambda run: gain(self.ledger, self.usecase, run),
            self.ledger,
            self.now,
        )
        with contextlib.ExitStack() as stack:
            if current.phase == "ready" and not self.workspace.served:
                stack.enter_context(self.workspace.lock())  # whoever serves holds it
            submitter.tick()
        submitter.tick()

    def show(self) -> None:
        """Print how the trigger stands."""
        history, table = self.history(), Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="cyan")
        table.add_column(overflow="fold")
        for name, text in standing(history, self.monitoring, self.now()):
            table.add_row(name, Text(text))
        self.console.print(table)
        current = None if history is None else history.in_flight
        if current is None:
            return
        match current.phase:
            case "awaiting_approval":
                hint = "`make approve` or `make deny`, with REASON="
            case "submitted":
                hint = "`make rollout` finds out on live traffic whether its model is better"
            case _:
                hint = "it is run by `make retrain`"
        self.console.print(Text(f"\nnext: {hint}"))


def _retrain(desk: _Desk, options: argparse.Namespace) -> None:
    history = desk.history()
    if options.reason or history is None or history.in_flight is None:
        orders.ask(
            desk.store,
            desk.ledger,
            desk.usecase,
            desk.monitoring,
            options.reason,
            actor(),
            desk.now(),
        )
    desk.bring_about()
    desk.show()


def _trigger(desk: _Desk, _options: argparse.Namespace) -> None:
    history = desk.history()
    if history is not None and history.in_flight and history.in_flight.phase == "submitted":
        desk.bring_about()  # its rollout may have ended
    desk.show()


def _answer(desk: _Desk, options: argparse.Namespace) -> None:
    order = orders.approve if options.command == "approve" else orders.deny
    now = desk.now()
    order(desk.store, desk.ledger, desk.usecase, options.key, actor(), options.reason, now)
    desk.bring_about()
    desk.show()


def _reset(desk: _Desk, options: argparse.Namespace) -> None:
    orders.reset(desk.store, desk.ledger, desk.usecase, actor(), options.reason, desk.now())
    desk.show()


def _review(desk: _Desk, options: argparse.Namespace) -> None:
    if options.request:
        if options.label is None:
            raise DataError("say what the outcome was: 1, 0, or none where nobody can (LABEL=)")
        said = desk.reviews.answer(
            desk.usecase,
            options.request,
            None if options.label == "none" else int(options.label),
            reviewer=actor(),
            now=desk.now(),
            note=options.note,
            again=options.again,
        )
        desk.console.print(Text(f"{said.request_id}: {options.label}, says {said.reviewer}"))
        return
    waiting = desk.reviews.waiting(desk.usecase)
    if not waiting:
        desk.console.print(f"no decision of {desk.usecase} waits for a person")
        return
    table = Table("request", "time", "score", "version", "why it is here", box=None)
    for item in desk.reviews.pending(desk.usecase, _MOST_ITEMS):
        time = f"{item.event_time:%Y-%m-%d %H:%M}"
        score = f"{item.score:.3f}"
        table.add_row(Text(item.request_id), time, score, str(item.version), item.reason)
    desk.console.print(table)
    desk.console.print(f"\n{waiting} wait; answer one: `make review REQUEST=… LABEL=1`")


def _parser() -> argparse.ArgumentParser:
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    place.add_argument("--root", type=Path, default=Path("build/demo"), help="where it runs")
    why = argparse.ArgumentParser(add_help=False)
    why.add_argument("--reason", default="", help="for the ledger")
    parser = argparse.ArgumentParser(prog="python -m local.retraining", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    retrain = commands.add_parser(
        "retrain",
        parents=[place, why],
        help="tell what a model must learn of, and train within the limits; without a reason: go "
        "on with what is asked for",
    )
    retrain.set_defaults(run=_retrain)
    trigger = commands.add_parser("trigger", parents=[place], help="how the trigger stands")
    trigger.set_defaults(run=_trigger)
    for name, text in (("approve", "let a request run"), ("deny", "refuse a request")):
        answer = commands.add_parser(name, parents=[place, why], help=text)
        answer.add_argument("--key", help="its first digits; default: the one that waits")
        answer.set_defaults(run=_answer)
    reset = commands.add_parser(
        "reset", parents=[place, why], help="train again after runs without gain"
    )
    reset.set_defaults(run=_reset)
    review = commands.add_parser("review", parents=[place], help="decisions that wait for a person")
    review.add_argument("--request", default="", help="answer this one")
    review.add_argument("--label", choices=("0", "1", "none"), help="the outcome")
    review.add_argument("--note", default="", help="why")
    review.add_argument("--again", action="store_true", help="in place of another answer")
    review.set_defaults(run=_review)
    return parser


if __name__ == "__main__":
    interrupts()
    sys.exit(main())
