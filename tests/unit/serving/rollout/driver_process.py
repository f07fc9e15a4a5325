"""A driver in a process of its own, to be killed: FOLDER REDIS_URL STARTED.

It ticks until it is killed, and says so at each tick and in the middle of each call that writes.
Since STARTED, in seconds since 1970, an hour passes in each second.
"""

import functools
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlplatform.clients.redis_sync import connect
from tests.unit.serving.rollout import builders
from tests.unit.serving.rollout.world import CALLS, World


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def watched(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Say when a call begins, and leave time to be killed before it and after it."""

    @functools.wraps(call)
    def slow(*arguments: Any, **options: Any) -> Any:
        say(label)
        time.sleep(0.005)
        result = call(*arguments, **options)
        time.sleep(0.005)
        return result

    return slow


def watch(**targets: Any) -> None:
    for target, name in CALLS:
        setattr(targets[target], name, watched(name, getattr(targets[target], name)))


def at(started: float) -> datetime:
    return builders.START + timedelta(hours=time.time() - started)


def main(folder: Path, redis_url: str, started: float) -> None:
    with (
        connect(redis_url) as redis,
        closing(World(folder, redis)) as world,
        world.driver(watch) as driver,
    ):
        while True:
            say("tick")
            world.clock.now = at(started)
            world.follow()
            driver.tick()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
