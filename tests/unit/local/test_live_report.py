"""The page of a replay says how its rollouts went, and leads to their stories."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from local.live_report import write_live_report
from local.rehearsal import Rolled
from tests.unit.local.test_parity import replayed

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


def test_each_rollout_is_shown_with_how_it_went_and_a_way_to_its_story(
    answers: pl.DataFrame, tmp_path: Path
) -> None:
    rolled = Rolled(
        title=HOSTILE, number=2, version=7, champion=6, expected="promoted", phase="rolled_back",
        reason=HOSTILE, hours=22.5, turns=("started", "harm"),
    )  # fmt: skip
    page = tmp_path / "live.html"
    write_live_report(page, replayed(rollouts=(rolled,), missed=("another one",)), answers)
    text = page.read_text()

    for shown in ("rolled back", "22.5", "started, harm", "another one", "not rolled out"):
        assert shown in text
    assert '<td class="bad"><b>rolled back</b></td>' in text
    assert 'href="why-flight_delay-v7.html"' in text
    assert HOSTILE not in text


def test_a_replay_without_rollouts_says_nothing_of_them(
    answers: pl.DataFrame, tmp_path: Path
) -> None:
    write_live_report(tmp_path / "live.html", replayed(), answers)

    assert "<h2>Rollouts</h2>" not in (tmp_path / "live.html").read_text()
