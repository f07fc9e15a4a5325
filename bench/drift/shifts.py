"""Shifts that are planted in days, and in which columns each can be told from chance.

A shift of a fifth of a standard deviation is planted where rows differ from each other and days
hardly do, and where the calibration says that it sees one. Where a day has one value for all its
rows (the weather) it is invisible in three days; there half as much again is planted as the
calibration says it sees. Beyond five standard deviations nothing is planted: a column that moves
so far is broken, and what smaller shifts it cannot show is said instead (`unseen`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from bench.drift.data import ROWS, TIME, Days
from mlplatform.contracts.drift import ColumnThreshold, DriftCalibration

_ROWWISE: Final = 1.5 / np.sqrt(ROWS)
"""Standard deviation of the days' means over that of the rows, up to which rows decide: half as
much again as of independent rows. A fifth of a standard deviation is then four of the days'."""
_MORE: Final = 1.5
_SMALL: Final = 0.2
_FARTHEST: Final = 5.0
"""Standard deviations; beyond, a shift is a breakage."""
_NULLS: Final = (0.03, 0.45)
"""Shares of nulls that can be doubled, and whose double is more than chance."""

Plant = Callable[[pl.DataFrame, pl.DataFrame, np.random.Generator], pl.DataFrame]
"""From a day, the reference and a source of chance to the day with the shift."""


@dataclass(frozen=True)
class Shift:
    """One change of one column."""

    name: str
    column: str
    plant: Plant


def shifts(days: Days, calibration: DriftCalibration) -> Iterator[Shift]:
    """Yield what is planted in a source's days."""
    for one in calibration.columns:
        if one.method == "jensenshannon":
            if one.column in {"carrier", "flag"}:
                yield Shift("two categories swapped", one.column, _swap(one.column))
        elif one.detectable is None:
            continue
        elif between(days.reference, one.column) <= _ROWWISE and one.detectable <= _SMALL:
            yield from _of_rows(one.column)
        elif _MORE * one.detectable <= _FARTHEST:
            yield _of_days(one, one.detectable)
        share = days.reference[one.column].fill_nan(None).null_count() if _floats(days, one) else 0
        rows = days.reference.height
        if _NULLS[0] < share / rows < _NULLS[1] and _seen(one, 2 * share / rows):
            yield Shift("null share x 2", one.column, _nulls(one.column, share / rows))


def unseen(calibration: DriftCalibration) -> str:
    """Return the columns in which no shift is planted, with the smallest that each would show."""
    far = {
        one.column: one.detectable
        for one in calibration.columns
        if one.detectable is not None and _MORE * one.detectable > _FARTHEST
    }
    return ", ".join(f"{name} {seen:.1f}" for name, seen in far.items()) or "none"


def between(reference: pl.DataFrame, name: str) -> float:
    """Return the standard deviation of the days' means over that of the rows."""
    value = pl.col(name).fill_nan(None)
    days = reference.group_by(pl.col(TIME).dt.date()).agg(value.mean())
    return float(days[name].std()) / _std(reference, name)  # type: ignore[arg-type]  # numbers


def _floats(days: Days, one: ColumnThreshold) -> bool:
    return days.reference[one.column].dtype.is_float()


def _seen(one: ColumnThreshold, share: float) -> bool:
    """Return whether a share of nulls is beyond what days of the reference show anyway."""
    high = next((i.high for i in one.intervals if i.sign == "nulls"), None)
    return high is not None and share > high


def _of_rows(name: str) -> Iterator[Shift]:
    def mean(day: pl.DataFrame, known: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
        return day.with_columns(pl.col(name) + 0.2 * _std(known, name))

    def variance(day: pl.DataFrame, known: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
        middle = known[name].fill_nan(None).mean()
        return day.with_columns((middle + (pl.col(name) - middle) * np.sqrt(1.3)).alias(name))

    def tail(day: pl.DataFrame, known: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        far = float(known[name].fill_nan(None).mean()) + 5 * _std(known, name)  # type: ignore[arg-type]
        hit = pl.Series(rng.random(day.height) <= 0.03) & pl.col(name).is_not_null()
        return day.with_columns(pl.when(~hit).then(name).otherwise(far).alias(name))

    yield Shift("mean + 0.2 standard deviations", name, mean)
    yield Shift("variance x 1.3", name, variance)
    yield Shift("3 % of rows at + 5 standard deviations", name, tail)


def _of_days(one: ColumnThreshold, seen: float) -> Shift:
    name, far = one.column, _MORE * seen

    def mean(day: pl.DataFrame, known: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
        return day.with_columns(pl.col(name) + far * _std(known, name))

    return Shift(f"mean + {far:.2f} standard deviations", name, mean)


def _swap(name: str) -> Plant:
    """Swap the most frequent category with the next that is less than half as frequent."""

    def plant(day: pl.DataFrame, known: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
        counts = known[name].value_counts(sort=True)
        first = counts[name][0]
        rarer = counts.filter(pl.col("count") < counts["count"][0] / 2)
        other = rarer[name][0] if rarer.height else counts[name][-1]
        swapped = (
            pl.when(pl.col(name) == first)
            .then(pl.lit(other))
            .when(pl.col(name) == other)
            .then(pl.lit(first))
            .otherwise(pl.col(name))
        )
        return day.with_columns(swapped.alias(name))

    return plant


def _nulls(name: str, share: float) -> Plant:
    def plant(day: pl.DataFrame, _: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        lost = pl.Series(rng.random(day.height) < share / (1 - share))
        return day.with_columns(pl.when(~lost).then(name))

    return plant


def _std(known: pl.DataFrame, name: str) -> float:
    return float(known[name].fill_nan(None).std())  # type: ignore[arg-type]  # numbers
