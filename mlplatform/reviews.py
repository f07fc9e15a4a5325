"""The review queue: decisions that people look at, and what they say.

It lies beside the ledger in its database, and every stage may read it: monitoring queues, people
answer, training and monitoring take the answers as labels. An answer is never changed or removed:
another one is put after it, and the newest stands. It refuses to know which decisions are worth
looking at (`monitoring.review`).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    SmallInteger,
    Table,
    Text,
    and_,
    exists,
    func,
    insert,
    select,
    text,
)

from mlplatform.contracts.review import ReviewItem
from mlplatform.errors import DataError
from mlplatform.ledger.database import Database
from mlplatform.ledger.state import parse

_METADATA: Final = MetaData()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_ITEMS: Final = Table(
    "review_items",
    _METADATA,
    Column("usecase", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("queued_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
    Column("event_time", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
    Column("body", Text, nullable=False, comment="JSON of the item as it was queued"),
)

_ANSWERS: Final = Table(
    "review_answers",
    _METADATA,
    Column("usecase", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="from 1"),
    Column("label", SmallInteger, CheckConstraint("label IN (0, 1)"), comment="null: cannot say"),
    Column("reviewer", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("reviewed_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
)

# Both databases know this clause; SQLAlchemy has it in their dialects only.
_QUEUE: Final = text(
    "INSERT INTO review_items (usecase, request_id, queued_at, event_time, body) "
    "VALUES (:usecase, :request_id, :queued_at, :event_time, :body) ON CONFLICT DO NOTHING"
)


class ReviewStore:
    """The queues of all use cases; safe to share between threads, and across a fork.

    Args:
        ledger_url: `sqlite:///path/to/file` or `postgresql://user:password@host/name`: the
            ledger's database, made if it is not there.

    Raises:
        SettingsError: `ledger_url` names no database that a ledger can be kept in.
        ServiceError: The database cannot be reached. So do all methods.
    """

    def __init__(self, ledger_url: str | SecretStr) -> None:
        self._database = Database(ledger_url)
        self._database.prepare(create=True)
        self._database.add(_METADATA)

    def add(self, items: Iterable[ReviewItem]) -> int:
        """Queue decisions and return how many are new; one that is known stays as it is.

        Raises:
            DataError: An item has been looked at already, or holds text that no database can
                keep; nothing was queued.
        """
        # One order for all writers: two that queue the same rows never wait for each other.
        rows = [_row(item) for item in sorted(items, key=lambda one: (one.usecase, one.request_id))]
        with self._database.write() as connection:
            return sum(connection.execute(_QUEUE, row).rowcount for row in rows)

    def pending(self, usecase: str, limit: int) -> tuple[ReviewItem, ...]:
        """Return decisions that nobody has looked at: those that wait longest, first.

        Raises:
            ValueError: `limit` is below 1.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        columns = _ITEMS.c
        query = (
            select(_ITEMS)
            .where(columns.usecase == usecase, _unanswered())
            .order_by(columns.queued_at, columns.event_time, columns.request_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return tuple(_item(row) for row in connection.execute(query))

    def waiting(self, usecase: str) -> int:
        """Return how many decisions nobody has looked at."""
        query = (
            select(func.count())
            .select_from(_ITEMS)
            .where(_ITEMS.c.usecase == usecase, _unanswered())
        )
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    def answer(
        self,
        usecase: str,
        request_id: str,
        label: int | None,
        *,
        reviewer: str,
        now: datetime,
        note: str = "",
        again: bool = False,
    ) -> ReviewItem:
        """Keep what a person says of a decision, and return it.

        The same label of the same person is the same answer, given twice.

        Args:
            usecase: Its name.
            request_id: Of the decision.
            label: What the outcome was, 0 or 1; None: cannot be said.
            reviewer: Who says so.
            now: The time, in the time of the requests: the label is known from then on.
            note: Why, in words.
            again: Whether another answer may be put in the place of the one that stands.

        Raises:
            DataError: The decision was never queued, has another answer, or was made after
                `now`; the label is none; nobody is named; a text cannot be kept.
        """
        who = reviewer.strip()
        if label not in {None, 0, 1}:
            raise DataError(f"{label!r} is no label of {request_id!r}: give 0 or 1, or none")
        if not who:
            raise DataError(f"say who answers {request_id!r}: a label needs a name to ask later")
        _keepable(who, note)
        with self._database.write() as connection:
            item, given = _read(connection, usecase, request_id, lock=True)
            if now < item.event_time:
                raise DataError(
                    f"{request_id!r} was decided at {item.event_time:%Y-%m-%d %H:%M} UTC, after "
                    f"the answer's time {now:%Y-%m-%d %H:%M}: answer in the requests' time"
                )
            if given and (given[-1].reviewer, given[-1].label) == (who, label):
                return given[-1]
            if given and not again:
                raise DataError(
                    f"{given[-1].reviewer} answered {request_id!r} with {_said(given[-1].label)} "
                    f"at {given[-1].reviewed_at:%Y-%m-%d %H:%M} UTC; to put {_said(label)} by "
                    f"{who} in its place, answer with --again (`make review`: AGAIN=1): both stay"
                )
            values = {
                "usecase": usecase,
                "request_id": request_id,
                "number": len(given) + 1,
                "label": None if label is None else int(label),
                "reviewer": who,
                "note": note,
                "reviewed_at": _micros(now),
            }
            connection.execute(insert(_ANSWERS).values(values))
            return _read(connection, usecase, request_id)[1][-1]

    def answers(self, usecase: str, request_id: str) -> tuple[ReviewItem, ...]:
        """Return every answer to a decision, oldest first; the last one stands.

        Raises:
            DataError: The decision was never queued.
        """
        with self._database.read() as connection:
            return _read(connection, usecase, request_id)[1]

    def labels(self, usecase: str, as_of: datetime) -> tuple[ReviewItem, ...]:
        """Return the decisions that had a label by then, by request.

        The answer that stood then counts; one that "cannot say" takes an earlier label away.
        """
        both = and_(
            _ITEMS.c.usecase == _ANSWERS.c.usecase, _ITEMS.c.request_id == _ANSWERS.c.request_id
        )
        answer = [column for column in _ANSWERS.c if column.name not in _ITEMS.c]
        query = (
            select(_ITEMS, *answer)
            .join(_ANSWERS, both)
            .where(_ITEMS.c.usecase == usecase, _ANSWERS.c.reviewed_at <= _micros(as_of))
            .order_by(_ANSWERS.c.number)
        )
        with self._database.read() as connection:
            stood = {row.request_id: row for row in connection.execute(query)}
        found = (_answered(_item(row), row) for _, row in sorted(stood.items()))
        return tuple(item for item in found if item.label is not None)


def _unanswered() -> Any:
    same = (_ANSWERS.c.usecase == _ITEMS.c.usecase) & (_ANSWERS.c.request_id == _ITEMS.c.request_id)
    return ~exists().where(same)


def _read(
    connection: Connection, usecase: str, request_id: str, *, lock: bool = False
) -> tuple[ReviewItem, tuple[ReviewItem, ...]]:
    """Return an item as it was queued, and with each of its answers."""
    named = select(_ITEMS).where(_ITEMS.c.usecase == usecase, _ITEMS.c.request_id == request_id)
    row = connection.execute(named.with_for_update() if lock else named).one_or_none()
    if row is None:
        raise DataError(
            f"no decision {request_id!r} of {usecase} was queued for review: give a request of "
            f"the queue (`python -m monitoring review list --usecase {usecase}`)"
        )
    item = _item(row)
    of_item = (_ANSWERS.c.usecase == usecase) & (_ANSWERS.c.request_id == request_id)
    answers = connection.execute(select(_ANSWERS).where(of_item).order_by(_ANSWERS.c.number))
    return item, tuple(_answered(item, answer) for answer in answers)


def _row(item: ReviewItem) -> dict[str, str | int]:
    if item.reviewed_at is not None or item.label is not None or item.reviewer:
        raise DataError(f"{item.request_id!r} has an answer already: queue decisions without one")
    _keepable(item.usecase, item.request_id)
    return {
        "usecase": item.usecase,
        "request_id": item.request_id,
        "queued_at": _micros(item.queued_at),
        "event_time": _micros(item.event_time),
        "body": item.model_dump_json(),
    }


def _item(row: Row[Any]) -> ReviewItem:
    return parse(ReviewItem, row.body, f"the queued decision {row.request_id!r} of {row.usecase}")


def _answered(item: ReviewItem, answer: Row[Any]) -> ReviewItem:
    given = {
        "label": answer.label,
        "reviewer": answer.reviewer,
        "note": answer.note,
        "reviewed_at": _EPOCH + answer.reviewed_at * _MICROSECOND,
    }
    return item.model_copy(update=given)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _said(label: int | None) -> str:
    return "cannot say" if label is None else str(label)


def _keepable(*texts: str) -> None:
    for one in texts:
        # PostgreSQL keeps no null characters in text, no database a half of a surrogate pair.
        if "\0" in one or any("\ud800" <= letter <= "\udfff" for letter in one):
            raise DataError(f"{one!r} holds a character that no database keeps: remove it")
