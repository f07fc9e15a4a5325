"""Thresholds of drift, from windows of the reference itself: no change, at the window's size.

Rows of one day share weather, prices, a campaign: a day of real flights lies 0.9 standard
deviations from its year in temperature (median), where 900 independent rows would lie 0.03 away.
So what is compared are whole windows. Each column has several statistics
(`feature_repo.profile.statistics`), and each of them a predictive interval from its values in the
reference's windows (`feature_repo.profile.interval`).

The asked rate of false alarms is shared out evenly among the statistics: by Bonferroni's inequality
any of them alarms at no more than the whole rate, however they depend on each other. A statistic
whose interval holds all that is possible (any share of nulls) cannot alarm and takes no share.

A maximum over standardised statistics (Westfall and Young 1993) would need no curve, but gives all
of them one common factor: on the flights of 2013 the oddest day of one column makes the thresholds
of all others three to twenty times as large. A generalised Pareto tail over the highest windows
needs no curve either, but cannot extrapolate from 90 days to 1 in 10,000: its thresholds find no
day of a July that lies five standard deviations above the quarter before it.

What it cannot do: a change that days of the reference show as well is no drift, and a weather that
is the same for all rows of a day is one observation. `detectable` says how small a shift is seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.profile.distances import choose, distance, smallest
from feature_repo.profile.interval import Series, series
from feature_repo.profile.statistics import (
    MIN_VALUES,
    Known,
    chance,
    known,
    measure,
    scaled,
    unscaled,
)
from mlplatform.contracts.drift import (
    ColumnThreshold,
    DriftCalibration,
    DriftInterval,
    DriftSign,
)
from mlplatform.errors import DataError

TIME: Final = "event_timestamp"
"""Column of the reference that says which rows belong to one window; never compared itself."""
SCORE: Final = "score"
"""Column of the model's probability. A null says that this model gave none, not that it is lost:
only rows with a score count."""

MIN_ROWS: Final = MIN_VALUES
"""Of a window."""
MIN_WINDOWS: Final = 20
"""Of the reference, with values; fewer do not say how windows differ."""

MIN_MEAN: Final = 0.05
"""Standard deviations of the reference's values: a smaller shift never counts, however rare."""
MIN_SPREAD: Final = 0.05
"""Of the usual spread: a smaller change of it never counts."""
MIN_NULLS: Final = 0.03
"""Of rows: a smaller change of the share of nulls never counts; a sensor is away for an hour."""
MIN_SHARE: Final = 0.01
"""Of rows: a smaller change of other shares never counts, nor a distance that it gives."""

_FULL: Final = 0.5
"""Of the median window's rows; one with fewer was cut off by an outage or the reference's end."""
_ENOUGH: Final = 0.75
"""Of the median window's rows, that a window needs to be judged: chance is then a seventh more."""
_NEARLY: Final = 2.5
"""Windows this many times as far apart as those of independent rows are nearly independent."""
_MIN_WORTH: Final = 5.0
"""Independent windows; a statistic whose windows are worth fewer follows a trend (a month, a
window of 30 days that is still filling), and where it goes next cannot be told."""
_ONE_VALUE: Final = 0.9
"""Share of windows that hold one value each, from which a column belongs to the window."""
_ERRORS_OF_MEAN: Final = 1.0
_ERRORS: Final = 2.0
"""Standard errors by which the kurtosis of the windows' statistics is taken higher than it looks. A
mean is smoother than the others. `bench/drift` measures the alarms that this leaves."""
_ROUNDING: Final = 1e-9
"""Of the way to an end: what the scales and the order of rows may change of a statistic."""
_FOLDS: Final = 5

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Column:
    """A column in each window of the reference.

    Attributes:
        name: Of the column.
        known: All of it.
        statistics: [W] on their scales; NaN where a window has none.
        normal: Those whose windows differ little more than independent rows would make them.
        single: For each window with enough values: the place of its only value, or NaN.
    """

    name: str
    known: Known
    statistics: dict[DriftSign, Floats]
    normal: frozenset[DriftSign]
    single: Floats


@dataclass(frozen=True)
class _Interval:
    """Both ends of a statistic's interval, on its scale."""

    sign: DriftSign
    of: Series
    low: float
    high: float

    def told(self) -> DriftInterval:
        """Return it in the statistic's unit; an end beyond what is possible is none."""
        bounded = self.sign != "mean"
        share = self.sign not in {"mean", "spread", "distribution"}
        middle = self.of.middle
        low, high = (middle + (end - middle) * (1 + _ROUNDING) for end in (self.low, self.high))
        return DriftInterval(
            sign=self.sign,
            usual=unscaled(self.sign, middle),
            low=None if bounded and low <= 0 else unscaled(self.sign, low),
            high=None if share and high >= np.pi / 2 else unscaled(self.sign, high),
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

    From 90 windows on the intervals are hardly wider than from ever so many; from 60 they find a
    little less, and below `MIN_WINDOWS` there are none.

    Args:
        reference: Features and score of the training set: whole windows, as dense as the traffic;
            the very rows that windows will be compared with. A sample takes windows, not rows:
            thinner ones are noisier and their thresholds wide.
        window_hours: Length of the windows that will be judged, aligned to multiples of it since
            1970 UTC.
        false_alarm_rate: Per window, over all columns.
        rows: Of the windows that will be judged, if fewer than those of the reference: these are
            then thinned at random.
        seed: Of the thinning.

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
    names = [name for name in reference.columns if name != TIME]
    if not names:
        raise DataError("the reference holds no column to compare: give it features and the score")
    columns: list[_Column] = []
    left_out: dict[str, str] = {}
    for name in names:
        column = _column(reference[name], windows)
        if reason := _unfit(column):
            left_out[name] = reason
        else:
            columns.append(column)
    everything = np.ones(len(windows), dtype=np.bool_)
    intervals = _family(columns, everything, false_alarm_rate)
    statistics = sum(map(len, intervals))
    each = false_alarm_rate / max(statistics, 1)
    sizes = np.array([len(one) for one in windows])
    return DriftCalibration(
        columns=tuple(
            _threshold(one, found, each) for one, found in zip(columns, intervals, strict=True)
        ),
        left_out=left_out,
        window_hours=window_hours,
        rows=int(np.median(sizes)),
        min_rows=max(MIN_ROWS, int(min(np.min(sizes), _ENOUGH * np.median(sizes)))),
        windows=len(windows),
        false_alarm_rate=false_alarm_rate,
        statistics=statistics,
        held_out_alarms=_held_out_alarms(columns, len(windows), false_alarm_rate),
    )


def _windows(
    reference: pl.DataFrame, window_hours: float, rows: int | None, rng: np.random.Generator
) -> Iterator[Places]:
    """Yield the rows of each whole window, in the order of time."""
    if TIME not in reference.columns or reference[TIME].null_count():
        raise DataError(f"the reference needs a time in {TIME} for each row: it says the window")
    if not reference.height:
        return
    of = reference[TIME].dt.epoch("us").to_numpy() // round(window_hours * 3_600_000_000)
    order = np.argsort(of, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(of[order])) + 1)
    enough = max(MIN_ROWS, _FULL * float(np.median([len(one) for one in found])))
    for one in found:
        if len(one) >= enough:
            yield one if rows is None or len(one) <= rows else rng.choice(one, rows, replace=False)


def _column(column: pl.Series, windows: Sequence[Places]) -> _Column:
    of = known(column, choose(column))
    signs: list[DriftSign] = ["mean", "spread", "low_tail", "high_tail", "nulls", "distribution"]
    if not of.numeric:
        signs = ["nulls", "distribution", "new_categories"]
    if column.name == SCORE:
        signs.remove("nulls")
    found = {sign: np.full(len(windows), np.nan) for sign in signs}
    sizes, single = [0], []
    for number, places in enumerate(windows):
        window = of.column.gather(places)
        told = measure(of, window)
        held = window.drop_nulls().to_numpy()
        inside = np.bincount(np.searchsorted(of.values, held), minlength=len(of.values))
        others = of.counts - inside
        if len(held) >= MIN_VALUES and others.any():
            told["distribution"] = distance(of.method, of.values, others, inside)
            if not of.numeric:  # the categories that no other window holds
                told["new_categories"] = float(inside[others == 0].sum()) / len(held)
            sizes.append(len(held))
            single.append(float(np.argmax(inside)) if np.count_nonzero(inside) == 1 else np.nan)
        for sign in found.keys() & told.keys():
            found[sign][number] = scaled(sign, told[sign])
    normal = _normal(found, chance(of, int(np.median(sizes[1:] or [1]))))
    for sign in ("low_tail", "high_tail"):
        if sign not in normal:  # the days decide how many rows lie there: the mean's own question
            found.pop(sign, None)
    return _Column(column.name, of, found, normal, np.array(single))


def _normal(
    found: Mapping[DriftSign, Floats], by_chance: Mapping[DriftSign, float]
) -> frozenset[DriftSign]:
    """Return the statistics that rows decide, not days: none where days decide the mean."""
    near = {
        sign
        for sign, values in found.items()
        if sign in by_chance and _spread(values) < _NEARLY * by_chance[sign]
    }
    return frozenset(near if "mean" in near or "mean" not in found else ())


def _spread(values: Floats) -> float:
    held = values[~np.isnan(values)]
    return float(held.std(ddof=1)) if len(held) > 1 else np.inf


def _unfit(column: _Column) -> str:
    """Return why a column cannot be judged; empty: it can."""
    windows = len(column.single)
    if windows < MIN_WINDOWS:
        return (
            f"{windows} windows of the reference hold at least {MIN_VALUES} values, and a "
            f"threshold needs {MIN_WINDOWS}"
        )
    alone = column.single[~np.isnan(column.single)]
    if len(alone) >= _ONE_VALUE * windows and (worth := series(alone).worth) < _MIN_WORTH:
        return (
            f"it holds one value in each window and follows a trend: {windows} windows are worth "
            f"{worth:.1f} independent ones, and a threshold needs {_MIN_WORTH:g}"
        )
    return ""


def _family(columns: Sequence[_Column], kept: Flags, rate: float) -> list[list[_Interval]]:
    """Return the intervals of all statistics that can alarm, at a rate over all columns.

    Args:
        columns: Of the reference.
        kept: Windows that the intervals are made from, [W].
        rate: Of false alarms per window.
    """
    described = [
        {
            sign: found
            for sign, values in one.statistics.items()
            if len(held := values[kept & ~np.isnan(values)]) >= _MIN_WORTH
            and (found := series(held, errors=_errors(one, sign))).worth >= _MIN_WORTH
        }
        for one in columns
    ]
    while True:
        each = rate / max(sum(map(len, described)), 1)
        intervals = [
            [_interval(column.known, sign, one, each) for sign, one in by_sign.items()]
            for column, by_sign in zip(columns, described, strict=True)
        ]
        able = [{one.sign: one.of for one in found if _can_alarm(one)} for found in intervals]
        if able == described:
            return intervals
        described = able  # fewer, so that each has a larger share


def _errors(column: _Column, sign: DriftSign) -> float | None:
    if sign in column.normal:
        return None
    return _ERRORS_OF_MEAN if sign == "mean" else _ERRORS


def _interval(known_as: Known, sign: DriftSign, of: Series, rate: float) -> _Interval:
    """Return the ends at a rate, never closer to the middle than a change that matters."""
    usual = unscaled(sign, of.middle)
    two_sided = sign in {"mean", "spread", "nulls"}
    match sign:
        case "mean":
            least = MIN_MEAN * known_as.std
        case "spread":
            least = MIN_SPREAD * usual
        case "nulls":
            least = MIN_NULLS
        case "low_tail" | "high_tail" | "new_categories":
            least = MIN_SHARE
        case "distribution":
            least = max(smallest(known_as.method, MIN_SHARE) - usual, 0.0)
        case _:
            assert_never(sign)
    high = max(of.high(rate / (1 + two_sided)), scaled(sign, usual + least))
    if not two_sided:
        return _Interval(sign, of, -np.inf, high)
    below = usual - least if sign == "mean" else max(usual - least, 0.0)
    low = min(of.low(rate / 2), scaled(sign, below))
    return _Interval(sign, of, low, high)


def _can_alarm(one: _Interval) -> bool:
    """Return whether anything that is possible lies outside."""
    if one.sign in {"mean", "spread", "distribution"}:
        return True
    return one.low > 0 or one.high < np.pi / 2


def _threshold(column: _Column, intervals: Sequence[_Interval], rate: float) -> ColumnThreshold:
    by_sign = {one.sign: one for one in intervals}
    seen = None
    if (mean := by_sign.get("mean")) is not None:
        width = max(mean.high - mean.of.middle, mean.of.middle - mean.low)
        seen = mean.of.detectable(width) / column.known.std
    apart = column.statistics["distribution"]
    described = series(apart[~np.isnan(apart)])
    # Evidently's own test needs a threshold where the statistic follows a trend, too.
    far = by_sign.get("distribution") or _interval(column.known, "distribution", described, rate)
    return ColumnThreshold(
        column=column.name,
        method=column.known.method,
        distance=max(unscaled("distribution", far.high), 1e-9),
        intervals=tuple(one.told() for one in intervals),
        tails=column.known.tails,
        windows=described.count,
        worth=(mean.of if mean is not None else described).worth,
        detectable=seen,
    )


def _held_out_alarms(columns: Sequence[_Column], windows: int, rate: float) -> int:
    """Return how many windows exceed thresholds that the other folds gave."""
    fold = np.arange(windows) * _FOLDS // windows
    beyond = np.zeros(windows, dtype=np.bool_)
    for number in range(_FOLDS):
        held = fold == number
        for column, intervals in zip(columns, _family(columns, ~held, rate), strict=True):
            for one in intervals:
                values = column.statistics[one.sign]
                with np.errstate(invalid="ignore"):
                    beyond |= held & ((values < one.low) | (values > one.high))
    return int(beyond.sum())
