"""Watch what was served: `python -m monitoring judge|trigger|status|… --usecase NAME`.

The composition root of monitoring. `judge` is a CronJob: it judges each window that has ended and
was not judged yet, tells the trigger and people of it, and ends. `trigger` brings about what the
trigger asks for, until SIGTERM. Both may be killed and started again at any time, and two of either
do no harm. The other commands are for people. Where things are comes from the environment
(docs/settings.md).
"""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from mlplatform.errors import PlatformError
from monitoring.commands import alerting, judging, reviewing, triggering

_LAST_PORT: Final = 65535


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be done."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s | %(levelname)s | %(message)s")
    stop = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stop.set())
    try:
        done: int = options.run(options, stop)
    except (PlatformError, OSError) as error:  # of the latter: a disk, a file that was named
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    usecase = argparse.ArgumentParser(add_help=False)
    usecase.add_argument("--usecase", required=True, metavar="NAME", help="whose")
    order = argparse.ArgumentParser(add_help=False)
    order.add_argument("--reason", required=True, metavar="TEXT", help="why, kept on the ledger")
    order.add_argument("--actor", metavar="NAME", help="who says so; default: the user")

    judge = commands.add_parser("judge", parents=[usecase], help="judge the windows that are due")
    judge.add_argument("--window", metavar="START", help="this one instead, e.g. 2013-05-30")
    judge.add_argument(
        "--audit",
        action="store_true",
        help="compare served vectors with a history of features that is made for it as well",
    )
    judge.set_defaults(run=judging.judge)
    status = commands.add_parser("status", parents=[usecase], help="what is known and waited for")
    status.set_defaults(run=judging.status)

    trigger = commands.add_parser("trigger", parents=[usecase], help="submit what is asked for")
    trigger.add_argument("--once", action="store_true", help="one step, then end")
    trigger.set_defaults(run=triggering.trigger)
    ask = commands.add_parser("ask", parents=[usecase, order], help="tell of an outside event")
    ask.set_defaults(run=triggering.ask)
    for name, text in (("approve", "let a request run"), ("deny", "refuse a request")):
        answer = commands.add_parser(name, parents=[usecase, order], help=text)
        answer.add_argument(
            "key", nargs="?", metavar="KEY", help="its first digits; default: the one that waits"
        )
        answer.set_defaults(run=triggering.answer)
    reset = commands.add_parser(
        "reset", parents=[usecase, order], help="ask again after runs without gain"
    )
    reset.set_defaults(run=triggering.reset)
    _review(commands.add_parser("review", help="decisions that wait for a person"), usecase)

    rules = commands.add_parser("rules", help="alert rules for Prometheus")
    whose = rules.add_mutually_exclusive_group(required=True)
    whose.add_argument("--usecase", metavar="NAME", help="those that follow from its spec")
    whose.add_argument("--cluster", action="store_true", help="those on what Kubernetes runs")
    rules.add_argument("--out", type=Path, metavar="FILE", help="write them to this file")
    rules.set_defaults(run=alerting.rules)
    metrics = commands.add_parser("metrics", help="serve what is known to Prometheus")
    metrics.add_argument(
        "--usecase", required=True, action="append", metavar="NAME", help="whose; may be repeated"
    )
    metrics.add_argument("--host", help="address; default: MLPLATFORM_MONITORING_METRICS_HOST")
    metrics.add_argument(
        "--port", type=_port, help="0: any; default: MLPLATFORM_MONITORING_METRICS_PORT"
    )
    metrics.set_defaults(run=alerting.metrics)
    return parser


def _review(parser: argparse.ArgumentParser, usecase: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="review", required=True)
    pending = commands.add_parser("list", parents=[usecase], help="those that wait longest")
    pending.add_argument("--limit", type=_positive, default=20, help="at most so many")
    pending.set_defaults(run=reviewing.pending)
    answer = commands.add_parser("answer", parents=[usecase], help="say what the outcome was")
    answer.add_argument("request", metavar="REQUEST", help="its request id")
    answer.add_argument("--label", required=True, choices=("0", "1", "none"))
    answer.add_argument("--reviewer", required=True, metavar="NAME", help="who says so")
    answer.add_argument("--note", default="", metavar="TEXT", help="why")
    answer.add_argument("--again", action="store_true", help="in place of another answer")
    answer.set_defaults(run=reviewing.answer)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("write a number from 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"write a number from 0 to {_LAST_PORT}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
