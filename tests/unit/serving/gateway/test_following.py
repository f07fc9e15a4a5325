"""Servers change their parts in a route, and shadows are given up before anybody notices them."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from mlplatform.contracts import ServedModel
from serving.route import acknowledgement_key
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.stack import (
    AT_US,
    USECASE,
    Gateway,
    Reply,
    Store,
    request,
    route,
    wait_for,
)
from tests.unit.serving.gateway.stand_in import StandIn
from tests.unit.serving.gateway.test_metrics import measured

ROWS = 256


@pytest.fixture
def servers() -> Iterator[list[StandIn]]:
    """Two stand-ins that score 0.25 and 0.75."""
    with ExitStack() as stack:
        yield [stack.enter_context(StandIn(score)) for score in (0.25, 0.75)]


@pytest.fixture
def versions(champion: Model) -> list[ServedModel]:
    return [champion.served.model_copy(update={"version": version}) for version in (1, 2)]


@pytest.fixture
def store(redis: RedisProcess, champion: Model) -> Iterator[Store]:
    with closing(Store(redis.url)) as found:
        found.features(champion.served, request(), AT_US)
        yield found


@pytest.fixture
def gateway(
    tmp_path: Path, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> Iterator[Gateway]:
    """A gateway with a champion on the first server, and a shadow of all on the second."""
    store.publish(
        route(
            ("champion", 1.0, servers[0].url, versions[0]),
            shadow=(1.0, servers[1].url, versions[1]),
        )
    )
    running = Gateway(tmp_path, store.url)
    running.start()
    yield running
    running.kill()


def epoch(gateway: Gateway) -> int:
    return int(gateway.get("/readyz").json["usecases"][USECASE]["epoch"])


def acknowledged(store: Store) -> set[bytes]:
    keys = store.client.execute("KEYS", acknowledgement_key(USECASE, "*"))
    return {store.client.execute("GET", key) for key in keys}


def test_a_shadow_that_was_never_ready_gets_no_traffic_when_it_becomes_the_champion(
    gateway: Gateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    servers[1].ready = False
    servers[1].mode = "refuse"
    store.publish(route(("champion", 1.0, servers[1].url, versions[1]), epoch=2))
    wait_for(lambda: "epoch 2 waits" in gateway.log.read_text())

    answer = gateway.score(request()).json
    assert (1, 1, False) == (answer["epoch"], answer["version"], answer["fallback"])
    assert b"2" not in acknowledged(store)

    servers[1].ready = True
    servers[1].mode = "good"
    wait_for(lambda: epoch(gateway) == 2)
    answer = gateway.score(request()).json
    assert (2, 2, 0.75) == (answer["epoch"], answer["version"], answer["score"])
    wait_for(lambda: b"2" in acknowledged(store))


def test_an_arm_that_has_died_keeps_no_route_from_being_followed(
    gateway: Gateway, store: Store, servers: list[StandIn], versions: list[ServedModel]
) -> None:
    both = [(servers[0].url, versions[0]), (servers[1].url, versions[1])]
    store.publish(route(("champion", 0.5, *both[0]), ("challenger", 0.5, *both[1]), epoch=2))
    wait_for(lambda: epoch(gateway) == 2)
    servers[1].ready = False
    store.publish(route(("champion", 0.9, *both[0]), ("challenger", 0.1, *both[1]), epoch=3))

    wait_for(lambda: epoch(gateway) == 3)


def burst(gateway: Gateway, rows: list[dict[str, Any]] | dict[str, Any], times: int) -> list[Reply]:
    """Ask several times at once."""
    found: list[Reply] = []
    barrier = threading.Barrier(times)

    def ask() -> None:
        barrier.wait()
        found.append(gateway.score(rows))

    threads = [threading.Thread(target=ask) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def shed(gateway: Gateway) -> float:
    return measured(gateway, "shadow_shed_total")


def each_is_shown_or_shed(gateway: Gateway, store: Store, least: int) -> bool:
    """Whether each live row was either shown to the shadow or given up: has no row of its own."""
    rows = store.rows()
    shadows = sum(row.arm == "shadow" for row in rows)
    return len(rows) - shadows >= least and shed(gateway) + shadows == len(rows) - shadows


def test_a_shadow_that_hangs_is_given_up_and_live_answers_are_as_without_it(
    gateway: Gateway, store: Store, servers: list[StandIn]
) -> None:
    servers[1].mode = "hang"
    asked = 0

    def shed_in_a_burst() -> bool:
        nonlocal asked
        replies = burst(gateway, request(request_id="burst"), 24)
        asked += len(replies)
        assert {200} == {reply.status for reply in replies}
        assert {(0.25, False, False)} == {
            (r.json["score"], r.json["degraded"], r.json["fallback"]) for r in replies
        }
        return shed(gateway) > 0

    wait_for(shed_in_a_burst)
    wait_for(lambda: each_is_shown_or_shed(gateway, store, asked))


def test_shadows_are_given_up_while_an_arm_hangs_and_the_process_is_busy(
    gateway: Gateway, store: Store, servers: list[StandIn]
) -> None:
    batch = [request(request_id=f"batch-{number}") for number in range(ROWS)]
    asked = 0

    def shed_in_a_burst() -> bool:
        nonlocal asked
        servers[0].mode = "hang"
        replies = burst(gateway, batch, 8)
        servers[0].mode = "good"
        asked += len(replies)
        assert {200} == {reply.status for reply in replies}
        assert {(False, True)} == {
            (row["degraded"], row["fallback"]) for reply in replies for row in reply.json
        }
        if shed(gateway) > 0:
            return True
        wait_for(lambda: not gateway.score(request()).json["fallback"])  # the breaker is closed
        return False

    wait_for(shed_in_a_burst)
    wait_for(lambda: each_is_shown_or_shed(gateway, store, asked * ROWS))
