"""What is measured says who was asked, counts live traffic apart, and forgets only what is gone."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.contracts import ServedModel
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


def samples(gateway: Gateway, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(gateway.get("/metrics").body.decode())
    return [
        (sample.labels, sample.value)
        for family in families
        for sample in family.samples
        if sample.name == f"mlplatform_gateway_{name}"
    ]


def measured(gateway: Gateway, name: str, **labels: str) -> float:
    """Return the sum over all other labels."""
    wanted = {"usecase": USECASE, **labels}.items()
    return sum(value for found, value in samples(gateway, name) if wanted <= found.items())


def breakers(gateway: Gateway) -> set[str]:
    return {labels["dependency"] for labels, _ in samples(gateway, "breaker")}


@pytest.fixture
def store(redis: RedisProcess, champion: Model) -> Iterator[Store]:
    with closing(Store(redis.url)) as found:
        found.features(champion.served, request(), AT_US)
        yield found


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def versions(champion: Model) -> list[ServedModel]:
    return [champion.served.model_copy(update={"version": version}) for version in (3, 4)]


def test_hops_and_reasons_say_which_arm_and_version_was_asked(
    make_gateway: MakeGateway,
    store: Store,
    champion: Model,
    stand_in: StandIn,
    versions: list[ServedModel],
) -> None:
    live = ("champion", 0.5, champion.url, versions[0])
    store.publish(route(live, ("challenger", 0.5, stand_in.url, versions[1])))
    gateway = make_gateway(store.url)
    stand_in.mode = "refuse"
    rows = [request(flight_key=f"2013-06-01-AA-{number}-JFK") for number in range(1, 65)]
    gateway.score(rows)
    refused = measured(gateway, "rows_total", arm="challenger", version="4", outcome="fallback")

    assert 10 < refused < 54
    for name, labels, expected in (
        ("seconds_count", {"arm": "champion", "version": "3", "hop": "inference"}, 1),
        ("seconds_count", {"arm": "challenger", "version": "4", "hop": "inference"}, 1),
        ("reasons_total", {"arm": "challenger", "version": "4"}, refused),
        ("reasons_total", {"arm": "challenger", "reason": "inference_down"}, refused),
        ("reasons_total", {"arm": "champion"}, 0),
    ):
        assert expected == measured(gateway, name, **labels), (name, labels)


def test_a_shadow_counts_among_no_live_rows_and_its_breaker_goes_with_it(
    make_gateway: MakeGateway,
    store: Store,
    champion: Model,
    stand_in: StandIn,
    versions: list[ServedModel],
) -> None:
    live = ("champion", 1.0, champion.url, versions[0])
    store.publish(route(live, shadow=(1.0, stand_in.url, versions[1])))
    gateway = make_gateway(store.url)
    stand_in.mode = "refuse"
    for _ in range(3):
        assert not gateway.score(request()).json["fallback"]
    wait_for(lambda: measured(gateway, "rows_total", arm="shadow", version="4") == 3)

    assert 3 == measured(gateway, "reasons_total", arm="shadow", version="4")
    assert 3 == measured(gateway, "reasons_total")
    assert 3 == measured(gateway, "feature_age_seconds_count", view="carrier_delay")
    assert 3 == measured(gateway, "seconds_count", hop="total")
    assert {"features", "champion", "shadow"} == breakers(gateway)

    store.publish(route(live, epoch=2))
    wait_for(lambda: measured(gateway, "route_epoch") == 2)
    assert {"features", "champion"} == breakers(gateway)


def test_a_folder_of_other_processes_in_the_environment_is_left_alone(
    make_gateway: MakeGateway, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(others))
    gateway = make_gateway(store.url, path="/livez")

    assert 0 == measured(gateway, "log_rows_total", state="dropped")
    assert [] == list(others.iterdir())


@pytest.mark.loop
def test_rows_of_a_worker_that_died_stay_counted(
    make_gateway: MakeGateway,
    store: Store,
    champion: Model,
    stand_in: StandIn,
    versions: list[ServedModel],
    redis: RedisProcess,
) -> None:
    live = ("champion", 1.0, champion.url, versions[0])
    store.publish(route(live, shadow=(1.0, stand_in.url, versions[1])))
    gateway = make_gateway(store.url, workers=2)
    wait_for(lambda: breakers(gateway) == {"features", "champion", "shadow"})
    store.publish(route(live, epoch=2))
    wait_for(lambda: measured(gateway, "route_epoch") == 2)
    wait_for(lambda: breakers(gateway) == {"features", "champion"})  # of both workers
    redis.kill()
    wait_for(lambda: not gateway.answers("/readyz") or _is_degraded(gateway))
    for number in range(40):
        gateway.score(request(request_id=f"row-{number}"))
    wait_for(lambda: measured(gateway, "log_queued_rows") == 0)
    wait_for(lambda: measured(gateway, "log_rows_total", state="spilled") >= 40)
    before = measured(gateway, "log_rows_total", state="spilled")
    for worker in gateway.workers():
        os.kill(worker, signal.SIGKILL)
    redis.start()
    wait_for(lambda: _answers(gateway))

    assert before <= measured(gateway, "log_rows_total", state="spilled")
    assert 0 == measured(gateway, "log_rows_total", state="dropped")


def _is_degraded(gateway: Gateway) -> bool:
    return bool(gateway.score(request()).json["degraded"])


def _answers(gateway: Gateway) -> bool:
    try:
        return gateway.get("/livez").status == 200 and len(gateway.workers()) == 2
    except OSError:
        return False
