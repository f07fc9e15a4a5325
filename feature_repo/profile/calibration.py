"""Thresholds of drift, from windows of the reference itself: no change, at the window's size.

Rows of one day share weather, prices, a campaign: a day of real flights lies 0.9 standard
deviations from its year in temperature (median), where 900 independent rows would lie 0.03 away.
So what is compared are whole windows. Each column has several statistics
(`feature_repo.profile.statistics`), and each of them a predictive interval from its values in the
reference's windows (`feature_repo.profile.interval`), at an even share of the asked rate of false
alarms (`feature_repo.profile.thresholds`).

A maximum over standardised statistics (Westfall and Young 1993) would need no curve, but gives all
of them one common factor: on the flights of 2013 the oddest day of one column makes the thresholds
of all others three to twenty times as large. A generalised Pareto tail over the highest windows
needs no curve either, but cannot extrapolate from 90 days to 1 in 10,000: its thresholds find no
day of a July that lies five standard deviations above the quarter before it.

What it cannot do: a change that days of the reference show as well is no drift, and a weather that
is the same for all rows of a day is one observation. `detectable` says how small a shift is seen.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from feature_repo.profile.interval import series
from feature_repo.profile.statistics import MIN_VALUES
from feature_repo.profile.thresholds import MIN_WORTH, family, threshold
from feature_repo.profile.windows import MIN_ROWS, SCORE, TIME, Column, in_windows, whole_windows
from mlplatform.contracts.drift import DriftCalibration
from mlplatform.errors import DataError

__all__ = ["MIN_WINDOWS", "SCORE", "TIME", "calibrate"]

MIN_WINDOWS: Final = 20
"""Of the reference, with values; fewer do not say how windows differ."""

_ENOUGH: Final = 0.75
"""Of the median window's rows, that a window needs to be judged: chance is then a seventh more."""
_ONE_VALUE: Final = 0.9
"""Share of windows that hold one value each, from which a column belongs to the window."""
_FOLDS: Final = 5


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
    windows = list(whole_windows(reference, window_hours, rows, rng))
    if len(windows) < MIN_WINDOWS:
        raise DataError(
            f"the reference holds {len(windows)} windows of {window_hours:g} h with at least "
            f"{MIN_ROWS} rows, and a threshold needs {MIN_WINDOWS}: take a longer reference or "
            "shorter windows"
        )
    names = [name for name in reference.columns if name != TIME]
    if not names:
        raise DataError("the reference holds no column to compare: give it features and the score")
    columns: list[Column] = []
    left_out: dict[str, str] = {}
    for name in names:
        column = in_windows(reference[name], windows)
        if reason := _unfit(column):
            left_out[name] = reason
        else:
            columns.append(column)
    everything = np.ones(len(windows), dtype=np.bool_)
    intervals = family(columns, everything, false_alarm_rate)
    statistics = sum(map(len, intervals))
    each = false_alarm_rate / max(statistics, 1)
    sizes = np.array([len(one) for one in windows])
    return DriftCalibration(
        columns=tuple(
            threshold(one, found, each) for one, found in zip(columns, intervals, strict=True)
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


def _unfit(column: Column) -> str:
    """Return why a column cannot be judged; empty: it can."""
    windows = len(column.single)
    if windows < MIN_WINDOWS:
        return (
            f"{windows} windows of the reference hold at least {MIN_VALUES} values, and a "
            f"threshold needs {MIN_WINDOWS}"
        )
    alone = column.single[~np.isnan(column.single)]
    if len(alone) >= _ONE_VALUE * windows and (worth := series(alone).worth) < MIN_WORTH:
        return (
            f"it holds one value in each window and follows a trend: {windows} windows are worth "
            f"{worth:.1f} independent ones, and a threshold needs {MIN_WORTH:g}"
        )
    return ""


def _held_out_alarms(columns: Sequence[Column], windows: int, rate: float) -> int:
    """Return how many windows exceed thresholds that the other folds gave."""
    fold = np.arange(windows) * _FOLDS // windows
    beyond = np.zeros(windows, dtype=np.bool_)
    for number in range(_FOLDS):
        held = fold == number
        for column, intervals in zip(columns, family(columns, ~held, rate), strict=True):
            for one in intervals:
                values = column.statistics[one.sign]
                with np.errstate(invalid="ignore"):
                    beyond |= held & ((values < one.low) | (values > one.high))
    return int(beyond.sum())
