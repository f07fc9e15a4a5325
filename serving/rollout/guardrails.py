"""One guardrail at one look: its numbers, and the e-values for and against the new version.

Events that are bad (errors, fallbacks, late answers) are harm when they become more frequent at
all, and safe when the rise is below the margin. Of the loss a rise beyond the margin is harm; of
the decision rate a change beyond it in either direction.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from mlplatform.contracts.rollout import Counts, Moments, Pair, Reading, Statistics
from mlplatform.contracts.usecase.operation import Guardrail, RolloutPlan
from serving.rollout import sequential

EVENT_METRICS: Final = frozenset({"error_rate", "fallback_rate", "budget_overrun_rate"})
"""Rates of events that are bad."""

PAIRED_METRICS: Final = frozenset({"error_rate", "fallback_rate", "decision_rate", "loss"})
"""Metrics that a shadow shows as well; its times are not what they would be as an arm."""

CENTERS: Final = {"decision_rate": 0.1, "loss": 0.1}
"""Guesses of a metric's mean; 0 for rare events. Any is valid, a close one needs fewer entities:
0.1 at most twice those of the best guess, for means from 0.01 to 0.3."""

_HARM_BY_PAIRS: Final = 0.2
"""The pairs' share of the capital that bets on harm. It is fixed before the data, and the arms'
is larger because users meet what they find: a shadow's harm may take a few pairs more."""

_SAFE_BY_PAIRS: Final = 0.5
"""The same of the capital that bets on safety, where neither comes first."""

_NOTHING: Final = Moments()

_Side = tuple[Callable[..., float], Callable[[Moments, float], float]]
"""The test on arms and the one on pairs that the difference lies on one side of a bound."""
_ABOVE: Final[_Side] = (sequential.log_above, sequential.log_above_paired)
_BELOW: Final[_Side] = (sequential.log_below, sequential.log_below_paired)


def read(plan: RolloutPlan, guardrail: Guardrail, statistics: Statistics, now: datetime) -> Reading:
    """Return what one look says about one guardrail."""
    metric, margin = guardrail.metric, guardrail.margin
    arms = _arms(statistics, metric)
    # A plan without a shadow never has pairs: they get no share of the capital.
    shadowed = plan.shadow_share > 0 and metric in PAIRED_METRICS
    pairs = statistics.paired.get(metric, _NOTHING) if shadowed else None
    champion, challenger, difference = _means(arms)
    if difference is None and pairs is not None and pairs.n:
        difference = pairs.mean
    if metric in EVENT_METRICS:
        log_harm = _log_rise(_events(statistics, metric), pairs)
        # A shadow's errors are not those that the version will meet once its answers count.
        log_safe = _log_beyond(_BELOW, metric, arms, None, margin)
    else:
        log_harm = _log_beyond(_ABOVE, metric, arms, pairs, margin, _HARM_BY_PAIRS)
        log_safe = _log_beyond(_BELOW, metric, arms, pairs, margin, _SAFE_BY_PAIRS)
        if metric == "decision_rate":
            fall = _log_beyond(_BELOW, metric, arms, pairs, -margin, _HARM_BY_PAIRS)
            rise = _log_beyond(_ABOVE, metric, arms, pairs, -margin, _SAFE_BY_PAIRS)
            log_harm = sequential.log_mean((log_harm, fall))
            log_safe = min(log_safe, rise)
    return Reading(
        metric=metric,
        margin=margin,
        champion=champion.mean if champion.n else None,
        challenger=challenger.mean if challenger.n else None,
        entities=challenger.n if pairs is None else max(challenger.n, pairs.n),
        difference=difference,
        log_harm=log_harm,
        log_safe=log_safe,
        fresh=_is_fresh(plan, statistics, metric, now),
    )


def in_words(reading: Reading, statistics: Statistics) -> str:
    """Return a guardrail's numbers: means by arm, events against their due share, pairs."""
    metric = reading.metric
    parts = []
    if reading.champion is not None and reading.challenger is not None:
        arms = _arms(statistics, metric)
        parts.append(
            f"{_mean(metric, reading.challenger)} of "
            f"{sum(pair.challenger.n for _, pair in arms):,} entities against "
            f"{_mean(metric, reading.champion)} of {sum(pair.champion.n for _, pair in arms):,}"
        )
    events = _events(statistics, metric)
    both = sum(counts.champion + counts.challenger for _, counts in events)
    if both:
        own = sum(counts.challenger for _, counts in events)
        due = sum(weight * (counts.champion + counts.challenger) for weight, counts in events)
        parts.append(f"{own:,} of {both:,} events on the challenger where {due:,.1f} are due")
    pairs = statistics.paired.get(metric, _NOTHING)
    if pairs.n and metric in PAIRED_METRICS:
        parts.append(f"{pairs.mean:+.4f} over {pairs.n:,} pairs")
    return f"{metric}: {', '.join(parts)}" if parts else f"{metric}: nothing counts yet"


def in_short(reading: Reading) -> str:
    """Return a guardrail's means by arm."""
    metric = reading.metric
    if reading.champion is None or reading.challenger is None:
        return f"{metric}: {f'{reading.entities:,} pairs' if reading.entities else 'nothing yet'}"
    return (
        f"{metric}: {_mean(metric, reading.challenger)} against {_mean(metric, reading.champion)}"
    )


def percent(share: float) -> str:
    """Return a share in words."""
    return f"{100 * share:.3g} %"


# --- E-values ------------------------------------------------------------------------------------


def _log_rise(events: Sequence[tuple[float, Counts]], pairs: Moments | None) -> float:
    by_arms = sequential.log_rise(events)
    if pairs is None:
        return by_arms
    return _both(by_arms, sequential.log_discordant(pairs), _HARM_BY_PAIRS)


def _log_beyond(
    side: _Side,
    metric: str,
    arms: Sequence[tuple[float, Pair]],
    pairs: Moments | None,
    null: float,
    share: float = 0.0,
) -> float:
    by_arms, by_pairs = side
    log = by_arms(arms, null, center=CENTERS.get(metric, 0.0), binary=metric != "loss")
    return log if pairs is None else _both(log, by_pairs(pairs, null), share)


def _both(by_arms: float, by_pairs: float, share: float) -> float:
    """Return ln of the mean of two e-values of one null, from overlapping data."""
    return sequential.log_mean((by_arms, by_pairs), (1 - share, share))


# --- Sums ----------------------------------------------------------------------------------------


def _arms(statistics: Statistics, metric: str) -> list[tuple[float, Pair]]:
    return [
        (stage.weight, stage.values[metric])
        for stage in statistics.stages
        if metric in stage.values
    ]


def _events(statistics: Statistics, metric: str) -> list[tuple[float, Counts]]:
    return [
        (stage.weight, stage.events[metric])
        for stage in statistics.stages
        if metric in stage.events
    ]


def _means(arms: Sequence[tuple[float, Pair]]) -> tuple[Moments, Moments, float | None]:
    """Return both arms' sums over all stages, and challenger minus champion within stages.

    Stages weigh n₀n₁/(n₀ + n₁) (Mantel & Haenszel 1959), so that a change of both is none.
    """
    n = own_n = 0
    total = own_total = weighted = weights = 0.0
    for _, pair in arms:
        champion, challenger = pair.champion, pair.challenger
        n += champion.n
        own_n += challenger.n
        total += champion.total
        own_total += challenger.total
        if champion.n and challenger.n:
            weight = champion.n * challenger.n / (champion.n + challenger.n)
            gap = challenger.total / challenger.n - champion.total / champion.n
            weighted += weight * gap
            weights += weight
    return Moments(n, total), Moments(own_n, own_total), weighted / weights if weights else None


def _is_fresh(plan: RolloutPlan, statistics: Statistics, metric: str, now: datetime) -> bool:
    """Whether evidence is of about now: a time far ahead is as wrong as one long ago."""
    newest = statistics.newest.get(metric)
    return newest is not None and abs(now - newest) <= timedelta(hours=plan.stale_hours)


def _mean(metric: str, mean: float) -> str:
    return f"{mean:.4f}" if metric == "loss" else percent(mean)
