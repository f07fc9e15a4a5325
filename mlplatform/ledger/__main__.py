"""Read the ledger: `python -m mlplatform.ledger verify|show`; MLPLATFORM_LEDGER_URL says where."""

import argparse
import sys
from typing import get_args

from pydantic import ValidationError

from mlplatform.contracts.decision import DecisionKind
from mlplatform.errors import LedgerError, PlatformError, shorten
from mlplatform.ledger import Head, Ledger
from mlplatform.settings import LedgerSettings


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 for a broken chain, 2 when there is no ledger to read."""
    options = _parser().parse_args(arguments)
    try:
        ledger = Ledger(LedgerSettings.load().url, create=False)
        lines = options.run(ledger, options)
    except LedgerError as error:
        sys.stderr.write(f"the chain is BROKEN: {error}\n")
        return 1
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlplatform.ledger", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="check every row against the chain of hashes")
    verify.add_argument(
        "--known", type=_head, metavar="COUNT:HASH", help="a head that was kept elsewhere"
    )
    verify.set_defaults(run=_verify)
    show = commands.add_parser("show", help="list decisions, newest last")
    show.add_argument("--usecase", help="only of this use case")
    show.add_argument("--kind", choices=get_args(DecisionKind), help="only of this kind")
    show.add_argument("--limit", type=_positive, help="only the newest so many")
    show.set_defaults(run=_show)
    return parser


def _verify(ledger: Ledger, options: argparse.Namespace) -> list[str]:
    head = ledger.head()  # read first: rows that are added meanwhile are checked as well
    return [
        f"{ledger}: {ledger.verify(options.known)} rows, the chain is whole",
        f"head {head.count}:{head.hash} (keep it elsewhere and pass it as --known)",
    ]


def _show(ledger: Ledger, options: argparse.Namespace) -> list[str]:
    found = ledger.entries(usecase=options.usecase, kind=options.kind, limit=options.limit)
    rows = [(str(entry.seq), entry.decision) for entry in found]
    lines = [
        f"{seq:>5}  {row.at:%Y-%m-%d %H:%M:%S}Z  {row.usecase}  {row.kind}  {row.subject}: "
        f"{row.verdict}: {shorten(row.reason)}"
        for seq, row in rows
    ]
    return lines or [f"{ledger}: no such decisions"]


def _head(value: str) -> Head:
    count, _, digest = value.partition(":")
    try:
        return Head(count=int(count), hash=digest)
    except (ValueError, ValidationError) as error:
        raise argparse.ArgumentTypeError("write COUNT:HASH, as verify prints it") from error


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError("write a number from 1")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
