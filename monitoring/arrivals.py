"""Whether the requests of a window came as those of the reference did: how many, when, and once.

Requests have habits: nights are quiet, Saturdays are thin. So a window is compared with the
reference's of the same time of day (and weekday, where there are enough), and silence is measured
in the requests that are usual at that time, not in hours. It refuses to call a quiet window broken
where the reference has no window at that time of day to say what is usual.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.profile.calibration import TIME
from feature_repo.profile.interval import series
from feature_repo.profile.reference import SCORE, Reference
from mlplatform.contracts import Window
from mlplatform.contracts.watch import DataFault

RATE: Final = 0.001
"""Of volume and of silence, each: whole windows that are called faulty, by Student's interval."""
MIN_WINDOWS: Final = 10
"""Of the reference; fewer do not say what is usual."""

_PER_WEEKDAY: Final = 4
"""Windows of each weekday from which on weekdays are told apart."""
_FEW, _MANY = 0.75, 2.0
"""Of the lowest and the highest window of the reference: nearer is never a fault. Requests that
grow are good news until there are twice as many."""
_MISSED: Final = 10
"""Usual requests that a silence must have missed, and this many times those of the longest one:"""
_LONGER: Final = 2.0
_BINS: Final = 96
"""Of a window, for what is usual at a time: quarters of an hour of a day."""
_CLOCK: Final = 4
"""Bins by which clocks are put forward and back in a window of a day."""
_REPEATED: Final = 0.02
"""Share of rows that may repeat others beyond what the reference has: clients try again."""
_HOUR_REPEATED, _HOUR_ROWS = 0.4, 20
"""Of the rows of one hour, from so many on: the hour came twice."""

DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000

Times = npt.NDArray[np.int64]
"""Microseconds since 1970, ascending."""
Floats = npt.NDArray[np.float64]


def microseconds(times: pl.Series) -> Times:
    """Return times as whole microseconds since 1970."""
    return times.dt.epoch("us").to_numpy()


def faults(reference: Reference, rows: pl.DataFrame, window: Window) -> Iterator[DataFault]:
    """Yield what is wrong with the arrival of a window's requests.

    Args:
        reference: Its windows are whole, of the same length, cut at multiples of it.
        rows: Of the archive: `request_id`, `entity`, `event_time`.
        window: Theirs.
    """
    start = round(window.start.timestamp() * 1_000_000)
    length = round((window.end - window.start).total_seconds() * 1_000_000)
    times = np.sort(microseconds(rows["event_time"]))
    past = [
        (at, found - at)
        for at, found in _windows(microseconds(reference.rows[TIME]), length)
        if length >= DAY_US or at % DAY_US == start % DAY_US
    ]
    kept = reference.profile.row_share
    if len(past) >= MIN_WINDOWS:
        counts = np.array([len(offsets) for _, offsets in past]) / kept
        yield from _volume(counts, np.array([at for at, _ in past]), start, len(times))
        if len(times):
            yield from _gap([offsets for _, offsets in past], times - start, length, kept)
    elif not len(times) and length >= DAY_US:
        yield DataFault(kind="volume", subject="requests", why="no request came")
    if len(times):
        yield from _duplicates(reference, rows, length)


def _windows(times: Times, length: int) -> Iterator[tuple[int, Times]]:
    """Yield start and times of each window that has any."""
    numbers, first = np.unique(times // length, return_index=True)
    for number, found in zip(numbers.tolist(), np.split(times, first[1:]), strict=True):
        yield number * length, found


def _volume(counts: Floats, starts: Times, start: int, rows: int) -> Iterator[DataFault]:
    logs = np.log1p(counts)
    weekdays = starts // DAY_US % 7
    middle = float(logs.mean())
    if np.bincount(weekdays, minlength=7).min() >= _PER_WEEKDAY:
        means = np.array([logs[weekdays == day].mean() for day in range(7)])
        middle, logs = float(means[start // DAY_US % 7]), logs - means[weekdays]
    else:
        logs = logs - middle
    usual, found = series(logs), float(np.log1p(rows)) - middle
    fewest, most = float(counts.min()), float(counts.max())
    beyond = found < usual.low(RATE / 2) and rows < _FEW * fewest
    if not beyond and not (found > usual.high(RATE / 2) and rows > _MANY * most):
        return
    why = (
        f"{rows:,} came, {np.expm1(middle):,.0f} are usual, {fewest:,.0f} to "
        f"{most:,.0f} in {len(counts)} windows of the reference"
    )
    yield DataFault(kind="volume", subject="requests", why=why)


def _gap(past: list[Times], offsets: Times, length: int, kept: float) -> Iterator[DataFault]:
    """Compare the longest silence, counted in requests that are usual then.

    A reference of which not all rows were kept looks more silent than it was: it hides gaps.
    """
    bins = [np.minimum(found * _BINS // length, _BINS - 1) for found in past]
    usual = np.bincount(np.concatenate(bins), minlength=_BINS) / (len(past) * kept)
    if length == DAY_US:  # what is usual at every setting of the clocks
        usual = np.min([np.roll(usual, by) for by in range(-_CLOCK, _CLOCK + 1)], axis=0)
    due = np.concatenate([[0.0], np.cumsum(usual)])  # usual requests until the end of each bin
    known = np.array([_longest(found, due, length)[0] for found in past])
    missed, since, until = _longest(offsets, due, length)
    highest = float(known.max())
    bound = float(np.expm1(series(np.log1p(known)).high(RATE)))
    if missed > max(bound, _LONGER * highest, _MISSED):
        why = (
            f"none for {(until - since) / HOUR_US:.1f} h from {_clock(since)} into the window, "
            f"when {missed:,.0f} are usual; never more than {highest:,.0f} were missing before"
        )
        yield DataFault(kind="gap", subject="requests", why=why)


def _longest(offsets: Times, due: Floats, length: int) -> tuple[float, int, int]:
    """Return usual requests, begin and end of the silence that has most of them."""
    edges = np.concatenate([[0], offsets, [length]])
    passed = np.interp(edges * (_BINS / length), np.arange(_BINS + 1), due)
    missed = np.diff(passed)
    at = int(missed.argmax())
    return float(missed[at]), int(edges[at]), int(edges[at + 1])


def _clock(offset: int) -> str:
    minutes = offset // 60_000_000
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _duplicates(reference: Reference, rows: pl.DataFrame, length: int) -> Iterator[DataFault]:
    again = rows.select(
        pl.col("request_id").is_first_distinct().not_()
        | pl.struct("entity", "event_time").is_first_distinct().not_(),
    ).to_series()
    share = float(again.mean() or 0.0)  # type: ignore[arg-type]  # of booleans
    if not share:
        return
    usual = _usually_repeated(reference, length)
    by_hour = (
        rows.select(hour=pl.col("event_time").dt.truncate("1h"), again=again)
        .group_by("hour")
        .agg(pl.len().alias("rows"), pl.col("again").mean().alias("share"))
        .filter(pl.col("rows") >= _HOUR_ROWS)
        .sort("share", "hour", descending=[True, False])
    )
    hourly = by_hour.row(0, named=True) if by_hour.height else None
    twice = hourly is not None and hourly["share"] >= max(_HOUR_REPEATED, 2 * usual)
    if share <= usual + _REPEATED and not twice:
        return
    why = f"{share:.1%} of {rows.height:,} rows repeat another one, {usual:.1%} at most before"
    if hourly is not None and twice:
        why += f"; {hourly['share']:.0%} of the hour from {hourly['hour']:%Y-%m-%d %H:%M}"
    yield DataFault(kind="duplicates", subject="requests", why=why)


def _usually_repeated(reference: Reference, length: int) -> float:
    """Return the highest share of equal rows at one time in a window of the reference."""
    shares = (
        reference.rows.select(
            of=pl.col(TIME).dt.epoch("us") // length,
            again=pl.struct(pl.exclude(SCORE)).hash().is_first_distinct().not_(),
        )
        .group_by("of")
        .agg(pl.col("again").mean())["again"]
    )
    return float(shares.max() or 0.0)  # type: ignore[arg-type]  # of floats
