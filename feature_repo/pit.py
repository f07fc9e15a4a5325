"""The exact point-in-time join: labels to the feature values that were known at their time.

A history row counts for a label at time t when its event time and its creation time are both at
or before t; the latest event time wins, then the latest creation time, then the row written last;
a row that wins but is older than the view's TTL gives nulls. Each label row comes out once, in its
order. A null key or time never matches.

The history comes in pieces (row groups of a file, files). Each is searched on its own and the best
row over all pieces wins, which is the same as searching their union: so appended files need no
merge, memory is bounded by the pieces in flight, and features are read only after the rows that
count are known. It refuses times without a zone, keys of another type than the history's, and
output columns that the labels already have.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from feature_repo.asof import Flags, History, Ints, in_order, newest_known
from feature_repo.history import EARLIEST, Piece, View, microseconds, segments, sort_order
from mlplatform.errors import DataError


def join(
    labels: pl.DataFrame,
    views: Iterable[tuple[View, Sequence[Piece]]],
    *,
    time: str = "event_timestamp",
) -> pl.DataFrame:
    """Return the labels with the features that were known at their time.

    Args:
        labels: One row per label; all columns stay as they are and come first.
        views: Each view with its history in the order of writing; no piece: an empty history.
        time: Label column with the time of prediction, in any zone.

    Returns:
        As many rows as `labels`, in their order. Features of a view without any piece have the
        type Null; with pieces, the history's types.

    Raises:
        DataError: A time has no zone, a key is missing or of another type, a name collides.
    """
    views = list(views)
    check_names(labels.columns, [view for view, _ in views])
    return pl.concat([labels, *lookup(labels, views, time=time)], how="horizontal")


def check_names(columns: Iterable[str], views: Iterable[View]) -> None:
    """Raise `DataError` when a view would write a column that is there already."""
    taken = set(columns)
    for view in views:
        clash = sorted(taken.intersection(view.features.values()))
        if clash:
            raise DataError(
                f"view {view.name} would write {clash}, which the labels or another view already "
                "have: ask for full feature names or rename the column"
            )
        taken.update(view.features.values())


def lookup(
    labels: pl.DataFrame,
    views: Iterable[tuple[View, Sequence[Piece]]],
    *,
    time: str = "event_timestamp",
) -> list[pl.DataFrame]:
    """Return each view's features alone, rows in the labels' order; see `join`."""
    moments = microseconds(labels, time, "the labels")
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        return [_lookup(pool, labels, moments, *view) for view in views]


def _lookup(
    pool: Executor, labels: pl.DataFrame, time: pl.Series, view: View, pieces: Sequence[Piece]
) -> pl.DataFrame:
    missing = [key for key in view.keys if key not in labels.columns]
    if missing:
        raise DataError(
            f"view {view.name} joins on {list(view.keys)} but the labels lack {missing}: "
            "add the columns to the entity rows"
        )
    if not pieces:
        nulls = {name: [None] * labels.height for name in view.features.values()}
        return pl.DataFrame(nulls, schema=dict.fromkeys(nulls, pl.Null))
    asked = _Asked.prepare(labels, time, view, pieces[0])
    best = _Best.none(len(asked.time))
    for number, found in enumerate(pool.map(partial(_search, view, asked), pieces)):
        best.offer(number, found)
    if view.ttl:
        best.expire(asked.time - view.ttl // timedelta(microseconds=1))
    return _gather(pool, view, pieces, best.scattered(asked.row, labels.height))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The labels that can match, in the order of their keys.

    Attributes:
        keys: Each key once, sorted, named and typed as in the history; no columns without keys.
        first: Where each key's labels start, and after the last where they end.
        code: Each label's row in `keys`; rising.
        time: Microseconds since 1970.
        row: Row among all labels.
    """

    keys: pl.DataFrame
    first: Ints
    code: Ints
    time: Ints
    row: Ints

    @classmethod
    def prepare(cls, labels: pl.DataFrame, time: pl.Series, view: View, piece: Piece) -> "_Asked":
        names = view.key_columns
        types = piece.types(names)
        columns = [
            _as_key(labels[label], types[column], view).alias(column)
            for label, column in view.keys.items()
        ]
        frame = pl.DataFrame([*columns, time.alias("__time")]).with_row_index("__row").drop_nulls()
        if names:
            # Sorting each key once and then small codes is faster than sorting all labels' text.
            keys = frame.select(names).unique().sort(names)
            code = frame.join(
                keys.with_row_index("__code"), on=names, how="left", maintain_order="left"
            )["__code"]
            order = code.arg_sort()
            frame, code = frame[order], code[order]
        else:
            keys, code = frame.select(names), pl.repeat(0, frame.height, eager=True)
        codes = code.cast(pl.Int64).to_numpy()
        return cls(
            keys,
            np.searchsorted(codes, np.arange(max(keys.height, 1) + 1)),
            codes,
            frame["__time"].to_numpy(),
            frame["__row"].cast(pl.Int64).to_numpy(),
        )


def _as_key(labels: pl.Series, history: pl.DataType, view: View) -> pl.Series:
    """Return label keys in the history's type; a value that it cannot hold cannot match: null."""
    wanted = _plain(history)
    found = _plain(labels.dtype)
    if found in {wanted, pl.Null()}:
        return labels.cast(wanted)
    if found.is_float() and wanted.is_integer():
        # pandas turns integers beside a missing value into floats.
        whole = labels.is_finite() & (labels == labels.floor())
        return labels.zip_with(whole, pl.Series([None], dtype=found)).cast(wanted, strict=False)
    if found.is_integer() and wanted.is_integer():
        return labels.cast(wanted, strict=False)
    raise DataError(
        f"view {view.name}: the labels' key {labels.name} is {found} but the history's is "
        f"{wanted}: cast it in the entity rows"
    )


def _plain(kind: pl.DataType) -> pl.DataType:
    return pl.String() if isinstance(kind, pl.Categorical | pl.Enum) else kind


@dataclass(frozen=True, slots=True)
class _Found:
    """The newest known rows of one piece: label (in `_Asked`), row in the piece, its times."""

    label: Ints
    row: Ints
    event: Ints
    created: Ints


def _search(view: View, asked: _Asked, piece: Piece) -> _Found:
    """Return the newest known row of this piece for each label that has one."""
    index = piece.read(view.index_columns)
    for name, kind in asked.keys.schema.items():
        if index.schema[name] != kind:
            index = index.with_columns(pl.col(name).cast(kind))
    order: Ints | None = None
    history, keys = segments(index, view)
    if not _is_sorted(history, keys):
        order = sort_order(index, view)
        history, keys = segments(index[order], view)
    label, segment = _match_keys(asked, keys, index.height)
    row = newest_known(history, segment, asked.time[label])
    hit = row >= 0
    if not hit.all():
        label, row = label[hit], row[hit]
    return _Found(
        label, row if order is None else order[row], history.event[row], history.created[row]
    )


def _is_sorted(history: History, keys: pl.DataFrame) -> bool:
    """Return whether each key's rows are next to each other and in order."""
    in_one_run = (
        keys.width == 0
        or (keys.width == 1 and keys.to_series().is_sorted())
        or keys.n_unique() == keys.height
    )
    return in_one_run and in_order(history)


def _match_keys(asked: _Asked, keys: pl.DataFrame, rows: int) -> tuple[Ints, Ints]:
    """Return the labels whose key is in the piece, and its segment there."""
    none = np.empty(0, dtype=np.int64)
    if not rows or not len(asked.time):
        return none, none
    if not keys.width:
        return np.arange(len(asked.time), dtype=np.int64), asked.code
    # The keys are sorted: those outside the piece's range are cut off without a look.
    bounds: tuple[Any, Any] = (keys.to_series().min(), keys.to_series().max())
    if bounds[0] is None:
        return none, none
    leading = asked.keys.to_series()
    low = leading.search_sorted(bounds[0], "left")
    high = leading.search_sorted(bounds[1], "right")
    segments_of = asked.keys.slice(low, high - low).join(
        keys.with_row_index("__segment"), on=keys.columns, how="left", maintain_order="left"
    )["__segment"]
    segment_of = segments_of.cast(pl.Int64).fill_null(-1).to_numpy()
    start, end = asked.first[low], asked.first[high]
    segment = segment_of[asked.code[start:end] - low]
    label = np.flatnonzero(segment >= 0)
    return label + start, segment[label]


@dataclass(frozen=True, slots=True)
class _Best:
    """The best row so far for each label; pieces are offered in the order of writing."""

    event: Ints
    created: Ints
    piece: Ints
    row: Ints

    @classmethod
    def none(cls, size: int) -> "_Best":
        empty = np.full(size, EARLIEST, dtype=np.int64)
        absent = np.full(size, -1, dtype=np.int64)
        return cls(empty, empty.copy(), absent, absent.copy())

    def offer(self, number: int, found: _Found) -> None:
        """Take the rows that are newer than the best, or as new and written later."""
        event, created = self.event[found.label], self.created[found.label]
        wins = found.event > event
        wins |= (found.event == event) & (found.created >= created)
        label = found.label[wins]
        self.event[label] = found.event[wins]
        self.created[label] = found.created[wins]
        self.row[label] = found.row[wins]
        self.piece[label] = number

    def expire(self, oldest: Ints) -> None:
        """Drop the rows whose event time is before the oldest allowed."""
        self.piece[self.event < oldest] = -1

    def scattered(self, row: Ints, size: int) -> "_Matched":
        return _Matched(self.piece, self.row, row, size)


@dataclass(frozen=True, slots=True)
class _Matched:
    """Piece (-1: none) and row in it for the labels at `label`; `size` labels in all."""

    piece: Ints
    row: Ints
    label: Ints
    size: int


def _gather(pool: Executor, view: View, pieces: Sequence[Piece], matched: _Matched) -> pl.DataFrame:
    """Return the features of the matched rows in the labels' order, nulls for the rest."""
    by_piece: list[Ints] = [np.flatnonzero(matched.piece == n) for n in range(len(pieces))]
    columns = list(view.features)
    values: pl.DataFrame = pl.concat(
        pool.map(lambda piece, chosen: piece.take(columns, matched.row[chosen]), pieces, by_piece),
        how="vertical_relaxed",
    )
    place = np.full(matched.size, -1, dtype=np.int64)
    place[matched.label[np.concatenate(by_piece)]] = np.arange(values.height)
    absent: Flags = place < 0
    order = pl.Series(place, dtype=pl.Int64)
    if absent.any():
        order = order.set(pl.Series(absent), None)
    return values.select(
        pl.col(column).gather(order).alias(name) for column, name in view.features.items()
    )
