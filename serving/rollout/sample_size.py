"""How many entities an experiment needs, planned before it starts.

A fixed-horizon test holds at one size only, so the size comes first. It follows from the smallest
difference worth finding: half of it needs four times the entities.
"""

import math
from statistics import NormalDist
from typing import Final

from pydantic import Field

from mlplatform.contracts import Contract
from mlplatform.errors import DataError

_normal: Final = NormalDist()


class Size(Contract):
    """The plan of an experiment: what it is to find, and the entities which that takes."""

    baseline: float
    effect: float = Field(description="Smallest difference worth finding, challenger - champion.")
    deviation: float | None = Field(description="Of one entity's value; None: a rate.")
    weight: float = Field(gt=0, lt=1, description="The challenger's share of entities.")
    alpha: float = Field(gt=0, lt=1, description="Two-sided false-positive rate.")
    power: float = Field(gt=0, lt=1, description="Chance to find the effect if it is there.")
    champion: int = Field(ge=1, description="Entities.")
    challenger: int = Field(ge=1, description="Entities.")
    days: float | None = Field(default=None, description="At the traffic that was given.")

    @property
    def total(self) -> int:
        """Entities of both arms."""
        return self.champion + self.challenger


def required_entities(
    baseline: float,
    effect: float,
    *,
    weight: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    deviation: float | None = None,
    entities_per_day: float | None = None,
) -> Size:
    """Return the size at which a two-sided fixed-horizon test finds an effect.

    With z for the normal's quantiles, w the weight and N both arms together:

        rate   N = (z_a √(p̄(1 - p̄) / (w(1 - w))) + z_b √(p₀(1 - p₀)/(1 - w) + p₁(1 - p₁)/w))² / d²
        mean   N = (z_a + z_b)² s² / (w(1 - w) d²)

    Sources: Fleiss, Levin & Paik, Statistical Methods for Rates and Proportions (3rd ed., 2003),
    section 4.3, without the continuity correction; Chow, Shao & Wang, Sample Size Calculations in
    Clinical Research (2nd ed., 2008), section 3.2.

    Args:
        baseline: The champion's rate or mean.
        effect: Smallest difference worth finding, in the same unit; its sign matters for a rate.
        weight: The challenger's share of entities.
        alpha: Two-sided false-positive rate.
        power: Chance to find the effect if it is there.
        deviation: Standard deviation of one entity's value; None: the value is 0 or 1.
        entities_per_day: New entities, both arms; gives the duration.

    Raises:
        DataError: The numbers contradict each other; says which.
    """
    for name, value in (("weight", weight), ("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise DataError(f"{name} must lie between 0 and 1, not {value:g}")
    if power <= alpha:
        raise DataError(f"power {power:g} must exceed alpha {alpha:g}: a coin would do as well")
    if effect == 0 or not math.isfinite(effect):
        raise DataError(f"an effect of {effect:g} has no size: name the smallest worth finding")
    if entities_per_day is not None and entities_per_day <= 0:
        raise DataError(f"{entities_per_day:g} entities per day never make an experiment")
    z_alpha, z_power = _normal.inv_cdf(1 - alpha / 2), _normal.inv_cdf(power)
    if deviation is None:
        changed = baseline + effect
        for value in (baseline, changed):
            if not 0 <= value <= 1:
                raise DataError(
                    f"{baseline:g} changed by {effect:g} gives {changed:g}: a rate lies between 0 "
                    "and 1; for a mean give its deviation"
                )
        mixed = (1 - weight) * baseline + weight * changed
        null = mixed * (1 - mixed) / (weight * (1 - weight))
        alternative = baseline * (1 - baseline) / (1 - weight) + changed * (1 - changed) / weight
        root = z_alpha * math.sqrt(null) + z_power * math.sqrt(alternative)
    else:
        if not 0 < deviation < math.inf:
            raise DataError(f"a deviation must be above 0, not {deviation:g}")
        root = (z_alpha + z_power) * deviation / math.sqrt(weight * (1 - weight))
    total = (root / effect) ** 2
    champion, challenger = (max(1, math.ceil(total * w)) for w in (1 - weight, weight))
    return Size(
        baseline=baseline,
        effect=effect,
        deviation=deviation,
        weight=weight,
        alpha=alpha,
        power=power,
        champion=champion,
        challenger=challenger,
        days=(champion + challenger) / entities_per_day if entities_per_day else None,
    )
