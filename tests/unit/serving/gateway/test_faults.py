"""Every request is answered within its budget, whatever is down, and everything comes back."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from feature_repo import catalog
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.patient_gateway import patient
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

BUDGET = patient(catalog.spec(USECASE)).serving.latency_ms
INSIDE_US = (BUDGET.total - BUDGET.network) * 1000
NOISE_US = 100_000
"""What a shared machine may add; the budget is ten times the real one."""

MakeGateway = Callable[..., Gateway]


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture(scope="module")
def store(module_redis: RedisProcess, champion: Model, stand_in: StandIn) -> Iterator[Store]:
    """A route to the stand-in and the features of one flight."""
    with closing(Store(module_redis.url)) as found:
        found.publish(route(("champion", 1.0, stand_in.url, champion.served)))
        found.features(champion.served, request(), AT_US)
        yield found


@pytest.fixture(scope="module")
def running(module_path: Path, store: Store) -> Iterator[Gateway]:
    gateway = Gateway(module_path, store.url)
    gateway.start()
    yield gateway
    gateway.kill()


@pytest.fixture
def gateway(running: Gateway, stand_in: StandIn) -> Iterator[Gateway]:
    """A gateway that works, before and after each test."""
    until(running, healthy)
    yield running
    stand_in.mode = "good"
    until(running, healthy)


def ask(gateway: Gateway, **changes: Any) -> dict[str, Any]:
    """Ask for one score; whatever happens, it is answered within the budget."""
    started = time.monotonic()
    reply = gateway.score(request(**changes))
    waited_us = (time.monotonic() - started) * 1e6

    assert 200 == reply.status
    answer = dict(reply.json)
    assert waited_us < BUDGET.total * 1000 + NOISE_US
    assert answer["latency"]["total_us"] < INSIDE_US + NOISE_US
    return answer


def until(gateway: Gateway, good: Callable[[dict[str, Any]], bool], seconds: float = 10) -> None:
    """Ask until the answers are good again."""
    wait_for(lambda: good(ask(gateway)), seconds)


def healthy(answer: dict[str, Any]) -> bool:
    return not answer["degraded"] and not answer["fallback"]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        pytest.param("hang", "inference_late", id="hangs"),
        pytest.param("refuse", "inference_down", id="refuses"),
        pytest.param("close", "inference_down", id="closes"),
        pytest.param("nan", "inference_down", id="answers NaN"),
        pytest.param("beyond", "inference_down", id="answers more than 1"),
        pytest.param("shape", "inference_down", id="answers another shape"),
        pytest.param("longer", "inference_down", id="answers too much"),
        pytest.param("text", "inference_down", id="is no model server"),
    ],
)
def test_the_rules_answer_for_a_model_server_that(
    gateway: Gateway, stand_in: StandIn, mode: str, reason: str
) -> None:
    stand_in.mode = mode
    answer = ask(gateway)

    expected = ("rules", "rules", 0, True, [reason])
    assert expected == tuple(answer[n] for n in ("model", "arm", "version", "fallback", "reasons"))
    assert not answer["degraded"]
    assert 1 == answer["epoch"]
    assert 0.1 <= answer["score"] <= 0.39  # the share of late flights at ten o'clock


def test_a_model_server_that_hangs_costs_nothing_once_its_breaker_is_open(
    gateway: Gateway, stand_in: StandIn
) -> None:
    stand_in.mode = "hang"
    for _ in range(5):
        ask(gateway)
    reasons = {tuple(ask(gateway)["reasons"]) for _ in range(3)}
    asked = stand_in.asked
    times = [ask(gateway)["latency"]["inference_us"] for _ in range(50)]

    assert ("inference_down",) in reasons
    assert stand_in.asked - asked <= 5  # probes
    assert sorted(times)[25] < 10_000  # not the 200 ms that the hop may take


def test_a_batch_falls_back_as_a_whole(gateway: Gateway, stand_in: StandIn) -> None:
    stand_in.mode = "refuse"
    answers = gateway.score([request() for _ in range(100)]).json

    assert {("rules", True)} == {(answer["arm"], answer["fallback"]) for answer in answers}


def test_a_paused_redis_degrades_the_answers_and_is_used_again(
    gateway: Gateway, module_redis: RedisProcess
) -> None:
    redis = module_redis
    redis.signal(signal.SIGSTOP)
    answers = [ask(gateway) for _ in range(30)]
    redis.signal(signal.SIGCONT)

    assert all(answer["degraded"] and not answer["fallback"] for answer in answers)
    assert ["features_late"] == answers[0]["reasons"]
    assert ["features_down"] == answers[-1]["reasons"]  # the breaker is open: no more waiting
    assert 3 == answers[-1]["version"]


def test_a_killed_redis_degrades_the_answers_and_no_row_is_lost(
    gateway: Gateway, module_redis: RedisProcess, store: Store
) -> None:
    ids = [f"request-{number}" for number in range(60)]
    for name in ids[:20]:
        assert healthy(ask(gateway, request_id=name))
    store.close()
    module_redis.kill()
    for name in ids[20:40]:
        answer = ask(gateway, request_id=name)
        assert ["features_down"] == answer["reasons"]
        assert (True, "champion") == (answer["degraded"], answer["arm"])
    module_redis.start()
    until(gateway, healthy)
    for name in ids[40:]:
        assert healthy(ask(gateway, request_id=name))

    def names() -> list[str]:
        return [row.request_id for row in store.rows() if row.request_id in ids]

    wait_for(lambda: len(names()) >= len(ids), what="the log")
    assert sorted(ids) == sorted(set(names()))


def test_a_gateway_that_starts_without_redis_answers_by_the_rules(
    make_gateway: MakeGateway, redis: RedisProcess, champion: Model
) -> None:
    with closing(Store(redis.url)) as store:
        store.publish(route(("champion", 1.0, champion.url, champion.served)))
        store.features(champion.served, request(), AT_US)
    redis.kill()
    gateway = make_gateway(redis.url, path="/livez")
    answer = ask(gateway)

    assert (["no_route"], "rules", 0) == tuple(answer[n] for n in ("reasons", "arm", "epoch"))
    assert 503 == gateway.get("/readyz").status
    redis.start()
    wait_for(lambda: gateway.get("/readyz").status == 200)
    until(gateway, healthy)


def test_everything_hanging_at_once_stays_within_the_budget(
    gateway: Gateway, module_redis: RedisProcess, stand_in: StandIn
) -> None:
    stand_in.mode = "hang"
    module_redis.signal(signal.SIGSTOP)
    try:
        answer = ask(gateway)
    finally:
        module_redis.signal(signal.SIGCONT)

    assert ["features_late", "inference_late"] == answer["reasons"]
    assert (True, True) == (answer["degraded"], answer["fallback"])


def test_overload_is_refused_at_once_and_says_when_to_come_back(
    gateway: Gateway, stand_in: StandIn
) -> None:
    stand_in.mode = "hang"
    found: list[Reply] = []

    def hammer() -> None:
        # Ten batches of 256 rows fill the process; each is open for 200 ms.
        found.extend(gateway.score([request()] * 256) for _ in range(3))

    threads = [threading.Thread(target=hammer) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [reply for reply in found if reply.status == 429]

    assert {200, 429} == {reply.status for reply in found}
    assert {"1"} == {reply.headers["retry-after"] for reply in refused}
    assert "try again" in refused[0].json["error"]["message"]


@pytest.mark.loop
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_real_model_server_that_is_gone_comes_back_by_itself(
    triton: Callable[[int, float], Model],
    make_gateway: MakeGateway,
    redis: RedisProcess,
    kind: signal.Signals,
) -> None:
    model = triton(100 + kind, 0.01)
    with closing(Store(redis.url)) as store:
        store.publish(route(("champion", 1.0, model.url, model.served)))
        store.features(model.served, request(), AT_US)
    gateway = make_gateway(redis.url)
    assert healthy(ask(gateway))
    os.killpg(model.handle.pid, kind)
    broken = ask(gateway)
    started = time.monotonic()
    until(gateway, healthy, seconds=30)

    assert broken["fallback"]
    assert time.monotonic() - started < 20  # patience, restart, breaker
