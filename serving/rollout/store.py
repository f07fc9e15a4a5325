"""The state of rollouts: one row for each use case, beside the ledger in its database.

What was seen at each look is kept as well, to be plotted; what was decided is on the ledger. It
refuses to know what a state means.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydantic import Field, SecretStr
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, select, text

from mlplatform.contracts import Contract, Rollout, UtcDatetime, Verdict
from mlplatform.contracts.rollout import Phase
from mlplatform.ledger.database import Database
from mlplatform.ledger.state import StateTable, parse

Revision = int | str
"""Which state is stored: told apart by equality alone. The database counts, a cluster has words."""

_TABLES: Final = MetaData()

_LOOKS: Final = Table(
    "rollout_looks",
    _TABLES,
    Column("usecase", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, primary_key=True, comment="UTC to the microsecond: its order is time's"),
    Column("body", Text, nullable=False, comment="JSON of what was seen"),
)

# Both databases know this clause; SQLAlchemy has it in their dialects only.
_NOTE: Final = text(
    "INSERT INTO rollout_looks (usecase, number, at, body) VALUES (:usecase, :number, :at, :body) "
    "ON CONFLICT DO NOTHING"
)


class Look(Contract):
    """What the evidence said at one moment of a rollout."""

    usecase: str
    number: int = Field(ge=1, description="Of the rollout.")
    at: UtcDatetime
    phase: Phase
    step: int = Field(ge=0)
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest rollout of a use case, as it is stored."""

    revision: Revision
    """Another one after each write; 0 stands for "there is none"."""
    rollout: Rollout


class RolloutStore:
    """The rollouts of all use cases; safe to share between threads, and across a fork.

    Args:
        ledger_url: `sqlite:///path/to/file` or `postgresql://user:password@host/name`: the
            ledger's database, made if it is not there.

    Raises:
        SettingsError: `ledger_url` names no database that a ledger can be kept in.
        ServiceError: The database cannot be reached.
    """

    def __init__(self, ledger_url: str | SecretStr) -> None:
        self._database = Database(ledger_url)
        self._database.prepare(create=True)
        self._database.add(_TABLES)
        self._states = StateTable(self._database, "rollouts", Rollout, "rollout")

    def read(self, usecase: str) -> Stored | None:
        """Return the newest rollout of a use case; None when it never had one.

        Raises:
            DataError: The row holds no rollout of this use case.
            ServiceError: The database cannot be reached.
        """
        found = self._states.read(usecase)
        return None if found is None else Stored(*found)

    def write(self, rollout: Rollout, *, revision: Revision) -> int:
        """Replace the state that has this revision, and return the new revision.

        Args:
            rollout: The new state.
            revision: Of the state that it follows from; 0: there was none.

        Raises:
            StaleError: The stored state is another one by now; nothing was written.
            ServiceError: The database cannot be reached; whether it was written is then unknown.
        """
        return self._states.write(rollout, revision=int(revision))

    def note(self, look: Look) -> None:
        """Keep what was seen; the first look of a moment stands.

        Raises:
            ServiceError: The database cannot be reached.
        """
        values = {
            "usecase": look.usecase, "number": look.number, "at": _moment(look.at),
            "body": look.model_dump_json(),
        }  # fmt: skip
        with self._database.write() as connection:
            connection.execute(_NOTE, values)

    def looks(self, usecase: str, number: int) -> tuple[Look, ...]:
        """Return what was seen during one rollout, oldest first.

        Raises:
            DataError: A row holds no look.
            ServiceError: The database cannot be reached.
        """
        of_rollout = (_LOOKS.c.usecase == usecase) & (_LOOKS.c.number == number)
        query = select(_LOOKS.c.body).where(of_rollout).order_by(_LOOKS.c.at)
        with self._database.read() as connection:
            bodies = connection.execute(query).scalars().all()
        return tuple(parse(Look, body, f"a look of {usecase}/{number}") for body in bodies)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
