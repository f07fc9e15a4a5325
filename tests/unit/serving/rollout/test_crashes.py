"""A driver that is killed before or after any of its calls leaves the end as it would have been."""

import dataclasses
import functools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlplatform.contracts.rollout import Phase
from serving.rollout import machine
from serving.rollout.driver import Driver
from tests.unit.serving.rollout import builders, driver_process
from tests.unit.serving.rollout.world import CALLS, PLAN, World

MakeWorld = Callable[[], World]
HOURS = 60
"""In which a rollout is over, wherever its driver was killed."""
KILLS = 10
LONG = PLAN.model_copy(
    update={"shadow_hours": 0.02, "soak_hours": 0.02, "weights": (0.05, 0.1, 0.2, 0.3, 0.5)}
)


class Killed(BaseException):
    """As SIGKILL: nothing in the driver handles it."""


@dataclass
class Assassin:
    """Counts the calls that write, and kills the driver at one of them."""

    at: int | None = None
    after: bool = False
    only: str = ""
    """Counts the calls on this alone."""
    calls: list[str] = field(default_factory=list)

    def prepare(self, **targets: Any) -> None:
        """Stand in front of everything that a driver writes to."""
        for target, name in CALLS:
            if self.only not in {"", target}:
                continue
            call = getattr(targets[target], name)
            setattr(targets[target], name, self._guarded(f"{target}.{name}", call))

    def _guarded(self, label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.calls.append(label)
            aimed = len(self.calls) - 1 == self.at
            if aimed and not self.after:
                raise Killed
            result = call(*arguments, **options)
            if aimed:
                raise Killed
            return result

        return guarded


@dataclass(frozen=True)
class Scenario:
    """A rollout, by what happens in it and where it ends."""

    name: str
    begin: Callable[[World], None]
    before_each_hour: Callable[[World], None]
    end: Phase
    calls: int
    """That write, at least."""

    def play(self, world: World, driver: Driver) -> None:
        """Let the rollout come to its end, and two hours more."""
        for _ in range(HOURS):
            self.before_each_hour(world)
            rollout = world.hour(driver)
            if rollout.phase == self.end and rollout.at_rest:
                break
        else:
            pytest.fail(f"it is {world.rollout.phase} and waits for {world.rollout.waits_for}")
        world.hour(driver)
        world.hour(driver)


def ask(world: World) -> None:
    """Somebody asks for the challenger."""
    world.ask()


def recall(world: World) -> None:
    """Somebody takes a promotion back, when the old version's server is long gone."""
    rollout, world.clock.now = builders.reach("promoted", plan=PLAN)
    revision = world.store.write(rollout, revision=0)
    with world.driver() as driver:
        world.hour(driver)
        world.hour(driver)
    assert [builders.CHALLENGER] == list(world.pool.running)
    assert world.route is not None
    recalled = machine.order(rollout, "rollback", "ana", "", world.clock.now)
    world.store.write(recalled, revision=revision)


def all_is_well(_: World) -> None:
    """The challenger is as good as the champion."""


def it_fails(world: World) -> None:
    """From its second step on the challenger fails every fifth time."""
    if world.rollout.phase == "canary" and world.rollout.step == 1:
        world.evidence.errors = 0.2


SCENARIOS = [
    Scenario("a promotion", ask, all_is_well, "promoted", 35),
    Scenario("a rollback", ask, it_fails, "rolled_back", 28),
    Scenario("a recall", recall, all_is_well, "rolled_back", 16),
]


def outcome(make_world: MakeWorld, scenario: Scenario, assassin: Assassin) -> dict[str, Any]:
    """Return how a rollout ends whose first driver meets the assassin."""
    world = make_world()
    scenario.begin(world)
    with world.driver(assassin.prepare) as driver:
        try:
            scenario.play(world, driver)
        except Killed:
            with world.driver() as resumed:
                scenario.play(world, resumed)
    return world.state()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_driver_that_is_killed_at_any_call_leaves_the_same_end(
    scenario: Scenario, make_world: MakeWorld
) -> None:
    harmless = Assassin()
    unharmed = outcome(make_world, scenario, harmless)
    points = [(at, after) for at in range(len(harmless.calls)) for after in (False, True)]

    differ = {
        (at, "after" if after else "before", harmless.calls[at])
        for at, after in points
        if outcome(make_world, scenario, Assassin(at, after)) != unharmed
    }

    assert len(harmless.calls) >= scenario.calls
    assert not differ


@pytest.mark.loop
def test_a_process_that_is_killed_ten_times_still_promotes(
    make_world: MakeWorld, root: Path
) -> None:
    scenario = dataclasses.replace(SCENARIOS[0], begin=lambda world: world.ask(LONG))
    unharmed = outcome(make_world, scenario, Assassin())
    chance, started = random.Random(0), time.time()  # noqa: S311 (a seeded choice)
    world = make_world()
    scenario.begin(world)
    folder = str(world.lock.parent)
    command = [sys.executable, "-m", driver_process.__name__, folder, world.redis.address.url]

    reached = []
    for _ in range(KILLS):
        with subprocess.Popen(
            [*command, str(started)], cwd=root, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(3, 12) + len(world.rollout.story)):
                assert process.stdout.readline()
            time.sleep(chance.uniform(0, 0.01))
            process.kill()
        assert -signal.SIGKILL == process.returncode
        reached.append(len(world.rollout.story))
    world.clock.now = driver_process.at(started)
    with world.driver() as last:
        scenario.play(world, last)

    assert len(set(reached)) > 3
    assert unharmed == world.state()
