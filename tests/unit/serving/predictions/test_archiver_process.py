"""The archiver as it is started: `python -m serving.predictions`."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as vendor

from feature_repo import predictions
from local.redis_server import Redis
from serving.predictions import stream
from tests.unit.serving.gateway.conftest import RedisProcess
from tests.unit.serving.predictions.conftest import MakeRow

KEY = stream.key("flights")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(root: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(url: str, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "MLPLATFORM_REDIS_URL": url,
            "MLPLATFORM_ARCHIVE_ROOT": str(root),
            "MLPLATFORM_ARCHIVE_EVERY_SECONDS": "0.1",
            **settings,
        }
        command = [sys.executable, "-m", "serving.predictions", *arguments]
        process = subprocess.Popen(
            command,
            cwd=request.config.rootpath,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


@pytest.mark.loop
def test_it_archives_what_comes_and_ends_cleanly_when_it_is_told_to(
    start: Start,
    redis: Redis,
    root: Path,
    add: Callable[..., None],
    make_row: MakeRow,
    client: "vendor.Redis",
) -> None:
    process = start(redis.url, "--usecase", "flights")
    add(make_row(1))
    until(lambda: predictions.read(root, "flights").height == 1)
    add(make_row(2))
    until(lambda: predictions.read(root, "flights").height == 2)
    until(lambda: client.xlen(KEY) == 0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert 0 == process.returncode


@pytest.mark.loop
def test_once_archives_what_is_there_and_ends(
    start: Start, redis: Redis, root: Path, add: Callable[..., None], make_row: MakeRow
) -> None:
    add(make_row(1), make_row(2))
    process = start(redis.url, "--usecase", "flights", "--once")
    said, _ = process.communicate(timeout=20)

    assert 0 == process.returncode, said
    assert [1, 2] == predictions.read(root, "flights")["sequence"].to_list()
    assert "2 rows archived" in said


class Hanging:
    """A server that hangs up on everybody and counts them: each pass of the archiver is one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.callers = 0
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            caller.close()
            self.callers += 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # accept returns
        self._thread.join()
        self._listener.close()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    server = Hanging()
    yield server
    server.close()


@pytest.mark.loop
def test_it_waits_for_redis_and_says_so_once(start: Start, hanging: Hanging, root: Path) -> None:
    ready = root.parent / "ready"
    ready.write_text("of an earlier process")
    process = start(hanging.url, "--usecase", "flights", "--ready", str(ready))
    assert process.stdout is not None
    first = process.stdout.readline()
    until(lambda: hanging.callers >= 5)
    assert not ready.exists()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)

    assert "flights: Redis at 127.0.0.1" in first
    assert ("", 0) == (rest, process.returncode)


@pytest.mark.loop
def test_what_came_before_it_was_told_to_end_is_archived(
    start: Start, redis: Redis, root: Path, add: Callable[..., None], make_row: MakeRow
) -> None:
    ready = root.parent / "ready"
    options = ("--usecase", "flights", "--ready", str(ready))
    process = start(redis.url, *options, MLPLATFORM_ARCHIVE_EVERY_SECONDS="3600")
    until(ready.exists)  # the first pass is over, the next is an hour away
    add(make_row(1), make_row(2))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)

    assert 0 == process.returncode, said
    assert [1, 2] == predictions.read(root, "flights")["sequence"].to_list()
    assert not ready.exists()


@pytest.mark.loop
def test_it_ends_in_time_when_redis_does_not_answer(start: Start, tmp_path: Path) -> None:
    redis, ready = RedisProcess(tmp_path / "redis"), tmp_path / "ready"
    redis.start()
    try:
        process = start(redis.url, "--usecase", "flights", "--ready", str(ready))
        until(ready.exists)
        redis.signal(signal.SIGSTOP)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
    finally:
        redis.signal(signal.SIGCONT)
        redis.stop()

    assert 0 == process.returncode, said
    assert 8 > time.monotonic() - started  # two waits of 2 s; a supervisor kills after 10 s


@pytest.mark.loop
def test_every_good_pass_touches_the_file_for_supervisors(
    start: Start, redis: Redis, tmp_path: Path
) -> None:
    ready = tmp_path / "new" / "ready"
    start(redis.url, "--usecase", "flights", "--ready", str(ready))
    until(ready.exists)
    first = ready.stat().st_mtime_ns

    until(lambda: ready.stat().st_mtime_ns > first)


@pytest.mark.loop
def test_a_full_disk_is_said_once_and_survived(
    start: Start,
    redis: Redis,
    root: Path,
    tmp_path: Path,
    add: Callable[..., None],
    make_row: MakeRow,
) -> None:
    ready = tmp_path / "ready"
    process = start(redis.url, "--usecase", "flights", "--ready", str(ready))
    until(ready.exists)
    assert process.stdout is not None
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, hard))
    add(make_row(1))
    first = process.stdout.readline()
    assert "flights: the archive cannot write" in first
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    until(lambda: predictions.read(root, "flights").height == 1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)

    assert 0 == process.returncode, said
    assert ["works again"] == [
        line.rpartition(": ")[2] for line in said.splitlines() if "WARNING" in line
    ]


@pytest.mark.loop
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        pytest.param("MLPLATFORM_REDIS_URL", "http://x", id="redis"),
        pytest.param("MLPLATFORM_ARCHIVE_EVERY_SECONDS", "-1", id="pause"),
        pytest.param("MLPLATFORM_ARCHIVE_ROOT", "/proc/archive", id="folder"),
    ],
)
def test_what_it_cannot_run_with_is_said_and_ends_it(
    setting: str, value: str, start: Start, redis: Redis
) -> None:
    process = start(redis.url, "--usecase", "flights", **{setting: value})
    said, _ = process.communicate(timeout=20)

    assert 2 == process.returncode
    assert setting in said
    assert "Traceback" not in said


@pytest.mark.loop
def test_a_file_for_supervisors_that_cannot_be_written_is_said_and_ends_it(
    start: Start, redis: Redis
) -> None:
    process = start(redis.url, "--usecase", "flights", "--ready", "/proc/archiver/ready")
    said, _ = process.communicate(timeout=20)

    assert 2 == process.returncode
    assert "--ready /proc/archiver/ready cannot be written" in said
