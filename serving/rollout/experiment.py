"""An A/B experiment on what a rollout leaves: the same assignment, the same entities.

Three readings of one question, "do the arms differ?". The fixed-horizon one has the most power
and holds once, at the planned size; before that it says nothing. The always-valid one holds at
every look. The sample ratio says whether the split was the one that was asked for: when it was
not, the arms are no random samples and both other readings are void.

Sums come by stage, because the weight may have changed: arms are compared within a stage only,
so a rate that moves with time does not look like a difference (Simpson's paradox).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

from pydantic import Field

from mlplatform.contracts import Contract, Counts, Moments, Pair, Stage, Statistics
from mlplatform.contracts.usecase.operation import GuardrailMetric
from mlplatform.errors import DataError
from serving.rollout.guardrails import CENTERS
from serving.rollout.judge import MISMATCH_LEVEL, e_value
from serving.rollout.sample_size import Size
from serving.rollout.sequential import interval, log_above, log_below, log_mean, log_mismatch

_normal: Final = NormalDist()


class SampleRatio(Contract):
    """Whether the arms got the shares of entities that were asked for."""

    champion: int
    challenger: int
    expected: float = Field(description="Entities that the challenger should have.")
    p_value: float = Field(description="Chi-square at a fixed horizon; peeking makes it too low.")
    log_e: float = Field(description="ln of the e-value, which holds at every look.")


class FixedHorizon(Contract):
    """Two-proportion z test or Welch's test, stratified by stage."""

    final: bool = Field(description="The planned size is reached: may be read, once.")
    reason: str
    difference: float | None = Field(description="Challenger minus champion, so far.")
    low: float | None = Field(default=None, description="Of the interval; None: not final.")
    high: float | None = None
    p_value: float | None = Field(default=None, description="Two-sided; None: not final.")


class AlwaysValid(Contract):
    """The confidence sequence of the difference, and the e-value against 'none'."""

    low: float
    high: float
    log_e: float


class Experiment(Contract):
    """One look at an experiment."""

    metric: GuardrailMetric
    alpha: float
    champion: float | None = Field(description="Mean over all stages.")
    challenger: float | None
    ratio: SampleRatio
    void: str = Field(description="Why no reading may be used; empty: they may.")
    fixed: FixedHorizon | None = Field(description="None: void.")
    always: AlwaysValid | None = Field(description="None: void, or nothing was seen.")


def read(
    statistics: Statistics,
    metric: GuardrailMetric,
    *,
    size: Size | None = None,
    alpha: float = 0.05,
) -> Experiment:
    """Return one look at an experiment; a broken split makes it void.

    Args:
        statistics: What both arms have shown.
        metric: Which of their values is asked about.
        size: The plan; without one there is no fixed-horizon reading.
        alpha: Level of the confidence sequence; the fixed horizon has the plan's own.

    Raises:
        DataError: `alpha` is none, the labels of a loss could not be read, or sums are not finite.
    """
    if not 0 < alpha < 1:
        raise DataError(f"alpha must lie between 0 and 1, not {alpha:g}")
    if metric == "loss" and statistics.unread:
        raise DataError(statistics.unread)
    pairs = [pair for _, pair in _arms(statistics.stages, metric)]
    arms = [_sum([pair.champion for pair in pairs]), _sum([pair.challenger for pair in pairs])]
    if not all(math.isfinite(arm.total) and math.isfinite(arm.squares) for arm in arms):
        raise DataError(
            f"the sums of {metric} of rollout {statistics.usecase}/{statistics.number} are not "
            "finite: an arm answered NaN or infinity; look at its newest answers in the log"
        )
    ratio = sample_ratio(statistics.stages, metric)
    fixed = fixed_horizon(statistics.stages, metric, size)
    void = _void(statistics, ratio, final=fixed.final)
    return Experiment(
        metric=metric,
        alpha=alpha,
        champion=arms[0].mean if arms[0].n else None,
        challenger=arms[1].mean if arms[1].n else None,
        ratio=ratio,
        void=void,
        fixed=None if void else fixed,
        always=None if void else always_valid(statistics.stages, metric, alpha),
    )


def sample_ratio(stages: Sequence[Stage], metric: GuardrailMetric) -> SampleRatio:
    """Compare the entities that count for a metric with the weights.

    Of the metric, not of the requests: an arm whose answers fail more often, or whose labels are
    late, loses entities of its own choice, and what is left is no random sample either.
    """
    counted = [
        (weight, Counts(champion=pair.champion.n, challenger=pair.challenger.n))
        for weight, pair in _arms(stages, metric)
        if pair.champion.n + pair.challenger.n
    ]
    statistic = expected = 0.0
    for weight, counts in counted:
        mean = weight * (counts.champion + counts.challenger)
        statistic += (counts.challenger - mean) ** 2 / (mean * (1 - weight))
        expected += mean
    return SampleRatio(
        champion=sum(counts.champion for _, counts in counted),
        challenger=sum(counts.challenger for _, counts in counted),
        expected=expected,
        p_value=_chi_square_tail(statistic, len(counted)),
        # Each entity is one toss in one stage, so the stages' bets follow each other.
        log_e=sum(log_mismatch(weight, counts) for weight, counts in counted),
    )


def fixed_horizon(
    stages: Sequence[Stage], metric: GuardrailMetric, size: Size | None
) -> FixedHorizon:
    """Compare the arms once, at the planned size; before it there is no p-value to be tempted by.

    Differences of the stages are weighted by h = n₀n₁/(n₀+n₁). For a rate the test is that of
    Cochran (1954) and Mantel & Haenszel (1959), without the continuity correction: with one stage
    it is the two-proportion z test. For a mean, Welch's variances with the normal's quantiles:
    planned sizes are far above the few dozen entities where Student's matter. The interval uses
    the variances of the arms for both.

    Args:
        stages: What both arms have shown.
        metric: Which value.
        size: The plan; None gives no reading.
    """
    weights = differences = null = spread = 0.0
    counts = [0, 0]
    for _, pair in _arms(stages, metric):
        arms = pair.champion, pair.challenger
        counts = [count + arm.n for count, arm in zip(counts, arms, strict=True)]
        if min(arm.n for arm in arms) < 2:  # noqa: PLR2004 (a variance needs two)
            continue
        entities = arms[0].n + arms[1].n
        weight = arms[0].n * arms[1].n / entities
        rate = (arms[0].total + arms[1].total) / entities
        weights += weight
        differences += weight * (arms[1].mean - arms[0].mean)
        null += weight * rate * (1 - rate)
        spread += weight**2 * sum(_variance(arm) / arm.n for arm in arms)
    difference = differences / weights if weights else None
    if size is None:
        return FixedHorizon(
            final=False,
            difference=difference,
            reason="no size was planned, so there is no horizon: use the always-valid reading",
        )
    if difference is None or counts[0] < size.champion or counts[1] < size.challenger:
        return FixedHorizon(
            final=False,
            difference=difference,
            reason=f"{counts[0]:,} of {size.champion:,} planned entities of the champion and "
            f"{counts[1]:,} of {size.challenger:,} of the challenger: a test before the planned "
            "size finds differences that are not there",
        )
    deviation = math.sqrt(spread) / weights
    reach = _normal.inv_cdf(1 - size.alpha / 2) * deviation
    error = math.sqrt(spread if metric == "loss" else null)
    p_value = 2 * _normal.cdf(-abs(differences) / error) if error else float(not difference)
    return FixedHorizon(
        final=True,
        reason=f"holds once, at this size, at the level {size.alpha:g}",
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p_value=p_value,
    )


def always_valid(stages: Sequence[Stage], metric: GuardrailMetric, alpha: float) -> AlwaysValid:
    """Return the confidence sequence of the difference: it may be read at every look.

    Args:
        stages: What both arms have shown.
        metric: Which value.
        alpha: Chance that it misses the true difference at any look, at most.
    """
    arms, binary = _arms(stages, metric), metric != "loss"
    center = CENTERS.get(metric, 0.0)
    low, high = interval(arms, None, alpha, center=center, binary=binary)
    sides = [test(arms, 0.0, center=center, binary=binary) for test in (log_above, log_below)]
    return AlwaysValid(low=low, high=high, log_e=log_mean(sides))


def _arms(stages: Sequence[Stage], metric: GuardrailMetric) -> list[tuple[float, Pair]]:
    """Return the weight of each stage and the values that were first seen in it."""
    return [(stage.weight, stage.values.get(metric, Pair())) for stage in stages]


def _void(statistics: Statistics, ratio: SampleRatio, *, final: bool) -> str:
    """Return why the split is not to be trusted; empty if it is."""
    if statistics.misassigned:
        return (
            f"{statistics.misassigned:,} answers came from another arm than the assignment says: "
            "the arms are mixed; find the gateway with the old route and start anew"
        )
    found = f"{ratio.challenger:,} entities where {ratio.expected:,.0f} were to be expected"
    if ratio.log_e >= -math.log(MISMATCH_LEVEL):
        chance = f"e-value {e_value(ratio.log_e)}"
    elif final and ratio.p_value < MISMATCH_LEVEL:
        chance = f"p = {ratio.p_value:.2g}"
    else:
        return ""
    return (
        f"sample-ratio mismatch: the challenger has {found} ({chance}): something keeps entities "
        "of one arm from counting; find it and start anew, no correction repairs this"
    )


def _sum(parts: Sequence[Moments]) -> Moments:
    return Moments(
        n=sum(part.n for part in parts),
        total=sum(part.total for part in parts),
        squares=sum(part.squares for part in parts),
    )


def _variance(arm: Moments) -> float:
    """Return the unbiased variance of an arm of at least two entities."""
    return max(0.0, arm.squares - arm.n * arm.mean**2) / (arm.n - 1)


def _chi_square_tail(statistic: float, degrees: int) -> float:
    """Return P(X ≥ statistic) of chi-square with whole degrees of freedom; 1 without any.

    From Q(a + 1, x) = Q(a, x) + x^a e^-x / Γ(a + 1) (DLMF 8.8.6), Q(1/2, x) = erfc √x.
    """
    half = statistic / 2
    if not degrees or not half:
        return 1.0
    shape, tail = (0.5, math.erfc(math.sqrt(half))) if degrees % 2 else (1.0, math.exp(-half))
    while shape < degrees / 2:
        tail += math.exp(shape * math.log(half) - half - math.lgamma(shape + 1))
        shape += 1
    return min(tail, 1.0)
