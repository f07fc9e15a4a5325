"""What was decided, by whom, on what evidence: rows that are added and never changed.

Each row carries the hash of the row before it, and a head keeps the number of rows and the last
hash, so `verify` finds a row that was edited, removed, moved or inserted, even when whoever did it
dropped the triggers that forbid it. Who can rewrite all rows and the head together can still forge
a whole ledger: keep a head elsewhere (it is one line) and give it to `verify`.
"""

from typing import Any

from pydantic import SecretStr, ValidationError
from sqlalchemy import Row, insert, select, update

from mlplatform.contracts import Decision
from mlplatform.contracts.decision import DecisionKind
from mlplatform.errors import LedgerError
from mlplatform.ledger import chain
from mlplatform.ledger.chain import Entry, Head
from mlplatform.ledger.database import ENTRIES, HEAD, Database

__all__ = ["Entry", "Head", "Ledger"]


class Ledger:
    """The ledger in one database; safe to share between threads, and across a fork.

    Args:
        url: `sqlite:///path/to/file` or `postgresql://user:password@host/name`.
        create: Whether to create the ledger where there is none.

    Raises:
        SettingsError: `url` names no database that a ledger can be kept in.
        ServiceError: The database cannot be reached, or holds no ledger and `create` is false.
    """

    def __init__(self, url: str | SecretStr, *, create: bool = True) -> None:
        self._database = Database(url)
        self._database.prepare(create=create)

    def __str__(self) -> str:
        """Return where the ledger is, without the password."""
        return f"ledger {self._database.name}"

    def append(self, decision: Decision) -> Entry:
        """Add a decision and return its row; a decision that is there is returned as it is.

        The time `at` does not make a decision a different one: a step that is repeated decides
        the same later, and the first time stands.

        Raises:
            LedgerError: The key is taken by another decision, or the decision holds text that
                no database can keep.
            ServiceError: The database cannot be reached; nothing was added.
        """
        text = chain.text(decision)
        with self._database.write() as connection:
            # On PostgreSQL writers queue for this row; on SQLite they queued for the transaction.
            head = _head(connection.execute(select(HEAD).with_for_update()).one_or_none())
            same_key = select(ENTRIES).where(ENTRIES.c.key == decision.key)
            if (row := connection.execute(same_key).one_or_none()) is not None:
                return _same(_entry(row), decision)
            seq = head.count + 1
            digest = chain.link(seq, head.hash, text)
            columns = {name: getattr(decision, name) for name in chain.COLUMNS}
            values = {"decision": text, "prev_hash": head.hash, "hash": digest, "seq": seq}
            connection.execute(insert(ENTRIES).values(columns | values))
            connection.execute(update(HEAD).values(count=seq, hash=digest))
        return Entry(seq=seq, decision=decision, prev_hash=head.hash, hash=digest)

    def entries(
        self,
        usecase: str | None = None,
        kind: DecisionKind | None = None,
        subject: str | None = None,
        limit: int | None = None,
    ) -> tuple[Entry, ...]:
        """Return the rows that match, oldest first; with `limit`, the newest so many of them.

        Raises:
            ValueError: `limit` is below 1.
            LedgerError: A row cannot be read.
            ServiceError: The database cannot be reached.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        wanted = {"usecase": usecase, "kind": kind, "subject": subject}
        query = select(ENTRIES).order_by(ENTRIES.c.seq.desc()).limit(limit)
        for name, value in wanted.items():
            if value is not None:
                query = query.where(ENTRIES.c[name] == value)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return tuple(_entry(row) for row in reversed(rows))

    def get(self, key: str) -> Entry | None:
        """Return the row with this key, None when there is none; raises as `entries`."""
        with self._database.read() as connection:
            row = connection.execute(select(ENTRIES).where(ENTRIES.c.key == key)).one_or_none()
        return None if row is None else _entry(row)

    def last(self, usecase: str, kind: DecisionKind) -> Entry | None:
        """Return the newest row of a kind, None when there is none; raises as `entries`."""
        return next(iter(self.entries(usecase=usecase, kind=kind, limit=1)), None)

    def head(self) -> Head:
        """Return the number of rows and the last hash: what to keep elsewhere as a witness."""
        with self._database.read() as connection:
            return _head(connection.execute(select(HEAD)).one_or_none())

    def verify(self, known: Head | None = None) -> int:
        """Check every row against its hash, its neighbours and the head; return their number.

        Args:
            known: A head that was kept elsewhere: the ledger must still continue it.

        Raises:
            LedgerError: Names the first row that is not what was written.
            ServiceError: The database cannot be reached.
        """
        with self._database.read() as connection:
            head = _head(connection.execute(select(HEAD)).one_or_none())
            query = select(ENTRIES).order_by(ENTRIES.c.seq).execution_options(yield_per=1000)
            with connection.execute(query) as rows:  # closed even when a row is bad
                return chain.check(rows, head, known)


def _head(row: Row[Any] | None) -> Head:
    if row is None:
        raise LedgerError(
            "the ledger's head is gone: it cannot be told whether rows were removed from the end; "
            "restore the database from a backup"
        )
    return Head(count=row.count, hash=row.hash)


def _entry(row: Row[Any]) -> Entry:
    try:
        decision = Decision.model_validate_json(row.decision)
    except ValidationError as error:
        raise LedgerError(
            f"row {row.seq} (key {row.key!r}) holds no decision: it was edited; run verify and "
            "restore the database from a backup"
        ) from error
    return Entry(seq=row.seq, decision=decision, prev_hash=row.prev_hash, hash=row.hash)


def _same(entry: Entry, decision: Decision) -> Entry:
    """Return the row that has the decision's key, if it says the same."""
    first, second = entry.decision.model_dump(), decision.model_dump()
    differ = [name for name in first if name != "at" and first[name] != second[name]]
    if differ:
        raise LedgerError(
            f"key {decision.key!r} is taken by row {entry.seq} with another "
            f"{' and '.join(differ)}: a decision is never changed; record a new one under a new key"
        )
    return entry
