"""Real servers that a test can kill, pause and start again."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.redis_server import answers, free_port, redis_program


class RedisProcess:
    """A redis-server without a supervisor: the test decides when it runs."""

    def __init__(self, root: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [*redis_program(root, self.port).command, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._listens():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        return answers(self.port) or ("--requirepass" in self._command and self._refuses())

    def _refuses(self) -> bool:
        return b"NOAUTH" in self.command("PING")

    def command(self, *parts: str) -> bytes:
        """Return what redis-cli's protocol answers, raw, without a client's help."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(" ".join(parts).encode() + b"\r\n")
                return connection.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def signal(self, kind: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, kind)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisProcess]]:
    """Starts servers with more options; all end with the test."""
    started: list[RedisProcess] = []

    def make(*options: str) -> RedisProcess:
        redis = RedisProcess(tmp_path / f"redis-{len(started)}", *options)
        started.append(redis)
        redis.start()
        return redis

    yield make
    for redis in started:
        redis.stop()


@pytest.fixture
def redis(make_redis: Callable[..., RedisProcess]) -> RedisProcess:
    return make_redis()
