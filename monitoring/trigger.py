"""Whether a model is to be trained anew: pure decisions over what the windows showed.

`observe` takes in a signal; in whatever order and how often signals arrive, what is known in the
end is the same. `decide` says what follows from it at a moment:

    refuse  data_fault, skew  the newest window of the inputs shows it: new data would be wrong too
    wait    in_flight         one retraining at a time, until it is known whether it helped
    wait    persistence       something is to blame, but not in k of the last n windows
    refuse  inconclusive      the newest window of a watch can tell nothing, and nothing else speaks
    wait    nothing           all is well
    refuse  no_gain           too many runs in a row brought no better model; a person may reset it
    wait    cooldown, budget  between two starts, in a day, in a week
    fire                      for, in this order: performance_loss, drift, event, scheduled

Windows agree when they blame the same feature or metric. Only windows that began after the last
retraining had ended count: those before it judged the model that was replaced, or have been tried.
Nothing is forgotten by waiting: an event stays until a run knows of it, and a drift shows again.
"""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from pydantic import JsonValue

from mlplatform.contracts import Window
from mlplatform.contracts.retrain import (
    CURABLE,
    Choice,
    Event,
    Finding,
    Fire,
    History,
    Reason,
    Refuse,
    RetrainRequest,
    Signal,
    Wait,
    Watch,
)
from mlplatform.contracts.usecase.operation import Monitoring
from mlplatform.errors import DataError

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
_WATCHES: Final[dict[Watch, Reason]] = {"performance": "performance_loss", "inputs": "drift"}
"""What each watch gives reason for, the stronger one first: a loss is the harm itself."""
_EVENTS: Final = 16
"""Events kept, the newest: one run answers all, so more would only be more to read."""


def observe(history: History, signal: Signal, monitoring: Monitoring, now: datetime) -> History:
    """Return the history that knows of a signal as well; the very same one if that is nothing new.

    Raises:
        DataError: The signal is of another use case, of the future, or of a window that is not as
            long as the spec's or overlaps another one.
    """
    if signal.usecase != history.usecase:
        raise DataError(f"a signal of {signal.usecase} came to the trigger of {history.usecase}")
    moment = signal.window.end if isinstance(signal, Finding) else signal.at
    if moment > now:
        raise DataError(
            f"a signal of {signal.usecase} is about {moment.isoformat()}, and it is only "
            f"{now.isoformat()}: look at the clocks, or send it when it has happened"
        )
    if isinstance(signal, Finding):
        return _found(history, signal, monitoring)
    return _happened(history, signal)


def decide(history: History, monitoring: Monitoring, now: datetime) -> Choice:
    """Return what is to be done now."""
    if (refusal := blocked(history)) is not None:
        return refusal
    if (running := history.in_flight) is not None:
        return Wait(reason="in_flight", why=f"request {running.request.key} is {running.phase}")
    wanted = next(_wanted(history, monitoring, now), None)
    if wanted is None:
        return _unmoved(history, monitoring)
    if history.without_gain >= monitoring.stop_after_no_gain:
        why = (
            f"{wanted.why}; but {history.without_gain} runs in a row brought no better model: "
            "find out why, then reset the trigger"
        )
        return Refuse(reason="no_gain", why=why, window=wanted.window)
    return _delayed(history, wanted, monitoring, now) or Fire(request=wanted)


def blocked(history: History) -> Refuse | None:
    """Return why nothing may be trained on the newest data; None where nothing is known of it."""
    newest = _newest(history, "inputs")
    if newest is None:
        return None
    match newest.cause:
        case "data_fault" | "skew" as cause:
            why = ": ".join(filter(None, (cause, ", ".join(newest.blamed), newest.why)))
            return Refuse(reason=cause, why=why, window=newest.window)
        case _:
            return None


def _found(history: History, finding: Finding, monitoring: Monitoring) -> History:
    length = timedelta(hours=monitoring.window_hours)
    window, watch = finding.window, finding.watch
    if window.end - window.start != length:
        raise DataError(
            f"{_times(window)} of {finding.usecase} is not {length} long, as its spec says: "
            "judge windows of monitoring.window_hours"
        )
    known = {item.window: item for item in _of(history, watch, length)}
    others = [other for other in known if other != window]
    for other in others:
        if other.start < window.end and window.start < other.end:
            raise DataError(
                f"{_times(window)} of {finding.usecase} overlaps {_times(other)}, which was judged "
                "before: windows follow each other, or what they show would count twice"
            )
    if window in known and _order(finding) <= _order(known[window]):
        return history
    known[window] = finding
    since = max(item.end for item in known) - monitoring.persistence[1] * length
    if window.start < since:
        return history
    kept = [item for item in known.values() if item.window.start >= since]
    kept += [item for item in history.findings if item.watch != watch]
    kept.sort(key=lambda item: (item.watch, _order(item)))
    return history.model_copy(update={"findings": tuple(kept)})


def _happened(history: History, event: Event) -> History:
    covered = history.covered_until is not None and event.at <= history.covered_until
    if covered or any(known.id == event.id for known in history.events):
        return history
    events = sorted((*history.events, event), key=lambda item: (item.at, item.id))[-_EVENTS:]
    if event not in events:
        return history
    return history.model_copy(update={"events": tuple(events)})


def _wanted(history: History, monitoring: Monitoring, now: datetime) -> Iterator[RetrainRequest]:
    """Yield what could be asked for, were there no limits; the strongest reason first."""

    def request(
        reason: Reason, window: Window, why: str, evidence: dict[str, JsonValue]
    ) -> RetrainRequest:
        return RetrainRequest(
            usecase=history.usecase,
            reason=reason,
            window=window,
            asked_at=now,
            why=why,
            evidence=evidence,
        )

    k, n = monitoring.persistence
    for watch, reason in _WATCHES.items():
        newest = _newest(history, watch)
        suspects = _suspects(history, watch, monitoring)
        agreed = sorted(name for name, windows in suspects.items() if windows >= k)
        if newest is None or newest.cause == "inconclusive" or not agreed:
            continue
        found = [f for f in _counting(history, watch, monitoring) if set(agreed) & set(f.blamed)]
        why = f"{found[-1].cause}: {', '.join(agreed)} in {k} or more of the last {n} windows"
        shown: list[JsonValue] = [item.model_dump(mode="json") for item in found]
        yield request(reason, found[-1].window, why, {"agreed": [*agreed], "findings": shown})
    if history.events:
        window = Window(start=history.events[0].at, end=now)
        told: list[JsonValue] = [item.model_dump(mode="json") for item in history.events]
        yield request("event", window, history.events[-1].why, {"events": told})
    if monitoring.schedule_days is not None:
        last, period = history.last, timedelta(days=monitoring.schedule_days)
        since = history.began if last is None else last.submitted_at or last.ended_at
        if since is not None and now >= since + period:
            why = f"the last one began {monitoring.schedule_days:g} days ago or more"
            yield request("scheduled", Window(start=since, end=since + period), why, {})


def _unmoved(history: History, monitoring: Monitoring) -> Choice:
    """Return why nothing is wanted."""
    k, n = monitoring.persistence
    untold: Finding | None = None
    for watch in _WATCHES:
        newest = _newest(history, watch)
        if newest is None:
            continue
        if newest.cause == "inconclusive":
            untold = newest
        elif suspects := _suspects(history, watch, monitoring):
            name, windows = suspects.most_common(1)[0]
            why = f"{name} in {windows} of the last {n} windows; {k} must agree"
            return Wait(reason="persistence", why=why, window=newest.window)
    if untold is not None:
        why = f"the newest window of the {untold.watch} tells nothing: {untold.why}"
        return Refuse(reason="inconclusive", why=why, window=untold.window)
    return Wait(reason="nothing", why="no window gives a reason, no event is open, no run is due")


def _delayed(
    history: History, wanted: RetrainRequest, monitoring: Monitoring, now: datetime
) -> Wait | None:
    """Return what stands against a start now, if anything does."""
    starts = [item.submitted_at for item in history.retrainings if item.submitted_at is not None]
    ready = max(starts) + timedelta(hours=monitoring.cooldown_hours) if starts else now
    if now < ready:
        why = f"{wanted.why}; the cooldown lasts until {ready.isoformat()}"
        return Wait(reason="cooldown", why=why, window=wanted.window)
    per_week = monitoring.retrains_per_week
    per_day = math.ceil(per_week / 7)  # its share of the week's, rounded up
    for period, most, name in ((DAY, per_day, "24 hours"), (WEEK, per_week, "7 days")):
        began = sum(now - start < period for start in starts)
        if began >= most:
            why = f"{wanted.why}; {began} runs began in the last {name}, and {most} may"
            return Wait(reason="budget", why=why, window=wanted.window)
    return None


def _suspects(history: History, watch: Watch, monitoring: Monitoring) -> Counter[str]:
    """Return in how many of the windows that count each name was blamed."""
    windows = _counting(history, watch, monitoring)
    return Counter(chain.from_iterable(set(f.blamed) for f in windows if f.cause in CURABLE))


def _counting(history: History, watch: Watch, monitoring: Monitoring) -> list[Finding]:
    """Return those of the last n windows (no others are kept) that judged the model of today."""
    found = _of(history, watch, timedelta(hours=monitoring.window_hours))
    last = history.last
    if last is None or last.ended_at is None:
        return found
    return [item for item in found if item.window.start >= last.ended_at]


def _newest(history: History, watch: Watch) -> Finding | None:
    return max((f for f in history.findings if f.watch == watch), key=_order, default=None)


def _of(history: History, watch: Watch, length: timedelta) -> list[Finding]:
    """Return the findings of a watch, oldest first; windows of an earlier spec do not count."""
    return [
        item
        for item in history.findings
        if item.watch == watch and item.window.end - item.window.start == length
    ]


def _order(finding: Finding) -> tuple[datetime, datetime, str]:
    """Order windows by time and judgements of one window by theirs; equal ones by their text."""
    return finding.window.end, finding.judged_at, finding.model_dump_json()


def _times(window: Window) -> str:
    return f"the window from {window.start.isoformat()} to {window.end.isoformat()}"
