"""Bets on bounded values, bounded from below by sums: what `sequential` multiplies capital with.

A stake λ on y, with y ≥ -1, multiplies the capital by 1 + λy, and its logarithm is a sum over all
values that were seen. A parabola below the logarithm needs only their number, total and squares
(Fan, Grama & Liu 2015, lemma 4.1), so no value is remembered.
"""

import math
from functools import lru_cache
from typing import Final

BETS: Final = (0.9, 0.5, 0.25, 0.12, 0.05, 0.02, 0.007)
"""Shares of the capital that are staked on each observation. Their mean needs 1.4 to 1.6 times
the observations of the best one, which nobody knows beforehand."""

Bet = tuple[float, float, float]
"""Coefficients of n, total and squares in the logarithm of one bet's capital."""

_LEAST_SCALE: Final = 0.01
"""Where the null is the least possible mean, b would be 0; any larger b is valid."""


@lru_cache(maxsize=4096)
def arm_bets(
    weight: float,
    null: float,
    center: float,
    binary: bool,  # noqa: FBT001
) -> tuple[tuple[float, float, float, float, float, float], ...]:
    """Return for each of `BETS` the coefficients of the challenger's and the champion's sums."""
    worst = max(center / weight, (1 - center) / (1 - weight))
    scale = max(null + worst, _LEAST_SCALE)
    found = []
    for stake in BETS:
        factor = stake / scale
        up, down = factor / weight, -factor / (1 - weight)
        upper, lower = 1 - up * center - factor * null, 1 - down * center - factor * null
        if binary:
            found.append(_chord(upper, up) + _chord(lower, down))
        else:
            found.append(_minorant(upper, up, 0, center) + _minorant(lower, down, 1, center))
    return tuple(found)


@lru_cache(maxsize=1024)
def paired_bets(null: float) -> tuple[Bet, ...]:
    """Return for each of `BETS` the coefficients of the sums of differences in [-1, 1]."""
    scale = max(1 + null, _LEAST_SCALE)
    return tuple(_minorant(1 - stake / scale * null, stake / scale, -1, 0) for stake in BETS)


def _chord(level: float, slope: float) -> Bet:
    """Return (a, b, 0) so that ln(level + slope·x) = a + b·x for x = 0 and x = 1.

    In between the logarithm is larger, as it is concave.
    """
    return (math.log(level), math.log((level + slope) / level), 0.0)


def _minorant(level: float, slope: float, worst: float, near: float) -> Bet:
    """Return (a, b, c) so that ln(level + slope·x) ≥ a + b·x + c·x².

    The parabola has the logarithm's value at `worst`, the end of x's range where the logarithm is
    least, and its value and slope at `near`. It lies below: c is the logarithm's divided
    difference at (near, near, worst), and the one at (near, near, x) only rises from there,
    because the third derivative has the sign of `slope` throughout. For x from -1, level 1 and
    near 0 this is lemma 4.1 of Fan, Grama & Liu 2015.
    """
    value = math.log(level + slope * near)
    tilt = slope / (level + slope * near)
    gap = worst - near
    bend = (math.log(level + slope * worst) - value - tilt * gap) / gap**2
    return (value - tilt * near + bend * near * near, tilt - 2 * bend * near, bend)
