"""Traffic that cannot go on says why, and leaves no process."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from feature_repo import catalog
from local import live_traffic
from local.live_traffic import LiveTraffic
from local.workspace import Workspace
from mlplatform.errors import PlatformError

START = datetime(2020, 1, 1, tzinfo=UTC)
"""Long after the source ends."""
DAY = timedelta(days=1)


@pytest.fixture
def traffic(tmp_path: Path) -> LiveTraffic:
    nowhere: Any = SimpleNamespace(
        usecase="flight_delay", url="http://127.0.0.1:9", redis_url="redis://127.0.0.1:9/0"
    )
    budget = catalog.spec("flight_delay").serving.latency_ms
    console = Console(quiet=True)
    return LiveTraffic(
        console, Workspace(tmp_path), nowhere, START, START + DAY, 100, budget
    )  # fmt: skip


def test_a_process_that_fails_is_told_with_its_own_words_and_again_when_it_is_asked_again(
    traffic: LiveTraffic,
) -> None:
    with traffic:
        for _ in range(2):
            with pytest.raises(PlatformError, match="the source has no events from 2020-01-01"):
                traffic.until(START + DAY)
        with pytest.raises(PlatformError, match="the replay ended with 1"):
            traffic.ledger()


def test_answers_that_do_not_reach_the_archive_are_missed(
    traffic: LiveTraffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_traffic, "_ARCHIVED_SECONDS", 0)

    with pytest.raises(
        PlatformError, match=r"holds 0 of 3 answers after 0 s: see .*/archiver\.log"
    ):
        traffic._archived(3)
