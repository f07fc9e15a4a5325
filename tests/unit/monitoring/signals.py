"""What the tests of the trigger say: findings of hours, events, requests in every phase."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mlplatform.contracts import Window
from mlplatform.contracts.retrain import (
    Cause,
    Event,
    Finding,
    History,
    Outcome,
    Phase,
    Retraining,
    Signal,
)
from mlplatform.contracts.usecase.operation import Monitoring
from monitoring.history import approve, claim, deny, ended, submitted, turn
from monitoring.trigger import observe

USECASE: Final = "flight_delay"
START: Final = datetime(2013, 7, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
MONITORING: Final = Monitoring(
    window_hours=1,
    false_alarm_rate=0.01,
    persistence=(2, 3),
    max_metric_loss={"pr_auc": 0.05},
    cooldown_hours=12,
    retrains_per_week=14,
    stop_after_no_gain=3,
)


def at(hours: float) -> datetime:
    return START + hours * HOUR


def plan(**changes: Any) -> Monitoring:
    return MONITORING.model_copy(update=changes)


def finding(
    hour: int, cause: Cause = "input_drift", *blamed: str, judged: float = 0, why: str = ""
) -> Finding:
    """Return what was found in the hour that begins then, judged so many hours after its end."""
    curable = cause in {"input_drift", "output_drift", "performance_loss"}
    return Finding(
        usecase=USECASE,
        watch="performance" if cause == "performance_loss" else "inputs",
        window=Window(start=at(hour), end=at(hour + 1)),
        cause=cause,
        blamed=blamed or (("temp",) if curable else ()),
        why=why,
        judged_at=at(hour + 1 + judged),
    )


def event(hour: float, name: str = "a") -> Event:
    return Event(usecase=USECASE, id=name, at=at(hour), why=f"a new runway {name}")


def began(*signals: Signal, **changes: Any) -> History:
    """Return a history that has taken in these signals, long after they happened."""
    return told(History(usecase=USECASE, began=START, **changes), *signals)


def told(history: History, *signals: Signal, monitoring: Monitoring = MONITORING) -> History:
    for signal in signals:
        history = observe(history, signal, monitoring, at(10_000))
    return history


def last(history: History) -> Retraining:
    assert history.last is not None
    return history.last


def ran(
    history: History, hour: float, outcome: Outcome = "better", monitoring: Monitoring = MONITORING
) -> History:
    """Ask at this hour, and have the run begin at once and end so an hour later."""
    history = turn(history, monitoring, at(hour))
    return end(begin(history, hour), hour + 1, outcome)


def begin(history: History, hour: float) -> History:
    history = claim(history, "me", at(hour + 1), at(hour))
    key = last(history).request.key
    return submitted(history, key, f"run of {key}", at(hour))


def end(history: History, hour: float, outcome: Outcome = "better") -> History:
    return ended(history, last(history).request.key, outcome, "as told", at(hour))


def drifted(first: int, windows: int = 2) -> tuple[Finding, ...]:
    return tuple(finding(first + hour) for hour in range(windows))


def reach(phase: Phase) -> History:
    """Return a history whose only request, of hour 2, is in this phase."""
    asked = turn(began(*drifted(0)), plan(approval=True), at(2))
    key = last(asked).request.key
    if phase == "awaiting_approval":
        return asked
    if phase == "denied":
        return deny(asked, key, "ana", "not now", at(3))
    ready = approve(asked, key, "ana", "go", at(3))
    if phase == "ready":
        return ready
    running = begin(ready, 3)
    return running if phase == "submitted" else end(running, 4, phase)
