"""Thresholds of drift, from windows of the reference itself: no change, at the window's size.

Rows of one day share weather, prices, a campaign: a day of real flights lies 0.9 standard
deviations from its year in temperature (median), where 900 independent rows would lie 0.03 away.
So a no-change resample is a whole contiguous window of the reference, compared with the reference
without it; resampling rows would call every day drift.

Each column has two statistics: the distance of its values and the change of its share of nulls;
categories have a third, the share of values that the rest of the reference does not hold. A
statistic's threshold is the level that it exceeds at rate alpha / m, for m statistics: by
Bonferroni's inequality any of them does so at a rate of at most alpha, however they depend on each
other. A hundred windows cannot show a rate of 1 in 10,000; it is extrapolated with a generalised
Pareto tail over the highest fifth of the windows (Pickands 1975, Annals of Statistics 3; Coles
2001, "An Introduction to Statistical Modeling of Extreme Values", chapter 4), fitted by
probability-weighted moments (Hosking and Wallis 1987, Technometrics 29). The tail is taken as
exponential or heavier, and the threshold is never below the highest window of the reference.

Where rows are nearly independent (a flight's distance, not its weather), the windows' distances
are those of rows drawn one by one, times a factor below two. Then as many draws as are wanted show
the tail, and the windows its scale: thresholds are tighter by a fifth to a third.

A maximum over standardised statistics (Westfall and Young 1993) would need no extrapolation, but
gives all columns one common factor: on the flights of 2013 the oddest day of one column (the first
one, a storm) makes the thresholds of all others three to twenty times as large.

What it cannot do: a change that days of the reference show as well is no drift. A quarter that had
a cold snap does not tell a warm day from it at 1 in 10,000; features that are the same for all rows
of a day have as many observations as there are days.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.contracts.drift import ColumnThreshold, DriftCalibration, DriftMethod
from mlplatform.errors import DataError
from monitoring.distances import Values, choose, clean, distance, distinct, smallest

TIME: Final = "event_timestamp"
"""Column of the reference that says which rows belong to one window; never compared itself."""

MIN_ROWS: Final = 30
"""Of a window; fewer say nothing about a distribution."""
MIN_WINDOWS: Final = 20
"""Of the reference; the tail of fewer cannot be fitted."""

MIN_SHARE: Final = 0.03
"""Of rows: a change of nulls or new categories below it never counts, however rare it is."""
MIN_MOVED: Final = 0.01
"""Of rows: a distance of categories that so many in a new one give never counts."""

_TAIL: Final = 0.2
"""Share of windows above the level from which the tail is fitted."""
_MIN_TAIL: Final = 5
_HEAVIEST: Final = 0.5
"""Shape from which a tail's variance is infinite."""
_FOLDS: Final = 5
_DRAWS: Final = 400
"""Of independent rows, to see the tail of a column whose rows are nearly independent."""
_NEARLY: Final = 2.0
"""Windows this many times as far away as drawn rows: their rows are not independent."""
_LEVELS: Final = (0.5, 0.8, 0.95)
"""Quantiles at which windows and drawn rows are compared."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Statistics:
    """Of one column in each window of the reference, [W]; NaN where a window has no value."""

    column: str
    method: DriftMethod
    distance: Floats
    nulls: Floats
    new_categories: Floats
    drawn: Floats
    """Distances of independent rows, [_DRAWS]; empty where rows depend on each other."""

    def without(self, left_out: npt.NDArray[np.bool_]) -> "_Statistics":
        return replace(
            self,
            distance=self.distance[~left_out],
            nulls=self.nulls[~left_out],
            new_categories=self.new_categories[~left_out],
        )

    def beyond(self, threshold: ColumnThreshold) -> npt.NDArray[np.bool_]:
        """Return which windows exceed a threshold, [W]."""
        with np.errstate(invalid="ignore"):
            return (
                (self.distance > threshold.distance)
                | (self.nulls > threshold.nulls)
                | (self.new_categories > threshold.new_categories)
            )


def calibrate(
    reference: pl.DataFrame,
    *,
    window_hours: float,
    false_alarm_rate: float,
    rows: int | None = None,
    seed: int = 0,
) -> DriftCalibration:
    """Return the thresholds of all columns but `event_timestamp`.

    Args:
        reference: Features and score of the training set: whole windows, as dense as the traffic.
            A sample takes windows, not rows: thinner ones are noisier and their thresholds wide.
        window_hours: Length of the windows that will be judged.
        false_alarm_rate: Per window, over all columns.
        rows: Of the windows that will be judged, if fewer than those of the reference: these are
            then thinned at random.
        seed: Of the thinning and the draws.

    Raises:
        DataError: The reference has no times, no columns or too few windows.
    """
    rng = np.random.default_rng(seed)
    windows = list(_windows(reference, window_hours, rows, rng))
    if len(windows) < MIN_WINDOWS:
        raise DataError(
            f"the reference holds {len(windows)} windows of {window_hours:g} h with at least "
            f"{MIN_ROWS} rows, and a threshold needs {MIN_WINDOWS}: take a longer reference or "
            "shorter windows"
        )
    columns = [name for name in reference.columns if name != TIME]
    if not columns:
        raise DataError("the reference holds no column to compare: give it features and the score")
    found = [_statistics(reference[name], windows, rng) for name in columns]
    rate = false_alarm_rate / sum(3 if one.method == "jensenshannon" else 2 for one in found)
    sizes = np.array([len(one) for one in windows])
    return DriftCalibration(
        columns=tuple(_threshold(one, rate) for one in found),
        window_hours=window_hours,
        rows=int(np.median(sizes)),
        min_rows=max(MIN_ROWS, int(np.min(sizes))),
        windows=len(windows),
        false_alarm_rate=false_alarm_rate,
        held_out_alarms=_held_out_alarms(found, rate),
    )


def tail_threshold(sample: Floats, rate: float, lightest: float = 0.0) -> float:
    """Return the level that is exceeded at a rate, extrapolated beyond the sample.

    Args:
        sample: One value for each window, [W]; NaN is left out.
        rate: Between 0 and the share of the tail.
        lightest: Shape of the lightest tail that is believed: 0 exponential, -0.5 bounded.
    """
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return 0.0
    highest = float(sample.max())
    level = float(np.quantile(sample, 1 - _TAIL))
    excess = np.sort(sample[sample > level] - level)
    if len(excess) < _MIN_TAIL:  # a few odd windows: what they show may happen half as much again
        return level + 1.5 * (highest - level)
    mean = float(excess.mean())
    weighted = float(np.sum(excess * (1 - (np.arange(len(excess)) + 0.65) / len(excess))))
    weighted /= len(excess)
    shape = float(np.clip(2 - mean / max(mean - 2 * weighted, 1e-12), lightest, _HEAVIEST))
    scale = mean * (1 - shape)
    times = len(excess) / len(sample) / rate
    growth = np.log(times) if abs(shape) < 1e-6 else (times**shape - 1) / shape  # noqa: PLR2004  # limit
    return max(highest, level + scale * float(growth))


def _windows(
    reference: pl.DataFrame, window_hours: float, rows: int | None, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the rows of each whole window; a new one starts every day, or after a shorter one."""
    if TIME not in reference.columns or reference[TIME].null_count():
        raise DataError(f"the reference needs a time in {TIME} for each row: it says the window")
    times = reference[TIME]
    length = timedelta(hours=window_hours)
    at, last = times.min(), times.max()
    order = times.arg_sort().to_numpy().astype(np.intp)
    times = times.gather(order)
    while isinstance(at, datetime) and isinstance(last, datetime) and at + length <= last:
        first, end = (times.search_sorted(edge, side="left") for edge in (at, at + length))
        found = order[first:end]
        if rows is not None and len(found) > rows:
            found = rng.choice(found, rows, replace=False)
        if len(found) >= MIN_ROWS:
            yield found
        at += min(length, timedelta(days=1))


def _statistics(
    column: pl.Series, windows: list[npt.NDArray[np.intp]], rng: np.random.Generator
) -> _Statistics:
    method = choose(column)
    column = clean(column, method)
    values = distinct(column)
    held = ~column.is_null().to_numpy()
    code = np.zeros(len(column), dtype=np.intp)
    code[held] = np.searchsorted(values, column.drop_nulls().to_numpy())
    whole = np.bincount(code[held], minlength=len(values))
    found = np.full((3, len(windows)), np.nan)
    for number, places in enumerate(windows):
        kept = held[places]
        others = max(len(column) - len(places), 1)
        missing = len(places) - kept.sum()
        found[1, number] = abs(
            missing / len(places) - (len(column) - held.sum() - missing) / others
        )
        inside = np.bincount(code[places[kept]], minlength=len(values))
        outside = whole - inside
        if kept.any() and outside.any():
            found[0, number] = distance(method, values, outside, inside)
            if method == "jensenshannon":
                found[2, number] = inside[outside == 0].sum() / kept.sum()
    size = int(np.median([held[places].sum() for places in windows]))
    drawn = _draws(method, values, code[held], size, rng) if size else iter(())
    sample = np.fromiter(itertools.islice(drawn, _DRAWS // 10), float)
    if len(sample) and np.nanmedian(found[0]) < _NEARLY * np.median(sample):
        more = np.fromiter(itertools.islice(drawn, _DRAWS - len(sample)), float)
        sample = np.concatenate([sample, more])
    else:
        sample = np.empty(0)
    return _Statistics(column.name, method, found[0], found[1], found[2], sample)


def _draws(
    method: DriftMethod,
    values: Values,
    code: npt.NDArray[np.intp],
    size: int,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Yield distances of rows drawn one by one, without end."""
    whole = np.bincount(code, minlength=len(values))
    while True:
        inside = np.bincount(code[rng.integers(0, len(code), size)], minlength=len(values))
        yield distance(method, values, whole, inside)


def _far(one: _Statistics, rate: float) -> float:
    """Return the distance that windows exceed at a rate."""
    windows = one.distance[~np.isnan(one.distance)]
    if len(one.drawn) and len(windows):
        scales = np.quantile(windows, _LEVELS) / np.maximum(np.quantile(one.drawn, _LEVELS), 1e-12)
        if scales.max() < _NEARLY:
            far = float(scales.max()) * tail_threshold(one.drawn, rate, lightest=-_HEAVIEST)
            return max(far, float(windows.max()))
    return tail_threshold(windows, rate)


def _threshold(one: _Statistics, rate: float) -> ColumnThreshold:
    tiny = max(smallest(one.method, MIN_MOVED), 1e-9)
    return ColumnThreshold(
        column=one.column,
        method=one.method,
        distance=max(_far(one, rate), tiny),
        nulls=max(tail_threshold(one.nulls, rate), MIN_SHARE),
        new_categories=max(tail_threshold(one.new_categories, rate), MIN_SHARE),
    )


def _held_out_alarms(found: list[_Statistics], rate: float) -> int:
    """Return how many windows exceed thresholds that the other folds gave."""
    windows = len(found[0].distance)
    fold = np.arange(windows) * _FOLDS // windows
    alarms = 0
    for number in range(_FOLDS):
        held = fold == number
        beyond = [one.beyond(_threshold(one.without(held), rate)) for one in found]
        alarms += int((np.any(beyond, axis=0) & held).sum())
    return alarms
