"""The state of rollouts on both databases: one writer wins, and what is stored comes back."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from mlplatform.contracts.rollout import Phase, Verdict
from mlplatform.errors import DataError, StaleError
from mlplatform.ledger import Ledger
from serving.rollout.store import Look, RolloutStore, Stored
from tests.unit.ledger.conftest import execute, postgresql, url  # noqa: F401 (fixtures)
from tests.unit.serving.rollout import builders

USECASE = "flight_delay"
WRITERS = 8


@pytest.fixture
def store(url: str) -> RolloutStore:  # noqa: F811 (the fixture)
    return RolloutStore(url)


def look_at(minutes: float, reason: str = "too early") -> Look:
    return Look(
        usecase=USECASE,
        number=2,
        at=builders.START + timedelta(minutes=minutes),
        phase="canary",
        step=1,
        verdict=Verdict(kind="undecided", reason=reason),
    )


@pytest.mark.parametrize("phase", ["pending", "soak", "promoted", "rolled_back", "held"])
def test_what_is_written_comes_back_as_it_was(store: RolloutStore, phase: Phase) -> None:
    rollout, _ = builders.reach(phase)

    revision = store.write(rollout, revision=0)

    assert Stored(revision, rollout) == store.read(USECASE)


def test_a_use_case_that_never_had_a_rollout_has_none(store: RolloutStore) -> None:
    store.write(builders.begun().model_copy(update={"usecase": "other"}), revision=0)

    assert None is store.read(USECASE)


@pytest.mark.parametrize("known", [0, 1, 3], ids="from revision {}".format)
def test_who_did_not_read_the_newest_revision_is_refused(store: RolloutStore, known: int) -> None:
    first, _ = builders.reach("shadow")
    second, _ = builders.reach("canary")
    assert 2 == store.write(second, revision=store.write(first, revision=0))

    with pytest.raises(StaleError, match=f"no longer at revision {known}"):
        store.write(first, revision=known)

    assert Stored(2, second) == store.read(USECASE)


def test_of_writers_that_know_the_same_revision_one_is_heard(url: str) -> None:  # noqa: F811
    stores = [RolloutStore(url) for _ in range(WRITERS)]
    rollouts = [builders.begun(first_epoch=number + 1) for number in range(WRITERS)]

    def write(writer: int, revision: int) -> int | None:
        together.wait(30)
        try:
            stores[writer].write(rollouts[writer], revision=revision)
        except StaleError:
            return None
        return writer

    with ThreadPoolExecutor(WRITERS) as threads:
        for revision in range(5):
            together = threading.Barrier(WRITERS)
            heard = list(threads.map(write, range(WRITERS), [revision] * WRITERS))
            winners = [writer for writer in heard if writer is not None]
            found = stores[0].read(USECASE)

            assert [found] == [Stored(revision + 1, rollouts[writer]) for writer in winners]


def test_stores_and_ledgers_that_are_made_at_once_are_all_whole(url: str) -> None:  # noqa: F811
    together = threading.Barrier(WRITERS)

    def make(number: int) -> tuple[Stored | None, int]:
        together.wait(30)
        return (RolloutStore(url).read(USECASE), 0) if number % 2 else (None, Ledger(url).verify())

    with ThreadPoolExecutor(WRITERS) as threads:
        made = list(threads.map(make, range(WRITERS)))

    assert [(None, 0)] * WRITERS == made
    assert 1 == RolloutStore(url).write(builders.begun(), revision=0)


def test_looks_come_back_in_the_order_of_their_times(store: RolloutStore) -> None:
    looks = [look_at(minutes) for minutes in (3, 0, 60.000001 / 60, 1, 700)]
    for look in looks:
        store.note(look)
    store.note(looks[0].model_copy(update={"number": 3}))

    assert tuple(sorted(looks, key=lambda look: look.at)) == store.looks(USECASE, 2)


def test_the_first_look_of_a_moment_stands(store: RolloutStore) -> None:
    store.note(look_at(1, "first"))
    store.note(look_at(1, "again"))

    assert ["first"] == [look.verdict.reason for look in store.looks(USECASE, 2)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [("{}", "cannot be read from the ledger's database"), (None, "holds the rollout of other")],
    ids=["no rollout", "another use case's"],
)
def test_a_row_that_was_edited_is_said_to_be(
    store: RolloutStore,
    execute: Callable[..., None],  # noqa: F811
    body: str | None,
    problem: str,
) -> None:
    store.write(builders.begun(), revision=0)
    other = builders.begun().model_copy(update={"usecase": "other"})
    execute("UPDATE rollouts SET body = :body", body=body or other.model_dump_json())

    with pytest.raises(DataError, match=problem):
        store.read(USECASE)
