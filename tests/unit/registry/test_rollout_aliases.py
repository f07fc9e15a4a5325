"""The aliases of a rollout in a real MLflow server."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.redis_server import redis_server
from mlplatform.clients.registry import Registry
from mlplatform.errors import StaleError
from serving.rollout.aliases import RegistryAliases
from serving.rollout.locks import FileLock
from tests.unit.serving.rollout.builders import CHALLENGER, CHAMPION
from tests.unit.serving.rollout.test_crashes import SCENARIOS, Assassin, Killed, Scenario
from tests.unit.serving.rollout.world import USECASE, World, world_in


@pytest.fixture(scope="module")
def versions(registry: Registry) -> Registry:
    """The registry, with five versions of the use case's model; nothing looks into them."""
    run = registry.start_run(USECASE, "rollouts", {}, datetime(2026, 3, 1, tzinfo=UTC))
    for version in range(1, 6):
        reserved = registry.reserve(
            USECASE, run, digest=f"{version}" * 64, data_digest="d" * 64, tags={}
        )
        assert version == registry.complete(reserved, "s" * 64).version
    return registry


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis"), guarded=False) as server:
        yield server.url


@pytest.fixture
def world(tmp_path: Path, redis_url: str, versions: Registry) -> Iterator[World]:
    for alias in ("champion", "challenger"):
        versions.remove_alias(USECASE, alias)
    with world_in(tmp_path, redis_url, versions) as made:
        yield made


def test_an_alias_that_is_removed_is_gone_and_may_be_removed_again(versions: Registry) -> None:
    versions.set_alias(USECASE, "challenger", 2)
    for _ in range(2):
        versions.remove_alias(USECASE, "challenger")

    assert None is versions.by_alias(USECASE, "challenger")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("scenario", "call"),
    [(scenario, call) for scenario, calls in zip(SCENARIOS, (3, 2, 1), strict=True)
     for call in range(calls)],
    ids=lambda value: value.name if isinstance(value, Scenario) else f"call {value}",
)  # fmt: skip
def test_a_driver_that_is_killed_at_a_call_to_the_registry_leaves_the_aliases_right(
    world: World, scenario: Scenario, call: int, *, after: bool
) -> None:
    scenario.begin(world)
    assassin = Assassin(call, after=after, only="registry")
    with world.driver(assassin.prepare) as driver:
        with pytest.raises(Killed):
            scenario.play(world, driver)
        with world.driver() as resumed:
            scenario.play(world, resumed)

    assert {"champion": 4 if scenario.end == "promoted" else 3} == world.aliases()


def test_aliases_that_the_state_does_not_mean_are_refused(world: World) -> None:
    world.ask()
    aliases = RegistryAliases(world.registry, world.store, FileLock(world.lock))

    with pytest.raises(StaleError, match="read the rollout and decide again"):
        aliases.set(USECASE, CHALLENGER, None)
    assert {"champion": 3} == world.aliases()


@pytest.mark.parametrize(("marked", "left"), [(2, 4), (4, 4), (5, 5)])
def test_a_challenger_that_was_registered_later_keeps_its_alias(
    world: World, marked: int, left: int
) -> None:
    world.ask()
    world.registry.set_alias(USECASE, "challenger", marked)
    aliases = RegistryAliases(world.registry, world.store, FileLock(world.lock))

    aliases.set(USECASE, CHAMPION, CHALLENGER)

    assert {"champion": 3, "challenger": left} == world.aliases()
