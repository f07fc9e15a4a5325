"""The state of rollouts, in a database and in a cluster: one contract for both."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, Cluster, Object
from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import Phase
from mlplatform.errors import DataError, NotFoundError, StaleError
from serving.operator.store import ClusterStore, stored
from serving.rollout.ports import States
from serving.rollout.store import RolloutStore, Stored
from tests.unit.serving.rollout import builders

USECASE = "flight_delay"
WRITERS = 8


def in_cluster(cluster: Cluster, ledger: str, token: int = 1) -> ClusterStore:
    leader = {"leader": {"holder": "one", "token": token}}
    return ClusterStore(cluster, RolloutStore(ledger), lambda: token, lambda *_: leader)


@pytest.fixture(params=["database", "cluster"])
def make(
    request: pytest.FixtureRequest, cluster: Cluster, made: Object, tmp_path: Path
) -> Callable[[], States]:
    assert made["spec"]["usecase"] == USECASE
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "database":
        return lambda: RolloutStore(ledger)
    return lambda: in_cluster(cluster, ledger)


@pytest.fixture
def store(make: Callable[[], States]) -> States:
    return make()


@pytest.fixture
def held(cluster: Cluster, made: Object, tmp_path: Path) -> ClusterStore:
    """A store in the cluster that holds a rollout."""
    assert made["spec"]["usecase"] == USECASE
    found = in_cluster(cluster, f"sqlite:///{tmp_path}/ledger.db", token=3)
    found.write(builders.begun(), revision=0)
    return found


# --- What both do --------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["pending", "soak", "promoted", "rolled_back", "held"])
def test_what_is_written_comes_back_as_it_was(store: States, phase: Phase) -> None:
    rollout, _ = builders.reach(phase)

    revision = store.write(rollout, revision=0)

    assert Stored(revision, rollout) == store.read(USECASE)


def test_a_use_case_that_never_had_a_rollout_has_none(store: States) -> None:
    assert None is store.read(USECASE)


def test_who_did_not_read_the_newest_revision_is_refused(store: States) -> None:
    first, _ = builders.reach("shadow")
    second, _ = builders.reach("canary")
    old = store.write(first, revision=0)
    new = store.write(second, revision=old)

    for known in (0, old):
        with pytest.raises(StaleError, match=f"no longer at revision {known}"):
            store.write(first, revision=known)
    assert Stored(new, second) == store.read(USECASE)


def test_of_writers_that_know_the_same_revision_one_is_heard(make: Callable[[], States]) -> None:
    stores = [make() for _ in range(WRITERS)]
    together = threading.Barrier(WRITERS)
    before = stores[0].read(USECASE)

    def write(store: States, rollout: Rollout) -> Rollout | None:
        revision = 0 if before is None else before.revision
        together.wait(30)
        try:
            store.write(rollout, revision=revision)
        except StaleError:
            return None
        return rollout

    # No two alike: an update that changes nothing leaves the API server's revision as it is.
    rollouts = (builders.begun(first_epoch=number) for number in itertools.count(1))
    with ThreadPoolExecutor(WRITERS) as threads:
        for _ in range(4):
            written = list(threads.map(write, stores, itertools.islice(rollouts, WRITERS)))
            before = stores[0].read(USECASE)

            assert before is not None
            assert [before.rollout] == [one for one in written if one is not None]


# --- What the cluster does besides ---------------------------------------------------------------


def test_a_decision_that_has_not_seen_what_is_asked_for_now_is_refused(
    cluster: Cluster, held: ClusterStore
) -> None:
    known = held.read(USECASE)
    assert known is not None
    cluster.patch(MODEL_ROLLOUTS, "flight-delay", {"spec": {"paused": True}})

    with pytest.raises(StaleError, match="asks for something else"):
        held.write(known.rollout, revision=known.revision)


def test_who_led_before_is_refused_whatever_it_has_read(
    cluster: Cluster, held: ClusterStore, tmp_path: Path
) -> None:
    known = held.read(USECASE)
    assert known is not None
    late = in_cluster(cluster, f"sqlite:///{tmp_path}/ledger.db", token=2)

    with pytest.raises(StaleError, match="leader number 3, and this is number 2"):
        late.write(builders.begun(first_epoch=9), revision=known.revision)
    with pytest.raises(StaleError, match="another replica drives"):
        late.describe(late.object(USECASE), {"message": "late"})
    assert known == held.read(USECASE)


def test_an_answer_is_written_with_the_state_that_it_answers(held: ClusterStore) -> None:
    known = held.read(USECASE)
    assert known is not None
    answer = {"lastOrder": {"id": 1, "action": "pause", "accepted": True, "message": "done"}}
    paused = known.rollout.model_copy(update={"paused": True})

    held.answering(lambda _: answer).write(paused, revision=known.revision)

    found = held.object(USECASE)
    after = stored(found, USECASE)
    assert after is not None
    assert paused == after.rollout
    assert answer["lastOrder"] == found["status"]["lastOrder"]
    assert {"holder": "one", "token": 3} == found["status"]["leader"]


def test_a_status_that_says_the_same_is_not_written(held: ClusterStore) -> None:
    before = held.object(USECASE)
    fields = {"message": "waits"}
    first = held.describe(before, fields)

    assert first != before["metadata"]["resourceVersion"]
    assert first == held.describe(held.object(USECASE), fields)


@pytest.mark.parametrize(
    ("body", "words"),
    [({"number": 1}, "cannot be read"), ("other", "is the rollout of other")],
    ids=["no rollout", "another use case's"],
)
def test_a_state_that_was_edited_is_said_to_be(
    cluster: Cluster, held: ClusterStore, body: Any, words: str
) -> None:
    if body == "other":
        other = builders.begun().model_copy(update={"usecase": "other"})
        body = other.model_dump(mode="json")
    cluster.patch(
        MODEL_ROLLOUTS, "flight-delay", {"status": {"rollout": None}}, subresource="status"
    )
    cluster.patch(
        MODEL_ROLLOUTS, "flight-delay", {"status": {"rollout": body}}, subresource="status"
    )

    with pytest.raises(DataError, match=words):
        held.read(USECASE)


def test_a_use_case_without_an_object_is_said_to_have_none(held: ClusterStore) -> None:
    with pytest.raises(NotFoundError, match="modelrollouts/other"):
        held.read("other")


def test_a_promoted_rollout_takes_less_than_a_tenth_of_what_etcd_holds() -> None:
    rollout, _ = builders.reach("promoted")
    found = {"metadata": {"name": "flight-delay", "resourceVersion": "1"}}
    body = rollout.model_dump_json()

    assert None is stored(found, USECASE)
    assert len(body) < 150_000  # of 1.5 MB, etcd's limit for one object
