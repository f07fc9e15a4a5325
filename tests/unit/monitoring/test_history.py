"""What is done to a trigger's history: answered, claimed, ended; each decision with its row."""

from datetime import timedelta

import pytest

from mlplatform.contracts.retrain import Event, Finding, History
from mlplatform.errors import DataError
from monitoring.history import approve, claim, deny, ended, submitted, turn
from tests.unit.monitoring.signals import (
    HOUR,
    MONITORING,
    START,
    USECASE,
    at,
    began,
    begin,
    drifted,
    end,
    event,
    finding,
    last,
    plan,
    reach,
    told,
)


def test_a_person_who_must_be_asked_is_asked() -> None:
    asked = turn(began(*drifted(0)), plan(approval=True), at(2))
    key = last(asked).request.key

    assert asked is claim(asked, "me", at(3), at(2))
    with pytest.raises(DataError, match="no request"):
        approve(asked, "another", "ana", "go", at(3))
    approved = approve(asked, key, "ana", "go", at(30))
    assert at(31) == last(claim(approved, "me", at(40), at(31))).as_of
    for again in (approve, deny):
        with pytest.raises(DataError, match="no request"):
            again(approved, key, "ana", "go", at(31))


def test_a_feed_that_breaks_before_the_run_began_holds_it_back() -> None:
    asked = turn(began(*drifted(0)), MONITORING, at(2))
    broken = told(asked, finding(2, "data_fault"))
    whole = told(broken, finding(3, "healthy"))

    assert broken is claim(broken, "me", at(5), at(3))
    assert at(4) == last(claim(whole, "me", at(5), at(4))).as_of
    claimed = claim(asked, "me", at(3), at(2))
    taken_over = claim(told(claimed, finding(2, "data_fault")), "other", at(5), at(3))
    assert "other" == last(taken_over).claimed_by, "it may run already: it is asked for again"
    assert at(2) == last(taken_over).as_of


def test_a_claim_keeps_others_away_until_it_ends() -> None:
    mine = claim(reach("ready"), "me", at(5), at(4))

    assert mine is claim(mine, "other", at(9), at(4.9))
    assert "other" == last(claim(mine, "other", at(9), at(5))).claimed_by
    assert at(6) == last(claim(mine, "me", at(6), at(4.5))).claimed_until


def test_the_first_run_and_the_first_outcome_stand() -> None:
    running, over = reach("submitted"), reach("better")
    key = last(running).request.key

    assert running is submitted(running, key, "another", at(5))
    assert over is ended(over, key, "failed", "late news", at(9))
    assert running is ended(running, "another key", "failed", "not mine", at(5))


def test_each_decision_has_one_row_and_waiting_for_nothing_has_none() -> None:
    history = began()
    steps: list[tuple[Finding | Event | None, float]] = [
        (None, 0.5), (finding(0, "healthy"), 1), (finding(1), 2), (None, 2.2), (finding(2), 3),
        (None, 3.5), (finding(3, "data_fault"), 4), (None, 4.5), (finding(4, "data_fault"), 5),
        (finding(5, "healthy"), 6),
    ]  # fmt: skip
    for signal, hour in steps:
        history = told(history, signal) if signal is not None else history
        history = turn(history, MONITORING, at(hour))
        history = turn(history, MONITORING, at(hour) + timedelta(minutes=1))
    history = end(begin(history, 6), 7)

    assert [
        ("waiting", "persistence"),
        ("requested", last(history).request.key),
        ("refused", "data_fault"),
        ("refused", "data_fault"),
        ("submitted", last(history).request.key),
        ("better", last(history).request.key),
    ] == [(row.verdict, row.subject) for row in history.unrecorded]
    assert len(history.unrecorded) == len({row.key for row in history.unrecorded})
    assert at(3) == history.unrecorded[1].at


def test_a_history_stays_small() -> None:
    history = History(usecase=USECASE, began=START)
    for hour in range(24 * 60):
        history = told(history, finding(hour), event(hour, str(hour)))
        history = turn(history, MONITORING, at(hour + 1))
        if history.in_flight is not None:
            history = end(begin(history, hour + 1), hour + 1)
        history = history.model_copy(update={"unrecorded": ()})

    assert 3 == len(history.findings)
    assert len(history.retrainings) <= 16
    assert history.retrainings[-1].submitted_at is not None
    assert at(24 * 60) - history.retrainings[-1].submitted_at <= 12 * HOUR
