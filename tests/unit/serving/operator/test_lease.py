"""Who drives: one replica at a time, whatever the API server, the clocks and the replicas do."""

import random
import time
from collections.abc import Callable

import pytest

from mlplatform.errors import ServiceError, StaleError
from serving.operator.lease import Election, Lease
from tests.unit.serving.operator.leases import LeaseCluster

NAME = "mlplatform-operator"
SECONDS = 15


class Time:
    """Monotonic seconds, which pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> LeaseCluster:
    return LeaseCluster()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def replica(cluster: LeaseCluster, clock: Time) -> Callable[[str], Lease]:
    return lambda holder: Lease(cluster, NAME, holder, SECONDS, lambda: 0, clock)


def holder_of(cluster: LeaseCluster) -> str:
    return str(cluster.objects[NAME]["spec"]["holderIdentity"])


def test_the_first_to_ask_holds_it_and_the_second_waits(
    cluster: LeaseCluster, replica: Callable[[str], Lease]
) -> None:
    one, two = replica("one"), replica("two")

    assert (True, False) == (one.turn(), two.turn())
    assert (True, False, "one") == (one.held, two.held, holder_of(cluster))
    assert (1, 0) == (one.token, two.token)


def test_a_lease_that_is_renewed_is_never_taken(
    clock: Time, replica: Callable[[str], Lease]
) -> None:
    one, two = replica("one"), replica("two")
    for _ in range(20):
        clock.now += 5
        assert one.turn()
        assert not two.turn()

    assert (True, False) == (one.held, two.held)


def test_a_lease_that_is_not_renewed_is_taken_when_its_time_is_up_and_not_before(
    clock: Time, replica: Callable[[str], Lease]
) -> None:
    one, two = replica("one"), replica("two")
    one.turn()
    two.turn()
    clock.now += SECONDS - 0.1
    assert not two.turn()

    clock.now += 0.1
    assert two.turn()
    assert (False, True, 2) == (one.held, two.held, two.token)


def test_a_holder_stops_before_anybody_may_begin(
    clock: Time, replica: Callable[[str], Lease]
) -> None:
    one = replica("one")
    one.turn()
    clock.now += SECONDS * 2 / 3

    assert not one.held
    assert not one.lost.is_set()


def test_a_holder_that_slept_too_long_is_told_and_may_not_write(
    cluster: LeaseCluster, clock: Time, replica: Callable[[str], Lease]
) -> None:
    one, two = replica("one"), replica("two")
    one.turn()
    two.turn()
    clock.now += SECONDS
    two.turn()

    with pytest.raises(StaleError, match="no longer held by one"), one.alone():
        pytest.fail("it wrote")
    assert one.lost.is_set()
    assert not one.turn()
    assert "two" == holder_of(cluster)


def test_who_may_write_has_renewed_the_lease_just_before(
    cluster: LeaseCluster, clock: Time, replica: Callable[[str], Lease]
) -> None:
    one, two = replica("one"), replica("two")
    one.turn()
    two.turn()
    clock.now += SECONDS - 1
    with one.alone():
        before = cluster.objects[NAME]["metadata"]["resourceVersion"]

    clock.now += SECONDS - 1
    assert not two.turn()
    assert "2" == before


def test_nobody_writes_while_the_api_server_is_away(
    cluster: LeaseCluster, replica: Callable[[str], Lease]
) -> None:
    one = replica("one")
    one.turn()
    cluster.away = True

    with pytest.raises(ServiceError, match="it is away"), one.alone():
        pytest.fail("it wrote")
    assert not one.lost.is_set()


def test_after_an_outage_the_same_holder_goes_on(
    cluster: LeaseCluster, clock: Time, replica: Callable[[str], Lease]
) -> None:
    one = replica("one")
    one.turn()
    cluster.away = True
    clock.now += 3600
    with pytest.raises(ServiceError):
        one.turn()
    assert not one.held

    cluster.away = False
    assert one.turn()
    assert (True, 1, False) == (one.held, one.token, one.lost.is_set())


def test_a_renewal_whose_answer_got_lost_loses_nothing(
    cluster: LeaseCluster, clock: Time, replica: Callable[[str], Lease]
) -> None:
    one = replica("one")
    one.turn()
    cluster.loses_answers = True
    with pytest.raises(ServiceError):
        one.turn()
    cluster.loses_answers = False
    clock.now += 5

    assert one.turn()
    assert one.turn()
    assert (True, 1) == (one.held, one.token)


def test_a_lease_that_was_left_is_taken_at_once(
    cluster: LeaseCluster, replica: Callable[[str], Lease]
) -> None:
    one, two = replica("one"), replica("two")
    one.turn()
    one.release()

    assert "" == holder_of(cluster)
    assert two.turn()
    assert (False, 2) == (one.held, two.token)


def test_a_lease_that_somebody_deleted_goes_on_counting(cluster: LeaseCluster, clock: Time) -> None:
    one = Lease(cluster, NAME, "one", SECONDS, lambda: 41, clock)
    one.turn()
    del cluster.objects[NAME]

    assert not one.turn()
    assert one.lost.is_set()
    assert one.turn()
    assert 42 == one.token


def test_clocks_that_differ_by_hours_make_no_difference(cluster: LeaseCluster) -> None:
    early, late = Time(), Time()
    late.now += 3600 * 7
    one = Lease(cluster, NAME, "one", SECONDS, lambda: 0, early)
    two = Lease(cluster, NAME, "two", SECONDS, lambda: 0, late)
    for _ in range(10):
        early.now += 5
        late.now += 5
        assert (True, False) == (one.turn(), two.turn())


@pytest.mark.parametrize("seed", range(20))
def test_two_never_act_at_once_whoever_sleeps_and_whatever_is_away(
    cluster: LeaseCluster, clock: Time, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 (a test that can be repeated)
    replicas = [Lease(cluster, NAME, str(number), SECONDS, lambda: 0, clock) for number in range(3)]
    tokens = []
    for _ in range(400):
        clock.now += chance.expovariate(0.5)
        cluster.away = chance.random() < 0.2
        awake = chance.choice(replicas)
        try:
            awake.turn()
        except ServiceError:
            continue
        holding = [lease for lease in replicas if lease.held]

        assert len(holding) <= 1
        tokens += [lease.token for lease in holding]

    assert sorted(tokens) == tokens
    assert len(set(tokens)) > 1


def test_the_thread_says_once_what_is_wrong_and_leaves_the_lease_at_its_end(
    cluster: LeaseCluster,
) -> None:
    said: list[str] = []
    lease = Lease(cluster, NAME, "one", SECONDS)
    cluster.away = True
    with Election(lease, 0.03, said.append) as election:
        wait(lambda: election.trouble == "it is away")
        time.sleep(0.1)
        cluster.away = False
        wait(lambda: lease.held)
        wait(lambda: election.trouble == "")

    assert ["it is away", ""] == said
    assert ("", False) == (holder_of(cluster), lease.held)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
