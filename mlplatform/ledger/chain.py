"""The chain of hashes: how a row is linked to the one before, and how a broken link is found.

hash = SHA-256(previous hash + canonical JSON of {"decision": …, "seq": …}). The first row's
previous hash is 64 zeros.
"""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import Field, ValidationError

from mlplatform import canonical
from mlplatform.contracts import Contract, Decision
from mlplatform.errors import LedgerError

GENESIS: Final = "0" * 64

COLUMNS: Final = ("key", "usecase", "kind", "subject")
"""Parts of a decision that have a column of their own, to search by."""

_ADVICE: Final = "find out who did it, and restore the database from a backup"


class Entry(Contract):
    """A decision with its place in the chain."""

    seq: int = Field(ge=1, description="Its place, without gaps.")
    decision: Decision
    prev_hash: str = Field(description="Hash of the row before, 64 zeros for the first.")
    hash: str


class Head(Contract):
    """The end of the chain."""

    count: int = Field(ge=0)
    hash: str


def text(decision: Decision) -> str:
    """Return the canonical JSON of a decision.

    Raises:
        LedgerError: It holds text that a database cannot keep.
    """
    try:
        found = canonical.dumps(decision.model_dump(mode="json"))
        columns = "".join(getattr(decision, name) for name in COLUMNS).encode()
    except ValueError as error:
        raise LedgerError(
            f"decision {decision.key!r} cannot be kept: {error}; remove that character"
        ) from error
    if b"\0" in columns:  # PostgreSQL keeps none in text
        raise LedgerError(f"decision {decision.key!r} holds a null character; remove it")
    return found


def link(seq: int, prev_hash: str, decision: str) -> str:
    """Return the hash of row `seq` with the canonical JSON `decision`."""
    return canonical.sha256(f'{prev_hash}{{"decision":{decision},"seq":{seq}}}')


def check(rows: Iterable[Any], head: Head, known: Head | None = None) -> int:
    """Check rows in the order of `seq` against each other and the head; return their number.

    Raises:
        LedgerError: Names the first row that is not what was written.
    """
    count, previous = 0, GENESIS
    for count, row in enumerate(rows, start=1):
        _check_row(row, count, previous)
        previous = row.hash
        if known is not None and count == known.count and previous != known.hash:
            raise LedgerError(
                f"row {count} is not the one whose hash was kept: the ledger up to it was "
                f"rewritten; {_ADVICE}"
            )
    if known is not None and count < known.count:
        raise LedgerError(
            f"row {count + 1} was removed from the end: {known.count} rows were known; {_ADVICE}"
        )
    if count < head.count:
        raise LedgerError(
            f"row {count + 1} was removed from the end: {count} of {head.count} rows are left; "
            f"{_ADVICE}"
        )
    if count > head.count:
        raise LedgerError(
            f"row {head.count + 1} was inserted at the end: the head knows {head.count} rows; "
            f"{_ADVICE}"
        )
    if previous != head.hash:
        raise LedgerError(f"row {count} is not the one that the head knows; {_ADVICE}")
    return count


def _check_row(row: Any, place: int, previous: str) -> None:
    name = f"row {row.seq} (key {row.key!r})"
    if row.seq > place:
        raise LedgerError(f"row {place} was removed: {name} comes in its place; {_ADVICE}")
    if row.seq < place:
        raise LedgerError(f"{name} was inserted: rows are numbered from 1; {_ADVICE}")
    if row.hash != link(row.seq, row.prev_hash, row.decision):
        raise LedgerError(f"{name} was edited or moved after it was written; {_ADVICE}")
    if row.prev_hash != previous:
        raise LedgerError(
            f"{name} does not continue the row before it: one of the two was replaced; {_ADVICE}"
        )
    try:
        written = Decision.model_validate_json(row.decision)
    except ValidationError as error:
        raise LedgerError(f"{name} holds no decision: it was inserted; {_ADVICE}") from error
    for column in COLUMNS:
        if getattr(row, column) != getattr(written, column):
            raise LedgerError(f"{name} was edited: its column {column} is another; {_ADVICE}")
