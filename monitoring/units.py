"""Values that are those of another unit: a conversion that, undone, makes them usual again.

Two kinds of evidence, each of which a season does not give:

- Measured numbers lie on a grid: whole minutes, tenths of a degree. Converted ones do not, and
  undone they do: more than half of the distinct values are ones that the reference does not have,
  and undoing the conversion makes them ones that it has, more of them than chance would: undone,
  values that nobody converted hit a dense grid as well, and how many do is seen on the reference.
- Numbers without a grid are compared by their quantiles. They must have moved three times as far as
  the reference's windows ever do from one to the next, and undoing must bring them as near as
  these usually are, at least eight times nearer than they lay, and to the same spread: divided by
  a thousand, everything is near zero.

A conversion that moves a number without a grid by less than that is not told from a drift.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import bdtrc

from feature_repo.profile.distances import MAX_CATEGORIES
from mlplatform.contracts.watch import DataFault
from monitoring.values import Floats, Known, Matrix, Stretch


@dataclass(frozen=True)
class Conversion:
    """From one unit to another: `factor * value + offset`."""

    name: str
    factor: float
    offset: float = 0.0

    def undone(self, values: Floats) -> Floats:
        """Return the values before the conversion."""
        return (values - self.offset) / self.factor


_FACTORS: Final[Mapping[tuple[str, str], float]] = {
    ("miles or mph", "kilometres or km/h"): 1.609344,
    ("nautical miles or knots", "kilometres or km/h"): 1.852,
    ("nautical miles or knots", "miles or mph"): 1.852 / 1.609344,
    ("mph", "m/s"): 0.44704,
    ("knots", "m/s"): 1.852 / 3.6,
    ("m/s", "km/h"): 3.6,
    ("feet", "metres"): 0.3048,
    ("inches", "millimetres"): 25.4,
    ("inches", "centimetres"): 2.54,
    ("pounds", "kilograms"): 0.45359237,
    ("gallons", "litres"): 3.785411784,
    ("inHg", "millibars"): 33.8638866667,
    ("minutes or hours", "seconds or minutes"): 60.0,
    ("hours", "seconds"): 3_600.0,
    ("days", "hours"): 24.0,
    ("days", "minutes"): 1_440.0,
    ("tenfold units", "units"): 10.0,
    ("shares or units", "percent or cents"): 100.0,
    ("thousands", "units"): 1_000.0,
    ("millions", "units"): 1_000_000.0,
}
"""One of the first unit is so many of the second (NIST Special Publication 811, appendix B)."""

CONVERSIONS: Final = (
    Conversion("°F to °C", 5 / 9, -160 / 9),
    Conversion("°C to °F", 1.8, 32.0),
    Conversion("°F to K", 5 / 9, 273.15 - 160 / 9),
    Conversion("K to °F", 1.8, 32.0 - 1.8 * 273.15),
    Conversion("°C to K", 1.0, 273.15),
    Conversion("K to °C", 1.0, -273.15),
    *(Conversion(f"{one} to {other}", by) for (one, other), by in _FACTORS.items()),
    *(Conversion(f"{other} to {one}", 1 / by) for (one, other), by in _FACTORS.items()),
)

_GRID: Final = 0.9
"""Share of a window's rows, on the median, that hold values of other windows: they have a grid."""
_OFF: Final = 0.5
"""Share of distinct values on the grid, at most; undoing must bring so many more onto it."""
_CHANCE: Final = 1e-5
"""That so many lie on the grid with any of the conversions undone (binomial, by Bonferroni)."""
_ROUNDED: Final = 4e-6
"""Relative difference of float32 numbers that a conversion and back can leave."""
_FAR: Final = 3.0
_BETTER: Final = 8.0
_SPREAD: Final = 1.5
"""Times by which spreads of windows of one kind differ, at most."""
_LOW, _HIGH = 1, -2
"""Levels (10 % and 90 %) between which the spread is taken."""


def converted(
    features: Mapping[int, str],
    found: Mapping[int, tuple[Stretch, Matrix]],
    before: Mapping[int, tuple[Stretch, Matrix]],
    past: Mapping[int, Known],
    windows: Sequence[Matrix],
) -> Iterator[DataFault]:
    """Yield the features that are in another unit, each once.

    Args:
        features: Names of those to look at, by their place among the F.
        found: The window's stretches with their rows.
        before: Those of the window before, as far as there are any.
        past: The reference's.
        windows: Rows of the reference by window, [W] of [N, F].
    """
    for feature, name in features.items():
        grid: _Grid | None = None
        for place in sorted(found.keys() & past.keys()):
            stretch, rows = found[place]
            if stretch.nulls[feature] == 1:
                continue
            grid = grid or _Grid(windows, feature)
            if len(grid.values) <= MAX_CATEGORIES:
                break
            mine = np.unique(rows[:, feature]).astype(np.float64)
            other = before.get(place)
            before_it = None if other is None else other[1][:, feature]
            why = _off_grid(grid, mine[~np.isnan(mine)], before_it)
            if not why:
                why = _too_far(
                    stretch.curve[feature],
                    None if other is None else other[0].curve[feature],
                    past[place].curve[:, feature],
                    max(_steps(one.curve[:, feature]).max(initial=0.0) for one in past.values()),
                )
                why = "" if why and grid.holds else why
            if why:
                where = f" (quarter {place} of the window)" if place else ""
                yield DataFault(kind="unit", subject=name, why=why + where)
                break


class _Grid:
    """The values that a feature has in the reference."""

    def __init__(self, windows: Sequence[Matrix], feature: int) -> None:
        self._windows = [rows[:, feature] for rows in windows]
        held = np.concatenate(self._windows)
        self.values = np.unique(held[~np.isnan(held)])
        self._is: bool | None = None

    @property
    def holds(self) -> bool:
        """Whether new windows hold values that are known already."""
        if self._is is None:
            found = [np.unique(one[~np.isnan(one)], return_counts=True) for one in self._windows]
            places = [np.searchsorted(self.values, values) for values, _ in found]
            windows = np.bincount(np.concatenate(places), minlength=len(self.values))
            shares = [
                float(counts[windows[at] > 1].sum()) / counts.sum()
                for at, (values, counts) in zip(places, found, strict=True)
                if len(values)
            ]
            self._is = bool(np.median(shares) >= _GRID)
        return self._is


def _off_grid(grid: _Grid, values: Floats, before: Matrix | None) -> str:
    """Return which conversion, undone, brings distinct values, ascending, onto the grid."""
    if not len(values):
        return ""
    plain = grid.values.astype(np.float64)
    inside = plain[(plain >= values[0]) & (plain <= values[-1])]
    usual = inside if len(inside) >= len(values) else plain  # a grid is denser near zero
    grids = [plain]
    if before is not None:
        grids.append(np.union1d(plain, before[~np.isnan(before)].astype(np.float64)))
    for points in grids:
        share = _on(points, values, np.abs(values))
        if share > _OFF or not grid.holds:
            return ""  # a wider grid holds no fewer
        for one in CONVERSIONS:
            undone = _undone(points, values, one)
            if undone - share < _OFF:
                continue
            by_chance = _undone(points, usual, one) + 1 / len(points)
            hits = round(undone * len(values))
            chance = len(CONVERSIONS) * bdtrc(hits - 1, len(values), min(by_chance, 1.0))
            if chance <= _CHANCE:
                return (
                    f"the reference has {share:.0%} of the {len(values):,} distinct values, and "
                    f"{undone:.0%} with {one.name} undone"
                )
    return ""


def _undone(points: Floats, values: Floats, one: Conversion) -> float:
    """Return the share of the values that are points with a conversion undone."""
    return _on(points, one.undone(values), (np.abs(values) + abs(one.offset)) / one.factor)


def _on(points: Floats, values: Floats, size: Floats) -> float:
    """Return the share of the values that are points, but for rounding relative to a size."""
    at = np.searchsorted(points, values).clip(1, len(points) - 1)
    away = np.minimum(np.abs(points[at] - values), np.abs(points[at - 1] - values))
    return float(np.mean(away <= _ROUNDED * size))


def _too_far(curve: Floats, before: Floats | None, past: Floats, largest: float) -> str:
    """Return which conversion, undone, makes a far curve a usual one; empty: none.

    Args:
        curve: Quantiles of the window, [Q].
        before: Of the window before, [Q]; None: there was none.
        past: Of the reference's windows, [W, Q].
        largest: Step from one window of the reference to the next, in any stretch: a morning that
            is always calm must not make the first wild one a fault.
    """
    steps = _steps(past)
    if not len(steps) or np.isnan(curve).any():
        return ""
    past, usual = past[~np.isnan(past).any(axis=1)], float(np.median(steps))
    known = [("the reference", past)]
    if before is not None and not np.isnan(before).any():
        known.append(("the window before", before[None]))
    for name, curves in known:
        far = float(_away(curve, curves).min())
        if far <= _FAR * largest:
            continue
        for one in CONVERSIONS:
            undone = one.undone(curve)
            away = _away(undone, curves)
            nearest = int(away.argmin())
            near = float(away[nearest])
            if near <= min(usual, far / _BETTER) and _alike(undone, curves[nearest]):
                return (
                    f"quantiles lie {far:.3g} from those of {name} on the mean, at most "
                    f"{largest:.3g} is usual, and {near:.3g} with {one.name} undone"
                )
    return ""


def _alike(one: Floats, other: Floats) -> bool:
    """Return whether two curves have a spread, and about the same."""
    spread, known = one[_HIGH] - one[_LOW], other[_HIGH] - other[_LOW]
    return bool(known / _SPREAD <= spread <= known * _SPREAD and known > 0)


def _steps(past: Floats) -> Floats:
    """Return how far each window's quantiles lie from those of the one before, [W - 1]."""
    held = past[~np.isnan(past).any(axis=1)]
    return _away(held[1:], held[:-1])


def _away(one: Floats, other: Floats) -> Floats:
    """Return the mean distance of quantiles."""
    away: Floats = np.abs(one - other).mean(axis=-1)
    return away
