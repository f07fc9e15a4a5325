"""What a trigger knows and does, as lines for a person. Pure."""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from mlplatform.contracts.retrain import Fire, History, Retraining
from mlplatform.contracts.usecase.operation import Monitoring
from monitoring.trigger import DAY, WEEK, decide

Line = tuple[str, str]
"""A heading, and what is said under it."""


def standing(history: History | None, monitoring: Monitoring, now: datetime) -> tuple[Line, ...]:
    """Return how a trigger stands: the decision first, then what it follows from.

    Args:
        history: The trigger's; None: it was never asked.
        monitoring: Of the use case's spec.
        now: The time.
    """
    if history is None:
        return (("decision", "none: no window has been judged and no event told"),)
    return (
        ("decision", _decision(history, monitoring, now)),
        *_windows(history, monitoring),
        *(("event", f"{event.at:%Y-%m-%d %H:%M} {event.why}") for event in history.events),
        ("cooldown", _cooldown(history, monitoring, now)),
        ("budget", _budget(history, monitoring, now)),
        (
            "without gain",
            f"{history.without_gain} runs in a row; at {monitoring.stop_after_no_gain} it stops",
        ),
        *(("request", _request(item)) for item in history.retrainings),
    )


def _decision(history: History, monitoring: Monitoring, now: datetime) -> str:
    choice = decide(history, monitoring, now)
    if isinstance(choice, Fire):
        return f"to train, {_because(choice.request.reason, choice.request.why)}"
    verb = "waits" if choice.kind == "wait" else "refuses"
    return f"{verb}, {_because(choice.reason, choice.why)}"


def _because(reason: str, why: str) -> str:
    """Return a reason in words; words that begin with the cause name it themselves."""
    return why if why.startswith(f"{reason}:") else f"{reason}: {why}"


def _windows(history: History, monitoring: Monitoring) -> Iterator[Line]:
    k, n = monitoring.persistence
    for found in history.findings:
        blamed = f" ({', '.join(found.blamed)})" if found.blamed else ""
        said = f"{found.window.start:%Y-%m-%d %H:%M} {found.cause}{blamed}"
        yield found.watch, f"{said}: {found.why}" if found.why else said
    yield "persistence", f"{k} of the last {n} windows must agree"


def _cooldown(history: History, monitoring: Monitoring, now: datetime) -> str:
    starts = _starts(history)
    if not starts:
        return "none: no run has begun"
    ends = max(starts) + timedelta(hours=monitoring.cooldown_hours)
    return f"{'until' if now < ends else 'over since'} {ends:%Y-%m-%d %H:%M}"


def _budget(history: History, monitoring: Monitoring, now: datetime) -> str:
    began = [sum(now - at < period for at in _starts(history)) for period in (DAY, WEEK)]
    most = monitoring.retrains_per_week
    return f"{began[0]} of {math.ceil(most / 7)} runs in 24 hours, {began[1]} of {most} in 7 days"


def _starts(history: History) -> list[datetime]:
    return [item.submitted_at for item in history.retrainings if item.submitted_at is not None]


def _request(item: Retraining) -> str:
    asked, run = item.request, "" if item.run is None else f", run {item.run}"
    return (
        f"{asked.key} {item.phase}{run}; asked {asked.asked_at:%Y-%m-%d %H:%M} "
        f"for {_because(asked.reason, asked.why)}"
    )
