"""Where the next value of a series lies when nothing has changed: Student's predictive interval.

For n values with mean m and standard deviation s the next one lies within
`m ± s * sqrt(1 + 1 / n) * t(1 - rate / 2, n - 1)` at the asked rate (Hahn and Meeker 1991,
"Statistical Intervals", section 4.8). Two things that the formula takes for granted do not hold for
the days of a reference, and both are paid for in width:

- Neighbours resemble each other. n values of autocorrelation rho are worth n (1 - rho) / (1 + rho)
  independent ones (Bayley and Hammersley 1946, Supplement to the JRSS 8(2)).
- Odd values are more frequent than a normal curve has them. Student's curve has an excess kurtosis
  of 6 / (nu - 4), so nu is at most 4 plus 6 over that of the values. Where odd days did not come
  yet the estimate is too low: it is taken some standard errors higher.

The interval never excludes a value that the series itself holds.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]

_MOST_ALIKE: Final = 0.95
"""Autocorrelation beyond which a hundred values cannot tell a trend from a walk."""
_LEAST_FREEDOM: Final = 3.0
"""Degrees of freedom below which the curve has no standard deviation to speak of."""
_FOUND: Final = 0.95
_LOOKS: Final = 3
"""A shift counts as seen when one of so many windows shows it with probability `_FOUND`."""


@dataclass(frozen=True)
class Series:
    """What the interval is made from.

    Attributes:
        count: Values.
        middle: Their mean.
        deviation: Their standard deviation.
        alike: Autocorrelation of neighbours, 0 to 0.95.
        freedom: Degrees of freedom of Student's curve.
        lowest: Of the values.
        highest: Of the values.
    """

    count: int
    middle: float
    deviation: float
    alike: float
    freedom: float
    lowest: float
    highest: float

    @property
    def worth(self) -> float:
        """Independent values that tell as much."""
        return self.count * (1 - self.alike) / (1 + self.alike)

    def reach(self, rate: float) -> float:
        """Return how far above the middle the next value lies at a one-sided rate."""
        return self._scale * float(stdtrit(self.freedom, 1 - rate))

    def low(self, rate: float) -> float:
        """Return the level that the next value undercuts at a rate."""
        return min(self.middle - self.reach(rate), self.lowest)

    def high(self, rate: float) -> float:
        """Return the level that the next value exceeds at a rate."""
        return max(self.middle + self.reach(rate), self.highest)

    def detectable(self, width: float) -> float:
        """Return the smallest shift that one of three values shows with a probability of 95 %.

        Neighbours that resemble each other are fewer looks.

        Args:
            width: Distance of the interval's end from the middle.
        """
        looks = max(1.0, _LOOKS * (1 - self.alike) / (1 + self.alike))
        power = 1 - (1 - _FOUND) ** (1 / looks)
        return width + self._scale * float(stdtrit(self.freedom, power))

    @property
    def _scale(self) -> float:
        return self.deviation * float(np.sqrt(1 + 1 / self.worth))


def series(values: Floats, *, errors: float | None = 0.0) -> Series:
    """Describe values in the order of time, [W], at least two.

    Args:
        values: Finite ones.
        errors: Standard errors by which the kurtosis is taken higher than its estimate; None: the
            values are means over so many independent rows that their curve is normal.
    """
    count = len(values)
    middle, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(middle)):  # rounding of equal values
        return Series(count, middle, 0.0, 0.0, count - 1.0, middle, middle)
    alike = _autocorrelation(values)
    freedom = count * (1 - alike) / (1 + alike) - 1
    if errors is not None:
        heavy = _excess_kurtosis(values) + errors * float(np.sqrt(24 / count))
        freedom = min(freedom, 4 + 6 / heavy) if heavy > 0 else freedom
    return Series(
        count,
        middle,
        deviation,
        alike,
        max(freedom, _LEAST_FREEDOM),
        float(values.min()),
        float(values.max()),
    )


def _autocorrelation(values: Floats) -> float:
    centred = values - values.mean()
    rho = float(centred[1:] @ centred[:-1] / (centred @ centred))
    return float(np.clip(rho, 0.0, _MOST_ALIKE))


def _excess_kurtosis(values: Floats) -> float:
    """Return the unbiased estimate (Joanes and Gill 1998, The Statistician 47(1), G2).

    Its standard error is about sqrt(24 / n).
    """
    n = len(values)
    if n < 4:  # noqa: PLR2004  # where the formula begins
        return 0.0
    centred = values - values.mean()
    plain = float(np.mean(centred**4) / np.mean(centred**2) ** 2) - 3
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * plain + 6)
