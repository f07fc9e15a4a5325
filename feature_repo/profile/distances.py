"""Columns as counts of their values, and how far two such counts lie apart.

Evidently computes the distances that a report shows; to calibrate a threshold they are needed a
few thousand times on windows of the same reference. Here they are the same numbers (a test and
every report compare them) from one pass over counts. Nulls, NaN and infinities are no values:
Evidently drops them, so they are counted as a share of their own.
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.contracts.drift import DriftMethod
from mlplatform.errors import DataError

Counts = npt.NDArray[np.int64]
"""[V]: rows by distinct value, in the order of the values."""
Values = npt.NDArray[Any]
"""[V]: distinct values, ascending; floats or strings."""

MAX_CATEGORIES: Final = 10
"""A column of numbers with at most so many distinct ones is compared as categories: a flag, a
weekday. Evidently's bins of equal width do the same up to 20."""

_HEAVY: Final = 1.25
"""Standard deviation over interquartile range from which a tail is heavy (normal: 0.74,
exponential: 0.91, log-normal of sigma 1: 1.5)."""

_MIN_STD: Final = 0.001
"""What Evidently divides by at least."""


def choose(reference: pl.Series) -> DriftMethod:
    """Return the method that finds shifts of such a column with the fewest rows.

    The Wasserstein distance answers to shifts of the mean and of the variance, the energy distance
    to the latter in heavy tails too, where few rows move the former. PSI and Jensen-Shannon use
    bins of equal width over reference and window: one absurd value blinds them. `bench/drift`
    prints what is found with this choice.
    """
    if not reference.dtype.is_numeric() or reference.n_unique() <= MAX_CATEGORIES:
        return "jensenshannon"
    values = clean(reference, "wasserstein").drop_nulls().to_numpy()
    if len(np.unique(values)) <= MAX_CATEGORIES:
        return "jensenshannon"
    low, high = np.quantile(values, [0.25, 0.75])
    return "ed" if values.std() > _HEAVY * (high - low) else "wasserstein"


def clean(column: pl.Series, method: DriftMethod) -> pl.Series:
    """Return the column as the method takes it, null where there is no value.

    Categories become strings; numbers become float64, their NaN and infinities null.

    Raises:
        DataError: Numbers are expected and the column has none.
    """
    numeric = column.dtype.is_numeric() or column.dtype in {pl.Boolean, pl.Null}
    if method != "jensenshannon" and not numeric:
        raise DataError(
            f"the column {column.name} holds {column.dtype}, not numbers: "
            "compare it with a reference of the same schema"
        )
    if numeric:
        numbers = column.cast(pl.Float64)
        column = numbers.set(~numbers.is_finite().fill_null(value=False), None)
    return column.cast(pl.String) if method == "jensenshannon" else column


def distinct(column: pl.Series) -> Values:
    """Return the distinct values of a clean column, ascending."""
    return column.drop_nulls().unique().sort().to_numpy()


def count(column: pl.Series, values: Values) -> Counts:
    """Return how often a clean column holds each of the values, which are all that it holds."""
    places = np.searchsorted(values, column.drop_nulls().to_numpy())
    return np.bincount(places, minlength=len(values)).astype(np.int64)


def distance(method: DriftMethod, values: Values, reference: Counts, window: Counts) -> float:
    """Return Evidently's distance of a window from the reference; both have at least one row.

    Sources: `scipy.stats.wasserstein_distance` over `numpy.std` of the reference,
    `scipy.stats.energy_distance` and `scipy.spatial.distance.jensenshannon`, as called in
    `evidently/legacy/calculations/stattests`.
    """
    first, second = reference / reference.sum(), window / window.sum()
    match method:
        case "wasserstein":
            gaps = np.abs(np.cumsum(first - second))[:-1]
            mean = np.sum(first * values)
            std = float(np.sqrt(np.sum(first * (values - mean) ** 2)))
            return float(np.sum(gaps * np.diff(values)) / max(std, _MIN_STD))
        case "ed":
            gaps = np.cumsum(first - second)[:-1]
            return float(np.sqrt(2 * np.sum(gaps**2 * np.diff(values))))
        case "jensenshannon":
            middle = (first + second) / 2
            return float(
                np.sqrt(max(0.0, (_entropy(first, middle) + _entropy(second, middle)) / 2))
            )
        case _:
            assert_never(method)


def _entropy(share: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the Kullback-Leibler divergence, natural logarithm."""
    some = share > 0
    return float(np.sum(share[some] * np.log(share[some] / other[some])))


def smallest(method: DriftMethod, share: float) -> float:
    """Return the distance below which a change is too small to matter, whatever chance says.

    Args:
        method: Of the distance.
        share: Of rows; a category that takes so many is still small. Distances of numbers have no
            such bound (0).
    """
    if method != "jensenshannon":
        return 0.0
    rows = round(1 / share)
    counts: Sequence[Sequence[int]] = ((rows, 0), (rows - 1, 1))
    return distance(method, np.array(["a", "b"]), *(np.array(one) for one in counts))
