"""Small files of past hours become one, and every row is read once at every moment."""

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import redis as vendor

from feature_repo import predictions
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.contracts import Window
from mlplatform.errors import DataError
from serving.predictions.archive import Archiver
from serving.predictions.compaction import merge
from tests.unit.serving.predictions.conftest import MakeRow

NOON = 1_700_049_600_000
LATER = NOON / 1000 + 7_200
Fill = Callable[..., None]


@pytest.fixture
def fill(
    commands: RedisSync, root: Path, add: Callable[..., None], make_row: MakeRow
) -> Callable[..., None]:
    """Archives rows, a file for each."""

    def work(first: int, last: int, at: int = NOON) -> None:
        for number in range(first, last + 1):
            add(make_row(number), at=at + number)
            Archiver(commands, root, "flights").catch_up()

    return work


def archived(root: Path) -> list[int]:
    return predictions.read(root, "flights")["sequence"].to_list()


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "flights").glob("date=*/hour=*/*"))


def test_the_files_of_a_past_hour_become_one_with_the_same_rows_in_their_order(
    fill: Fill, root: Path
) -> None:
    fill(1, 5)
    before = predictions.read(root, "flights")

    assert 1 == merge(root, "flights", now=lambda: LATER)
    assert before.equals(predictions.read(root, "flights"))
    (hour,) = predictions.hours(root, "flights")
    assert [[predictions.part_name(1, 5)], 5] == [
        [path.name for path in predictions.parts(hour)[0]],
        len(predictions.parts(hour)[1]),
    ]


def test_replaced_files_are_deleted_when_no_reader_can_have_them_on_its_list(
    fill: Fill, root: Path
) -> None:
    fill(1, 5)
    merge(root, "flights", now=lambda: LATER)
    (merged,) = (root / "flights").rglob(predictions.part_name(1, 5))
    made = merged.stat().st_mtime
    merge(root, "flights", now=lambda: made + 299)

    assert 6 == len(files(root))
    merge(root, "flights", now=lambda: made + 301)
    assert [predictions.part_name(1, 5)] == files(root)
    assert [1, 2, 3, 4, 5] == archived(root)


def test_the_hour_that_still_runs_is_left_alone(fill: Fill, root: Path) -> None:
    fill(1, 3)

    assert 0 == merge(root, "flights", now=lambda: NOON / 1000 + 3_600 + 299)
    assert 3 == len(files(root))


def test_late_rows_are_merged_with_what_was_merged_before(
    fill: Fill, root: Path, client: "vendor.Redis"
) -> None:
    fill(1, 3)
    merge(root, "flights", now=lambda: LATER)
    fill(4, 4, at=NOON + 7_200_000)
    client.flushall()  # its clock may go back now
    fill(5, 6)

    assert 1 == merge(root, "flights", now=lambda: LATER + 7_200)
    assert [1, 2, 3, 4, 5, 6] == sorted(archived(root))
    first, second = predictions.hours(root, "flights")
    assert [predictions.part_name(1, 6)] == [path.name for path in predictions.parts(first)[0]]
    assert [predictions.part_name(4, 4)] == [path.name for path in predictions.parts(second)[0]]


def test_hours_with_one_file_are_not_rewritten(fill: Fill, root: Path) -> None:
    fill(1, 1)

    assert 0 == merge(root, "flights", now=lambda: LATER)


def test_what_a_killed_merge_left_is_removed(fill: Fill, root: Path) -> None:
    fill(1, 2)
    (hour,) = predictions.hours(root, "flights")
    (hour / ".merge-0").write_bytes(b"half")
    merge(root, "flights", now=lambda: LATER)

    assert not list(hour.glob(".merge-*"))
    assert [1, 2] == archived(root)


def test_readers_see_every_row_once_while_others_merge(fill: Fill, root: Path) -> None:
    fill(1, 30)
    done, seen = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(archived(root))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    workers = [
        threading.Thread(target=merge, args=(root, "flights"), kwargs={"now": lambda: LATER})
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    merge(root, "flights", now=lambda: LATER * 2)  # deletes what was replaced
    done.set()
    for reader in readers:
        reader.join()

    assert {tuple(range(1, 31))} == {tuple(rows) for rows in seen}
    assert 1 == len(files(root))


def test_reading_a_window_goes_by_event_time(fill: Fill, root: Path) -> None:
    fill(1, 5)
    times = predictions.read(root, "flights")["event_time"].to_list()
    window = Window(start=times[1], end=times[3])

    assert [2, 3] == predictions.read(root, "flights", window)["sequence"].to_list()


def test_reading_some_columns_gives_these(fill: Fill, root: Path) -> None:
    fill(1, 2)
    rows = predictions.read(root, "flights", columns=["score", "features"])

    assert {"score": pl.Float64(), "features": pl.List(pl.Float32())} == dict(rows.schema)


def test_reading_before_the_first_file_gives_no_rows_with_all_columns(tmp_path: Path) -> None:
    rows = predictions.read(tmp_path, "flights")

    assert (0, predictions.SCHEMA) == (rows.height, rows.schema)


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "a folder"])
def test_an_hour_with_a_damaged_file_is_said_and_does_not_keep_the_others_from_being_merged(
    damage: str, fill: Fill, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(1, 2)
    fill(3, 4, at=NOON + 3_600_000)
    (part,) = (root / "flights").rglob(predictions.part_name(1, 1))
    content = part.read_bytes()
    part.unlink()
    if damage == "a folder":
        part.mkdir()
    else:
        harm = {"cut": content[:100], "empty": b"", "changed": content[:-200] + bytes(200)}
        part.write_bytes(harm[damage])

    with caplog.at_level(logging.WARNING):
        assert 1 == merge(root, "flights", now=lambda: LATER + 3_600)
    damaged, whole = predictions.hours(root, "flights")
    assert [f"{damaged} cannot be merged and stays as it is"] == [
        line.partition(":")[0] for line in caplog.messages
    ]
    assert [predictions.part_name(3, 4)] == [path.name for path in predictions.parts(whole)[0]]
    assert [predictions.part_name(number, number) for number in (1, 2)] == sorted(
        path.name for path in damaged.iterdir()
    )


def test_a_folder_that_is_no_hour_is_said_and_does_not_stop_the_others(
    fill: Fill, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(1, 2)
    (hour,) = predictions.hours(root, "flights")
    other = root / "flights" / "date=backup" / "hour=12"
    shutil.copytree(hour, other)

    assert 1 == merge(root, "flights", now=lambda: LATER)
    assert f"{other} cannot be merged" in caplog.text


def test_a_merge_that_is_told_to_end_leaves_the_other_hours_for_another_time(
    fill: Fill, root: Path
) -> None:
    fill(1, 2)

    assert 0 == merge(root, "flights", now=lambda: LATER, stop=lambda: True)
    assert 1 == merge(root, "flights", now=lambda: LATER)


def test_a_damaged_file_is_named(fill: Fill, root: Path) -> None:
    fill(1, 2)
    (part,) = (root / "flights").rglob(predictions.part_name(1, 1))
    os.truncate(part, 100)

    with pytest.raises(DataError, match=r"the prediction log of flights in .* cannot be read"):
        predictions.read(root, "flights")
