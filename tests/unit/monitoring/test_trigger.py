"""When a model is trained anew, and when not, told by what the windows showed."""

import random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.contracts import Window
from mlplatform.contracts.retrain import (
    CAUSES,
    Cause,
    Choice,
    Finding,
    Fire,
    Outcome,
    Phase,
    Signal,
)
from mlplatform.errors import DataError
from monitoring.history import deny, reset, turn
from monitoring.trigger import decide, observe
from tests.unit.monitoring.signals import (
    MONITORING,
    START,
    at,
    began,
    begin,
    drifted,
    end,
    event,
    finding,
    last,
    plan,
    ran,
    reach,
    told,
)


def kind_of(choice: Choice) -> tuple[str, str]:
    reason = choice.request.reason if isinstance(choice, Fire) else choice.reason
    return choice.kind, reason


FIRE = ("fire", "drift")
EARLY = ("wait", "persistence")


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        pytest.param([], ("wait", "nothing"), id="no window yet"),
        pytest.param([finding(0)], EARLY, id="one window"),
        pytest.param([finding(0), finding(1)], FIRE, id="two in a row"),
        pytest.param([finding(0), finding(1, "healthy"), finding(2)], FIRE, id="two of three"),
        pytest.param([finding(0), finding(3)], EARLY, id="too far apart"),
        pytest.param([finding(0), finding(2)], FIRE, id="the one between is late"),
        pytest.param(
            [finding(0), finding(1, "output_drift", "temp", "score")], FIRE, id="one name in common"
        ),
        pytest.param(
            [finding(0), finding(1, "input_drift", "dest")], EARLY, id="different features"
        ),
        pytest.param(
            [finding(0), finding(1), finding(2, "data_fault")],
            ("refuse", "data_fault"),
            id="then the feed broke",
        ),
        pytest.param(
            [finding(0, "data_fault"), finding(1), finding(2)], FIRE, id="the feed is whole again"
        ),
        pytest.param([finding(0, "skew")], ("refuse", "skew"), id="serving computes otherwise"),
        pytest.param(
            [finding(0), finding(1), finding(2, "inconclusive")],
            ("refuse", "inconclusive"),
            id="then nothing can be told",
        ),
        pytest.param([finding(0, "healthy")], ("wait", "nothing"), id="healthy"),
        pytest.param(
            [finding(0), finding(1), *(finding(h, "performance_loss", "pr_auc") for h in (0, 1))],
            ("fire", "performance_loss"),
            id="the loss is the stronger reason",
        ),
        pytest.param(
            [*drifted(500), *(finding(h, "performance_loss", "pr_auc") for h in (0, 1))],
            ("fire", "performance_loss"),
            id="labels that matured weeks later",
        ),
        pytest.param(
            [finding(0), finding(0, "healthy", judged=1), finding(1)], EARLY, id="judged again"
        ),
    ],
)
def test_what_the_windows_show_decides(findings: list[Finding], expected: tuple[str, str]) -> None:
    history = told(began(), *findings)

    assert expected == kind_of(decide(history, MONITORING, at(600)))


def test_a_request_says_what_it_was_asked_for() -> None:
    choice = decide(began(*drifted(0), finding(2, "input_drift", "dest")), MONITORING, at(3))

    assert isinstance(choice, Fire)
    request = choice.request
    assert Window(start=at(1), end=at(2)) == request.window
    assert at(3) == request.asked_at
    assert "input_drift: temp in 2 or more of the last 3 windows" == request.why
    assert ["temp"] == request.evidence["agreed"]
    later = request.model_copy(update={"asked_at": at(9), "why": "again", "evidence": {}})
    assert request.key == later.key
    assert request.key != request.model_copy(update={"reason": "event"}).key


@pytest.mark.parametrize(
    ("changes", "after", "expected"),
    [
        pytest.param({}, 11.9, ("wait", "cooldown"), id="within the cooldown"),
        pytest.param({}, 12, FIRE, id="as it ends"),
        pytest.param(
            {"retrains_per_week": 7}, 23.9, ("wait", "budget"), id="the day's share is spent"
        ),
        pytest.param({"retrains_per_week": 7}, 24, FIRE, id="the next day"),
        pytest.param(
            {"retrains_per_week": 1}, 167.9, ("wait", "budget"), id="the week's are spent"
        ),
        pytest.param({"retrains_per_week": 1}, 168, FIRE, id="the next week"),
        pytest.param({"retrains_per_week": 0}, 1000, ("wait", "budget"), id="none ever"),
        pytest.param({"cooldown_hours": 400}, 399.9, ("wait", "cooldown"), id="longer than a week"),
    ],
)
def test_limits_hold_to_the_minute(
    changes: dict[str, Any], after: float, expected: tuple[str, str]
) -> None:
    history = told(ran(began(*drifted(0)), 2), *drifted(5))

    assert expected == kind_of(decide(history, plan(**changes), at(2 + after)))


def test_after_a_week_of_runs_the_oldest_start_frees_the_next() -> None:
    monitoring = plan(retrains_per_week=2, cooldown_hours=1)
    history = began()
    for hour in (2, 50):
        history = ran(told(history, *drifted(hour - 2)), hour)
    history = told(history, *drifted(60))

    assert ("wait", "budget") == kind_of(decide(history, monitoring, at(169.9)))
    assert FIRE == kind_of(decide(history, monitoring, at(170)))


@pytest.mark.parametrize("phase", ["awaiting_approval", "ready", "submitted"])
def test_there_is_one_retraining_at_a_time(phase: Phase) -> None:
    history = told(reach(phase), *drifted(30), event(40))

    assert ("wait", "in_flight") == kind_of(decide(history, MONITORING, at(50)))


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_windows_from_before_a_run_ended_are_spent(outcome: Outcome) -> None:
    running = begin(turn(began(*drifted(0)), MONITORING, at(2)), 2)
    history = end(told(running, *drifted(17)), 20, outcome)

    assert ("wait", "nothing") == kind_of(decide(history, MONITORING, at(20)))
    assert EARLY == kind_of(decide(told(history, finding(20)), MONITORING, at(21)))
    assert FIRE == kind_of(decide(told(history, *drifted(20)), MONITORING, at(22)))


def test_runs_that_bring_nothing_end_until_a_person_resets_the_trigger() -> None:
    history = began()
    outcomes: list[Outcome] = ["no_gain", "better", "failed", "no_gain", "no_gain"]
    for day, outcome in enumerate(outcomes):
        history = told(history, *drifted(24 * day))
        assert FIRE == kind_of(decide(history, MONITORING, at(24 * day + 2)))
        history = ran(history, 24 * day + 2, outcome)
    history = told(history, *drifted(200))

    assert ("refuse", "no_gain") == kind_of(decide(history, MONITORING, at(400)))
    after = reset(history, "ana", "the label was wrong", at(401))
    assert FIRE == kind_of(decide(after, MONITORING, at(402)))


def test_runs_fall_due_from_the_last_start() -> None:
    monitoring = plan(schedule_days=2)
    first = began()

    assert ("wait", "nothing") == kind_of(decide(first, monitoring, at(47.9)))
    assert ("fire", "scheduled") == kind_of(decide(first, monitoring, at(48)))
    second = told(ran(first, 50, monitoring=monitoring), finding(50, "healthy"))
    assert ("wait", "nothing") == kind_of(decide(second, monitoring, at(97.9)))
    assert ("fire", "scheduled") == kind_of(decide(second, monitoring, at(98)))
    broken = told(second, finding(90, "data_fault"))
    assert ("refuse", "data_fault") == kind_of(decide(broken, monitoring, at(98)))
    assert ("wait", "nothing") == kind_of(decide(second, MONITORING, at(2_000)))


def test_a_scheduled_run_that_was_denied_falls_due_a_period_later() -> None:
    monitoring = plan(schedule_days=2, approval=True)
    asked = turn(began(), monitoring, at(48))
    denied = deny(asked, last(asked).request.key, "ana", "a holiday", at(60))

    assert ("wait", "nothing") == kind_of(decide(denied, monitoring, at(107.9)))
    again = decide(denied, monitoring, at(108))
    assert isinstance(again, Fire)
    assert again.request.key != last(asked).request.key


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("better", ("wait", "nothing")),
        ("no_gain", ("wait", "nothing")),
        ("failed", ("fire", "event")),
    ],
)
def test_an_event_stays_until_a_run_knew_of_it(outcome: Outcome, expected: tuple[str, str]) -> None:
    history = began(event(1))
    asked = turn(history, MONITORING, at(2))
    ended_history = end(begin(asked, 2), 3, outcome)
    later = told(ended_history, event(1), event(0.5, "late"))

    assert expected == kind_of(decide(later, MONITORING, at(20)))
    again = turn(ended_history, MONITORING, at(20))
    keys = [item.request.key for item in again.retrainings]
    assert len(keys) == len(set(keys)), "a run that is tried again has a key of its own"
    assert ("fire", "event") == kind_of(decide(told(later, event(2.5, "b")), MONITORING, at(20)))


def test_an_event_that_a_person_refused_is_settled() -> None:
    asked = turn(began(event(1)), plan(approval=True), at(2))
    denied = deny(asked, last(asked).request.key, "ana", "no", at(3))

    assert ("wait", "nothing") == kind_of(decide(denied, MONITORING, at(20)))


def test_each_event_is_answered_by_the_run_after_it() -> None:
    history = ran(told(ran(began(event(1)), 2), event(20, "b")), 21)

    assert () == told(history, event(1), event(20, "b")).events
    assert ("wait", "nothing") == kind_of(decide(history, MONITORING, at(50)))


def test_a_flood_of_events_is_one_reason() -> None:
    flood = [event(hour / 100, str(hour)) for hour in range(300)]
    history = began(*flood)

    assert 16 == len(history.events)
    assert ("wait", "nothing") == kind_of(decide(ran(history, 3), MONITORING, at(50)))


SIGNALS: st.SearchStrategy[Signal] = st.one_of(
    st.builds(
        lambda hour, cause, judged, why: finding(hour, cause, judged=judged, why=why),
        st.integers(0, 6),
        st.sampled_from(get_args(Cause)),
        st.integers(0, 2),
        st.sampled_from(["", "again"]),
    ),
    st.builds(event, st.integers(0, 30), st.just("e")).map(
        lambda found: found.model_copy(update={"id": found.at.isoformat()})
    ),
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(SIGNALS, max_size=12), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_signals_matters(
    signals: list[Signal], chance: random.Random
) -> None:
    shuffled = signals + chance.choices(signals, k=len(signals)) if signals else []
    chance.shuffle(shuffled)

    assert told(began(), *signals) == told(began(), *shuffled)


def test_a_signal_that_is_known_changes_nothing() -> None:
    history = began(*drifted(0), event(1))
    history = turn(history, MONITORING, at(2))

    assert history is told(history, *drifted(0), event(1))
    after = turn(history, MONITORING, at(2.1))
    assert after is turn(after, MONITORING, at(2.2))


@pytest.mark.parametrize(
    ("signal", "problem"),
    [
        (finding(100), "it is only"),
        (event(100), "it is only"),
        (finding(1).model_copy(update={"usecase": "other"}), "a signal of other"),
        (
            finding(1).model_copy(update={"window": Window(start=at(1), end=at(3))}),
            "is not 1:00:00 long",
        ),
        (
            finding(1).model_copy(update={"window": Window(start=at(0.5), end=at(1.5))}),
            "which was judged before",
        ),
    ],
    ids=["a window to come", "an event to come", "another use case", "another length", "overlap"],
)
def test_a_signal_that_cannot_be_is_refused(signal: Signal, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        observe(began(*drifted(0)), signal, MONITORING, at(50))


@pytest.mark.parametrize(
    "changes",
    [
        {"watch": "performance"},
        {"blamed": ()},
        {"judged_at": START},
        {"window": Window(start=at(1), end=at(1))},
    ],
    ids=["not of its watch", "nobody to blame", "judged too early", "no length"],
)
def test_a_finding_that_contradicts_itself_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot be found|to blame|a window must"):
        Finding.model_validate(dict(finding(1)) | changes)
    assert all(cause in CAUSES["inputs"] | CAUSES["performance"] for cause in get_args(Cause))


def test_windows_of_an_earlier_spec_do_not_count() -> None:
    history = told(began(*drifted(0)), monitoring=MONITORING)
    daily = plan(window_hours=24)
    day = finding(24).model_copy(
        update={"window": Window(start=at(24), end=at(48)), "judged_at": at(48)}
    )

    assert ("wait", "nothing") == kind_of(decide(history, daily, at(48)))
    assert EARLY == kind_of(decide(observe(history, day, daily, at(48)), daily, at(48)))
