"""The windows of a reference, and the statistics of a column in each of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.profile.distances import choose, distance
from feature_repo.profile.statistics import MIN_VALUES, Known, chance, known, measure, scaled
from mlplatform.contracts.drift import DriftSign
from mlplatform.errors import DataError

TIME: Final = "event_timestamp"
"""Column of the reference that says which rows belong to one window; never compared itself."""
SCORE: Final = "score"
"""Column of the model's probability. A null says that this model gave none, not that it is lost:
only rows with a score count."""

MIN_ROWS: Final = MIN_VALUES
"""Of a window."""

_FULL: Final = 0.5
"""Of the median window's rows; one with fewer was cut off by an outage or the reference's end."""
_NEARLY: Final = 2.5
"""Windows this many times as far apart as those of independent rows are nearly independent."""

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Column:
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


def whole_windows(
    reference: pl.DataFrame, window_hours: float, rows: int | None, rng: np.random.Generator
) -> Iterator[Places]:
    """Yield the rows of each whole window, in the order of time.

    Args:
        reference: As it is calibrated on.
        window_hours: Length of a window.
        rows: Most that a window keeps, drawn at random; None: all.
        rng: Draws them.

    Raises:
        DataError: A row has no time.
    """
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


def in_windows(column: pl.Series, windows: Sequence[Places]) -> Column:
    """Describe a column of the reference by its statistics in each window.

    Args:
        column: All of it, [N].
        windows: Rows of each, in the order of time; [W] of them.
    """
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
    return Column(column.name, of, found, normal, np.array(single))


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
