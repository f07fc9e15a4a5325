"""A gateway one of whose background tasks fails once the file that FAIL_WHEN names is there.

Run as `python -m tests.unit.serving.gateway.failing_gateway`, instead of `serving.gateway`.
"""

import asyncio
import os
import sys
from pathlib import Path

from serving.gateway.__main__ import main
from serving.gateway.following import RouteFollower

_NOW = Path(os.environ.get("FAIL_WHEN", "/nowhere"))


def is_time() -> bool:
    """Return whether to fail; once."""
    if not _NOW.exists():
        return False
    _NOW.unlink()
    return True


if __name__ == "__main__":
    work = RouteFollower.watch_servers

    async def watch_servers(self: RouteFollower) -> None:
        real = asyncio.create_task(work(self))
        while not is_time():  # noqa: ASYNC110  # a file tells nobody
            await asyncio.sleep(0.02)
        real.cancel()
        raise RuntimeError("it was planned")

    RouteFollower.watch_servers = watch_servers  # type: ignore[method-assign]
    sys.exit(main())
