"""Evidently's pages are drawn behind: the verdict is there at once, the page when all is over."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from feature_repo.profile.calibration import TIME, calibrate
from local.pages import Pages
from mlplatform.contracts import Window
from mlplatform.contracts.drift import DriftCalibration

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = Window(start=START, end=START + timedelta(days=1))


def rows(count: int) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    times = [START + timedelta(minutes=10 * number) for number in range(count)]
    return pl.DataFrame({TIME: times, "value": rng.normal(size=count)})


@pytest.fixture(scope="module")
def reference() -> pl.DataFrame:
    return rows(144 * 30)


@pytest.fixture(scope="module")
def calibration(reference: pl.DataFrame) -> DriftCalibration:
    return calibrate(reference, window_hours=24, false_alarm_rate=0.01)


def test_the_verdict_is_there_at_once_and_the_page_when_all_is_over(
    reference: pl.DataFrame, calibration: DriftCalibration, tmp_path: Path
) -> None:
    page = tmp_path / "drift.html"
    with Pages() as pages:
        found = pages.detect(reference, reference.head(144), calibration, DAY, page)
        assert not page.exists()

    assert "no_drift" == found.verdict
    assert "value" in page.read_text()


def test_what_goes_wrong_behind_ends_the_block_with_its_error(
    reference: pl.DataFrame, calibration: DriftCalibration, tmp_path: Path
) -> None:
    nowhere = tmp_path / "no such folder" / "drift.html"

    with pytest.raises(OSError, match="no such folder"), Pages() as pages:
        pages.detect(reference, reference.head(144), calibration, DAY, nowhere)
