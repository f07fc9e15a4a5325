"""What a person asks is decided within the limits, written down, and shown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.contracts.retrain import History
from mlplatform.errors import DataError, NotFoundError
from mlplatform.ledger import Ledger
from monitoring import orders
from monitoring.requests import RequestStore, notice
from monitoring.standing import standing
from tests.unit.monitoring.signals import (
    MONITORING,
    USECASE,
    at,
    began,
    drifted,
    event,
    finding,
    last,
    plan,
    reach,
)


class Desk:
    """The store and the ledger of one trigger."""

    def __init__(self, url: str) -> None:
        self.store, self.ledger = RequestStore(url), Ledger(url)

    def ask(self, why: str = "a new route", *, approval: bool = False, hour: float = 2) -> History:
        rules = plan(approval=approval)
        return orders.ask(self.store, self.ledger, USECASE, rules, why, "ana", at(hour))

    def approve(self, key: str | None) -> History:
        return orders.approve(self.store, self.ledger, USECASE, key, "ana", "go", at(3))

    def deny(self, key: str | None) -> History:
        return orders.deny(self.store, self.ledger, USECASE, key, "ana", "not now", at(3))

    def verdicts(self) -> list[str]:
        return [row.decision.verdict for row in self.ledger.entries(USECASE, "retrain")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(f"sqlite:///{tmp_path}/ledger.db")


def test_what_a_person_tells_is_trained_on_at_once(desk: Desk) -> None:
    asked = last(desk.ask())

    assert ("event", "ready", "a new route (ana)") == (
        asked.request.reason,
        asked.phase,
        asked.request.why,
    )
    assert ["requested"] == desk.verdicts()


def test_a_person_does_not_get_past_a_broken_feed(desk: Desk) -> None:
    fault = finding(0, "data_fault", "flights")
    notice(desk.store, desk.ledger, USECASE, [fault], MONITORING, at(1))

    told = desk.ask()

    assert None is told.last
    assert ["a new route (ana)"] == [item.why for item in told.events]
    assert ["refused"] == desk.verdicts()


def test_an_event_without_a_word_is_refused(desk: Desk) -> None:
    with pytest.raises(DataError, match="say what the model of flight_delay must learn of"):
        desk.ask("  ")

    assert None is desk.store.read(USECASE)


@pytest.mark.parametrize("length", [None, 6, 32])
def test_the_request_that_waits_is_answered_by_how_its_key_begins(
    desk: Desk, length: int | None
) -> None:
    key = last(desk.ask(approval=True)).request.key

    answered = desk.approve(None if length is None else key[:length])

    assert ("ready", key) == (last(answered).phase, last(answered).request.key)
    assert ["requested", "approved"] == desk.verdicts()


def test_who_says_no_settles_what_was_asked(desk: Desk) -> None:
    desk.ask(approval=True)

    denied = desk.deny(None)

    assert ("denied", ()) == (last(denied).phase, denied.events)
    with pytest.raises(DataError, match="no request of flight_delay waits for approval"):
        desk.approve(None)


def test_another_request_than_the_one_that_waits_is_not_answered(desk: Desk) -> None:
    key = last(desk.ask(approval=True)).request.key

    with pytest.raises(DataError, match=f"that waits is {key}, not zz"):
        desk.approve("zz")
    assert ["requested"] == desk.verdicts()


@pytest.mark.parametrize("order", ["approve", "deny", "reset"])
def test_a_trigger_that_was_never_asked_is_named(desk: Desk, order: str) -> None:
    ask: Callable[[], object] = {
        "approve": lambda: desk.approve(None),
        "deny": lambda: desk.deny(None),
        "reset": lambda: orders.reset(desk.store, desk.ledger, USECASE, "ana", "", at(3)),
    }[order]

    with pytest.raises(NotFoundError, match="the trigger of flight_delay was never asked"):
        ask()


def test_a_person_resets_the_count_of_runs_without_gain(desk: Desk) -> None:
    desk.store.write(began(without_gain=3), revision=0)

    told = orders.reset(desk.store, desk.ledger, USECASE, "ana", "fixed the gate", at(3))

    assert 0 == told.without_gain
    assert ["reset"] == desk.verdicts()


# --- How a trigger stands ------------------------------------------------------------------------


def said(history: History | None, hour: float = 3) -> str:
    return "\n".join(f"{name}: {text}" for name, text in standing(history, MONITORING, at(hour)))


def test_a_trigger_without_a_history_says_so() -> None:
    assert "decision: none: no window has been judged and no event told" == said(None)


def test_the_decision_comes_first_and_its_grounds_follow() -> None:
    text = said(began(*drifted(0), finding(2, "healthy"), event(2.5)))

    assert text.startswith("decision: to train, drift: input_drift: temp in 2 or more")
    assert "inputs: 2013-07-01 00:00 input_drift (temp)" in text
    assert "inputs: 2013-07-01 02:00 healthy" in text
    assert "persistence: 2 of the last 3 windows must agree" in text
    assert "event: 2013-07-01 02:30 a new runway a" in text
    assert "cooldown: none" in text
    assert "budget: 0 of 2 runs in 24 hours, 0 of 14 in 7 days" in text
    assert "without gain: 0 runs in a row; at 3 it stops" in text


def test_a_run_shows_in_cooldown_budget_and_requests() -> None:
    history = reach("better")
    key = last(history).request.key

    early, late = said(history, 5), said(history, 30)

    assert "cooldown: until 2013-07-01 15:00" in early
    assert "cooldown: over since 2013-07-01 15:00" in late
    assert "budget: 1 of 2 runs in 24 hours, 1 of 14 in 7 days" in early
    assert "budget: 0 of 2 runs in 24 hours, 1 of 14 in 7 days" in late
    assert f"request: {key} better, run run of {key}; asked 2013-07-01 02:00 for drift" in early


def test_what_it_waits_for_is_named() -> None:
    assert "decision: waits, in_flight" in said(reach("awaiting_approval"))
    fault = said(began(finding(0, "data_fault", "flights", why="no rows")))
    assert "decision: refuses, data_fault: flights: no rows" in fault
