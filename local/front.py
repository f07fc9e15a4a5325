"""The gateway of one machine and the archiver behind it: how they run, and when they are ready."""

import http.client
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from local.processes import HOST
from local.supervisor import Program
from local.workspace import Workspace
from mlplatform.clients.redis_sync import connect
from mlplatform.errors import ServiceError, shorten
from serving.predictions import stream

_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks the loopback address itself, whatever proxy the environment names."""
_READY_SECONDS: Final = 120.0
"""Longest wait until the gateway follows the route. It asks ten times a second; the route of a
rollout that goes on is there only when the challenger's server is, which takes about five."""


def gateway_program(workspace: Workspace, port: int, environment: Mapping[str, str]) -> Program:
    """Return how to run the gateway."""
    return Program(
        name="gateway",
        command=[sys.executable, "-m", "serving.gateway"],
        log=_log(workspace),
        # Alive, not ready: while Triton is away it still answers, by the rules.
        ready=lambda: _answers(f"http://{HOST}:{port}/livez"),
        env=environment,
        port=port,
    )


def archiver_program(workspace: Workspace, environment: Mapping[str, str]) -> Program:
    """Return how to run the archiver of the prediction log."""
    ready = workspace.root / "archiver.ready"
    ready.unlink(missing_ok=True)  # of one that was killed
    return Program(
        name="archiver",
        command=[sys.executable, "-m", "serving.predictions", "--ready", str(ready)],
        log=workspace.root / "archiver.log",
        ready=ready.exists,
        env=environment,
    )


def start_over(redis_url: str, usecase: str, environment: Mapping[str, str]) -> None:
    """Empty Redis of another moment's features; rows of the log that are left go to the archive.

    Raises:
        ServiceError: They cannot be archived, and so nothing was emptied.
    """
    command = [sys.executable, "-m", "serving.predictions", "--once"]
    with connect(redis_url) as redis:
        if redis.execute("XLEN", stream.key(usecase)):
            try:
                subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            except subprocess.CalledProcessError as error:
                raise ServiceError(
                    f"the prediction log that an earlier run left cannot be archived "
                    f"({shorten(error.stderr)}): free the disk, then start again"
                ) from error
        redis.execute("FLUSHALL")


def wait_for_route(url: str, workspace: Workspace) -> None:
    """Return when the gateway follows a route.

    Raises:
        ServiceError: It did not in time.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while not _answers(f"{url}/readyz"):
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the gateway at {url} is alive but not ready after {_READY_SECONDS:g} s: "
                f"see {_log(workspace)} and {url}/readyz"
            )
        time.sleep(0.05)


def _log(workspace: Workspace) -> Path:
    return workspace.root / "gateway.log"


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=1) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 (HTTP's own)
    except (OSError, http.client.HTTPException):
        return False
