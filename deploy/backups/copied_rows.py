r"""The rows in the text of a dump: how many of each table, and those of a few tables themselves.

`pg_dump --data-only` and `pg_restore --file=-` print `COPY table (columns) FROM stdin;`, a line for
each row and `\.`. To read a dump to its end is to know that it can be restored, so a backup is
counted from the file that was written, never from the database that it was written from.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mlplatform.errors import DataError
from mlplatform.ledger import Head
from mlplatform.ledger.chain import check

LEDGER: Final = frozenset({"ledger_entries", "ledger_head"})
"""Tables that the chain of hashes is checked by."""

_COPY: Final = re.compile(r"COPY (?:(\w+)\.)?(\"?)(\w+)\2 \((.*)\) FROM stdin;")
_END: Final = "\\."
_NULL: Final = "\\N"
_ESCAPE: Final = re.compile(r"\\(.)")
_MEANS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class Contents:
    """What a dump holds."""

    rows: dict[str, int] = field(default_factory=dict)
    """By table."""
    kept: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Rows of the tables that were asked for; a null has no entry."""


class _Row(NamedTuple):
    seq: int
    key: str
    usecase: str
    kind: str
    subject: str
    decision: str
    prev_hash: str
    hash: str


def contents(lines: Iterable[str], wanted: Collection[str] = ()) -> Contents:
    """Return what the text of a dump holds.

    Args:
        lines: Of the text, without their ends.
        wanted: Tables whose rows are returned as well.

    Raises:
        DataError: The text ends within a table.
    """
    found = Contents()
    table, columns = "", []
    for line in lines:
        if not table:
            begins = _COPY.fullmatch(line)
            if begins:
                table = begins[3]
                columns = [name.strip().strip('"') for name in begins[4].split(",")]
                found.rows[table] = 0
        elif line == _END:
            table = ""
        else:
            found.rows[table] += 1
            if table in wanted:
                found.kept.setdefault(table, []).append(_row(columns, line))
    if table:
        raise DataError(f"the dump ends within the table {table}: it was cut short")
    return found


def verified_head(found: Contents, known: Head | None = None) -> Head:
    """Return the head of the ledger in a dump, its chain checked row by row.

    Args:
        found: With the rows of `LEDGER`.
        known: A head that was kept elsewhere.

    Raises:
        LedgerError: The chain is broken.
        DataError: There is no ledger in it.
    """
    heads = found.kept.get("ledger_head", [])
    if len(heads) != 1:
        raise DataError(f"there is no ledger in it: {len(heads)} rows in ledger_head, not one")
    head = Head(count=int(heads[0]["count"]), hash=heads[0]["hash"])
    rows = [_entry(row) for row in found.kept.get("ledger_entries", [])]
    check(sorted(rows), head, known)
    return head


def _row(columns: list[str], line: str) -> dict[str, str]:
    cells = zip(columns, line.split("\t"), strict=True)
    return {name: _unescaped(cell) for name, cell in cells if cell != _NULL}


def _unescaped(cell: str) -> str:
    return _ESCAPE.sub(lambda found: _MEANS.get(found[1], found[1]), cell) if "\\" in cell else cell


def _entry(row: dict[str, Any]) -> _Row:
    return _Row(**(row | {"seq": int(row["seq"])}))
