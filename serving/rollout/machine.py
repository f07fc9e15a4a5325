"""The state machine of a rollout: pure, without a clock of its own.

`turn` takes a rollout one step further, and `effects` says what its state means for servers,
route, registry and ledger. Whoever drives it writes the state first and brings the effects about
afterwards, again and again: both depend on nothing but their arguments.

    phase          goes on when …                                            to          verdict
    -------------  --------------------------------------------------------  ----------  ---------
    pending        (at once)                                                 verifying   verifying
    verifying      the challenger's server is ready                          shadow ¹    verified
    shadow         shadow_hours; min_exposure pairs; safe or undecided       canary 0    canary
    canary k       min_exposure entities in both arms; safe or undecided     canary k+1  canary
    canary (last)  min_exposure entities in both arms; safe                  soak        soak
    soak           soak_hours; min_exposure entities seen by it; still safe ² promoted   promoted
    ¹ canary 0 where the plan has no shadow. ² or undecided, where a person skipped the steps.

    shadow, canary, soak      harm                                           rolled_back harm
    verifying … soak          the challenger's server failed                 rolled_back failed
    canary, soak              stale_hours in which harm could not be told    held        held
    pending … soak            deadline_at                                    held        held
    pending … soak            a newer version is asked for                   superseded  superseded
    shadow, canary            a person promotes                              soak        forced
    soak                      a person promotes                              promoted    forced
    all but rolled_back       a person rolls back, or aborts                 rolled_back ³
    pending … soak            a person pauses, or resumes                    the same    ³
    ³ what was asked for: rolled_back or aborted, paused or resumed.

From `shadow` on, a phase or step goes on only when its route is in force at every gateway, both
servers are ready, the evidence is fresh and of this very model, and nobody paused it. Harm, a
failed server, blindness and the deadline count always, in this order; the soak has a deadline of
its own, its hours and those for which evidence counts. Blind is a look whose evidence cannot be
read or does not count, so that it shows no harm either. `safe` means that every guardrail of the
plan is, on fresh evidence; `still safe` that none has turned since. `promoted` is the only way to
all traffic, and leads to nowhere but `rolled_back`, which leads nowhere: so a rollout promotes at
most once.
"""

from datetime import datetime, timedelta

from mlplatform.contracts import Evidence, Rollout, Verdict
from mlplatform.contracts.rollout import AT_REST, Phase, Routed, Version
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.errors import RolloutError
from serving.rollout.effects import Effect
from serving.rollout.judge import judge
from serving.rollout.orders import order, supersede
from serving.rollout.readiness import settles_with, waits_for, was_forced
from serving.rollout.turns import WATCHED, turned
from serving.rollout.wanted import effects, in_force, serves

__all__ = [
    "WATCHED",
    "advance",
    "effects",
    "look",
    "order",
    "reissue",
    "serves",
    "start",
    "supersede",
    "turn",
]


def start(
    usecase: str,
    number: int,
    challenger: Version,
    champion: Version,
    plan: RolloutPlan,
    first_epoch: int,
    now: datetime,
    actor: str,
    reason: str,
) -> Rollout:
    """Return a new rollout, which asks at once for a route that gives the champion all traffic.

    Args:
        usecase: Its name.
        number: Later than that of the rollout before.
        challenger: What is to take over.
        champion: What serves now.
        plan: Of the use case's spec; holds for this rollout whatever the spec says later.
        first_epoch: Later than any epoch of a route of the use case.
        now: The time.
        actor: Who asks.
        reason: Why, in words.

    Raises:
        RolloutError: The version serves already.
    """
    if challenger.version == champion.version:
        raise RolloutError(
            f"version {challenger.version} of {usecase} serves already: name another version"
        )
    rollout = Rollout(
        usecase=usecase,
        number=number,
        challenger=challenger,
        champion=champion,
        plan=plan,
        first_epoch=first_epoch,
        started_at=now,
        entered_at=now,
        deadline_at=now + timedelta(hours=plan.deadline_hours),
    )
    return turned(rollout, "pending", "started", reason, now, actor=actor)


def advance(
    rollout: Rollout, evidence: Evidence, now: datetime
) -> tuple[Rollout, tuple[Effect, ...]]:
    """Return the rollout after one look at the evidence, and what its state means.

    The same object comes back when nothing changed. Who wants to keep the verdict as well calls
    `look`, `turn` and `effects` one after the other, which is all that this does.
    """
    after = turn(rollout, evidence, look(rollout, evidence, now), now)
    return after, effects(after)


def look(rollout: Rollout, evidence: Evidence, now: datetime) -> Verdict | None:
    """Return what the evidence says; None in a phase in which there is nothing to judge."""
    return judge(rollout, evidence.statistics, now) if rollout.phase in WATCHED else None


def turn(rollout: Rollout, evidence: Evidence, verdict: Verdict | None, now: datetime) -> Rollout:
    """Return the rollout after one look that came to a verdict; the same object when it stays."""
    rollout = _acknowledged(rollout, evidence.acknowledged, now)
    if rollout.phase in AT_REST:
        return _waiting(rollout, settles_with(rollout, evidence))
    if verdict is not None and verdict.kind == "harm":
        return turned(rollout, "rolled_back", "harm", verdict.reason, now, looked=verdict)
    if rollout.phase != "pending" and evidence.challenger.state == "failed":
        reason = f"the server of version {rollout.challenger.version} failed"
        if evidence.challenger.detail:
            reason += f": {evidence.challenger.detail}"
        return turned(rollout, "rolled_back", "failed", reason, now, looked=verdict)
    rollout = _blinded(rollout, verdict, now)
    obstacle = waits_for(rollout, evidence, verdict, now)
    overdue = _overdue(rollout, verdict, obstacle, now)
    if overdue:
        return turned(rollout, "held", "held", overdue, now, looked=verdict)
    if obstacle:
        return _waiting(rollout, obstacle)
    return _next(rollout, verdict, now)


def reissue(rollout: Rollout, known: int, now: datetime) -> Rollout:
    """Return the rollout with its last route asked for anew, later than an epoch that is taken.

    For a route store that holds another route under this epoch or a later one: it was restored
    from elsewhere, or a server has moved. The rollout's own would never come into force.
    """
    if known < rollout.epoch:
        return rollout
    again = rollout.routes[-1].model_copy(update={"epoch": known + 1, "at": now})
    return rollout.model_copy(update={"routes": (*rollout.routes, again)})


def _acknowledged(rollout: Rollout, epoch: int, now: datetime) -> Rollout:
    """Return the rollout with its route in force, once all gateways follow this very one.

    A later epoch than the rollout asked for is somebody else's route, hence no sign of ours. A
    route that was in force before and was only reissued does not begin its phase anew.
    """
    if rollout.committed >= rollout.epoch or epoch != rollout.epoch:
        return rollout
    before, after = in_force(rollout)[0], rollout.routes[-1]
    same = before.epoch == rollout.committed and _split(before) == _split(after)
    entered_at = rollout.entered_at if same else now
    return rollout.model_copy(update={"committed": epoch, "entered_at": entered_at})


def _split(routed: Routed) -> tuple[Phase, float, float]:
    return routed.phase, routed.weight, routed.shadow


def _blinded(rollout: Rollout, verdict: Verdict | None, now: datetime) -> Rollout:
    """Return the rollout with the time since when users meet a version that cannot be judged."""
    met = rollout.routes[-1].weight > 0
    blind = met and (verdict is None or not verdict.readings)
    if blind == (rollout.blind_since is not None):
        return rollout
    return rollout.model_copy(update={"blind_since": now if blind else None})


def _overdue(rollout: Rollout, verdict: Verdict | None, obstacle: str, now: datetime) -> str:
    """Return why the version gets no more time; empty: it does."""
    hours = rollout.plan.stale_hours
    if rollout.blind_since is not None and now - rollout.blind_since >= timedelta(hours=hours):
        reason = f"nobody could tell for {hours:g} hours whether it does harm"
        return reason if verdict is None else f"{reason}: {verdict.reason}"
    if now >= rollout.deadline_at:
        return f"the deadline came while it waited for {obstacle or 'its next look'}"
    return ""


def _next(rollout: Rollout, verdict: Verdict | None, now: datetime) -> Rollout:
    """Return the rollout in the phase or step that follows; nothing stands against it."""
    plan = rollout.plan
    challenger = f"version {rollout.challenger.version}"
    if rollout.phase == "pending":
        return turned(rollout, "verifying", "verifying", f"the server of {challenger} starts", now)
    if rollout.phase == "verifying":
        reason = f"the server of {challenger} gave the golden answers"
        onward: Phase = "shadow" if plan.shadow_hours > 0 and plan.shadow_share > 0 else "canary"
        return turned(rollout, onward, "verified", reason, now)
    reason = "" if verdict is None else verdict.reason
    if rollout.phase == "soak":
        reason += " Steps were skipped by hand." if was_forced(rollout) else ""
        return turned(rollout, "promoted", "promoted", reason, now, looked=verdict)
    step = rollout.step + 1 if rollout.phase == "canary" else 0
    if step == len(plan.weights):
        return turned(rollout, "soak", "soak", reason, now, looked=verdict)
    return turned(rollout, "canary", "canary", reason, now, step=step, looked=verdict)


def _waiting(rollout: Rollout, obstacle: str) -> Rollout:
    if obstacle == rollout.waits_for:
        return rollout
    return rollout.model_copy(update={"waits_for": obstacle})
