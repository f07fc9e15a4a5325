"""What the evidence of one look says: harm, safe, or not yet.

Harm is a bet against "no guardrail is harmed" that has won 1/rollback_alpha: the mean of the
guardrails' e-values, so one level holds for all of them and for all looks together. Safe rejects
"worse by the margin or more" for every guardrail, each at promotion_alpha (an intersection-union
test needs no correction; Berger 1982). Anything missing, old or contradictory is neither: it is
inconclusive by type, and nothing goes on because of it.

What comes first wins: evidence that does not count (another model's, rows on a wrong arm, an
uneven split, sums that cannot be), harm, evidence that is missing or old, a champion that is
worse than before, safe. While labels cannot be read the e-value of `loss` is 1, so harm is found
without it: that adds less than 1 to a mean which must reach 1/rollback_alpha.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import (
    Counts,
    Moments,
    Reading,
    Share,
    Statistics,
    Verdict,
    VerdictKind,
)
from mlplatform.contracts.usecase.operation import RolloutPlan
from serving.rollout import sequential
from serving.rollout.guardrails import EVENT_METRICS, in_short, in_words, percent, read

MISMATCH_LEVEL: Final = 0.001
"""Chance that a split which is as the weights say is ever called uneven."""

COMMON_LEVEL: Final = 0.001
"""Level at one look of "the champion is worse than before". It does not hold for all looks
together, because its window slides; a false alarm only delays."""

_LARGE: Final = 13.8
"""ln of about a million, from which only an e-value's magnitude is of interest."""


def judge(rollout: Rollout, statistics: Statistics | None, now: datetime) -> Verdict:
    """Return what the statistics of one look say about the rollout's challenger."""
    if statistics is None:
        return Verdict(kind="inconclusive", reason="The evidence could not be read.")
    void = _why_void(rollout, statistics)
    if void:
        return Verdict(kind="inconclusive", reason=void)
    plan = rollout.plan
    readings = tuple(read(plan, guardrail, statistics, now) for guardrail in plan.guardrails)
    log_harm = sequential.log_mean([reading.log_harm for reading in readings])
    kind, reason = _conclude(plan, statistics, readings, log_harm, now)
    return Verdict(kind=kind, reason=reason, log_harm=log_harm, readings=readings)


def _conclude(
    plan: RolloutPlan,
    statistics: Statistics,
    readings: Sequence[Reading],
    log_harm: float,
    now: datetime,
) -> tuple[VerdictKind, str]:
    if log_harm >= -math.log(plan.rollback_alpha):
        worst = max(readings, key=lambda reading: reading.log_harm)
        return "harm", (
            f"{in_words(worst, statistics)}; e-value {e_value(worst.log_harm)}, mean of all "
            f"{len(readings)} guardrails {e_value(log_harm)} ≥ {1 / plan.rollback_alpha:,.0f}."
        )
    missing = _why_missing(plan, statistics, readings, now)
    if missing:
        return "inconclusive", missing
    common = _common_mode(plan, statistics)
    if common:
        return "frozen", common
    needed = f"{1 / plan.promotion_alpha:,.0f}"
    unsure = [
        reading
        for reading in readings
        if reading.log_safe < -math.log(plan.promotion_alpha) or not reading.fresh
    ]
    if unsure:
        return "undecided", "Safety is not proven yet: " + "; ".join(
            f"{in_short(reading)}, e-value {e_value(reading.log_safe)} of {needed}"
            + ("" if reading.fresh else f", {_newest(statistics, reading.metric)}")
            for reading in unsure
        )
    least = min(readings, key=lambda reading: reading.log_safe)
    return "safe", (
        f"No guardrail of {len(readings)} is worse by its margin. Closest is "
        f"{in_words(least, statistics)}; e-value {e_value(least.log_safe)} ≥ {needed}."
    )


# --- Evidence that does not count ----------------------------------------------------------------


def _why_void(rollout: Rollout, statistics: Statistics) -> str:
    """Return why none of the statistics count; empty: they do."""
    challenger = rollout.challenger
    if (statistics.usecase, statistics.number) != (rollout.usecase, rollout.number):
        return (
            f"The evidence is of rollout {statistics.usecase}/{statistics.number}, not of "
            f"{rollout.id}."
        )
    if (statistics.version, statistics.digest) != (challenger.version, challenger.digest):
        return (
            f"The evidence is of version {statistics.version} ({statistics.digest[:12]}), not of "
            f"version {challenger.version} ({challenger.digest[:12]})."
        )
    if statistics.misassigned:
        return (
            f"{statistics.misassigned:,} rows were answered by another arm than the assignment "
            "says, so the arms cannot be compared: look at the gateways' routes."
        )
    wrong = {metric for metric, sums in _sums(statistics) if not _are_bounded(sums)}
    if wrong:
        return (
            f"The sums of {', '.join(sorted(wrong))} are not those of values from 0 to 1: look for "
            "NaN and scores out of range among the newest answers."
        )
    return _mismatch(rollout.plan, statistics)


def _sums(statistics: Statistics) -> list[tuple[str, Moments]]:
    found = list(statistics.paired.items())
    for stage in statistics.stages:
        for metric, pair in stage.values.items():
            found += (metric, pair.champion), (metric, pair.challenger)
    return found


def _are_bounded(sums: Moments) -> bool:
    """Whether the sums can be those of values in [-1, 1]; NaN and infinity cannot."""
    return -sums.n <= sums.total <= sums.n and 0 <= sums.squares <= sums.n


def _mismatch(plan: RolloutPlan, statistics: Statistics) -> str:
    """Return words if the split is not as the weights say.

    Entities come again in later stages, so stages are no new tosses after each other: each of
    those that the plan may have gets its part of the level (Bonferroni), and the worst decides.
    """
    logs = [sequential.log_mismatch(stage.weight, stage.exposed) for stage in statistics.stages]
    if not logs:
        return ""
    worst = max(logs)
    log = worst - math.log(max(len(plan.weights) + 1, len(logs)))
    if log < -math.log(MISMATCH_LEVEL):
        return ""
    stage = statistics.stages[logs.index(worst)]
    entities = stage.exposed.challenger + stage.exposed.champion
    return (
        f"Sample ratio mismatch: {percent(stage.exposed.challenger / entities)} of {entities:,} "
        f"entities were the challenger's at a weight of {percent(stage.weight)}; e-value "
        f"{e_value(log)} ≥ {1 / MISMATCH_LEVEL:,.0f}. Find out which requests are missing."
    )


# --- Evidence that is missing, or about both -----------------------------------------------------


def _why_missing(
    plan: RolloutPlan, statistics: Statistics, readings: Sequence[Reading], now: datetime
) -> str:
    """Return what is missing or old; empty: nothing but labels, which come late by nature."""
    if statistics.unread:
        return f"{statistics.unread[:1].upper()}{statistics.unread[1:]}."
    if abs(now - statistics.at) > timedelta(hours=plan.stale_hours):
        return (
            f"The evidence is of {statistics.at:%Y-%m-%d %H:%M}, more than "
            f"{plan.stale_hours:g} hours from now."
        )
    missing = [
        f"{reading.metric} ({_newest(statistics, reading.metric)})"
        for reading in readings
        if reading.metric != "loss" and not reading.fresh
    ]
    if not missing:
        return ""
    return f"No evidence within {plan.stale_hours:g} hours for {', '.join(missing)}."


def _newest(statistics: Statistics, metric: str) -> str:
    newest = statistics.newest.get(metric)
    return "none at all" if newest is None else f"newest of {newest:%Y-%m-%d %H:%M}"


def _common_mode(plan: RolloutPlan, statistics: Statistics) -> str:
    """Return words if the champion itself has more bad events than before the rollout.

    Decisions are none: their rate moves with the world, which is no reason to wait.
    """
    for guardrail in plan.guardrails:
        if guardrail.metric not in EVENT_METRICS:
            continue
        before = statistics.baseline.get(guardrail.metric)
        recent = statistics.recent.get(guardrail.metric)
        if before is None or recent is None or not before.entities or not recent.entities:
            continue
        weight = recent.entities / (recent.entities + before.entities)
        log = sequential.log_rise(((weight, Counts(before.events, recent.events)),))
        if log >= -math.log(COMMON_LEVEL):
            return (
                f"The champion's own {guardrail.metric} rose from {_share(before)} to "
                f"{_share(recent)}: the new version is not the cause."
            )
    return ""


def _share(share: Share) -> str:
    return f"{percent(share.events / share.entities)} ({share.events:,} of {share.entities:,})"


def e_value(log: float) -> str:
    """Return an e-value in words; it may be too large or too small for a float."""
    return f"{math.exp(log):,.3g}" if abs(log) < _LARGE else f"10^{log / math.log(10):.0f}"
