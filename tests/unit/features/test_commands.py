"""The feature jobs: landing and materializing, and following the source between the two."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_repo import ingest, store
from feature_repo.__main__ import main
from feature_repo.following import Follower, Work
from feature_repo.sole_writer import FILE, sole_writer
from local.redis_server import redis_server
from mlplatform.clients.redis_sync import connect
from mlplatform.errors import DataError, ServiceError
from usecases.flight_delay import sources

USECASE = "flight_delay"
FIRST = datetime(2013, 1, 30, tzinfo=UTC)
NOON = datetime(2013, 2, 5, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=3, minutes=7)

_PUSH = """
import sys
from datetime import datetime, timedelta
from feature_repo.__main__ import main
from usecases.flight_delay import sources

read, first = sources.read, datetime.fromisoformat(sys.argv[1])
sources.read = lambda start, end: read(max(start, first), max(end, first + timedelta(seconds=1)))
sys.exit(main(sys.argv[2:]))
"""
"""The command in a process, on a source that begins late."""


@pytest.fixture(autouse=True)
def short_year(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the source begin in late January, so that a test lands thousands of rows, not 336,776."""
    read = sources.read

    def later(start: datetime, end: datetime) -> dict[str, pl.DataFrame]:
        return read(max(start, FIRST), max(end, FIRST + timedelta(seconds=1)))

    monkeypatch.setattr(sources, "read", later)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server."""
    with redis_server(tmp_path_factory.mktemp("redis"), guarded=False) as redis:
        yield redis.url


@pytest.fixture
def root(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root without anything, and an empty online store beside it."""
    connect(redis_url).execute("FLUSHALL")
    monkeypatch.setenv("MLPLATFORM_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("MLPLATFORM_REDIS_URL", redis_url)
    return tmp_path / "data"


def materialize(at: datetime) -> None:
    assert 0 == main(["materialize", "--usecase", USECASE, "--as-of", at.isoformat()])


def changed(said: str) -> int:
    """Return the entities that the last line of `materialize` counts."""
    counts = said.strip().rsplit("changed: ", 1)[1].split(", ")
    return sum(int(count.split(" of ")[0].replace(",", "")) for count in counts)


def files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_materializing_lands_and_brings_online_and_again_changes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    materialize(NOON)
    first = changed(capsys.readouterr().out)
    parts = {name for name in files(root) if name.endswith(".parquet")}
    materialize(NOON)

    assert first > 100  # aircraft alone are hundreds
    assert 0 == changed(capsys.readouterr().out)
    assert parts == {name for name in files(root) if name.endswith(".parquet")}


def test_the_platforms_clock_says_up_to_when(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shift = NOON - datetime.now(UTC)
    monkeypatch.setenv("MLPLATFORM_CLOCK_SHIFT_SECONDS", str(int(shift.total_seconds())))

    assert 0 == main(["land", "--usecase", USECASE])
    assert "landed up to 2013-02-05T1" in capsys.readouterr().out
    landed = ingest.read_raw(USECASE, str(root), LATER)["flights"]["scheduled_departure"]
    assert NOON - timedelta(hours=1) < max(landed.to_list())


def test_after_a_push_nothing_is_left_for_a_materialization(
    root: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    materialize(NOON)
    pushed = follower(root, redis_url, lambda: LATER).round()
    capsys.readouterr()
    materialize(LATER)

    assert pushed > 0
    assert 0 == changed(capsys.readouterr().out)


def test_pushing_round_by_round_comes_to_the_same(
    root: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    materialize(NOON)
    moments = [NOON + timedelta(minutes=47 * number) for number in range(1, 4)] + [LATER]
    due = iter(moments)
    mine = follower(root, redis_url, lambda: next(due))
    for _ in moments:
        mine.round()
    capsys.readouterr()
    materialize(LATER)

    assert 0 == changed(capsys.readouterr().out)


def test_a_push_that_was_killed_goes_on_from_where_materialization_ended(
    root: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    materialize(NOON)
    follower(root, redis_url, lambda: NOON + timedelta(hours=1)).round()
    again = follower(root, redis_url, lambda: LATER)
    again.round()
    capsys.readouterr()
    materialize(LATER)

    assert 0 == changed(capsys.readouterr().out)


def test_pushing_reads_on_where_a_landing_has_ended_meanwhile(
    root: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    materialize(NOON)
    due = iter([NOON + timedelta(minutes=30), LATER])
    mine = follower(root, redis_url, lambda: next(due))
    mine.round()
    assert 0 == main(["land", "--usecase", USECASE, "--as-of", f"{NOON + timedelta(hours=1)}"])
    mine.round()
    capsys.readouterr()
    materialize(LATER)

    assert 0 == changed(capsys.readouterr().out)


def test_pushing_leaves_the_data_root_as_it_is(root: Path, redis_url: str) -> None:
    materialize(NOON)
    before = files(root)
    follower(root, redis_url, lambda: LATER).round()

    assert before == files(root)


def test_pushing_waits_for_the_first_materialization_and_says_so_once(
    root: Path, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready, stop, rounds = tmp_path / "ready", threading.Event(), 0
    mine = follower(root, redis_url, lambda: LATER)

    def one_round() -> int:
        nonlocal rounds
        rounds += 1
        if rounds == 3:  # after two that failed
            materialize(NOON)
            ready.unlink(missing_ok=True)
        try:
            return mine.round()
        finally:
            if rounds == 3:  # as above
                stop.set()

    seen: list[bool] = []
    work = Work(one_round, 0.01, ready)
    with caplog.at_level(logging.WARNING, "mlplatform.push"):
        work.run(_watched(stop, lambda: seen.append(ready.exists())))

    assert [False, False, True] == seen, "ready after the first good round, not before"
    assert not ready.exists(), "removed at the end"
    said = [record.getMessage() for record in caplog.records if record.name == "mlplatform.push"]
    assert 2 == len(said)
    assert "materialize first" in said[0]
    assert "works again" == said[1]


@pytest.mark.usefixtures("root")
def test_pushing_ends_on_sigterm_and_withdraws_its_file(tmp_path: Path) -> None:
    materialize(NOON)
    ready = tmp_path / "ready"
    shift = str(int((LATER - datetime.now(UTC)).total_seconds()))
    command = ["push", "--usecase", USECASE, "--every", "0.1", "--ready", str(ready)]
    process = subprocess.Popen(
        [sys.executable, "-c", _PUSH, FIRST.isoformat(), *command],
        env=os.environ | {"MLPLATFORM_CLOCK_SHIFT_SECONDS": shift},
    )
    try:
        wait_for(ready.exists)
        process.send_signal(signal.SIGTERM)

        assert 0 == process.wait(20)
        assert not ready.exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["land", "--usecase", USECASE, "--as-of", "today"], "write a time", id="time"),
        pytest.param(
            ["land", "--usecase", USECASE, "--as-of", "2013-02-05"], "write a time", id="no zone"
        ),
        pytest.param(["push", "--usecase", USECASE, "--every", "0"], "number of seconds", id="0 s"),
        pytest.param(["materialize"], "--usecase", id="whose"),
    ],
)
def test_a_command_that_means_nothing_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)

    assert said in capsys.readouterr().err


def test_a_use_case_that_does_not_exist_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == main(["land", "--usecase", "nothing"])
    assert "there is no use case 'nothing'" in capsys.readouterr().err
    assert not (root / "raw").exists()


def test_two_landings_at_once_write_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, both = sources.read, threading.Barrier(2)

    def slow(start: datetime, end: datetime) -> dict[str, pl.DataFrame]:
        time.sleep(0.3)  # without a lock both have looked at what is landed by now
        return read(start, end)

    monkeypatch.setattr(sources, "read", slow)
    failed: list[Exception] = []

    def land(until: datetime) -> None:
        both.wait()
        try:
            ingest.land(USECASE, str(tmp_path), until)
        except DataError as error:  # pragma: no cover  # a part that is half written
            failed.append(error)

    workers = [threading.Thread(target=land, args=(moment,)) for moment in (NOON, LATER)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    keys = ingest.read_raw(USECASE, str(tmp_path), LATER)["flights"]["flight_key"]

    assert not failed
    assert read(FIRST, LATER)["flights"]["flight_key"].sort().equals(keys.sort())


def test_a_writer_that_hangs_is_named_to_those_who_wait(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path),
        pytest.raises(ServiceError, match=f"has held .*{FILE} for 0.2 s"),
        sole_writer(tmp_path, patience_seconds=0.2),
    ):
        pass  # pragma: no cover


def test_a_writer_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    text = (
        "import sys, time\nfrom feature_repo.sole_writer import sole_writer\n"
        "with sole_writer(sys.argv[1]):\n    print('holds', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ServiceError), sole_writer(tmp_path, patience_seconds=0.1):
            pass  # pragma: no cover
        process.kill()
    with sole_writer(tmp_path, patience_seconds=1):
        pass


def test_whoever_reads_the_registry_meanwhile_finds_it_whole(tmp_path: Path) -> None:
    opened = store.open_store(str(tmp_path))
    store.apply(opened)
    before = (tmp_path / "registry.db").read_bytes()
    with (tmp_path / "registry.db").open("rb") as reader:
        view = opened.list_feature_views()[0]
        opened.registry.apply_materialization(view, opened.project, FIRST, NOON)

        assert before == reader.read(), "what was opened before stays as it was"
    assert before != (tmp_path / "registry.db").read_bytes()
    assert ["registry.db", FILE] == sorted(path.name for path in tmp_path.iterdir())


def follower(root: Path, redis_url: str, now: Callable[[], datetime]) -> Follower:
    return Follower(USECASE, str(root), redis_url, now)


def _watched(stop: threading.Event, look: Callable[[], Any]) -> threading.Event:
    """Return an event that looks whenever somebody waits for it."""

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            del timeout
            look()
            return stop.is_set()

        def is_set(self) -> bool:
            return stop.is_set()

    return Watched()


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)
