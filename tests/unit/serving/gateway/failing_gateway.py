"""A gateway one of whose background tasks fails once the file that FAIL_WHEN names is there.

Run as `python -m tests.unit.serving.gateway.failing_gateway`, instead of `serving.gateway`.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from serving.gateway.__main__ import main
from serving.gateway.following import RouteFollower


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.02)
    file.unlink()


if __name__ == "__main__":
    now, work = Path(os.environ["FAIL_WHEN"]), RouteFollower.watch_servers

    async def watch_servers(follower: RouteFollower) -> None:
        real = asyncio.create_task(work(follower))
        await asyncio.to_thread(wait_for, now)
        real.cancel()
        raise RuntimeError("it was planned")

    RouteFollower.watch_servers = watch_servers  # type: ignore[method-assign,assignment]
    sys.exit(main())
