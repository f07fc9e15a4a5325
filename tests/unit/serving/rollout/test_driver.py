"""What a driver brings about, and what it does when something that it acts on is away."""

import itertools
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mlplatform.contracts import Route, ServerStatus
from mlplatform.errors import DataError, ServiceError
from serving.rollout.ports import Server
from tests.unit.serving.rollout.builders import CHAMPION
from tests.unit.serving.rollout.world import USECASE, World

AWAY = ServiceError("it is away: start it")
BAD = 0.2
"""Share of errors that is harm at the next look."""


def weights(route: Route | None) -> dict[int, float]:
    """Return the share of each version that is an arm."""
    assert route is not None
    return {arm.model.version: arm.weight for arm in route.arms}


def published(world: World, route: Route | None, **changes: Any) -> Route:
    """Put another route into Redis past all rules, as a restored backup does."""
    assert route is not None
    other = route.model_copy(update=changes)
    world.redis.execute("SET", f"route:{USECASE}", other.model_dump_json())
    return other


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_nothing_is_done_where_there_never_was_a_rollout(world: World) -> None:
    before = world.state()
    with world.driver() as driver:
        assert None is driver.tick()

    assert before == world.state()


def test_a_good_version_gets_all_traffic_and_its_rows(world: World) -> None:
    world.ask()
    seen = []
    with world.driver() as driver:
        while not world.rollout.at_rest:
            world.hour(driver)
            seen.append((weights(world.route), bool(world.route and world.route.shadow)))
        world.hour(driver)

    distinct = [pair for number, pair in enumerate(seen) if pair not in seen[:number]]
    assert [
        ({3: 1.0}, False),
        ({3: 1.0}, True),
        ({3: 0.8, 4: 0.2}, True),
        ({3: 0.5, 4: 0.5}, True),
        ({3: pytest.approx(0.2), 4: 0.8}, False),
        ({4: 1.0}, False),
    ] == distinct
    assert {"champion": 4} == world.aliases()
    assert [4] == [version.version for version in world.pool.running]
    assert ["started", "verifying", "verified", "canary", "canary", "soak", "promoted"] == [
        entry.decision.verdict for entry in world.ledger.entries(USECASE, "rollout", "4")
    ]
    assert world.ledger.verify() == 7


def test_a_broken_version_loses_its_traffic_at_the_look_that_shows_it(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        world.until(driver, "canary", 1)
        world.evidence.errors = BAD
        driver.tick()
        at_once = weights(world.route), [version.version for version in world.pool.running]
        world.settle(driver)

    assert ({3: 1.0}, [3, 4]) == at_once
    assert {"champion": 3} == world.aliases()
    assert [3] == [version.version for version in world.pool.running]
    assert "harm" == world.ledger.entries(USECASE)[-1].decision.verdict


def test_a_step_is_in_force_only_when_every_gateway_follows_it(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        asked = world.until(driver, "canary", 1)
        world.follow("one")
        driver.tick()
        half_way = world.rollout
        world.follow("two")
        driver.tick()

    assert half_way.committed == asked.epoch - 1
    assert world.rollout.committed == asked.epoch


def test_to_follow_a_foreign_route_is_not_to_follow_ours(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        asked = world.until(driver, "canary", 1)
        published(world, world.route, salt="another")
        world.hour(driver)

    assert world.rollout.committed < asked.epoch < world.rollout.epoch


@pytest.mark.parametrize("phase", ["verifying", "shadow", "canary", "soak", "promoted"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"epoch": 1000}, id="a later epoch"),
        pytest.param({"epoch": 1000, "salt": "another"}, id="a later route of somebody else"),
        pytest.param({"salt": "another"}, id="another route of this epoch"),
        pytest.param({"epoch": 1}, id="an older epoch"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_redis_that_holds_another_route_is_put_right(
    world: World, phase: Any, change: dict[str, Any]
) -> None:
    world.ask()
    with world.driver() as driver:
        world.until(driver, phase, 1 if phase not in {"verifying", "shadow"} else 0)
        ours, route = weights(world.route), world.route
        world.redis.execute("FLUSHALL")
        foreign = published(world, route, **change) if change else None
        driver.tick()
        driver.tick()
        after = world.route
        world.settle(driver)

    assert after is not None
    assert (ours, world.rollout.salt) == (weights(after), after.salt)
    assert (
        foreign is None or after == foreign or after.epoch > foreign.epoch or change["epoch"] == 1
    )
    assert "promoted" == world.rollout.phase
    assert world.route is not None
    assert world.rollout.epoch == world.route.epoch


def test_a_record_that_is_no_route_is_replaced(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        world.until(driver, "canary", 1)
        route = world.route
        world.redis.execute("SET", f"route:{USECASE}", "no route")
        driver.tick()

    assert route == world.route


def test_a_server_that_has_moved_is_in_the_route_at_its_new_address(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        before = world.until(driver, "canary", 1)
        world.pool.move()
        for _ in range(3):
            driver.tick()
        route = world.route
        world.settle(driver)

    assert route is not None
    assert {f"http://server-{version}-1:8000" for version in (3, 4)} == {
        arm.url for arm in route.arms
    }
    assert before.epoch < route.epoch
    assert "promoted" == world.rollout.phase


@pytest.mark.parametrize("state", ["absent", "starting", "failed"])
def test_a_dead_champion_does_not_keep_traffic_on_a_broken_challenger(
    world: World, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ask()
    with world.driver() as driver:
        world.until(driver, "canary", 1)
        running = dict(world.pool.running)
        dead = {**running, CHAMPION: Server(ServerStatus(state))}
        monkeypatch.setattr(
            world.pool, "look", lambda version: dead.get(version, running.get(version))
        )
        world.evidence.errors = BAD
        driver.tick()

    assert {3: 1.0} == weights(world.route)


def test_a_version_whose_server_is_gone_gets_traffic_when_it_is_ready_again(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        world.settle(driver)
        world.order("rollback")
        driver.tick()
        asked = weights(world.route), world.pool.running[CHAMPION].status.state
        world.settle(driver)

    assert ({4: 1.0}, "starting") == asked
    assert {3: 1.0} == weights(world.route)
    assert {"champion": 3} == world.aliases()


PORTS = [
    ("aliases", "set"),
    ("pool", "ensure"),
    ("pool", "look"),
    ("ledger", "append"),
    ("store", "note"),
]


@pytest.mark.parametrize(("target", "name"), PORTS)
def test_what_is_away_keeps_no_traffic_on_a_broken_version_and_is_said_once(
    world: World,
    target: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ports: dict[str, Any] = {}
    world.ask()
    with world.driver(ports.update) as driver:
        world.until(driver, "canary", 1)
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(ports[target], name, failing(AWAY))
            world.evidence.errors = BAD
            for _ in range(3):
                driver.tick()
            route = world.route
        world.settle(driver)

    said = [record.getMessage() for record in caplog.records]
    assert {3: 1.0} == weights(route)
    assert len(said) == len(set(said)) > 0
    assert all(str(AWAY) in line for line in said)
    assert (["harm"], {"champion": 3}, [CHAMPION]) == (
        [entry.decision.verdict for entry in world.ledger.entries(USECASE, limit=1)],
        world.aliases(),
        list(world.pool.running),
    )


@pytest.mark.parametrize(
    "failure",
    [DataError("a file is damaged"), AWAY, KeyError("a fault of our own")],
    ids=["data", "service", "fault"],
)
def test_evidence_that_cannot_be_read_moves_nothing(world: World, failure: Exception) -> None:
    world.ask()
    with world.driver() as driver:
        before = world.until(driver, "canary", 1)
        world.evidence.failure = failure
        after = world.hour(driver)
        world.evidence.failure = None
        world.settle(driver)

    assert before.story == after.story
    assert "evidence" in after.waits_for
    assert "promoted" == world.rollout.phase


@pytest.mark.parametrize("name", ["read", "publish", "acknowledgements"])
def test_a_redis_that_is_away_is_waited_for(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: dict[str, Any] = {}
    world.ask()
    with world.driver(ports.update) as driver:
        world.until(driver, "shadow")
        with monkeypatch.context() as patch:
            patch.setattr(ports["routes"], name, failing(AWAY))
            for _ in range(3):
                world.hour(driver)
            waiting = world.rollout
        world.settle(driver)

    assert waiting.committed < waiting.epoch
    assert "promoted" == world.rollout.phase


@pytest.mark.parametrize("name", ["read", "write"])
def test_nothing_is_decided_while_the_state_cannot_be_kept(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: dict[str, Any] = {}
    world.ask()
    with world.driver(ports.update) as driver:
        world.until(driver, "canary", 1)
        before = world.state()
        with monkeypatch.context() as patch:
            patch.setattr(ports["store"], name, failing(AWAY))
            world.evidence.errors = BAD
            world.hour(driver)
            during = world.state()
        world.settle(driver)

    assert before == during
    assert "rolled_back" == world.rollout.phase


def test_a_state_that_is_not_readable_is_said_and_left_alone(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: dict[str, Any] = {}
    world.ask()
    with world.driver(ports.update) as driver:
        before = world.until(driver, "canary", 1)
        monkeypatch.setattr(ports["store"], "read", failing(DataError("it was edited")))

        assert [before, before] == [driver.tick(), driver.tick()]
    assert ["flight_delay: could not drive the rollout: it was edited"] == [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]


def test_a_tick_at_which_nothing_changes_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: dict[str, Any] = {}
    world.ask()
    with world.driver(ports.update) as driver:
        world.until(driver, "soak", 1)
        world.hour(driver)
        for target, name in (
            ("store", "write"),
            ("store", "note"),
            ("routes", "publish"),
            ("aliases", "set"),
            ("ledger", "append"),
        ):
            monkeypatch.setattr(ports[target], name, failing(AssertionError("it wrote")))
        before = world.rollout
        driver.tick()

    assert before == world.rollout


def test_each_look_that_says_something_new_is_kept(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        world.settle(driver)

    looks = world.store.looks(USECASE, 1)
    assert [("shadow", 0), ("canary", 0), ("canary", 1), ("soak", 1)] == list(
        dict.fromkeys((look.phase, look.step) for look in looks)
    )
    assert all(one.verdict != two.verdict for one, two in itertools.pairwise(looks))


@pytest.mark.parametrize(
    "failure", [AWAY, KeyError("a fault of our own")], ids=["service", "fault"]
)
def test_evidence_that_is_never_read_keeps_no_deadline_from_coming(
    world: World, failure: Exception
) -> None:
    world.ask()
    with world.driver() as driver:
        world.until(driver, "canary", 1)
        world.evidence.failure = failure
        world.clock.now = world.rollout.deadline_at
        world.settle(driver)

    assert "held" == world.rollout.phase
    assert {3: 1.0} == weights(world.route)


def test_looks_that_say_the_same_are_thinned_and_turns_are_kept(world: World) -> None:
    world.ask()
    with world.driver() as driver:
        entered = world.until(driver, "canary", 1)
        world.hour(driver)
        before = len(world.store.looks(USECASE, 1))
        for number in range(200):  # five minutes of looks, each on other evidence
            world.clock.now += timedelta(milliseconds=1500)
            world.evidence.errors = 0.004 + 1e-6 * number
            world.follow()
            driver.tick()
        kept = world.store.looks(USECASE, 1)[before:]
        world.evidence.errors = BAD
        driver.tick()

    assert "harm" == world.store.looks(USECASE, 1)[-1].verdict.kind
    pause = timedelta(hours=entered.plan.deadline_hours) / 1000
    assert len(kept) <= timedelta(minutes=5) / pause + 2


def test_an_acknowledgement_that_is_no_epoch_moves_nothing_and_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.ask()
    with world.driver() as driver:
        asked = world.until(driver, "canary", 1)
        world.follow()
        world.redis.execute("SET", f"route:{USECASE}:gateway:stranger", "soon")
        driver.tick()
        driver.tick()
        during = world.rollout
        world.redis.execute("DEL", f"route:{USECASE}:gateway:stranger")
        driver.tick()

    assert during.committed < asked.epoch == world.rollout.committed
    assert 1 == caplog.text.count("gateway:stranger holds no epoch but b'soon'")


def test_a_registry_that_hangs_gets_a_tenth_of_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: dict[str, Any] = {}
    hangs = 30.0
    passed, asked = [0.0], []

    def hang(*_: object) -> None:
        asked.append(passed[0])
        passed[0] += hangs
        raise AWAY

    world.ask()
    with world.driver(ports.update) as driver:
        monkeypatch.setattr(time, "monotonic", lambda: passed[0])
        monkeypatch.setattr(ports["aliases"], "set", hang)
        while passed[0] < 40 * hangs:
            driver.tick()
            passed[0] += hangs / 3

    assert 0.05 < len(asked) * hangs / passed[0] < 0.15


def test_an_alias_that_somebody_moves_is_moved_back_within_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [0.0]
    world.ask()
    monkeypatch.setattr(time, "monotonic", lambda: passed[0])
    with world.driver() as driver:
        world.until(driver, "canary", 1)
        world.registry.set_alias(USECASE, "champion", 4)
        driver.tick()
        soon = world.aliases()
        passed[0] += 60
        driver.tick()

    assert {"champion": 4, "challenger": 4} == soon
    assert {"champion": 3, "challenger": 4} == world.aliases()
