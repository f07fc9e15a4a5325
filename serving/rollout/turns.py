"""A turn of a rollout: the phase that it takes up, the route that it asks for, its chapter."""

from datetime import datetime, timedelta
from typing import Final

from mlplatform.contracts import Rollout, Verdict
from mlplatform.contracts.rollout import Chapter, Phase, Routed
from mlplatform.contracts.usecase.operation import RolloutPlan

EVIDENCE: Final = "evidence"
"""The actor of a turn that nobody asked for."""

WATCHED: Final = frozenset({"shadow", "canary", "soak"})
"""Phases in which the challenger answers requests, so that there is something to judge."""


def turned(
    rollout: Rollout,
    phase: Phase,
    verdict: str,
    reason: str,
    now: datetime,
    *,
    step: int | None = None,
    actor: str = EVIDENCE,
    looked: Verdict | None = None,
) -> Rollout:
    """Return the rollout in another phase or step: with its route asked for, and its chapter."""
    changes: dict[str, object] = {
        "phase": phase,
        "step": rollout.step if step is None else step,
        "paused": False,
        "entered_at": now,
        "blind_since": None,
        "waits_for": "",
    }
    weight, shadow = _shares(rollout.plan, phase, rollout.step if step is None else step)
    last = rollout.routes[-1] if rollout.routes else None
    if last is None or (last.weight, last.shadow) != (weight, shadow):
        epoch = rollout.first_epoch if last is None else last.epoch + 1
        routed = Routed(epoch=epoch, weight=weight, shadow=shadow, phase=phase, at=now)
        changes["routes"] = (*rollout.routes, routed)
    if phase == "soak":
        # Nearly all traffic waits on evidence here: what has not come for as long as evidence
        # counts is not waited for.
        hours = rollout.plan.soak_hours + rollout.plan.stale_hours
        changes["deadline_at"] = now + timedelta(hours=hours)
    return told(rollout.model_copy(update=changes), verdict, reason, now, actor, looked)


def told(
    rollout: Rollout,
    verdict: str,
    reason: str,
    now: datetime,
    actor: str,
    looked: Verdict | None = None,
) -> Rollout:
    """Return the rollout, where it is, with another chapter of its story."""
    chapter = Chapter(
        number=len(rollout.story) + 1,
        phase=rollout.phase,
        step=rollout.step,
        verdict=verdict,
        reason=reason,
        actor=actor,
        at=now,
        epoch=rollout.epoch,
        looked=looked,
    )
    return rollout.model_copy(update={"story": (*rollout.story, chapter)})


def _shares(plan: RolloutPlan, phase: Phase, step: int) -> tuple[float, float]:
    """Return the challenger's share of entities, and the share of requests shown to the shadow."""
    if phase == "shadow":
        return 0.0, plan.shadow_share
    if phase == "canary":
        return plan.weights[step], plan.shadow_share
    if phase == "soak":
        return max(plan.weights[-1], 1.0 - plan.weights[0]), 0.0
    return (1.0 if phase == "promoted" else 0.0), 0.0
