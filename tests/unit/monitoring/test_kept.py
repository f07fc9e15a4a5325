"""What is kept of windows: in order, whole at every moment, refused if damaged."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlplatform.contracts.watch import Wholeness, WindowReport
from mlplatform.errors import DataError
from monitoring import kept
from tests.unit.monitoring.days import day

NAME = "flight_delay"


def report(number: int, version: int = 1) -> WindowReport:
    window = day(number)
    whole = Wholeness(window=window, rows=9, verdict="whole", reason="as drawn")
    return WindowReport(
        usecase=NAME, window=window, judged_at=window.end, version=version, findings=(), whole=whole
    )


def test_reports_come_back_by_the_time_of_their_windows(tmp_path: Path) -> None:
    reports = [report(number) for number in range(5)]
    for one in reversed(reports):
        kept.write(tmp_path, one)

    assert tuple(reports) == kept.newest(tmp_path, NAME, 99)
    assert tuple(reports[3:]) == kept.newest(tmp_path, NAME, 2)
    assert reports[4] == kept.last(tmp_path, NAME)
    assert reports[1] == kept.last(tmp_path, NAME, day(2).start)
    assert reports[2] == kept.one(tmp_path, NAME, day(2))
    assert tuple(day(number) for number in range(5)) == kept.judged(tmp_path, NAME)


def test_nothing_is_known_of_a_use_case_that_was_never_judged(tmp_path: Path) -> None:
    kept.write(tmp_path, report(0))

    assert () == kept.newest(tmp_path, "another", 99)
    assert kept.last(tmp_path, "another") is None
    assert kept.last(tmp_path, NAME, day(0).start) is None
    assert kept.one(tmp_path, NAME, day(1)) is None


def test_a_report_is_whole_at_every_moment_however_many_write_it(tmp_path: Path) -> None:
    kept.write(tmp_path, report(0))

    def write_and_read(version: int) -> int | None:
        kept.write(tmp_path, report(0, version))
        found = kept.one(tmp_path, NAME, day(0))
        return None if found is None else found.version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(write_and_read, range(1, 200)))

    assert set(versions) <= set(range(1, 200))
    assert [kept.REPORT] == [path.name for path in kept.folder(tmp_path, NAME, day(0)).iterdir()]


@pytest.mark.parametrize("keep", [0, 1, 4, 14])
def test_the_pages_of_the_newest_windows_are_kept(tmp_path: Path, keep: int) -> None:
    pages = [kept.folder(tmp_path, NAME, day(number)) / kept.PAGE for number in range(10)]
    for number, page in enumerate(pages):
        kept.write(tmp_path, report(number))
        page.touch()
        kept.forget_pages(tmp_path, NAME, keep)

    assert pages[max(10 - keep, 0) :] == [page for page in pages if page.exists()]
    assert 10 == len(kept.newest(tmp_path, NAME, 99))


def test_a_damaged_report_is_refused_by_name(tmp_path: Path) -> None:
    path = kept.write(tmp_path, report(0))
    path.write_text("{}")

    with pytest.raises(DataError, match=str(path)):
        kept.newest(tmp_path, NAME, 99)
