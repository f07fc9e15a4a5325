"""The archiver as it is started: `python -m serving.predictions`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as vendor

from feature_repo import predictions
from local.redis_server import Redis, free_port
from serving.predictions import stream
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


@pytest.mark.loop
def test_it_waits_for_redis_and_says_so_once(start: Start) -> None:
    process = start(f"redis://127.0.0.1:{free_port()}/0", "--usecase", "flights")
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(0.5)  # five rounds; what must not be said cannot be waited for
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)

    assert "flights: Redis at 127.0.0.1" in first
    assert ("", 0) == (rest, process.returncode)


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
