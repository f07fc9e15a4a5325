"""Intervals of the statistics that a column has in windows, and the threshold that they make.

The asked rate of false alarms is shared out evenly among the statistics: by Bonferroni's inequality
any of them alarms at no more than the whole rate, however they depend on each other. A statistic
whose interval holds all that is possible (any share of nulls) cannot alarm and takes no share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt

from feature_repo.profile.distances import smallest
from feature_repo.profile.interval import Series, series
from feature_repo.profile.statistics import Known, scaled, unscaled
from feature_repo.profile.windows import Column
from mlplatform.contracts.drift import ColumnThreshold, DriftInterval, DriftSign

MIN_MEAN: Final = 0.05
"""Standard deviations of the reference's values: a smaller shift never counts, however rare."""
MIN_SPREAD: Final = 0.05
"""Of the usual spread: a smaller change of it never counts."""
MIN_NULLS: Final = 0.03
"""Of rows: a smaller change of the share of nulls never counts; a sensor is away for an hour."""
MIN_SHARE: Final = 0.01
"""Of rows: a smaller change of other shares never counts, nor a distance that it gives."""
MIN_WORTH: Final = 5.0
"""Independent windows; a statistic whose windows are worth fewer follows a trend (a month, a
window of 30 days that is still filling), and where it goes next cannot be told."""

_ERRORS_OF_MEAN: Final = 1.0
_ERRORS: Final = 2.0
"""Standard errors by which the kurtosis of the windows' statistics is taken higher than it looks. A
mean is smoother than the others. `bench/drift` measures the alarms that this leaves."""
_ROUNDING: Final = 1e-9
"""Of the way to an end: what the scales and the order of rows may change of a statistic."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
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


def family(columns: Sequence[Column], kept: Flags, rate: float) -> list[list[Interval]]:
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
            if len(held := values[kept & ~np.isnan(values)]) >= MIN_WORTH
            and (found := series(held, errors=_errors(one, sign))).worth >= MIN_WORTH
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


def _errors(column: Column, sign: DriftSign) -> float | None:
    if sign in column.normal:
        return None
    return _ERRORS_OF_MEAN if sign == "mean" else _ERRORS


def _interval(known_as: Known, sign: DriftSign, of: Series, rate: float) -> Interval:
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
        return Interval(sign, of, -np.inf, high)
    below = usual - least if sign == "mean" else max(usual - least, 0.0)
    low = min(of.low(rate / 2), scaled(sign, below))
    return Interval(sign, of, low, high)


def _can_alarm(one: Interval) -> bool:
    """Return whether anything that is possible lies outside."""
    if one.sign in {"mean", "spread", "distribution"}:
        return True
    return one.low > 0 or one.high < np.pi / 2


def threshold(column: Column, intervals: Sequence[Interval], rate: float) -> ColumnThreshold:
    """Return how a column is judged.

    Args:
        column: With a distance in at least two windows.
        intervals: Its own of the family.
        rate: Of false alarms per window and statistic.
    """
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
