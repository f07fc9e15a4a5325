"""The page of a replay: what was answered, how quickly, and what was lost."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from local.live_report import write_live_report
from tests.unit.local.replays import replayed

HOSTILE = "<script>alert('data')</script>"


@pytest.fixture
def answers() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event_timestamp": [datetime(2013, 8, 2, hour, tzinfo=UTC) for hour in (1, 2, 3)],
            "status": [200, 200, 503],
            "ms": [3.0, 4.0, 5.0],
            "score": [0.1, 0.9, None],
            "decision": [False, True, None],
        }
    )


def test_the_page_shows_what_was_answered_and_needs_no_network(
    answers: pl.DataFrame, tmp_path: Path
) -> None:
    page = tmp_path / "live.html"
    write_live_report(page, replayed(lost=3, differing={HOSTILE: 2}), answers)
    text = page.read_text()

    assert '<div class="card bad"><b>3</b><span>lost or refused</span></div>' in text
    assert HOSTILE not in text
    assert "<script src=" not in text
