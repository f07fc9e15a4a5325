"""Rows that were put = rows in the archive, each once, whatever is killed and when."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as vendor

from feature_repo import predictions
from local.processes import free_port
from local.redis_server import Redis, redis_program
from local.supervisor import Handle, Supervisor
from mlplatform.clients.redis_sync import RedisSync
from serving.predictions import stream
from serving.predictions.archive import Archiver
from tests.unit.serving.gateway.conftest import RedisProcess
from tests.unit.serving.predictions.conftest import MakeRow

KEY = stream.key("flights")
NOON = 1_700_049_600_000
HERE = "tests.unit.serving.predictions"
POINTS = ["written", "committed", "published", "deleted", "set aside", "merged", "replacing"]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)


@contextmanager
def process(root: Path, module: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", f"{HERE}.{module}", *(str(item) for item in arguments)]
    started = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


def archive_once(root: Path, url: str, archive: Path, point: str = "never", times: int = 1) -> int:
    with process(root, "archiver_process", url, archive, point, times) as started:
        started.communicate(timeout=60)
        return started.returncode


def inherit(root: Path, url: str, spill: Path, ledger: Path) -> Path:
    """Run another gateway until it has adopted all spilled rows; return its ledger."""
    with process(root, "writer_process", url, spill, "heir", ledger, 50) as heir:
        until(lambda: ["heir"] == [path.name for path in (spill / "flights").iterdir()])
        until(lambda: len(put_rows(ledger)) > 10)
        heir.send_signal(signal.SIGTERM)
        heir.communicate(timeout=30)
        assert 0 == heir.returncode
    return ledger


def put_rows(ledger: Path) -> list[tuple[int, float]]:
    """Return the numbers of the rows that were put and when; a last line may be cut."""
    lines = ledger.read_text().splitlines(keepends=True) if ledger.exists() else []
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return [(int(number), float(moment)) for number, moment in pairs]


def archived(archive: Path, gateway: str) -> list[int]:
    rows = predictions.read(archive, "flights", columns=["gateway", "sequence"])
    return sorted(rows.filter(gateway=gateway)["sequence"].to_list())


@pytest.mark.loop
@pytest.mark.parametrize("point", POINTS)
def test_an_archiver_that_is_killed_after_a_step_leaves_every_row_once(
    point: str,
    root: Path,
    redis: Redis,
    client: "vendor.Redis",
    commands: RedisSync,
    make_row: MakeRow,
    request: pytest.FixtureRequest,
) -> None:
    repository = request.config.rootpath
    hour = 3_600_000
    client.xadd(KEY, {b"x": b"malformed"}, id=f"{NOON}-0")
    for number in range(1, 11):  # two files in the first hour: something to merge
        moment = NOON + (1 if number < 5 else hour)
        fields: dict[Any, Any] = {stream.FIELD: stream.pack(make_row(number))}
        client.xadd(KEY, fields, id=f"{moment}-{number}")
    client.xadd(KEY, {stream.FIELD: stream.pack(make_row(10))}, id=f"{NOON + hour}-99")
    Archiver(commands, root, "flights").catch_up()
    client.flushall()
    for number in range(8, 21):
        fields = {stream.FIELD: stream.pack(make_row(number))}
        client.xadd(KEY, fields, id=f"{NOON}-{number}")
    client.xadd(KEY, {b"x": b"malformed"}, id=f"{NOON}-999")

    killed = archive_once(repository, redis.url, root, point)
    again = archive_once(repository, redis.url, root)

    assert (-signal.SIGKILL, 0) == (killed, again)
    assert list(range(1, 21)) == archived(root, "gateway-1")
    assert 0 == client.xlen(KEY)
    assert 2 == len(list((root / "flights" / "_quarantine").glob("*.jsonl")))


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[tuple[str, Handle]]:
    """A Redis that comes back by itself when it is killed."""
    port = free_port()
    with Supervisor() as supervisor:
        handle = supervisor.start(redis_program(tmp_path / "redis", port))
        yield f"redis://127.0.0.1:{port}/0", handle


@pytest.mark.loop
def test_every_row_is_archived_once_while_redis_and_the_archiver_are_killed(
    supervised: tuple[str, Handle],
    root: Path,
    spill: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    url, redis = supervised
    repository, chance = request.config.rootpath, np.random.default_rng(4)
    ledger, killed = tmp_path / "ledger", Counter[str]()
    writer = process(repository, "writer_process", url, spill, "gateway-1", ledger, 500)
    with writer as writing:
        until(lambda: len(put_rows(ledger)) > 100)
        started = time.monotonic()
        while time.monotonic() - started < 7:
            point, times = chance.choice(POINTS[:4]), chance.integers(1, 5)
            archiver = process(repository, "archiver_process", url, root, point, times, 30)
            with archiver as archiving:
                until((root / "flights").exists)
                end = time.monotonic() + chance.uniform(0.8, 1.6)
                while archiving.poll() is None and time.monotonic() < end:
                    time.sleep(0.01)
                if archiving.poll() is None:
                    archiving.kill()  # between two steps, wherever it is
                killed["archiver"] += archiving.wait() == -signal.SIGKILL
            if chance.random() < 0.7:
                restarts = redis.restarts
                os.kill(redis.pid, signal.SIGKILL)
                killed["redis"] += 1
                until(lambda past=restarts: redis.restarts > past and redis.wait_ready(0.1))  # type: ignore[misc]
        writing.send_signal(signal.SIGTERM)
        report, _ = writing.communicate(timeout=30)
    inherit(repository, url, spill, tmp_path / "heir")  # what was spilled when the writer ended
    assert 0 == archive_once(repository, url, root)

    numbers = [number for number, _ in put_rows(ledger)]
    assert numbers == archived(root, "gateway-1")
    assert 3000 < len(numbers)
    _, spilled, dropped = map(int, report.split())
    assert (True, 0) == (spilled > 0, dropped)
    assert 2 <= killed["redis"]
    assert 4 <= killed["archiver"]


@pytest.mark.loop
@pytest.mark.parametrize("state", ["up", "killed", "stopped"])
def test_a_killed_gateway_loses_only_rows_that_no_disk_or_redis_had_yet(
    state: str, root: Path, spill: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    repository = request.config.rootpath
    # Up or refusing: 10 ms of gathering, the rest is for a busy machine. Redis that has just
    # stopped to answer: the batch under way waits for its deadline.
    held_seconds = {"up": 0.2, "killed": 0.2, "stopped": 1.3}[state]
    redis = RedisProcess(tmp_path / "redis")
    redis.start()
    ledger = tmp_path / "ledger"
    try:
        writer = process(repository, "writer_process", redis.url, spill, "dead", ledger, 500)
        with writer as writing:
            until(lambda: len(put_rows(ledger)) > 300)
            if state == "killed":
                redis.kill()
            if state == "stopped":
                redis.signal(signal.SIGSTOP)
            before = len(put_rows(ledger))
            until(lambda: len(put_rows(ledger)) > before + (400 if state != "stopped" else 300))
            writing.kill()
            writing.wait()
        died = time.monotonic()
        if state == "killed":
            redis.start()
        redis.signal(signal.SIGCONT)
        heir = inherit(repository, redis.url, spill, tmp_path / "heir")
        assert 0 == archive_once(repository, redis.url, root)
    finally:
        redis.stop()

    put, kept = put_rows(ledger), archived(root, "dead")
    lost = put[len(kept) :]
    assert [number for number, _ in put][: len(kept)] == kept
    assert held_seconds > max((died - moment for _, moment in lost), default=0)
    assert [number for number, _ in put_rows(heir)] == archived(root, "heir")
