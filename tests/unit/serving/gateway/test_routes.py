"""How a gateway follows its route: arms, epochs, shadows, and records that are no routes."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feature_repo import catalog
from mlplatform.clients.redis_link import RedisLink
from mlplatform.contracts import ServedModel
from mlplatform.contracts.usecase.data import ColumnRule
from mlplatform.contracts.usecase.operation import RequestField
from mlplatform.errors import DataError, SpecError
from serving.gateway.answer import Scored
from serving.gateway.features import FeatureStore
from serving.gateway.request import Requests
from serving.gateway.routing import Routing
from serving.gateway.scoring import Scorer
from serving.gateway.server import ModelServer
from serving.route import RouteStore
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.patient_gateway import patient
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


class Rollout:
    """A gateway and its route; each publication is the next epoch."""

    def __init__(self, store: Store, gateway: Gateway) -> None:
        self.store, self.gateway, self.epoch = store, gateway, 1

    def publish(self, *arms: Any, **parts: Any) -> int:
        self.epoch += 1
        self.store.publish(route(*arms, epoch=self.epoch, **parts))
        return self.epoch

    def follow(self, *arms: Any, **parts: Any) -> Gateway:
        """Publish, and wait until the gateway follows."""
        self.publish(*arms, **parts)
        follow(self.gateway, self.epoch)
        return self.gateway

    def log(self) -> str:
        """What the gateway has said since the last epoch that it follows."""
        return self.gateway.log.read_text().rpartition("follows epoch")[2]

    def rows(self, request_ids: list[str], arm: str) -> dict[str, Any]:
        """The logged rows of some requests by one arm."""
        wanted = set(request_ids)
        rows = self.store.rows()
        return {r.request_id: r for r in rows if r.arm == arm and r.request_id in wanted}


@pytest.fixture(scope="module")
def rollout(module_redis: RedisProcess, module_path: Path, champion: Model) -> Iterator[Rollout]:
    gateway = Gateway(module_path, module_redis.url)
    with closing(Store(module_redis.url)) as store:
        store.features(champion.served, request(), AT_US)
        store.publish(route(("champion", 1.0, champion.url, champion.served)))
        gateway.start()
        yield Rollout(store, gateway)
    gateway.kill()


@pytest.fixture(scope="module")
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
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    champion = ("champion", 0.7, servers[0].url, versions[0])
    gateway = rollout.follow(champion, ("challenger", 0.3, servers[2].url, versions[1]))
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
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    moved: set[str] = set()
    for weight in (0.1, 0.4, 0.8):
        champion = ("champion", 1 - weight, servers[0].url, versions[0])
        rollout.follow(champion, ("challenger", weight, servers[1].url, versions[1]))
        found = arms(rollout.gateway).items()
        now = {entity for entity, arm in found if arm == "challenger"}

        assert moved < now
        moved = now


def test_one_arm_down_leaves_the_other_as_it_was(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    champion = ("champion", 0.5, servers[0].url, versions[0])
    gateway = rollout.follow(champion, ("challenger", 0.5, servers[1].url, versions[1]))
    before = arms(gateway)
    servers[1].mode = "refuse"
    after = arms(gateway)

    assert {"champion", "challenger"} == set(before.values())
    assert {"champion", "rules"} == set(after.values())
    assert [entity for entity, arm in before.items() if arm == "champion"] == [
        entity for entity, arm in after.items() if arm == "champion"
    ]


def test_a_new_epoch_is_followed_without_a_fallback_and_acknowledged(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    gateway = rollout.follow(("champion", 1.0, servers[0].url, versions[0]))
    with closing(RouteStore(rollout.store.url)) as routes:
        before = rollout.epoch
        wait_for(lambda: list(routes.acknowledgements(USECASE).values()) == [before])
        after = rollout.publish(("champion", 1.0, servers[1].url, versions[1]))
        seen = []

        def moved() -> bool:
            answer = gateway.score(request()).json
            seen.append((answer["epoch"], answer["version"], answer["fallback"]))
            return bool(answer["epoch"] == after)

        wait_for(moved)
        wait_for(lambda: list(routes.acknowledgements(USECASE).values()) == [after])

    assert {(before, 1, False), (after, 2, False)} == set(seen)


def test_a_new_arm_that_is_not_ready_is_waited_for(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    gateway = rollout.follow(("champion", 1.0, servers[0].url, versions[0]))
    servers[1].ready = False
    after = rollout.publish(("champion", 1.0, servers[1].url, versions[1]))
    wait_for(lambda: "waits until its model servers are ready" in rollout.log())

    assert (after - 1, 1) == tuple(gateway.score(request()).json[n] for n in ("epoch", "version"))
    servers[1].ready = True
    follow(gateway, after)
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
    rollout: Rollout,
    servers: list[StandIn],
    versions: list[ServedModel],
    record: bytes | None,
    said: str,
) -> None:
    gateway = rollout.follow(("champion", 1.0, servers[0].url, versions[0]))
    if record is None:
        rollout.store.client.execute("DEL", f"route:{USECASE}")
    else:
        rollout.store.client.execute("SET", f"route:{USECASE}", record)
        wait_for(lambda: said in rollout.log())

    assert rollout.epoch == gateway.score(request()).json["epoch"]
    rollout.follow(("champion", 1.0, servers[1].url, versions[1]))


def test_a_route_of_the_wrong_kind_in_redis_changes_nothing(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    gateway = rollout.follow(("champion", 1.0, servers[0].url, versions[0]))
    rollout.store.client.execute("DEL", f"route:{USECASE}")
    rollout.store.client.execute("LPUSH", f"route:{USECASE}", "x")
    wait_for(lambda: "WRONGTYPE" in rollout.log())

    assert rollout.epoch == gateway.score(request()).json["epoch"]
    rollout.store.client.execute("DEL", f"route:{USECASE}")


def test_a_model_that_cannot_be_fed_is_refused_by_name(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    gateway = rollout.follow(("champion", 1.0, servers[0].url, versions[0]))
    layout = versions[1].layout
    without = tuple(group for group in layout.groups if group.keys != ("carrier",))
    other = versions[1].model_copy(update={"layout": layout.model_copy(update={"groups": without})})
    refused = rollout.publish(("champion", 1.0, servers[1].url, other))
    wait_for(lambda: "required views carrier_delay" in rollout.log())

    assert refused - 1 == epoch(gateway)


@pytest.mark.parametrize(
    ("key", "kind", "said"),
    [
        ("carrier", "float", "carrier is float"),
        ("carrier", "timestamp", "carrier is timestamp"),
        ("carrier", "integer", "carrier is integer, and it is the key of features by string"),
        ("tailnum", "float", "tailnum is float"),
    ],
)
def test_a_key_of_another_type_than_its_features_is_refused(
    versions: list[ServedModel], key: str, kind: Any, said: str
) -> None:
    code = catalog.load_serving(USECASE)
    fields = code.spec.serving.request | {key: RequestField(type=kind, optional=True)}
    scorer_of(code, code.spec.serving.request).check(server_of(versions[0]))

    with pytest.raises(SpecError, match=said):
        scorer_of(code, fields).check(server_of(versions[0]))


def test_a_text_is_no_key_of_features_by_number(versions: list[ServedModel]) -> None:
    code = catalog.load_serving(USECASE)
    tables = {
        name: table.model_copy(
            update={"columns": table.columns | {"carrier": ColumnRule(type="integer")}}
        )
        for name, table in code.spec.data.tables.items()
    }
    data = code.spec.data.model_copy(update={"tables": tables})
    code = dataclasses.replace(code, spec=code.spec.model_copy(update={"data": data}))

    with pytest.raises(SpecError, match="carrier is string, and it is the key of features by int"):
        scorer_of(code, code.spec.serving.request).check(server_of(versions[0]))


def scorer_of(code: catalog.ServingCode, fields: Any) -> Scorer:
    """A scorer of a use case with other fields; it has a connection that is never made."""
    serving = code.spec.serving.model_copy(update={"request": fields})
    spec = code.spec.model_copy(update={"serving": serving})

    async def make() -> Scorer:
        store = FeatureStore(RedisLink("redis://127.0.0.1:1/0", name="none"))
        return Scorer(dataclasses.replace(code, spec=spec), Requests(USECASE, serving), store)

    return asyncio.run(make())


def server_of(model: ServedModel, url: str = "http://127.0.0.1:1") -> ModelServer:
    return ModelServer(url, model, catalog.load_serving(USECASE).request_inputs)


def test_the_servers_of_a_split_batch_stay_open_until_its_last_row_is_scored(
    servers: list[StandIn], versions: list[ServedModel]
) -> None:
    code = catalog.load_serving(USECASE)
    requests = Requests(USECASE, code.spec.serving)
    arms = (
        ("champion", 0.5, servers[0].url, versions[0]),
        ("challenger", 0.5, servers[1].url, versions[1]),
    )
    rows = [request(flight_key=entity) for entity in ENTITIES]

    async def score() -> list[Scored]:
        store = FeatureStore(RedisLink("redis://127.0.0.1:1/0", name="none"))
        models = [server_of(model, url) for _, _, url, model in arms]
        routing = Routing(route(*arms), models, None)
        batch = requests.parse(msgspec.json.encode(rows))
        work = asyncio.create_task(
            Scorer(patient_code, requests, store).score(routing, batch, 0, 0)
        )
        await asyncio.sleep(0)  # its parts are made and have not begun
        for model in models:
            await model.retire()
        return await work

    patient_code = dataclasses.replace(code, spec=patient(code.spec))
    parts = asyncio.run(score())

    assert {"champion", "challenger"} == {part.arm for part in parts}
    assert not any(part.fallback for part in parts)


def test_the_shadow_sees_a_share_of_the_requests_and_nobody_sees_its_answers(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    arm = ("champion", 1.0, servers[0].url, versions[0])
    gateway = rollout.follow(arm, shadow=(0.5, servers[2].url, versions[2]))
    ids = [f"sampled-{number}" for number in range(120)]
    answers = [gateway.score(request(request_id=name)).json for name in ids]
    champions = wait_for(lambda: f if len(f := rollout.rows(ids, "champion")) == 120 else None)
    shadows = wait_for(lambda: f if len(f := rollout.rows(ids, "shadow")) > 30 else None)

    assert {("champion", 1, 0.25)} == {(a["arm"], a["version"], a["score"]) for a in answers}
    assert len(shadows) < 88  # four standard deviations of 120 halves
    assert {(3, 0.75, False)} == {(r.version, r.score, r.fallback) for r in shadows.values()}
    assert all(row.features == champions[name].features for name, row in shadows.items())


def test_a_shadow_that_hangs_harms_nobody(
    rollout: Rollout, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    servers[2].mode = "hang"
    arm = ("champion", 1.0, servers[0].url, versions[0])
    gateway = rollout.follow(arm, shadow=(1.0, servers[2].url, versions[2]))
    ids = [f"hanging-{number}" for number in range(40)]
    answers = [gateway.score(request(request_id=name)).json for name in ids]

    assert not any(answer["fallback"] or answer["degraded"] for answer in answers)
    shadows = wait_for(lambda: rollout.rows(ids, "shadow"))
    row = next(iter(shadows.values()))
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
    with pytest.raises(DataError, match="epoch 1, so epoch 1 cannot follow"):
        routes.publish(route(("champion", 1.0, "http://b:1", versions[1]), epoch=1))

    assert first == routes.read(USECASE)
    routes.publish(second)
    assert second == routes.read(USECASE)
    later = route(("champion", 1.0, "http://c:1", versions[1]), epoch=5)
    routes.publish(later)  # whoever lost its state need not know every epoch
    assert later == routes.read(USECASE)
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


@pytest.mark.loop
def test_a_gateway_that_ends_is_no_longer_counted(
    make_gateway: MakeGateway, redis: RedisProcess, champion: Model
) -> None:
    with closing(RouteStore(redis.url)) as routes:
        routes.publish(route(("champion", 1.0, champion.url, champion.served)))
        first, second = make_gateway(redis.url), make_gateway(redis.url)
        wait_for(lambda: list(routes.acknowledgements(USECASE).values()) == [1, 1])
        assert 0 == second.stop()

        assert 1 == len(routes.acknowledgements(USECASE))
        assert first.answers("/readyz")
