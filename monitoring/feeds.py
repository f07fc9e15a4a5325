"""Feature views that have stopped: their newest row does not move while requests go on.

Each answer logs the event time of the row that it read of each view. One entity without a row, or
with an old one, is no fault: an aircraft may not have flown. So a view is called stale where its
rows are gone (absent, or older than its time to live) far more often than the reference has them
so, where no request in a row finds one, or where the newest one of all stands still.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mlplatform.contracts import OnlineView
from mlplatform.contracts.watch import DataFault
from monitoring.arrivals import Times
from monitoring.values import Known, Matrix, jumped, stretches

_RUN: Final = 20
"""Requests in a row without a row, at least; and so many that chance has them once in:"""
_CHANCE: Final = 1e9
_STILL_ROWS, _STILL_TIMES = 100, 5
"""Requests in a row that read nothing newer; and as many times the most of the window before."""
_MINUTE_US: Final = 60_000_000


@dataclass(frozen=True)
class Reads:
    """What N answers read of V views, in the order of their time.

    Attributes:
        at: Time of the request, [N].
        rows: Event time of the row that was read, 0: there was none, [N, V].
    """

    at: Times
    rows: npt.NDArray[np.int64]


def stale(
    views: Sequence[OnlineView],
    names: Sequence[str],
    reads: Reads,
    before: Reads | None,
    past: Mapping[int, Known],
    span: tuple[int, int],
) -> Iterator[DataFault]:
    """Yield the views that have stopped.

    Args:
        views: Of the layout.
        names: The model's inputs, in order; tell how often the reference lacks a view.
        reads: Of the window; at least one.
        before: Of the window before; None: there was none.
        past: What the reference's windows hold of the inputs.
        span: Start and length of the window, microseconds.
    """
    for number, view in enumerate(views):
        inputs = [place for place, name in enumerate(names) if name in _fields(view)]
        if why := _gone(view, reads, number, inputs, past, span) or _still(reads, before, number):
            yield DataFault(kind="stale", subject=view.name, why=why)


def _gone(
    view: OnlineView,
    reads: Reads,
    number: int,
    inputs: Sequence[int],
    past: Mapping[int, Known],
    span: tuple[int, int],
) -> str:
    """Return what says that the view's rows are gone; empty: nothing does."""
    rows = reads.rows[:, number]
    gone = rows == 0
    if view.ttl_seconds is not None:
        gone |= reads.at - rows > round(view.ttl_seconds * 1_000_000)
    if not inputs or not gone.any():
        return ""
    marks: Matrix = gone[:, None].astype(np.float32)
    usual = 0.0
    for place, part in stretches(reads.at, marks, *span).items():
        if place not in past:
            continue
        usual = float(past[place].nulls[:, inputs].min(axis=1).max())
        share = float(part.mean())
        if jumped(share, usual, len(part)):
            return _told(view, reads, number, f"{share:.0%} of {len(part):,}", usual)
    begin, run = _longest(gone)
    if usual < 1 and run >= max(_RUN, -math.log(_CHANCE) / math.log(max(usual, 1e-9))):
        minutes = (reads.at[begin + run - 1] - reads.at[begin]) / _MINUTE_US
        return _told(view, reads, number, f"{run:,} in a row, for {minutes:,.0f} min", usual)
    return ""


def _told(view: OnlineView, reads: Reads, number: int, which: str, usual: float) -> str:
    newest = int(reads.rows[:, number].max())
    age = "it has no row at all"
    if newest:
        age = f"its newest row is {(reads.at[-1] - newest) / _MINUTE_US:,.0f} min old at the end"
    limit = "" if view.ttl_seconds is None else f" within {view.ttl_seconds / 60:g} min"
    return f"requests without a row{limit}: {which} ({usual:.0%} at most before); {age}"


def _still(reads: Reads, before: Reads | None, number: int) -> str:
    """Return what says that the newest row of all stands still; empty: it moves."""
    if before is None or not len(before.at):
        return ""
    start = int(before.rows[:, number].max(initial=0))
    _, usual, moves = _stands(before.rows[:, number], 0)
    begin, run, _ = _stands(reads.rows[:, number], start)
    if not moves or run < max(_STILL_ROWS, _STILL_TIMES * usual):
        return ""
    hours = (reads.at[begin + run - 1] - reads.at[begin]) / _MINUTE_US / 60
    return (
        f"{run:,} requests in a row, for {hours:.1f} h, read nothing newer; before, it was at most "
        f"{usual:,}"
    )


def _stands(rows: npt.NDArray[np.int64], newest: int) -> tuple[int, int, int]:
    """Return begin and length of the longest run without a newer row, and how often one came."""
    so_far = np.maximum.accumulate(np.concatenate([[newest], rows]))
    still = so_far[1:] == so_far[:-1]
    begin, run = _longest(still)
    return begin, run, int((~still).sum())


def _longest(marks: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return begin and length of the longest run of marked rows."""
    place = np.arange(1, len(marks) + 1)
    run = place - np.maximum.accumulate(np.where(marks, 0, place))
    end = int(run.argmax())
    return end + 1 - int(run[end]), int(run[end])


def _fields(view: OnlineView) -> set[str]:
    return {field.name for field in view.fields}
