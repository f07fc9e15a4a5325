"""Window after window: the trigger, people and the review queue hear of each, once."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import pytest

from mlplatform.errors import ServiceError
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from monitoring import kept
from monitoring.champion import Watched
from monitoring.channels import Console
from monitoring.monitor import Monitor
from monitoring.outbox import Outbox
from monitoring.requests import RequestStore
from monitoring.rounds import Rounds
from tests.unit.monitoring.days import (
    CODE,
    LAYOUT,
    archive,
    day,
    known,
    labels,
    moved,
    traffic,
)


@pytest.fixture(scope="module")
def version() -> Watched:
    return known()


def rounds(root: Path, version: Watched, told: io.StringIO) -> Rounds:
    """Return what judges the days that are archived there, over one database."""
    url = f"sqlite:///{root}/ledger.db"
    ledger = Ledger(url)
    monitor = Monitor(
        CODE,
        LAYOUT,
        root / "archive",
        root / "out",
        lambda _, __: labels(pl.concat([traffic(number) for number in range(4)])),
        ledger,
        lambda _: version,
        pages=0,
    )
    console = Outbox(url, {"console": Console(told)})
    return Rounds(
        CODE.spec, root / "archive", monitor, RequestStore(url), ledger, ReviewStore(url), console
    )


def test_a_drift_that_stays_asks_for_one_training_and_tells_people_once(
    tmp_path: Path, version: Watched
) -> None:
    told = io.StringIO()
    for number in range(4):
        archive(tmp_path / "archive", number, moved(traffic(number), "temp", 2.0 * (number > 0)))
        rounds(tmp_path, version, told).go(day(number), day(number).end)
    report, history = rounds(tmp_path, version, told).go(day(3), day(3).end)  # once more

    (asked,) = history.retrainings
    assert ("drift", "ready") == (asked.request.reason, asked.phase)
    assert day(2) == asked.request.window  # two of three windows
    assert "input_drift" == report.findings[0].cause
    review = CODE.spec.monitoring.review
    queue = rounds(tmp_path, version, told).reviews
    assert 4 * (review.uncertain + review.sampled) == queue.waiting(CODE.spec.name)
    drifts = [line for line in told.getvalue().splitlines() if "rift" in line and "temp" in line]
    assert drifts
    assert len(drifts) == len(set(drifts))


def test_days_of_a_broken_feed_ask_for_nothing(tmp_path: Path, version: Watched) -> None:
    told = io.StringIO()
    archive(tmp_path / "archive", 0, traffic(0))
    judged = [rounds(tmp_path, version, told).go(day(n), day(n).end) for n in range(4)]

    assert ["healthy"] + 3 * ["data_fault"] == [found.findings[0].cause for found, _ in judged]
    assert () == judged[-1][1].retrainings


class Away:
    """A part whose database is out of reach."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ServiceError(f"{name}: the database is away")


@pytest.mark.parametrize("part", ["ledger", "requests", "reviews", "outbox"])
def test_a_window_counts_as_judged_when_all_have_heard_of_it(
    tmp_path: Path, version: Watched, part: str
) -> None:
    name, told, away = CODE.spec.name, io.StringIO(), Away()
    archive(tmp_path / "archive", 0, moved(traffic(0), "temp", 2.0))
    whole = rounds(tmp_path, version, told)
    broken: dict[str, Any] = {part: away}
    with pytest.raises(ServiceError):
        replace(whole, **broken).go(day(0), day(0).end)
    before = kept.last(tmp_path / "out", name)
    report, history = whole.go(day(0), day(0).end)

    assert before is None
    assert report == kept.last(tmp_path / "out", name)
    assert report.findings == history.findings
    key = f"{name}/monitor/inputs/{day(0).start.isoformat()}/input_drift"
    assert [key] == [entry.decision.key for entry in whole.ledger.entries(name, "monitor")]
    assert 1 == told.getvalue().count("InputDrift")
