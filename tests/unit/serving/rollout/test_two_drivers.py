"""Two drivers of one rollout: one of them acts, and what the other one writes late is refused."""

import functools
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from mlplatform.contracts import Route
from serving.rollout.driver import Driver
from serving.route import RouteStore
from tests.unit.serving.gateway.stack import wait_for
from tests.unit.serving.rollout.world import CALLS, FileRegistry, World

MakeWorld = Callable[[], World]
IN_ALL = 32
"""Calls that write, the registry's aside, of one driver alone until it has promoted."""
PATIENCE = 30.0
"""Seconds after which a thread is taken for stuck."""


@dataclass
class Pause:
    """Stops a driver in front of a call, until it is told to go on."""

    at: int
    seen: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    resumed: threading.Event = field(default_factory=threading.Event)

    def prepare(self, **targets: Any) -> None:
        for target, name in CALLS:
            if target == "registry":
                continue  # the lock is held there: no other driver can do the same
            call = getattr(targets[target], name)
            setattr(targets[target], name, self.guarded(call))

    def guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.seen += 1
            if self.seen == self.at:
                self.reached.set()
                assert self.resumed.wait(PATIENCE)
            return call(*arguments, **options)

        return guarded

    def drive(self, world: World, driver: Driver) -> None:
        """Let hours pass until the driver has been paused and was told to go on."""
        while not self.reached.is_set():
            world.hour(driver)


def written(world: World) -> dict[str, Any]:
    """Return what no late writer may change; servers obey whoever asks last."""
    return {key: value for key, value in world.state().items() if key != "servers"}


def pass_time(world: World) -> bool:
    """Let gateways follow, and time pass where it is waited for; return whether it is over."""
    world.follow()
    if "to last" in world.rollout.waits_for:
        world.clock.now += timedelta(hours=1)
    return world.rollout.at_rest


@pytest.fixture
def alone(make_world: MakeWorld) -> Callable[[int | None], dict[str, Any]]:
    """How it ends with one driver: promoted, or rolled back by hand at a chapter of the story."""

    @functools.cache
    def end(rolled_back_at: int | None) -> dict[str, Any]:
        world = make_world()
        world.ask()
        with world.driver() as driver:
            while len(world.rollout.story) != rolled_back_at and not world.rollout.at_rest:
                world.hour(driver)
            if rolled_back_at is not None:
                world.order("rollback")
            world.settle(driver)
            return world.state()

    return end


@pytest.mark.parametrize(
    "seeds",
    [range(40), pytest.param(range(40, 200), marks=pytest.mark.loop)],
    ids=lambda seeds: f"{len(seeds)} runs",
)
def test_a_driver_that_was_paused_writes_nothing_stale_when_it_goes_on(
    seeds: range, make_world: MakeWorld, alone: Callable[[int | None], dict[str, Any]]
) -> None:
    overtaken, stale, differ = 0, [], []
    for seed in seeds:
        chance, world = random.Random(seed), make_world()  # noqa: S311 (a seeded choice)
        world.ask()
        pause, rolled_back_at = Pause(chance.randint(1, IN_ALL)), None
        with (
            world.driver(pause.prepare) as slow,
            world.driver() as fast,
            ThreadPoolExecutor(1) as thread,
        ):
            driving = thread.submit(pause.drive, world, slow)
            assert pause.reached.wait(PATIENCE)
            known = world.rollout
            for _ in range(chance.randint(1, 12)):
                world.hour(fast)
            if chance.random() < 0.5:
                rolled_back_at = len(world.rollout.story)
                world.order("rollback")
                world.hour(fast)
            before, moved_on = written(world), world.rollout != known
            pause.resumed.set()
            driving.result(PATIENCE)
            overtaken += moved_on
            if moved_on and before != written(world):
                stale.append(seed)
            world.settle(slow)
            end = world.state()
        if end != alone(rolled_back_at):
            differ.append(seed)

    assert overtaken > len(seeds) / 2
    assert not stale
    assert not differ


def test_two_drivers_that_run_side_by_side_end_as_one_does(
    world: World, alone: Callable[[int | None], dict[str, Any]]
) -> None:
    world.ask()
    epochs: list[int] = []

    def watch(routes: RouteStore, **_: object) -> None:
        publish = routes.publish

        def watched(route: Route) -> None:
            publish(route)
            epochs.append(route.epoch)

        routes.publish = watched  # type: ignore[method-assign]

    def drive(driver: Driver) -> None:
        while not over.is_set():
            driver.tick()

    over = threading.Event()
    with world.driver(watch) as one, world.driver(watch) as other, ThreadPoolExecutor(2) as threads:
        driving = [threads.submit(drive, one), threads.submit(drive, other)]
        wait_for(functools.partial(pass_time, world), PATIENCE)
        over.set()
        for thread in driving:
            thread.result(PATIENCE)
        world.settle(one)

    assert epochs == sorted(epochs)
    assert world.state() == alone(None)


def test_who_sleeps_while_setting_aliases_holds_up_nothing_else(world: World) -> None:
    world.ask()
    pause = Pause(at=1)

    def prepare(registry: FileRegistry, **_: object) -> None:
        registry.set_alias = pause.guarded(registry.set_alias)  # type: ignore[method-assign]

    with (
        world.driver(prepare) as slow,
        world.driver() as fast,
        ThreadPoolExecutor(1) as thread,
    ):
        driving = thread.submit(pause.drive, world, slow)
        assert pause.reached.wait(PATIENCE)
        while not world.hour(fast).at_rest:
            pass
        asleep = world.aliases(), [version.version for version in world.pool.running]
        pause.resumed.set()
        driving.result(PATIENCE)
        late = world.aliases()
        wait_for(lambda: world.hour(fast) and world.aliases() == {"champion": 4})

    assert ({"champion": 3}, [4]) == asleep
    assert {"champion": 3, "challenger": 4} == late
