"""A feature view's history: which of its columns mean what, and its rows as sorted arrays.

Between the join (`feature_repo.pit`), which thinks in labels, and the search (`feature_repo.asof`),
which thinks in arrays. The order that is defined here is also the order in which parts are
written, so that reading them back needs no sort. It refuses times without a zone: a guessed zone
shifts what was known when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

import numpy as np
import polars as pl

from feature_repo.asof import NEVER, Flags, History, Ints
from mlplatform.errors import DataError

UTC_MICROSECONDS: Final = pl.Datetime("us", "UTC")
"""The one type of stored times: DuckDB, and so Feast's own store on it, refuses ns with a zone."""

EARLIEST: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class View:
    """How one feature view is joined.

    Attributes:
        name: Used in messages.
        keys: Label column of each key → history column. Empty: one history for all labels.
        features: History column → output column.
        event: History column with the event time.
        created: History column with the time at which a row became known; None: at its event.
        ttl: Largest age of a value at the label's time, inclusive as in Feast; None or 0: any age.
        known_only: False drops the condition on `created`, which then only breaks ties.
    """

    name: str
    keys: Mapping[str, str]
    features: Mapping[str, str]
    event: str = "event_timestamp"
    created: str | None = "created_timestamp"
    ttl: timedelta | None = None
    known_only: bool = True

    @property
    def key_columns(self) -> list[str]:
        """Return the history's key columns."""
        return list(self.keys.values())

    @property
    def index_columns(self) -> list[str]:
        """Return the history columns that the search reads: keys and times."""
        times = [self.event] if self.created is None else [self.event, self.created]
        return list(dict.fromkeys([*self.key_columns, *times]))


class Piece(Protocol):
    """Some rows of a history, read on demand; rows keep their numbers between calls."""

    def types(self, columns: Sequence[str]) -> pl.Schema:
        """Return the types of these columns.

        Raises:
            DataError: The history lacks a column.
        """

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return these columns of all rows; raises `DataError` as `types` does."""

    def take(self, columns: Sequence[str], rows: Ints) -> pl.DataFrame:
        """Return these columns of the given rows, in their order; absent columns are nulls."""


@dataclass(frozen=True, slots=True)
class FramePiece:
    """A piece that is in memory."""

    frame: pl.DataFrame

    def types(self, columns: Sequence[str]) -> pl.Schema:
        """Return the types of these columns."""
        return self.frame.select(columns).schema

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return these columns of all rows."""
        return self.frame.select(columns)

    def take(self, columns: Sequence[str], rows: Ints) -> pl.DataFrame:
        """Return these columns of the given rows, in their order."""
        return self.frame.select(columns)[rows]


def microseconds(frame: pl.DataFrame, column: str, where: str) -> pl.Series:
    """Return a time column as microseconds since 1970 in UTC, nulls kept.

    Nanoseconds are cut to microseconds, towards the past on both sides of the join.

    Raises:
        DataError: The column is missing, no timestamp, or has no zone.
    """
    if column not in frame.columns:
        raise DataError(f"{where} lack the time column {column}: found {frame.columns}")
    found = frame.schema[column]
    if found == pl.Null:
        return frame[column].cast(pl.Int64)
    if not isinstance(found, pl.Datetime):
        raise DataError(
            f"{column} in {where} is {found}, not a timestamp: convert it to a timestamp in UTC"
        )
    if found.time_zone is None:
        raise DataError(
            f"{column} in {where} has no time zone, so what was known when is a guess: "
            "give it its zone (UTC if it is in UTC)"
        )
    return frame[column].dt.epoch("us")


def segments(index: pl.DataFrame, view: View) -> tuple[History, pl.DataFrame]:
    """Return the rows as arrays with their runs of equal keys, and the key of each run.

    Args:
        index: Holds `view.index_columns`.
        view: Says which columns are keys and times.

    Returns:
        The history, in the order given, and one row of keys for each entry of its `starts`.
    """
    history = _times(index, view)
    keys = index.select(view.key_columns)
    if not index.height:
        return history, keys
    if not view.keys:
        return _started(history, np.zeros(1, dtype=np.int64)), keys
    changed = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in view.key_columns]
    new = keys.select(pl.any_horizontal(changed).alias("new"))["new"].to_numpy(writable=True)
    new[0] = True
    starts = np.flatnonzero(new)
    return _started(history, starts), keys[starts]


def sort_order(index: pl.DataFrame, view: View) -> Ints:
    """Return the row numbers in the order of keys, known, event, created; equal rows stay put."""
    history = _times(index, view)
    times = pl.DataFrame(
        {
            "__known": history.known,
            "__event": history.event,
            "__created": history.created,
        }
    )
    frame = pl.concat([index.select(view.key_columns), times], how="horizontal")
    order = frame.with_row_index("__row").sort(
        [*view.key_columns, *times.columns], maintain_order=True
    )
    return order["__row"].cast(pl.Int64).to_numpy()


def _times(index: pl.DataFrame, view: View) -> History:
    where = f"the history of view {view.name}"
    event, missing = _filled(microseconds(index, view.event, where), 0)
    known = created = event
    if view.created is not None:
        created, unknown = _filled(microseconds(index, view.created, where), EARLIEST)
        if view.known_only:
            known = np.maximum(event, created)
            missing = (
                unknown if missing is None else missing if unknown is None else missing | unknown
            )
    if missing is not None:
        # Last in each segment and never found; the newest event time keeps the runs in order.
        known, event, created = known.copy(), event.copy(), created.copy()
        known[missing] = NEVER
        event[missing] = event.max()
        created[missing] = 0
    return History(known, event, created, np.empty(0, dtype=np.int64))


def _filled(times: pl.Series, value: int) -> tuple[Ints, Flags | None]:
    """Return the times with nulls replaced, and where they were; None where there are none."""
    if not times.null_count():
        return times.to_numpy(), None
    return times.fill_null(value).to_numpy(), times.is_null().to_numpy()


def _started(history: History, starts: Ints) -> History:
    return History(history.known, history.event, history.created, starts)
