"""What is kept of a training set: whole windows, honest scores, the same bytes each time."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from feature_repo import catalog
from feature_repo.profile import reference
from feature_repo.profile.reference import SCORE, Reference
from mlplatform import signing
from mlplatform.contracts import UseCase
from mlplatform.errors import DataError, ModelError

FEATURES = ("distance", "wind")
START = datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spec(hours: float = 24) -> UseCase:
    known = catalog.spec("flight_delay")
    monitoring = known.monitoring.model_copy(update={"window_hours": hours})
    return known.model_copy(update={"monitoring": monitoring})


def rows(days: float, daily: int = 40, seed: int = 0) -> pl.DataFrame:
    """Rows at even distances, in no order, with missing values of both kinds."""
    rng, size = np.random.default_rng(seed), int(days * daily)
    step = timedelta(days=1) / daily
    wind: list[float | None] = rng.normal(size=size).tolist()
    wind[::7] = [None] * len(wind[::7])
    wind[::11] = [float("nan")] * len(wind[::11])
    times = [START + int(place) * step for place in rng.permutation(size)]
    return pl.DataFrame(
        {"event_timestamp": times, "late": 0, "distance": rng.normal(size=size), "wind": wind},
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    )


def scores(frame: pl.DataFrame, days: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Probabilities of the newest days; none before."""
    newest = frame["event_timestamp"].max()
    assert isinstance(newest, datetime)
    tested = (frame["event_timestamp"] > newest - timedelta(days=days)).to_numpy()
    return np.where(tested, np.linspace(0.1, 0.9, frame.height), np.nan)


def build(frame: pl.DataFrame, tested: float = 25, seed: int = 7, hours: float = 24) -> Reference:
    return reference.build(spec(hours), frame, FEATURES, scores(frame, tested), seed=seed)


def starts(frame: pl.DataFrame, hours: float = 24) -> set[datetime]:
    """Windows that rows lie in, by arithmetic of dates alone."""
    length = timedelta(hours=hours)
    return {EPOCH + (at - EPOCH) // length * length for at in frame["event_timestamp"].to_list()}


@given(
    days=st.floats(0.1, 100),
    hours=st.sampled_from([1.5, 6, 24, 168]),
    daily=st.integers(1, 40),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_windows_are_kept_whole_and_those_that_may_be_cut_are_not(
    days: float, hours: float, daily: int, seed: int
) -> None:
    given_rows = rows(days, daily)
    if given_rows.is_empty():
        return
    kept = build(given_rows, seed=seed, hours=hours)
    held, known = starts(kept.rows, hours), starts(given_rows, hours)
    length = timedelta(hours=hours)
    inside = [
        at in held
        for at in (EPOCH + (at - EPOCH) // length * length for at in given_rows["event_timestamp"])
    ]

    assert held <= known - {min(known), max(known)}
    assert min(len(known - {min(known), max(known)}), reference.WINDOWS) <= len(held)
    assert len(held) == kept.profile.windows
    assert_frame_equal(
        given_rows.filter(pl.Series(inside))
        .select("event_timestamp", pl.col(FEATURES).cast(pl.Float32).fill_nan(None))
        .sort("event_timestamp", maintain_order=True),
        kept.rows.drop(SCORE),
    )


def test_a_long_training_set_is_thinned_evenly_and_not_to_one_day_of_the_week() -> None:
    kept = build(rows(reference.WINDOWS * 7 + 2, daily=600), tested=0)
    held = sorted(starts(kept.rows))
    apart = [(later - at).days for at, later in itertools.pairwise(held)]

    assert reference.WINDOWS == kept.profile.windows
    assert max(apart) < 14
    assert set(range(7)) == {at.weekday() for at in held}


def test_a_year_of_few_rows_is_kept_up_to_the_budget() -> None:
    kept = build(rows(365, daily=100), tested=0)

    assert 300 == kept.profile.windows
    assert reference.ROWS == kept.profile.rows


def test_the_windows_of_a_busy_use_case_are_thinned_alike_and_the_share_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "MOST", 6_000)
    monkeypatch.setattr(reference, "WINDOWS", 75)
    kept = build(rows(90, daily=400))
    sizes = kept.rows.group_by_dynamic("event_timestamp", every="1d").agg(pl.len())["len"]

    assert 75 == kept.profile.windows == len(sizes)
    assert 6_000 / (75 * 400) == kept.profile.row_share
    assert 5_700 < kept.profile.rows < 6_300
    assert 40 < sizes.min() <= sizes.max() < 120  # type: ignore[operator]  # 80, within 4.5 errors
    assert kept.profile.score_rows / kept.rows.height == pytest.approx(24 / 75, rel=0.2)


@pytest.mark.parametrize(
    ("tested", "least", "most"),
    [
        pytest.param(0, 0, 0, id="no test part"),
        pytest.param(10.5, 10, 10, id="a short one: all of it"),
        pytest.param(31, 20, 20, id="a longer one: as many as thresholds need"),
        pytest.param(
            200,
            reference.WINDOWS // 2 - 5,
            reference.WINDOWS // 2 + 5,
            id="half of it: its share of what is kept",
        ),
    ],
)
def test_scores_are_those_of_whole_windows_of_the_test_part(
    tested: float, least: int, most: int
) -> None:
    given_rows = rows(400, daily=600)
    kept = build(given_rows, tested).rows
    scored = kept.filter(pl.col(SCORE).is_not_null())
    held = starts(scored)
    expected = given_rows.select("event_timestamp", expected=scores(given_rows, tested))
    both = scored.join(expected, on="event_timestamp", how="left")

    assert least <= len(held) <= most
    assert both[SCORE].to_list() == both["expected"].cast(pl.Float32).to_list()
    assert held.isdisjoint(starts(kept.filter(pl.col(SCORE).is_null())))


@pytest.mark.parametrize("days", [0.5, 1.5, 3, 20])
def test_too_short_a_training_set_has_a_profile_that_says_why_nothing_can_be_judged(
    days: float, tmp_path: Path
) -> None:
    short = build(rows(days))
    reference.write(short, tmp_path)

    assert None is short.profile.calibration
    assert "take a longer reference" in short.profile.uncalibrated
    assert max(0, int(days) - 1) == short.profile.windows
    assert short.profile == reference.read(tmp_path).profile


def test_a_long_enough_one_is_calibrated_for_what_the_spec_asks() -> None:
    known = build(rows(90)).profile
    calibration = known.calibration

    assert calibration is not None
    assert "" == known.uncalibrated
    assert (24, 0.01, 89) == (
        calibration.window_hours,
        calibration.false_alarm_rate,
        calibration.windows,
    )
    assert {*FEATURES, SCORE} == {one.column for one in calibration.columns}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = build(rows(60))
    reference.write(made, tmp_path)
    found = reference.read(tmp_path)

    assert made.profile == found.profile
    assert_frame_equal(made.rows, found.rows)


def test_the_files_are_the_same_bytes_with_other_threads_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.unit.profile import test_reference as t;"
        "t.reference.write(t.build(t.rows(90, daily=400)), Path(sys.argv[1]))"
    )
    for threads in ("1", "2"):
        (tmp_path / threads).mkdir()
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / threads)],
            check=True,
            env=os.environ | {"POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": threads},
        )

    for name in (signing.PROFILE, signing.REFERENCE):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda frame: frame.drop("wind"), "lacks wind", id="feature"),
        pytest.param(lambda frame: frame.drop("event_timestamp"), "lacks event", id="time"),
        pytest.param(lambda frame: frame.clear(), "has no rows", id="rows"),
    ],
)
def test_a_training_set_that_lacks_something_is_refused(
    spoil: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    frame = spoil(rows(30))

    with pytest.raises(DataError, match=message):
        reference.build(spec(), frame, FEATURES, np.full(frame.height, np.nan), seed=0)


def _rewrite(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        path = folder / signing.REFERENCE
        change(pl.read_parquet(path)).write_parquet(path)

    return rewrite


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: (folder / signing.PROFILE).unlink(), id="no profile"),
        pytest.param(lambda folder: (folder / signing.REFERENCE).unlink(), id="no rows"),
        pytest.param(lambda folder: (folder / signing.PROFILE).write_text("{}"), id="no contract"),
        pytest.param(
            lambda folder: (folder / signing.REFERENCE).write_bytes(b"PAR1"), id="no parquet"
        ),
        pytest.param(_rewrite(lambda frame: frame.head(-1)), id="a row less"),
        pytest.param(_rewrite(lambda frame: frame.drop(SCORE)), id="a column less"),
        pytest.param(_rewrite(lambda frame: frame.cast({"wind": pl.Float64})), id="another type"),
        pytest.param(
            _rewrite(lambda frame: frame.select("event_timestamp", "wind", "distance", SCORE)),
            id="another order",
        ),
    ],
)
def test_a_reference_that_is_not_that_of_its_profile_is_refused(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    reference.write(build(rows(60)), tmp_path)
    spoil(tmp_path)

    with pytest.raises(ModelError, match="download the version again"):
        reference.read(tmp_path)
