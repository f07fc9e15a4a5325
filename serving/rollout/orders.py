"""What a person may ask of a rollout: pure, like all that the machine does by itself."""

from datetime import datetime

from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import AT_REST, Order, Phase, Version
from mlplatform.errors import RolloutError
from serving.rollout.turns import WATCHED, told, turned


def order(rollout: Rollout, asked: Order, actor: str, reason: str, now: datetime) -> Rollout:
    """Return the rollout after what a person asked for.

    `promote` needs a challenger whose server was verified in this rollout and still runs, so it is
    possible from `shadow` on and no longer after the end; asked for in the soak, it ends the soak:
    the way out when the evidence cannot come, because the champion or the log is down.

    Raises:
        RolloutError: It is not possible in this phase: says what is the case and what is possible.
    """
    reason = f"by hand: {reason}" if reason else "by hand, for no stated reason"
    phase = rollout.phase
    if asked in {"rollback", "abort"}:
        if phase == "rolled_back":
            raise _impossible(
                rollout, asked, f"version {rollout.champion.version} gets all traffic"
            )
        verdict = "aborted" if asked == "abort" else "rolled_back"
        return turned(rollout, "rolled_back", verdict, reason, now, actor=actor)
    if phase in AT_REST:
        raise _impossible(rollout, asked, "it is over; start another rollout")
    if asked == "promote":
        if phase not in WATCHED:
            raise _impossible(rollout, asked, "its server is not verified yet; wait until it is")
        onward: Phase = "promoted" if phase == "soak" else "soak"
        reason = f"{reason}; not on evidence, from {_place(rollout)}"
        return turned(rollout, onward, "forced", reason, now, actor=actor)
    paused = asked == "pause"
    if paused == rollout.paused:
        raise _impossible(rollout, asked, "it is paused already" if paused else "it is not paused")
    word = "paused" if paused else "resumed"
    return told(rollout, word, reason, now, actor).model_copy(update={"paused": paused})


def supersede(rollout: Rollout, by: Version, actor: str, now: datetime) -> Rollout:
    """Return the rollout, ended because a newer version is asked for.

    Raises:
        RolloutError: It is over, or it is this very version that it rolls out.
    """
    if rollout.phase in AT_REST:
        raise _impossible(rollout, "superseding", "it is over; start the new one")
    if by.version == rollout.challenger.version:
        raise _impossible(rollout, "superseding", f"it rolls out version {by.version} itself")
    reason = f"version {by.version} was asked for; what this one has shown does not count for it"
    return turned(rollout, "superseded", "superseded", reason, now, actor=actor)


def _place(rollout: Rollout) -> str:
    return f"step {rollout.step + 1}" if rollout.phase == "canary" else rollout.phase


def _impossible(rollout: Rollout, asked: str, case: str) -> RolloutError:
    return RolloutError(
        f"rollout {rollout.id} of version {rollout.challenger.version} is {rollout.phase}, "
        f"where {asked} is not possible: {case}"
    )
