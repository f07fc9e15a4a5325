"""`make experiment`: plan an A/B experiment, and read the one that a rollout is.

The rollout gives the split and the evidence: its last step's weight is the experiment's, and while
it is paused there it only watches. Harm still ends it.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from feature_repo import catalog
from feature_repo.labels import labels_of
from local import clock
from local.workspace import Workspace
from mlplatform.contracts.usecase.operation import GuardrailMetric
from mlplatform.errors import NotFoundError, PlatformError
from serving.rollout.evidence import EvidenceReader
from serving.rollout.experiment import Experiment, read
from serving.rollout.guardrails import percent
from serving.rollout.judge import e_value
from serving.rollout.sample_size import Size, required_entities
from serving.rollout.store import RolloutStore


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be answered."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        options.run(console, options)
    except PlatformError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    plan = argparse.ArgumentParser(add_help=False)
    _number(plan, "--weight", "the challenger's share (%(default)s)", default=0.5)
    _number(plan, "--alpha", "false positives (%(default)s)", default=0.05)
    _number(plan, "--power", "effects found (%(default)s)", default=0.8)
    _number(plan, "--deviation", "of one entity's value; none: a rate")
    _number(plan, "--per-day", "new entities a day, in both arms")
    parser = argparse.ArgumentParser(prog="python -m local.experiment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    size = commands.add_parser("size", parents=[plan], help="how many entities it needs")
    looked = commands.add_parser("read", parents=[plan], help="what the newest rollout shows")
    for command, required in ((size, True), (looked, False)):
        _number(command, "--baseline", "the champion's rate or mean", required=required)
        _number(command, "--effect", "smallest difference worth finding", required=required)
    size.set_defaults(run=_size)
    looked.add_argument("--metric", choices=get_args(GuardrailMetric), default="decision_rate")
    looked.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    looked.add_argument("--root", type=Path, default=Path("build/demo"), help="where it runs")
    looked.set_defaults(run=_read)
    return parser


def _number(
    parser: argparse.ArgumentParser,
    name: str,
    text: str,
    *,
    default: float | None = None,
    required: bool = False,
) -> None:
    parser.add_argument(
        name, type=float, metavar="NUMBER", help=text, default=default, required=required
    )


def _planned(options: argparse.Namespace) -> Size:
    return required_entities(
        options.baseline,
        options.effect,
        weight=options.weight,
        alpha=options.alpha,
        power=options.power,
        deviation=options.deviation,
        entities_per_day=options.per_day,
    )


def _size(console: Console, options: argparse.Namespace) -> None:
    size = _planned(options)
    kind = "a rate" if size.deviation is None else f"a mean (deviation {size.deviation:g})"
    days = "" if size.days is None else f", {size.days:,.1f} days"
    console.print(
        f"{size.total:,} entities{days}: {size.champion:,} for the champion, {size.challenger:,} "
        f"for the challenger\nto find {size.effect:+g} on {kind} of {size.baseline:g} in "
        f"{percent(size.power)} of experiments, and something that is not there in "
        f"{percent(size.alpha)}.\nRead the fixed-horizon result once, at that size; the "
        "always-valid one at any time, and it needs more.",
        highlight=False,
        soft_wrap=True,
    )


def _read(console: Console, options: argparse.Namespace) -> None:
    workspace = Workspace(options.root)
    if not workspace.root.exists():
        raise NotFoundError(f"nothing has run in {workspace.root}: run `make demo` first")
    stored = RolloutStore(workspace.ledger_url).read(options.usecase)
    if stored is None:
        raise NotFoundError(
            f"{options.usecase} has had no rollout to read: ask for one with `make rollout`"
        )
    code = catalog.load(options.usecase)
    size = None if options.baseline is None or options.effect is None else _planned(options)
    now = clock.read(workspace.clock)
    reader = EvidenceReader(code.spec, workspace.predictions, labels_of(code), lambda: now)
    found = read(reader.read(stored.rollout), options.metric, size=size, alpha=options.alpha)
    console.print(f"rollout {stored.rollout.id}, {found.metric}", style="bold")
    console.print(_table(found))
    if found.void:
        console.print(found.void, style="bold red", markup=False, highlight=False, soft_wrap=True)
    elif found.fixed is not None:
        console.print(
            f"Fixed horizon: {found.fixed.reason}.", markup=False, highlight=False, soft_wrap=True
        )


def _table(found: Experiment) -> Table:
    """Return what was found, a line for each reading."""
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
    ratio, fixed, always = found.ratio, found.fixed, found.always
    for name, mean, entities in (
        ("champion", found.champion, ratio.champion),
        ("challenger", found.challenger, ratio.challenger),
    ):
        table.add_row(name, "none" if mean is None else f"{mean:.5f}", f"{entities:,} entities")
    table.add_row(
        "sample ratio", f"p {ratio.p_value:.3g}", f"e-value {e_value(ratio.log_e)} (void at 1,000)"
    )
    if fixed is not None and fixed.p_value is not None:
        table.add_row(
            "fixed horizon", f"p {fixed.p_value:.3g}", f"{fixed.low:+.5f} to {fixed.high:+.5f}"
        )
    if always is not None:
        table.add_row(
            "always valid",
            f"e-value {e_value(always.log_e)} (a difference at {1 / found.alpha:,.0f})",
            f"{always.low:+.5f} to {always.high:+.5f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
