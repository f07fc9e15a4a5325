"""What a window's values are like in whole and by quarter, and values that nobody measured.

A feed breaks at any hour: what half a day holds must not be averaged with the other half. So each
window is described as a whole and in quarters of its time, and each of these is compared with the
same stretch of the reference's windows. Nulls and constants are called faults only where they are
far beyond the oddest stretch of the reference; less is drift, and judged as such.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mlplatform.contracts.watch import DataFault
from monitoring.arrivals import MIN_WINDOWS, Times

QUARTERS: Final = 4
MIN_ROWS: Final = 30
"""Of a stretch; fewer say nothing about its shares."""
_THIN: Final = 0.2
"""Share of a window's rows below which a quarter is not looked at: in the first hour of a morning
all rows have the same weather, and what waited over night."""

LEVELS: Final = (np.arange(19) + 1) / 20
"""Quantiles of a stretch's curve."""

_ODDS: Final = 10.0
_POINTS: Final = 0.2
_RARE: Final = 0.5
"""A share jumps when its odds are tenfold those of the highest one known, it is 20 points above,
and the highest one known is no majority: what most rows had once, all may have one day. Twice as
many nulls never are a jump, as long as fewer than 44 % are usual."""
_ALWAYS: Final = 0.9
"""Of the reference's windows with one and the same most frequent value: it is the usual one."""
_ALL: Final = 0.99
"""Of a window's rows: so many hold a constant that is judged by its value, not only by its share.
Two categories that were swapped are fewer."""

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
"""[N, F]; NaN where there is no value."""


@dataclass(frozen=True)
class Stretch:
    """F features in the rows of one stretch of time.

    Attributes:
        rows: How many.
        nulls: Share of them without a value, [F].
        constant: The most frequent value, [F]; NaN: there is none.
        frequent: Share of rows that hold it, [F].
        curve: Values at `LEVELS`, [F, Q]; NaN where fewer than `MIN_ROWS` rows have one.
    """

    rows: int
    nulls: Floats
    constant: Floats
    frequent: Floats
    curve: Floats


@dataclass(frozen=True)
class Known:
    """The same stretch of the W windows of the reference: fields of `Stretch`, [W, ...]."""

    nulls: Floats
    constant: Floats
    frequent: Floats
    curve: Floats


def describe(values: Matrix) -> Stretch:
    """Return what the rows of a stretch hold; there is at least one."""
    rows = len(values)
    ordered = np.sort(values.T, axis=1)  # NaN last
    held = rows - np.isnan(ordered).sum(axis=1)
    place = np.arange(rows)
    first = np.ones(ordered.shape, dtype=np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = place - np.maximum.accumulate(np.where(first, place, 0), axis=1) + 1
    features = np.arange(len(ordered))
    longest = run.argmax(axis=1)
    at = np.rint(LEVELS * np.maximum(held - 1, 0)[:, None]).astype(np.intp)
    curve = ordered[features[:, None], at].astype(np.float64)
    curve[held < MIN_ROWS] = np.nan
    return Stretch(
        rows=rows,
        nulls=1 - held / rows,
        constant=ordered[features, longest].astype(np.float64),
        frequent=np.where(held, run[features, longest] / rows, 0.0),
        curve=curve,
    )


def stretches(times: Times, values: Matrix, start: int, length: int) -> dict[int, Matrix]:
    """Return the rows of a window by stretch, those with enough of them.

    Args:
        times: Of the rows, ascending, [N].
        values: [N, F].
        start: Of the window, microseconds since 1970.
        length: Microseconds.

    Returns:
        0: the whole window; 1 to 4: its quarters.
    """
    edges = start + np.arange(QUARTERS + 1) * length // QUARTERS
    parts = np.split(values, np.searchsorted(times, edges[1:-1]))
    least = max(MIN_ROWS, _THIN * len(values))
    return {place: rows for place, rows in enumerate([values, *parts]) if len(rows) >= least}


def known(times: Times, values: Matrix, length: int) -> dict[int, Known]:
    """Return what the reference's windows hold by stretch, where enough of them do.

    Args:
        times: Of the reference's rows, ascending, [N].
        values: [N, F].
        length: Of a window, microseconds; windows begin at multiples of it.
    """
    numbers, first = np.unique(times // length, return_index=True)
    found: dict[int, list[Stretch]] = {place: [] for place in range(QUARTERS + 1)}
    pairs = zip(np.split(times, first[1:]), np.split(values, first[1:]), strict=True)
    for number, (when, rows) in zip(numbers.tolist(), pairs, strict=True):
        for place, part in stretches(when, rows, number * length, length).items():
            found[place].append(describe(part))
    return {
        place: Known(
            nulls=np.array([one.nulls for one in parts]),
            constant=np.array([one.constant for one in parts]),
            frequent=np.array([one.frequent for one in parts]),
            curve=np.array([one.curve for one in parts]),
        )
        for place, parts in found.items()
        if len(parts) >= MIN_WINDOWS
    }


def jumped(share: float, highest: float, rows: int) -> bool:
    """Return whether a share of so many rows is far beyond the highest one known."""
    share, most = min(share, 1 - 0.5 / rows), max(highest, 0.5 / rows)
    if not most < min(share, _RARE):
        return False
    return share - highest >= _POINTS and share / (1 - share) >= _ODDS * most / (1 - most)


def missing(
    names: Sequence[str], found: Mapping[int, Stretch], past: Mapping[int, Known]
) -> Iterator[DataFault]:
    """Yield the features whose values are missing, each once."""

    def judge(place: int, feature: int) -> str:
        stretch = found[place]
        share, highest = float(stretch.nulls[feature]), float(past[place].nulls[:, feature].max())
        if not jumped(share, highest, stretch.rows):
            return ""
        return f"{share:.1%} of {stretch.rows:,} rows have no value, {highest:.1%} at most before"

    for feature, why in _first(len(names), found, past, judge):
        yield DataFault(kind="nulls", subject=names[feature], why=why)


def constants(
    names: Sequence[str],
    found: Mapping[int, Stretch],
    past: Mapping[int, Known],
    defaults: Mapping[str, float],
) -> Iterator[DataFault]:
    """Yield the features in which one constant stands where the reference has many, each once.

    A value that is usual (no rain, nothing cancelled) may be so in every row. Where another one is,
    it is compared with the most frequent ones besides.
    """

    def judge(place: int, feature: int) -> str:
        stretch = found[place]
        value, share = float(stretch.constant[feature]), float(stretch.frequent[feature])
        by_value = not place and share >= _ALL
        highest = _highest(past[place], feature, value, by_value=by_value)
        if not jumped(share, highest, stretch.rows):
            return ""
        declared = defaults.get(names[feature])
        says = "the declared default " if declared == value else ""
        return (
            f"{says}{value:.6g} stands in {share:.1%} of {stretch.rows:,} rows; no such value was "
            f"in more than {highest:.1%} before"
        )

    for feature, why in _first(len(names), found, past, judge):
        yield DataFault(kind="defaults", subject=names[feature], why=why)


def _highest(past: Known, feature: int, value: float, *, by_value: bool) -> float:
    """Return the highest share that a value had in the reference; by value: one like this."""
    tops, shares = past.constant[:, feature], past.frequent[:, feature]
    held, counts = np.unique(tops[~np.isnan(tops)], return_counts=True)
    if not len(held):
        return 0.0
    usual = held[counts.argmax()]
    if not by_value or counts.max() < _ALWAYS * len(tops) or value == usual:
        return float(shares.max())
    # Where the usual value leads, another one has at most what is left, and less than it.
    rest = np.minimum(shares, 1 - past.nulls[:, feature] - shares)
    return float(np.where(tops == usual, rest, shares).max())


def _first(
    features: int,
    found: Mapping[int, Stretch],
    past: Mapping[int, Known],
    judge: Callable[[int, int], str],
) -> Iterator[tuple[int, str]]:
    """Yield each feature of which a stretch tells something, with what the first one tells."""
    for feature in range(features):
        told = ((place, judge(place, feature)) for place in sorted(found) if place in past)
        place, why = next(((place, why) for place, why in told if why), (0, ""))
        if why:
            yield feature, why if not place else f"{why} (quarter {place} of the window)"
