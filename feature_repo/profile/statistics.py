"""Statistics of a column in one window, each of which another kind of drift moves.

One distance for a whole column answers to everything a little: a tail of 3 % and a spread of a
seventh more are lost in it. So the mean, the spread, both tails, the nulls and the distance are
looked at one by one, on scales on which windows of one kind lie symmetrically: shares by
arcsin(sqrt) (their variance is then 1 / 4n whatever the share: Anscombe 1948, Biometrika 35),
spreads and distances to the power of 2/3 (their squares are sums of squares, and the cube root of
such a sum is nearly normal: Wilson and Hilferty 1931, PNAS 17).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.profile.distances import Counts, Values, clean, count, distance, distinct
from mlplatform.contracts.drift import DriftMethod, DriftSign

TAIL: Final = 0.005
"""Share of the reference's values in each tail: four or five rows of a window of 900."""
MIN_VALUES: Final = 30
"""Of a window; fewer say nothing about a distribution."""

_POWER: Final = 2 / 3
_SHARES: Final = frozenset({"nulls", "low_tail", "high_tail", "new_categories"})


@dataclass(frozen=True)
class Known:
    """A column of the reference.

    Attributes:
        method: Of the distance.
        column: As `clean` gives it.
    """

    method: DriftMethod
    column: pl.Series

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers and not categories."""
        return self.method != "jensenshannon"

    @cached_property
    def values(self) -> Values:
        """Distinct values, ascending."""
        return distinct(self.column)

    @cached_property
    def counts(self) -> Counts:
        """Rows by distinct value."""
        return count(self.column, self.values)

    @cached_property
    def tails(self) -> tuple[float, float] | None:
        """Quantiles between which nearly all values lie; None for categories."""
        if not self.numeric or not len(self.values):
            return None
        low, high = np.quantile(np.repeat(self.values, self.counts), [TAIL, 1 - TAIL])
        return float(low), float(high)

    @cached_property
    def std(self) -> float:
        """Standard deviation of the values."""
        return float(np.repeat(self.values, self.counts).std())

    def distance(self, window: pl.Series) -> float:
        """Return Evidently's distance of a clean column from this one."""
        values = np.union1d(self.values, distinct(window))
        mine = np.zeros(len(values), dtype=np.int64)
        mine[np.searchsorted(values, self.values)] = self.counts
        return distance(self.method, values, mine, count(window, values))


def known(column: pl.Series, method: DriftMethod) -> Known:
    """Return a column of the reference as windows are compared with it.

    Raises:
        DataError: The method needs numbers and the column has none.
    """
    return Known(method, clean(column, method))


def of_values(
    values: npt.NDArray[np.float64], tails: tuple[float, float]
) -> dict[DriftSign, float]:
    """Return what does not need the reference's rows, of a window's numbers [N]."""
    return {
        "mean": float(values.mean()),
        "spread": float(values.std()),
        "low_tail": float((values < tails[0]).mean()),
        "high_tail": float((values > tails[1]).mean()),
    }


def measure(of: Known, window: pl.Series) -> dict[DriftSign, float]:
    """Return the statistics of a window's clean column but for its distance.

    Args:
        of: The reference.
        window: At least one row; too few values have a share of nulls and nothing else.
    """
    held = window.drop_nulls()
    found: dict[DriftSign, float] = {"nulls": 1 - len(held) / len(window)}
    if len(held) < MIN_VALUES:
        return found
    if of.tails is not None:
        return found | of_values(held.to_numpy(), of.tails)
    found["new_categories"] = float(1 - np.isin(held.to_numpy(), of.values).mean())
    return found


def scaled(sign: DriftSign, value: float) -> float:
    """Return a statistic on the scale on which windows lie symmetrically."""
    if sign == "mean":
        return value
    if sign in _SHARES:
        return float(np.arcsin(np.sqrt(np.clip(value, 0.0, 1.0))))
    return float(value**_POWER)


def unscaled(sign: DriftSign, value: float) -> float:
    """Return a statistic as it is told; the inverse of `scaled`, and its end beyond it."""
    if sign == "mean":
        return value
    if sign in _SHARES:
        return float(np.sin(np.clip(value, 0.0, np.pi / 2)) ** 2)
    return float(max(value, 0.0) ** (1 / _POWER))


def chance(of: Known, rows: int) -> Mapping[DriftSign, float]:
    """Return the standard deviations that independent rows would give, on the scales.

    Args:
        of: The reference.
        rows: With a value, in a window.
    """
    share = 0.5 / np.sqrt(rows)
    found: dict[DriftSign, float] = dict.fromkeys(("nulls", "low_tail", "high_tail"), share)
    if of.numeric and of.std > 0:
        values = np.repeat(of.values, of.counts)
        peak = float(np.mean(((values - values.mean()) / of.std) ** 4))
        relative = float(np.sqrt((peak - 1) / (4 * rows)))
        found |= {
            "mean": of.std / float(np.sqrt(rows)),
            "spread": _POWER * of.std**_POWER * relative,
        }
    others = len(of.values) - 1
    if not of.numeric and others > 0:
        # 8 n times the squared distance is about chi-squared; so its cube root is nearly normal.
        cube_root = (others / (8 * rows)) ** (1 / 3)
        found["distribution"] = float(cube_root * np.sqrt(2 / (9 * others)))
    return found
