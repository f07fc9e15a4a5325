"""What a rollout waits for before it goes on, in words in which no number grows.

The words are part of the state, which is written when they change: so they name the kind of the
obstacle, and how far away it is can be read from the last look.
"""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from mlplatform.contracts import Evidence, Rollout, Statistics, Verdict
from mlplatform.contracts.rollout import Counts, Moments, Version
from mlplatform.contracts.usecase.operation import RolloutPlan
from serving.rollout.guardrails import PAIRED_METRICS


def waits_for(rollout: Rollout, evidence: Evidence, verdict: Verdict | None, now: datetime) -> str:
    """Return the first obstacle of a rollout that is not over; empty when it can go on."""
    return next(_obstacles(rollout, evidence, verdict, now), "")


def settles_with(rollout: Rollout, evidence: Evidence) -> str:
    """Return what a rollout that is over still waits for; empty when it is at rest."""
    if rollout.committed >= rollout.epoch:
        return ""
    promoted = rollout.phase == "promoted"
    version = rollout.challenger if promoted else rollout.champion
    status = evidence.challenger if promoted else evidence.champion
    return _server(version) if status.state != "ready" else _gateways(rollout)


def was_forced(rollout: Rollout) -> bool:
    """Return whether a person skipped steps, and with them the proof that the version is safe."""
    return any(chapter.verdict == "forced" for chapter in rollout.story)


def _obstacles(
    rollout: Rollout, evidence: Evidence, verdict: Verdict | None, now: datetime
) -> Iterator[str]:
    if rollout.paused:
        yield "someone to resume it"
    if rollout.phase == "pending":
        return
    if evidence.challenger.state != "ready":
        yield _server(rollout.challenger)
    if rollout.phase == "verifying":
        return
    if evidence.champion.state != "ready":
        yield _server(rollout.champion)
    if rollout.committed < rollout.epoch:
        yield _gateways(rollout)
    lasts = {"shadow": rollout.plan.shadow_hours, "soak": rollout.plan.soak_hours}
    hours = lasts.get(rollout.phase)
    if hours is not None and now - rollout.entered_at < timedelta(hours=hours):
        yield f"the {rollout.phase} to last {hours:g} hours"
    yield from _missing_evidence(rollout, evidence.statistics, verdict)


def _missing_evidence(
    rollout: Rollout, statistics: Statistics | None, verdict: Verdict | None
) -> Iterator[str]:
    plan = rollout.plan
    if statistics is None or verdict is None or not _is_about(statistics, rollout):
        yield "evidence on this model"
        return
    if verdict.kind == "inconclusive":
        yield "evidence that is fresh and sound"
    if verdict.kind == "frozen":
        yield "both versions to recover: they are worse together"
    if rollout.phase == "shadow":
        yield from _missing_pairs(plan, statistics)
        return
    yield from _missing_exposure(rollout, statistics)
    if was_forced(rollout):
        return
    if rollout.phase == "soak":
        if not _is_still_safe(rollout, verdict):
            yield "evidence that every guardrail is still safe"
    elif rollout.step == len(plan.weights) - 1 and not _is_safe(rollout, verdict):
        yield "evidence that every guardrail is safe"


def _missing_pairs(plan: RolloutPlan, statistics: Statistics) -> Iterator[str]:
    """Yield an obstacle where a metric that a shadow shows at once has too few pairs.

    In a plan that guards none of those it is the pairs of the requests themselves that count.
    """
    metrics = {guardrail.metric for guardrail in plan.guardrails} & PAIRED_METRICS - {"loss"}
    answered = [statistics.paired.get(metric, Moments()).n for metric in metrics]
    answered = answered or [max((pairs.n for pairs in statistics.paired.values()), default=0)]
    if min(answered) < plan.min_exposure:
        yield f"{plan.min_exposure} entities that both versions answered"


def _missing_exposure(rollout: Rollout, statistics: Statistics) -> Iterator[str]:
    """Yield who was not seen by enough entities at this weight.

    In the soak the champion keeps the first step's share: that it is seen by as many again would
    make every soak as long as that step, for a comparison that goes on over all stages anyway.
    """
    least, weight = rollout.plan.min_exposure, rollout.routes[-1].weight
    # Weights rise from step to step, so a weight is one stage.
    exposed = next((s.exposed for s in statistics.stages if s.weight == weight), Counts())
    if exposed.challenger < least:
        yield f"{least} entities of version {rollout.challenger.version} at this weight"
    if rollout.phase == "canary" and exposed.champion < least:
        yield f"{least} entities of version {rollout.champion.version} at this weight"


def _is_about(statistics: Statistics, rollout: Rollout) -> bool:
    """Return whether it is this rollout's own evidence, on this very model."""
    return (
        statistics.digest == rollout.challenger.digest
        and statistics.version == rollout.challenger.version
        and statistics.number == rollout.number
        and statistics.usecase == rollout.usecase
    )


def _is_safe(rollout: Rollout, verdict: Verdict) -> bool:
    """Return whether every guardrail is safe on fresh evidence."""
    fresh = {reading.metric for reading in verdict.readings if reading.fresh}
    return verdict.kind == "safe" and all(g.metric in fresh for g in rollout.plan.guardrails)


def _is_still_safe(rollout: Rollout, verdict: Verdict) -> bool:
    """Return whether fresh evidence leaves every guardrail safe, as it was when the soak began.

    An e-value that has reached its limit has refuted "worse by the margin", whatever it does later
    (Ville), and in the soak it wanders: the champion's few entities weigh much. So it must not have
    turned against safety, which is to fall below 1. Only `loss` must be at its limit still: its
    late labels are what the soak waits for.
    """
    limit = -math.log(rollout.plan.promotion_alpha)
    held = {
        reading.metric
        for reading in verdict.readings
        if reading.fresh and reading.log_safe >= (limit if reading.metric == "loss" else 0.0)
    }
    return held >= {guardrail.metric for guardrail in rollout.plan.guardrails}


def _server(version: Version) -> str:
    return f"the server of version {version.version} to be ready"


def _gateways(rollout: Rollout) -> str:
    return f"every gateway to follow epoch {rollout.epoch}"
