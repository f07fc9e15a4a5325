"""How a gateway follows its route: arms, epochs, shadows, and records that are no routes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from mlplatform.contracts import ServedModel
from mlplatform.errors import DataError
from serving.route import RouteStore
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.stack import (
    AT_US,
    USECASE,
    Gateway,
    Store,
    request,
    route,
    wait_for,
)
from tests.unit.serving.gateway.stand_in import StandIn

MakeGateway = Callable[..., Gateway]
ENTITIES = [f"2013-06-01-AA-{number}-JFK" for number in range(1, 201)]


@pytest.fixture
def servers() -> Iterator[list[StandIn]]:
    """Three stand-ins that score 0.25, 0.5 and 0.75."""
    with ExitStack() as stack:
        yield [stack.enter_context(StandIn(score)) for score in (0.25, 0.5, 0.75)]


@pytest.fixture
def store(redis: RedisProcess, champion: Model) -> Iterator[Store]:
    with closing(Store(redis.url)) as found:
        found.features(champion.served, request(), AT_US)
        yield found


@pytest.fixture
def versions(champion: Model) -> list[ServedModel]:
    """Three versions of one model."""
    return [champion.served.model_copy(update={"version": version}) for version in (1, 2, 3)]


def epoch(gateway: Gateway) -> int:
    return int(gateway.get("/readyz").json["usecases"][USECASE]["epoch"])


def follow(gateway: Gateway, expected: int) -> None:
    wait_for(lambda: epoch(gateway) == expected, what=f"epoch {expected}")


def arms(gateway: Gateway) -> dict[str, str]:
    """Which arm each entity falls on; asked in batches that fall on both."""
    rows = [request(flight_key=entity) for entity in ENTITIES]
    return {
        entity: answer["arm"]
        for entity, answer in zip(ENTITIES, gateway.score(rows).json, strict=True)
    }


def test_both_arms_answer_their_share_and_each_entity_has_one(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    challenger = ("challenger", 0.3, servers[2].url, versions[1])
    store.publish(route(("champion", 0.7, servers[0].url, versions[0]), challenger))
    gateway = make_gateway(store.url)
    rows = [request(flight_key=entity, request_id=entity) for entity in ENTITIES]
    together = gateway.score(rows).json
    alone = [gateway.score(row).json for row in rows[:40]]

    assert ENTITIES == [answer["request_id"] for answer in together]  # rejoined in order
    assert {("champion", 1, 0.25), ("challenger", 2, 0.75)} == {
        (answer["arm"], answer["version"], answer["score"]) for answer in together
    }
    assert [answer["arm"] for answer in alone] == [answer["arm"] for answer in together[:40]]
    share = sum(answer["arm"] == "challenger" for answer in together) / len(together)
    assert 0.17 < share < 0.43  # four standard deviations


def test_a_growing_weight_moves_entities_only_to_the_challenger(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    gateway: Gateway | None = None
    moved: set[str] = set()
    for number, weight in enumerate((0.1, 0.4, 0.8), 1):
        challenger = ("challenger", weight, servers[1].url, versions[1])
        champion = ("champion", 1 - weight, servers[0].url, versions[0])
        store.publish(route(champion, challenger, epoch=number))
        gateway = gateway or make_gateway(store.url)
        follow(gateway, number)
        now = {entity for entity, arm in arms(gateway).items() if arm == "challenger"}

        assert moved < now
        moved = now


def test_one_arm_down_leaves_the_other_as_it_was(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    challenger = ("challenger", 0.5, servers[1].url, versions[1])
    store.publish(route(("champion", 0.5, servers[0].url, versions[0]), challenger))
    gateway = make_gateway(store.url)
    before = arms(gateway)
    servers[1].mode = "refuse"
    after = arms(gateway)

    assert {"champion", "challenger"} == set(before.values())
    assert {"champion", "rules"} == set(after.values())
    assert [entity for entity, arm in before.items() if arm == "champion"] == [
        entity for entity, arm in after.items() if arm == "champion"
    ]


def test_a_new_epoch_is_followed_without_a_fallback_and_acknowledged(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    routes = RouteStore(store.url)
    routes.publish(route(("champion", 1.0, servers[0].url, versions[0])))
    gateway = make_gateway(store.url)
    wait_for(lambda: list(routes.acknowledgements(USECASE).values()) == [1])
    routes.publish(route(("champion", 1.0, servers[1].url, versions[1]), epoch=2))
    seen = []

    def moved() -> bool:
        answer = gateway.score(request()).json
        seen.append((answer["epoch"], answer["version"], answer["fallback"]))
        return bool(answer["epoch"] == 2)

    wait_for(moved)
    wait_for(lambda: list(routes.acknowledgements(USECASE).values()) == [2])
    assert {(1, 1, False), (2, 2, False)} == set(seen)
    routes.close()


def test_a_new_arm_that_is_not_ready_is_waited_for(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    store.publish(route(("champion", 1.0, servers[0].url, versions[0])))
    gateway = make_gateway(store.url)
    servers[1].ready = False
    store.publish(route(("champion", 1.0, servers[1].url, versions[1]), epoch=2))
    wait_for(lambda: "waits until its model servers are ready" in gateway.log.read_text())

    assert (1, 1) == tuple(gateway.score(request()).json[n] for n in ("epoch", "version"))
    servers[1].ready = True
    follow(gateway, 2)
    assert 2 == gateway.score(request()).json["version"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        pytest.param(b"{}", "no valid route", id="empty"),
        pytest.param(b"\xff", "no valid route", id="not text"),
        pytest.param(b'{"usecase": "other"}', "no valid route", id="parts missing"),
        pytest.param(None, "", id="removed"),
    ],
)
def test_the_last_good_route_stays_when_the_record_is(
    make_gateway: MakeGateway,
    store: Store,
    servers: list[StandIn],
    versions: list[ServedModel],
    record: bytes | None,
    said: str,
) -> None:
    store.publish(route(("champion", 1.0, servers[0].url, versions[0]), epoch=7))
    gateway = make_gateway(store.url)
    if record is None:
        store.client.execute("DEL", f"route:{USECASE}")
    else:
        store.client.execute("SET", f"route:{USECASE}", record)
        wait_for(lambda: said in gateway.log.read_text())

    assert 7 == gateway.score(request()).json["epoch"]
    store.publish(route(("champion", 1.0, servers[1].url, versions[1]), epoch=8))
    follow(gateway, 8)


def test_a_model_that_cannot_be_fed_is_refused_by_name(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    store.publish(route(("champion", 1.0, servers[0].url, versions[0])))
    gateway = make_gateway(store.url)
    layout = versions[1].layout
    without = tuple(group for group in layout.groups if group.keys != ("carrier",))
    other = versions[1].model_copy(update={"layout": layout.model_copy(update={"groups": without})})
    store.publish(route(("champion", 1.0, servers[1].url, other), epoch=2))
    wait_for(lambda: "required views carrier_delay" in gateway.log.read_text())

    assert 1 == epoch(gateway)


def test_the_shadow_sees_a_share_of_the_requests_and_nobody_sees_its_answers(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    arm = ("champion", 1.0, servers[0].url, versions[0])
    store.publish(route(arm, shadow=(0.5, servers[2].url, versions[2])))
    gateway = make_gateway(store.url)
    ids = [f"request-{number}" for number in range(120)]
    answers = [gateway.score(request(request_id=name)).json for name in ids]

    def rows(arm: str) -> dict[str, Any]:
        return {row.request_id: row for row in store.rows() if row.arm == arm}

    wait_for(lambda: len(rows("champion")) == len(ids))
    shadows = wait_for(lambda: found if len(found := rows("shadow")) > 30 else None)

    assert {("champion", 1, 0.25)} == {(a["arm"], a["version"], a["score"]) for a in answers}
    assert 32 < len(shadows) < 88  # four standard deviations of 120 halves
    assert {(3, 0.75, False)} == {(r.version, r.score, r.fallback) for r in shadows.values()}
    champions = rows("champion")
    assert all(row.features == champions[name].features for name, row in shadows.items())


def test_a_shadow_that_hangs_or_fails_harms_nobody(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    servers[2].mode = "hang"
    arm = ("champion", 1.0, servers[0].url, versions[0])
    store.publish(route(arm, shadow=(1.0, servers[2].url, versions[2])))
    gateway = make_gateway(store.url)
    answers = [gateway.score(request()).json for _ in range(40)]

    assert not any(answer["fallback"] or answer["degraded"] for answer in answers)
    wait_for(lambda: any(row.arm == "shadow" for row in store.rows()))
    row = next(row for row in store.rows() if row.arm == "shadow")
    assert (3, True) == (row.version, row.fallback)
    assert row.reasons[0].startswith("inference_")


def test_publishing_compares_and_swaps_on_the_epoch(
    redis: RedisProcess, versions: list[ServedModel]
) -> None:
    routes, first = RouteStore(redis.url), route(("champion", 1.0, "http://a:1", versions[0]))
    assert routes.read(USECASE) is None
    routes.publish(first)
    routes.publish(first)  # a repeat whose reply was lost
    second = route(("champion", 1.0, "http://b:1", versions[1]), epoch=2)
    for wrong in (
        route(("champion", 1.0, "http://b:1", versions[1]), epoch=1),
        route(("champion", 1.0, "http://b:1", versions[1]), epoch=3),
    ):
        with pytest.raises(DataError, match="epoch 1, so epoch"):
            routes.publish(wrong)

    assert first == routes.read(USECASE)
    routes.publish(second)
    assert second == routes.read(USECASE)
    with pytest.raises(DataError, match="decide again"):
        routes.publish(first)
    routes.close()


def test_of_many_publishers_of_one_epoch_one_wins(
    redis: RedisProcess, versions: list[ServedModel]
) -> None:
    routes = RouteStore(redis.url)
    routes.publish(route(("champion", 1.0, "http://a:1", versions[0])))
    won: list[str] = []
    barrier = threading.Barrier(8)

    def publish(number: int) -> None:
        mine = RouteStore(redis.url)
        url = f"http://host{number}:1"
        barrier.wait()
        try:
            mine.publish(route(("champion", 1.0, url, versions[0]), epoch=2))
            won.append(url)
        except DataError:
            pass
        finally:
            mine.close()

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(won)
    found = routes.read(USECASE)
    assert found is not None
    assert won == [found.arms[0].url]
    routes.close()


def test_a_record_that_is_no_route_is_said_and_can_be_replaced(
    redis: RedisProcess, versions: list[ServedModel]
) -> None:
    with closing(Store(redis.url)) as store:
        store.client.execute("SET", f"route:{USECASE}", "nonsense")
    routes = RouteStore(redis.url)
    with pytest.raises(DataError, match="no valid route"):
        routes.read(USECASE)
    mine = route(("champion", 1.0, "http://a:1", versions[0]), epoch=4)
    routes.publish(mine)

    assert mine == routes.read(USECASE)
    routes.close()


def test_a_gateway_that_ends_is_no_longer_counted(
    make_gateway: MakeGateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    routes = RouteStore(store.url)
    store.publish(route(("champion", 1.0, servers[0].url, versions[0])))
    first, second = make_gateway(store.url), make_gateway(store.url)
    wait_for(lambda: list(routes.acknowledgements(USECASE).values()) == [1, 1])
    assert 0 == second.stop()

    assert 1 == len(routes.acknowledgements(USECASE))
    assert first.answers("/readyz")
    routes.close()
