"""The histories of triggers on both databases: one writer wins, what is stored comes back."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest

from mlplatform.contracts.retrain import History, Phase, Signal
from mlplatform.errors import DataError, StaleError
from mlplatform.ledger import Ledger
from monitoring.requests import RequestStore, Stored, notice, record
from tests.unit.ledger.conftest import execute, postgresql, url  # noqa: F401 (fixtures)
from tests.unit.monitoring.signals import (
    MONITORING,
    USECASE,
    at,
    began,
    drifted,
    event,
    finding,
    reach,
    told,
)

WRITERS = 8


@pytest.fixture
def store(url: str) -> RequestStore:  # noqa: F811 (the fixture)
    return RequestStore(url)


@pytest.mark.parametrize("phase", get_args(Phase))
def test_what_is_written_comes_back_as_it_was(store: RequestStore, phase: Phase) -> None:
    history = told(reach(phase), finding(9), event(10))

    revision = store.write(history, revision=0)

    assert Stored(revision, history) == store.read(USECASE)
    assert None is store.read("other")


@pytest.mark.parametrize("known", [0, 1, 3], ids="from revision {}".format)
def test_who_did_not_read_the_newest_revision_is_refused(store: RequestStore, known: int) -> None:
    newest = reach("submitted")
    assert 2 == store.write(newest, revision=store.write(reach("ready"), revision=0))

    with pytest.raises(StaleError, match=f"no longer at revision {known}"):
        store.write(began(), revision=known)

    assert Stored(2, newest) == store.read(USECASE)


def test_what_changes_nothing_is_not_written(store: RequestStore) -> None:
    store.write(reach("ready"), revision=0)

    store.change(USECASE, lambda history: history, at(0))
    store.change("other", lambda history: history, at(0))

    assert Stored(1, reach("ready")) == store.read(USECASE)
    assert None is store.read("other")


def test_of_all_who_signal_at_once_each_is_heard_and_one_request_is_made(url: str) -> None:  # noqa: F811
    together = threading.Barrier(WRITERS)
    signals: list[Signal] = [*drifted(0), *(event(hour, str(hour)) for hour in range(2, WRITERS))]

    def signal(number: int) -> None:
        store, ledger = RequestStore(url), Ledger(url)
        together.wait(30)
        notice(store, ledger, USECASE, [signals[number]], MONITORING, at(20))

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(signal, range(WRITERS)))
    found = RequestStore(url).read(USECASE)

    assert found is not None
    assert 2 == len(found.history.findings)
    assert WRITERS - 2 == len(found.history.events)
    assert 1 == len(found.history.retrainings)
    assert () == found.history.unrecorded
    rows = [entry.decision.verdict for entry in Ledger(url).entries(USECASE, "retrain")]
    assert 1 == rows.count("requested")
    assert len(rows) == Ledger(url).verify()


def test_rows_that_another_decided_meanwhile_stay_to_be_recorded(
    store: RequestStore,
    url: str,  # noqa: F811
) -> None:
    ledger, before, after = Ledger(url), reach("ready"), reach("better")
    store.write(after, revision=0)

    left = record(store, ledger, before)
    done = record(store, ledger, left)

    assert after.unrecorded[len(before.unrecorded) :] == left.unrecorded
    assert () == done.unrecorded
    assert after.unrecorded == tuple(entry.decision for entry in ledger.entries(USECASE, "retrain"))


def test_a_writer_that_is_never_the_faster_gives_up(store: RequestStore) -> None:
    tries: list[int] = []

    def overtaken(history: History) -> History:
        tries.append(len(tries))
        now = at(len(tries))
        store.change(USECASE, lambda found: found.model_copy(update={"began": now}), now)
        return history.model_copy(update={"without_gain": 1})

    with pytest.raises(StaleError):
        store.change(USECASE, overtaken, at(0))

    assert list(range(20)) == tries


def test_a_signal_that_is_refused_takes_the_others_with_it(store: RequestStore, url: str) -> None:  # noqa: F811
    with pytest.raises(DataError, match="it is only"):
        notice(store, Ledger(url), USECASE, [finding(0), finding(50)], MONITORING, at(2))

    assert None is store.read(USECASE)


@pytest.mark.parametrize(
    ("body", "problem"),
    [("{}", "cannot be read from the ledger's database"), (None, "holds the trigger of other")],
    ids=["no history", "another use case's"],
)
def test_a_row_that_was_edited_is_said_to_be(
    store: RequestStore,
    execute: Callable[..., None],  # noqa: F811
    body: str | None,
    problem: str,
) -> None:
    store.write(began(), revision=0)
    other = began().model_copy(update={"usecase": "other"})
    execute("UPDATE retrain_triggers SET body = :body", body=body or other.model_dump_json())

    with pytest.raises(DataError, match=problem):
        store.read(USECASE)
