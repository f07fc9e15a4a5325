"""What is done to a trigger's history: asked, approved, submitted, ended; each with its row.

Pure: a function takes a history and returns the next one, with the rows for the ledger inside it.
They are written together and reach the ledger afterwards, so no decision goes without its row.
"""

from datetime import datetime
from typing import Final

from pydantic import JsonValue

from mlplatform.contracts import Decision
from mlplatform.contracts.retrain import (
    Fire,
    History,
    Outcome,
    Phase,
    Retraining,
    Said,
    Wait,
)
from mlplatform.contracts.usecase.operation import Monitoring
from mlplatform.errors import DataError
from monitoring.trigger import WEEK, blocked, decide

_ACTOR: Final = "monitoring"
_QUIET: Final = frozenset({"nothing", "in_flight"})
"""Reasons to wait that follow from the rows before: they get none of their own."""
_VERDICTS: Final = {"wait": "waiting", "refuse": "refused"}


def turn(history: History, monitoring: Monitoring, now: datetime) -> History:
    """Decide, and return the history in which that is so; the very same one if it was so before.

    Args:
        history: All that is known.
        monitoring: Of the use case's spec; says whether a person must approve a request.
        now: The time.
    """
    choice = decide(history, monitoring, now)
    if isinstance(choice, Fire):
        return _ask(history, choice, now, approval=monitoring.approval)
    # A window that tells nothing is followed by others like it: that is one decision.
    window = None if choice.reason == "inconclusive" else choice.window
    since = None if window is None else window.start
    said = Said(kind=choice.kind, reason=choice.reason, since=since)
    if said == history.said:
        return history
    history = history.model_copy(update={"said": said})
    if isinstance(choice, Wait) and choice.reason in _QUIET:
        return history
    evidence: dict[str, JsonValue] = {"reason": choice.reason}
    if choice.window is not None:
        evidence["window"] = choice.window.model_dump(mode="json")
    verdict = _VERDICTS[choice.kind]
    return _row(history, verdict, choice.reason, choice.why, evidence, _ACTOR, now)


def approve(history: History, key: str, actor: str, why: str, now: datetime) -> History:
    """Return the history in which a person let a request run.

    Raises:
        DataError: The request does not wait for approval.
    """
    _awaited(history, key)
    history = _replace(history, phase="ready")
    return _row(history, "approved", key, why, {}, actor, now)


def deny(history: History, key: str, actor: str, why: str, now: datetime) -> History:
    """Return the history in which a person refused a request: what it was asked for is settled.

    Raises:
        DataError: The request does not wait for approval.
    """
    waiting = _awaited(history, key)
    history = _settled(_replace(history, phase="denied", ended_at=now), waiting.request.asked_at)
    return _row(history, "denied", key, why, {}, actor, now)


def reset(history: History, actor: str, why: str, now: datetime) -> History:
    """Return the history that may train again after runs without gain: a person found out why."""
    history = history.model_copy(update={"without_gain": 0})
    return _row(history, "reset", history.usecase, why, {}, actor, now)


def claim(history: History, by: str, until: datetime, now: datetime) -> History:
    """Return the history in which a submitter is at work on the request that is ready.

    It is the same one if another still is, or if the feed broke after the request: then nothing
    runs before it is whole again. What was claimed once may run already, and is brought to its end.
    """
    last = history.last
    if last is None or last.phase != "ready":
        return history
    if last.as_of is None and blocked(history) is not None:
        return history
    others = last.claimed_by not in {None, by}
    if others and last.claimed_until is not None and now < last.claimed_until:
        return history
    as_of = last.as_of or now  # whoever takes over asks for the very same run
    return _replace(history, claimed_by=by, claimed_until=until, as_of=as_of)


def submitted(history: History, key: str, run: str, now: datetime) -> History:
    """Return the history in which a request's run is known; the first that is told stands."""
    last = history.last
    if last is None or last.request.key != key or last.phase != "ready":
        return history
    history = _replace(history, phase="submitted", run=run, submitted_at=now)
    return _row(history, "submitted", key, f"run {run}", {"run": run}, _ACTOR, now)


def ended(history: History, key: str, outcome: Outcome, why: str, now: datetime) -> History:
    """Return the history in which it is known what a run brought; the first that is told stands.

    `better` means that its model took over: until then windows still judge the one before. What
    a run that broke down was asked for is open still; an event asks again.
    """
    last = history.last
    if last is None or last.request.key != key or last.phase != "submitted":
        return history
    runs = 0 if outcome == "better" else history.without_gain + 1
    history = _replace(history, phase=outcome, ended_at=now)
    if outcome != "failed" and last.as_of is not None:
        history = _settled(history, last.as_of)
    history = history.model_copy(update={"without_gain": runs})
    evidence: dict[str, JsonValue] = {"run": last.run, "without_gain": runs}
    return _row(history, outcome, key, why, evidence, _ACTOR, now)


def _ask(history: History, fire: Fire, now: datetime, *, approval: bool) -> History:
    request = fire.request
    phase: Phase = "awaiting_approval" if approval else "ready"
    asked = Retraining(request=request, phase=phase)
    said = Said(kind="fire", reason=request.reason, since=request.window.start)
    update = {"retrainings": (*_kept(history, now), asked), "said": said}
    evidence: dict[str, JsonValue] = {
        "request": request.model_dump(mode="json"),
        "approval": approval,
    }
    history = history.model_copy(update=update)
    return _row(history, "requested", request.key, request.why, evidence, _ACTOR, now)


def _kept(history: History, now: datetime) -> tuple[Retraining, ...]:
    """Return the retrainings that the budget still looks at; the cooldown is over for all."""
    return tuple(
        item
        for item in history.retrainings
        if item.submitted_at is not None and now - item.submitted_at < WEEK
    )


def _awaited(history: History, key: str) -> Retraining:
    last = history.last
    if last is None or last.request.key != key or last.phase != "awaiting_approval":
        raise DataError(
            f"no request {key} of {history.usecase} waits for approval: it was answered, or never "
            "asked; look at the ledger's rows of kind retrain"
        )
    return last


def _replace(history: History, **changes: object) -> History:
    """Return the history with another last retraining."""
    *before, last = history.retrainings
    changed = last.model_copy(update=changes)
    return history.model_copy(update={"retrainings": (*before, changed)})


def _settled(history: History, until: datetime) -> History:
    """Return the history in which events until a moment have been answered."""
    covered = max(until, history.covered_until or until)
    events = tuple(event for event in history.events if event.at > covered)
    return history.model_copy(update={"events": events, "covered_until": covered})


def _row(
    history: History,
    verdict: str,
    subject: str,
    why: str,
    evidence: dict[str, JsonValue],
    actor: str,
    now: datetime,
) -> History:
    number = history.rows + 1
    row = Decision(
        key=f"{history.usecase}/retrain/{history.began.isoformat()}/{number}",
        usecase=history.usecase,
        kind="retrain",
        subject=subject,
        verdict=verdict,
        reason=why,
        evidence=evidence,
        actor=actor,
        at=now,
    )
    return history.model_copy(update={"rows": number, "unrecorded": (*history.unrecorded, row)})
