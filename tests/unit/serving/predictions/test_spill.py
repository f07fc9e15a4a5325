"""Spilled rows: kept in order, through kills, and never touched while their process lives."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import ServiceError
from serving.predictions.spill import Spill

ROWS = [b"row %d" % number for number in range(10)]


def all_rows(spill: Spill, at_once: int = 3) -> list[bytes]:
    found: list[bytes] = []
    while rows := spill.head(at_once):
        found += rows
        spill.advance(len(rows))
    return found


def adopted(root: Path) -> Iterator[Spill]:
    for spill in Spill.adopt(root):
        yield spill
        spill.close()


def test_rows_come_out_in_the_order_of_writing_across_segments(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "a", segment_bytes=20)
    for row in ROWS:
        spill.append([row])

    assert not spill.empty
    assert 1 < len(list(spill.folder.glob("*.log")))
    assert ROWS == all_rows(spill)
    assert spill.empty


@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.integers(1, 4)
        ),
        max_size=30,
    )
)
def test_it_is_a_queue_whatever_the_order_of_writing_and_acknowledging(
    steps: list[list[bytes] | int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spill, model = Spill.create(tmp_path_factory.mktemp("q") / "a", segment_bytes=60), []
    for step in steps:
        if isinstance(step, list):
            spill.append(step)
            model += step
        elif rows := spill.head(step):
            assert model[: len(rows)] == rows
            spill.advance(len(rows))
            del model[: len(rows)]

        assert (not model) == spill.empty
    assert model == all_rows(spill)
    spill.close()

    assert not spill.folder.exists()


def test_acknowledged_segments_are_deleted(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "a", segment_bytes=20)
    for row in ROWS:
        spill.append([row])
    before = len(list(spill.folder.glob("*.log")))
    spill.head(2)
    spill.advance(2)

    assert before - 1 == len(list(spill.folder.glob("*.log")))


def test_what_was_not_acknowledged_is_adopted_by_another_process(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "dead")
    spill.append(ROWS)
    spill.head(4)
    spill.advance(4)
    spill.close()

    found = [all_rows(item) for item in adopted(tmp_path)]

    # The segment is repeated as a whole: acknowledged rows are duplicates to the archiver.
    assert [ROWS] == found
    assert not (tmp_path / "dead").exists()


def test_the_folder_of_a_living_process_is_not_adopted(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "alive")
    spill.append(ROWS)

    assert [] == list(Spill.adopt(tmp_path))
    assert ROWS == all_rows(spill)


def test_two_adopters_do_not_get_the_same_folder(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "dead")
    spill.append(ROWS)
    spill.close()
    first = list(Spill.adopt(tmp_path))

    assert 1 == len(first)
    assert [] == list(Spill.adopt(tmp_path))


def test_the_empty_folder_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from serving.predictions.spill import Spill; "
        "Spill.create(Path(sys.argv[1]) / 'dead'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    left = (tmp_path / "dead").exists()

    assert [] == list(Spill.adopt(tmp_path))
    assert (-signal.SIGKILL, True, False) == (died.returncode, left, (tmp_path / "dead").exists())


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_half_written_last_row_is_dropped_and_counted_and_nothing_else(
    cut: int, tmp_path: Path
) -> None:
    spill = Spill.create(tmp_path / "dead")
    spill.append(ROWS)
    spill.close()
    (segment,) = (tmp_path / "dead").glob("*.log")
    os.truncate(segment, segment.stat().st_size - cut)

    (found,) = Spill.adopt(tmp_path)

    assert ROWS[:-1] == all_rows(found)
    assert 1 == found.torn


def test_zeros_behind_the_last_row_are_no_rows(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "dead")
    spill.append(ROWS)
    spill.close()
    (segment,) = (tmp_path / "dead").glob("*.log")
    segment.write_bytes(segment.read_bytes() + bytes(100))

    (found,) = Spill.adopt(tmp_path)

    assert ROWS == all_rows(found)
    assert 1 == found.torn


def test_a_changed_segment_is_replayed_up_to_the_change_and_set_aside(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "dead", segment_bytes=70)
    for row in ROWS:
        spill.append([row])
    spill.close()
    first = min((tmp_path / "dead").glob("*.log"))
    content = bytearray(first.read_bytes())
    content[13 + 8] ^= 1  # the first byte of the second row
    first.write_bytes(content)

    (found,) = Spill.adopt(tmp_path)
    rows = all_rows(found)
    found.close()

    assert [ROWS[0], *ROWS[6:]] == rows
    assert bytes(content) == first.with_suffix(".damaged").read_bytes()
    assert [] == list(Spill.adopt(tmp_path))


def test_a_segment_that_somebody_removed_is_counted_and_the_others_are_replayed(
    tmp_path: Path,
) -> None:
    spill = Spill.create(tmp_path / "a", segment_bytes=70)
    for row in ROWS:
        spill.append([row])
    min(spill.folder.glob("*.log")).unlink()

    assert ROWS[6:] == all_rows(spill)
    assert 1 == spill.torn


def test_a_write_that_the_disk_refuses_leaves_the_rows_before_it_readable(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "a")
    spill.append(ROWS[:5])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # the next write is cut short
        with pytest.raises(OSError, match="File too large"):
            spill.append([b"x" * 500])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    spill.append(ROWS[5:])

    assert ROWS == all_rows(spill)
    assert 0 == spill.torn


def test_a_name_that_is_in_use_is_refused(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "a")

    with pytest.raises(ServiceError, match="two gateway processes have one name"):
        Spill.create(tmp_path / "a")
    spill.close()


def test_a_name_whose_rows_are_still_there_is_refused(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path / "a")
    spill.append(ROWS)
    spill.close()

    with pytest.raises(ServiceError, match="a new name each time"):
        Spill.create(tmp_path / "a")
    assert 1 == len(list(Spill.adopt(tmp_path)))


def test_a_folder_that_cannot_be_written_is_refused_with_the_setting_to_change(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ServiceError, match="MLPLATFORM_GATEWAY_SPILL"):
        Spill.create(tmp_path / "file" / "a")
