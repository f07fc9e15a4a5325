"""The archive: every row of the stream once, whatever is repeated, lost, malformed or raced."""

import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis as vendor

from feature_repo import predictions
from local.redis_server import Redis
from mlplatform.clients import redis_sync
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.errors import DataError, ServiceError
from serving.predictions import stream
from serving.predictions.archive import Archiver
from tests.unit.serving.predictions.conftest import MakeRow

KEY = stream.key("flights")
NOON = 1_700_049_600_000
"""2023-11-15 12:00 UTC in milliseconds, as ids begin."""

Add = Callable[..., None]
Fields = dict[Any, Any]


def archived(root: Path) -> list[tuple[str, int]]:
    return [
        (gateway, sequence)
        for gateway, sequence in predictions.read(root, "flights")
        .select("gateway", "sequence")
        .iter_rows()
    ]


def numbered(last: int, gateway: str = "gateway-1", first: int = 1) -> list[tuple[str, int]]:
    return [(gateway, number) for number in range(first, last + 1)]


def archive(commands: RedisSync, root: Path) -> Archiver:
    archiver = Archiver(commands, root, "flights")
    archiver.catch_up()
    return archiver


def test_a_row_is_archived_with_typed_columns(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    add(make_row(7), at=NOON)
    archive(commands, root)
    rows = predictions.read(root, "flights")

    assert predictions.SCHEMA == rows.schema
    found = rows.row(0, named=True)
    vector = found.pop("features")
    assert [7.0, 0.5] == [vector[0], vector[2]]
    assert vector[1] != vector[1]  # NaN stays NaN
    assert {
        "gateway": "gateway-1",
        "sequence": 7,
        "request_id": "gateway-1:7",
        "usecase": "flights",
        "event_time": datetime(2014, 1, 1, 0, 0, 0, 7, tzinfo=UTC),
        "received_at": datetime(2023, 11, 14, 22, 13, 20, 7, tzinfo=UTC),
        "arrived_at": datetime(2023, 11, 15, 12, tzinfo=UTC),
        "stream_id": f"{NOON}-0",
        "entity": "AA|7",
        "request": '{"carrier":"AA","number":7,"delay":null,"distance":1.5}',
        "arm": "champion",
        "version": 3,
        "epoch": 7,
        "service": "flights_v1",
        "feature_times": [datetime(2013, 12, 31, 23, 58, 20, tzinfo=UTC), None],
        "score": 0.25,
        "decision": False,
        "degraded": True,
        "fallback": False,
        "reasons": ["stale:weather"],
        "total_us": 900,
        "features_us": 200,
        "inference_us": 300,
        "decision_us": 50,
    } == found


def test_rows_lie_under_the_hour_in_which_they_reached_the_stream(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    add(make_row(1), make_row(2), at=NOON - 1)
    add(make_row(3), at=NOON)
    archive(commands, root)
    hours = predictions.hours(root, "flights")

    assert ["date=2023-11-15/hour=11", "date=2023-11-15/hour=12"] == [
        f"{hour.parent.name}/{hour.name}" for hour in hours
    ]
    assert [2, 1] == [
        sum(pq.read_metadata(part).num_rows for part in predictions.parts(hour)[0])
        for hour in hours
    ]


def test_what_was_archived_leaves_the_stream(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow, client: "vendor.Redis"
) -> None:
    add(*(make_row(number) for number in range(1, 101)))
    archive(commands, root)

    assert 0 == client.xlen(KEY)
    assert numbered(100) == archived(root)


def test_an_empty_stream_makes_no_file(commands: RedisSync, root: Path) -> None:
    archive(commands, root)

    assert [] == list(root.rglob("*.parquet"))
    assert 0 == predictions.read(root, "flights").height


def test_repeated_rows_are_left_out_within_a_file_and_across_files(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    rows = [make_row(number) for number in range(1, 11)]
    add(*rows[:6], *rows[3:8])
    first = archive(commands, root)
    add(*rows[2:], *rows[5:])
    second = archive(commands, root)

    assert numbered(10) == archived(root)
    assert (8, 3) == (first.rows, first.duplicates)
    assert (2, 11) == (second.rows, second.duplicates)


def test_each_gateway_has_its_own_numbers(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    add(make_row(1, "a"), make_row(5, "b"), make_row(2, "a"), make_row(6, "b"), make_row(1, "a"))
    archive(commands, root)

    assert [("a", 1), ("a", 2), ("b", 5), ("b", 6)] == sorted(archived(root))


def test_only_repetitions_make_no_file_and_leave_the_stream(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow, client: "vendor.Redis"
) -> None:
    add(make_row(1), make_row(2))
    archive(commands, root)
    add(make_row(1), make_row(2))
    archive(commands, root)

    assert 0 == client.xlen(KEY)
    assert 1 == len(list((root / "flights").rglob("part-*.parquet")))


def test_redis_that_lost_its_data_and_whose_clock_went_back_loses_and_doubles_nothing(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow, client: "vendor.Redis"
) -> None:
    add(*(make_row(number) for number in range(1, 6)), at=NOON)
    archive(commands, root)
    client.flushall()
    add(make_row(5), make_row(6), make_row(7), at=NOON - 7_200_000)
    archive(commands, root)
    client.flushall()
    add(make_row(7), make_row(8), at=NOON + 7_200_000)
    archive(commands, root)

    assert numbered(8) == sorted(archived(root))
    assert 0 == client.xlen(KEY)


def test_a_clock_that_goes_back_while_rows_wait_loses_none(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow, client: "vendor.Redis"
) -> None:
    add(make_row(1), at=NOON)
    kept = Archiver(Rewriting(commands, client, make_row(2)), root, "flights")
    kept.catch_up()

    assert numbered(2) == sorted(archived(root))


class Rewriting:
    """Redis loses its data and its clock goes back just before the archived entry is deleted."""

    def __init__(self, commands: RedisSync, client: "vendor.Redis", row: Any) -> None:
        self._commands, self._client, self._row = commands, client, row

    def execute(self, *command: bytes | str | float) -> object:
        if command[0] == "XDEL" and self._row is not None:
            self._client.flushall()
            fields: Fields = {stream.FIELD: stream.pack(self._row)}
            self._client.xadd(KEY, fields, id=f"{NOON - 1}-0")
            self._row = None
        return self._commands.execute(*command)


def test_an_absurd_id_stops_nothing(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    add(make_row(1), at=2**63)
    add(make_row(2))
    archive(commands, root)

    assert numbered(2) == archived(root)
    assert ["date=9999-12-31"] == [path.name for path in (root / "flights").glob("date=*")]


MALFORMED: dict[str, Callable[[MakeRow], Fields]] = {
    "another field": lambda make: {b"x": stream.pack(make(1))},
    "no message": lambda _: {stream.FIELD: b"\xc1"},
    "empty": lambda _: {stream.FIELD: b""},
    "cut": lambda make: {stream.FIELD: stream.pack(make(1))[:-3]},
    "another use case": lambda make: {stream.FIELD: stream.pack(make(1, usecase="other"))},
    "cut features": lambda make: {stream.FIELD: stream.pack(make(1, features=b"abc"))},
    "time beyond 64 bit": lambda make: {stream.FIELD: stream.pack(make(1, event_time=2**63))},
    "sequence beyond 64 bit": lambda make: {stream.FIELD: stream.pack(make(2**63))},
    "feature time beyond 64 bit": lambda make: {
        stream.FIELD: stream.pack(make(1, feature_times=(2**63,)))
    },
    "no Unicode": lambda make: {
        stream.FIELD: stream.pack(make(1)).replace(b"champion", b"\xff\xfe\xfd\xff\xfe\xfd\xff\xfe")
    },
    "unknown arm": lambda make: {stream.FIELD: stream.pack(make(1)).replace(b"champ", b"chimp")},
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_an_entry_that_is_no_row_is_set_aside_and_counted_and_stops_nothing(
    kind: str,
    commands: RedisSync,
    root: Path,
    add: Add,
    make_row: MakeRow,
    client: "vendor.Redis",
) -> None:
    fields = MALFORMED[kind](make_row)
    name = client.xadd(KEY, fields, id=f"{NOON}-0")
    add(make_row(1), make_row(2))
    archiver = archive(commands, root)
    (aside,) = (root / "flights" / "_quarantine").iterdir()
    (line,) = [json.loads(text) for text in aside.read_text().splitlines()]

    assert (2, 1) == (archiver.rows, archiver.malformed)
    assert numbered(2) == archived(root)
    assert name == line["id"].encode()
    assert line["reason"]
    assert 1 == len(line["fields"])
    assert 0 == client.xlen(KEY)


def test_only_malformed_entries_leave_the_stream(
    commands: RedisSync, root: Path, client: "vendor.Redis"
) -> None:
    for _ in range(3):
        client.xadd(KEY, {b"x": b"y"})

    assert 3 == archive(commands, root).malformed
    assert 0 == client.xlen(KEY)


def test_a_stream_longer_than_a_file_becomes_several(
    commands: RedisSync,
    root: Path,
    add: Add,
    make_row: MakeRow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.predictions.archive._PAGE", 7)
    monkeypatch.setattr("serving.predictions.archive._CHUNK", 20)
    add(*(make_row(number) for number in range(1, 101)))
    archive(commands, root)

    assert 4 < len(list((root / "flights").rglob("part-*.parquet")))
    assert numbered(100) == archived(root)


def test_a_gateway_is_forgotten_when_it_was_silent_for_a_month(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    start = 1_700_000_000.0
    add(make_row(1, "old"), make_row(1, "new"))
    Archiver(commands, root, "flights", now=lambda: start).catch_up()
    add(make_row(2, "new"))
    Archiver(commands, root, "flights", now=lambda: start + 31 * 86_400).catch_up()
    records = sorted((root / "flights" / "_commits").glob("*.json"))

    assert ["new"] == list(json.loads(records[-1].read_text())["gateways"])


def test_records_do_not_pile_up(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    for number in range(1, 41):
        add(make_row(number))
        archive(commands, root)
    kept = sorted(path.name for path in (root / "flights" / "_commits").iterdir())

    assert 16 >= len(kept) - 1
    assert "000000000040.json" == kept[-1]
    assert numbered(40) == archived(root)


@pytest.mark.parametrize("asleep", ["before its file is written", "after"])
def test_an_archiver_that_slept_through_many_commits_adds_nothing(
    asleep: str, commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    add(make_row(1))
    archive(commands, root)

    def meanwhile() -> None:
        if not woken:
            woken.append(True)
            for number in range(3, 43):
                add(make_row(number))
                archive(commands, root)

    def at(point: str) -> None:
        if asleep == "after" and point == "written":
            meanwhile()

    def now() -> float:  # asked for when the state has been read
        if asleep != "after":
            meanwhile()
        return 1_700_000_000.0

    woken: list[bool] = []
    add(make_row(2))
    sleeper = Archiver(commands, root, "flights", at=at, now=now)
    sleeper.catch_up()

    assert [True] == woken
    assert numbered(42) == archived(root)
    assert 0 == sleeper.rows


def test_archivers_that_run_at_once_archive_every_row_once(
    redis: Redis, root: Path, add: Add, make_row: MakeRow
) -> None:
    count, done = 1500, threading.Event()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance, commands = np.random.default_rng(seed), redis_sync.connect(redis.url)

        def dawdle(_: str) -> None:
            done.wait(chance.random() * 0.003)

        try:
            archiver = Archiver(commands, root, "flights", at=dawdle)
            while not done.is_set():
                archiver.catch_up()
            archiver.catch_up()
        except BaseException as error:  # noqa: BLE001  # a thread's failure is the test's
            failures.append(error)
        finally:
            commands.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, count + 1):
        add(make_row(number))
    done.set()
    for thread in threads:
        thread.join(60)

    assert [] == failures
    assert numbered(count) == archived(root)


def test_a_damaged_record_stops_the_archive_instead_of_doubling_rows(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow, client: "vendor.Redis"
) -> None:
    add(make_row(1))
    archive(commands, root)
    (record,) = (root / "flights" / "_commits").glob("*.json")
    record.write_text(record.read_text()[:-10])
    add(make_row(2))

    with pytest.raises(DataError, match=r"000000000001\.json is no record of a commit"):
        archive(commands, root)
    assert 1 == client.xlen(KEY)


def test_a_folder_that_cannot_be_written_is_refused_with_the_setting_to_change(
    commands: RedisSync, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ServiceError, match="MLPLATFORM_ARCHIVE_ROOT"):
        Archiver(commands, tmp_path / "file", "flights")


def test_a_disk_that_refuses_leaves_the_rows_in_the_stream(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow, client: "vendor.Redis"
) -> None:
    archiver = Archiver(commands, root, "flights")
    add(make_row(1), at=NOON)
    (root / "flights" / "date=2023-11-15").write_text("in the way")

    with pytest.raises(ServiceError, match="rows wait in Redis"):
        archiver.catch_up()
    assert 1 == client.xlen(KEY)
    (root / "flights" / "date=2023-11-15").unlink()
    archiver.catch_up()
    assert numbered(1) == archived(root)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files can grow to so many bytes; the interpreter ignores the signal that comes with it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("full", ["for the rows", "for the record"])
def test_a_full_disk_leaves_the_rows_in_the_stream_and_nothing_half_written(
    full: str,
    commands: RedisSync,
    root: Path,
    add: Add,
    make_row: MakeRow,
    client: "vendor.Redis",
) -> None:
    add(make_row(1))
    archiver = archive(commands, root)
    before = sorted(root.rglob("*"))
    # The record names every gateway: many of them make it larger than the file of their rows.
    count = 1 if full == "for the rows" else 2_000
    add(*(make_row(1, f"gateway-{number:0100d}") for number in range(count)))
    rows = client.xlen(KEY)

    with (
        full_disk(100 if full == "for the rows" else 200_000),
        pytest.raises(ServiceError, match=r"the archive cannot write .*; rows wait in Redis"),
    ):
        archiver.catch_up()
    assert before == sorted(root.rglob("*"))
    assert rows == client.xlen(KEY)
    archiver.catch_up()
    assert 1 + count == predictions.read(root, "flights").height
    assert 0 == client.xlen(KEY)


def test_what_fails_once_the_commit_is_made_keeps_its_rows(
    commands: RedisSync, root: Path, add: Add, make_row: MakeRow
) -> None:
    def at(point: str) -> None:
        if point == "committed":
            raise OSError(5, "Input/output error")

    add(make_row(1), make_row(2))
    with pytest.raises(ServiceError, match="Input/output error"):
        Archiver(commands, root, "flights", at=at).catch_up()
    archive(commands, root)

    assert numbered(2) == archived(root)


def test_every_new_folder_is_kept_by_the_disk_before_its_rows_leave_the_stream(
    commands: RedisSync,
    root: Path,
    add: Add,
    make_row: MakeRow,
    client: "vendor.Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced, fsync = [], os.fsync

    def recording(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), client.xlen(KEY)))
        fsync(handle)

    client.xadd(KEY, {b"x": b"malformed"}, id=f"{NOON}-0")
    add(make_row(1), at=NOON + 1)
    monkeypatch.setattr(os, "fsync", recording)
    archive(commands, root)
    (part,) = root.rglob("part-*.parquet")
    (aside,) = root.rglob("*.jsonl")
    made = [root, root / "flights", *part.parents[:2], aside.parent]

    assert {2} == {waiting for _, waiting in synced}
    assert set() == {folder.parent for folder in made} - {path for path, _ in synced}
    assert aside.with_suffix(".tmp") in {path for path, _ in synced}
