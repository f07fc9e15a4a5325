"""States beside the ledger: one row for each use case, replaced by compare-and-swap.

Of two who decide on one state only the faster is heard, so whoever reads, decides and writes needs
no lock. It refuses to know what a state means.
"""

from typing import Generic, Protocol, Self, TypeVar

from pydantic import ValidationError
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, select, text, update

from mlplatform.errors import DataError, StaleError, shorten
from mlplatform.ledger.database import Database


class _Readable(Protocol):
    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Self: ...


class _OfUseCase(_Readable, Protocol):
    """A contract that names its use case."""

    @property
    def usecase(self) -> str: ...

    def model_dump_json(self) -> str: ...


_Kind = TypeVar("_Kind", bound=_Readable)
_State = TypeVar("_State", bound=_OfUseCase)


class StateTable(Generic[_State]):
    """One kind of state; the table is made if it is not there.

    Args:
        database: The ledger's.
        name: Of the table.
        kind: A contract that names its use case.
        what: What messages call a state: "the rollout of …".

    Raises:
        ServiceError: The database cannot be reached.
    """

    def __init__(self, database: Database, name: str, kind: type[_State], what: str) -> None:
        self._database, self._kind, self._what = database, kind, what
        tables = MetaData()
        self._table = Table(
            name,
            tables,
            Column("usecase", Text, primary_key=True),
            Column("revision", BigInteger, nullable=False),
            Column("body", Text, nullable=False, comment="JSON of the newest state"),
        )
        # Both databases know this clause; SQLAlchemy has it in their dialects only.
        self._first = text(
            f"INSERT INTO {name} (usecase, revision, body) VALUES (:usecase, 1, :body) "  # noqa: S608 (a name of ours)
            "ON CONFLICT DO NOTHING"
        )
        database.add(tables)

    def read(self, usecase: str) -> tuple[int, _State] | None:
        """Return the state of a use case and its revision, from 1; None when there is none.

        Raises:
            DataError: The row holds no such state of this use case.
            ServiceError: The database cannot be reached.
        """
        query = select(self._table).where(self._table.c.usecase == usecase)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        state = parse(self._kind, row.body, f"the {self._what} of {usecase}")
        if state.usecase != usecase:
            raise DataError(
                f"the row of {usecase} in the table {self._table.name} holds the {self._what} of "
                f"{state.usecase}: somebody edited it; restore the database from a backup"
            )
        return row.revision, state

    def write(self, state: _State, *, revision: int) -> int:
        """Replace the state that has this revision, and return the new revision.

        Args:
            state: The new one.
            revision: Of the state that it follows from; 0: there was none.

        Raises:
            StaleError: The stored state is another one by now; nothing was written.
            ServiceError: The database cannot be reached; whether it was written is then unknown.
        """
        columns = self._table.c
        values = {"usecase": state.usecase, "body": state.model_dump_json()}
        follows = (columns.usecase == state.usecase) & (columns.revision == revision)
        replace = update(self._table).where(follows).values(**values, revision=revision + 1)
        with self._database.write() as connection:
            first = revision == 0
            done = connection.execute(self._first, values) if first else connection.execute(replace)
            written = done.rowcount == 1
        if not written:
            raise StaleError(
                f"the {self._what} of {state.usecase} is no longer at revision {revision}: "
                "somebody else wrote it meanwhile; read it and decide again"
            )
        return revision + 1


def parse(kind: type[_Kind], body: str, what: str) -> _Kind:
    """Return the contract in a column.

    Raises:
        DataError: There is none.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise DataError(
            f"{what} cannot be read from the ledger's database: {shorten(error)}; it was edited, "
            "or written by another release: restore the database from a backup"
        ) from error
