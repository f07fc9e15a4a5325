"""Thresholds come from the windows of a reference, and say what they cannot see."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from feature_repo.profile import statistics
from feature_repo.profile.calibration import MIN_WINDOWS, calibrate
from feature_repo.profile.distances import choose
from feature_repo.profile.interval import series
from mlplatform.contracts import Window
from mlplatform.contracts.drift import ColumnThreshold, DriftCalibration, DriftSign
from mlplatform.errors import DataError
from monitoring.drift import detect

Floats = npt.NDArray[np.float64]
START = datetime(2013, 1, 1, tzinfo=UTC)
OF = Window(start=START, end=START + timedelta(days=1))
ROWS = 120
DAYS = 60


def rows_of(days: int, draw: Callable[[int], dict[str, object]], rows: int = ROWS) -> pl.DataFrame:
    """Days of rows at equal distances; `draw` gives the columns of a day by its number."""
    step = timedelta(days=1) / rows
    return pl.concat(
        pl.DataFrame(
            {"event_timestamp": [START + timedelta(days=day) + step * n for n in range(rows)]}
            | draw(day)
        )
        for day in range(days)
    )


def plain(seed: int = 1, days: int = DAYS) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return rows_of(
        days,
        lambda _: {
            "normal": rng.normal(size=ROWS),
            "kind": rng.choice(["a", "b", "c"], ROWS, p=[0.6, 0.3, 0.1]),
        },
    )


def by_day(rows: pl.DataFrame) -> list[pl.DataFrame]:
    days = rows.with_columns(day=pl.col("event_timestamp").dt.date())
    return days.partition_by("day", include_key=False, maintain_order=True)


def made(reference: pl.DataFrame, rate: float = 0.01) -> DriftCalibration:
    return calibrate(reference, window_hours=24, false_alarm_rate=rate)


def of(calibration: DriftCalibration, column: str) -> ColumnThreshold:
    (found,) = (one for one in calibration.columns if one.column == column)
    return found


@pytest.mark.parametrize("rate", [0.2, 1e-4])
def test_the_interval_of_independent_values_is_students_predictive_one(rate: float) -> None:
    values = np.random.default_rng(2).normal(3, 2, 40)
    values -= np.linspace(0, 1e-9, 40)
    centred = values - values.mean()
    rho = max(0.0, float(centred[1:] @ centred[:-1] / (centred @ centred)))
    worth = 40 * (1 - rho) / (1 + rho)
    wide = values.std(ddof=1) * np.sqrt(1 + 1 / worth) * stats.t.ppf(1 - rate, worth - 1)

    found = series(values, errors=None)

    assert wide == pytest.approx(found.reach(rate))
    assert max(values.mean() + wide, values.max()) == pytest.approx(found.high(rate))
    assert min(values.mean() - wide, values.min()) == pytest.approx(found.low(rate))


def test_heavy_tails_and_neighbours_that_resemble_each_other_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=80)
    heavy = rng.standard_t(3, size=80)
    walk = np.cumsum(values)

    normal = series(values, errors=None)

    assert stats.kurtosis(heavy, bias=False) > 1
    assert series(heavy).freedom == pytest.approx(4 + 6 / stats.kurtosis(heavy, bias=False))
    assert series(values, errors=2).reach(1e-4) > normal.reach(1e-4)
    assert series(walk).worth < 0.2 * normal.worth


def test_new_values_leave_the_interval_as_rarely_as_asked() -> None:
    rng = np.random.default_rng(4)
    rate, runs = 0.02, 4000
    beyond = 0
    for _ in range(runs):
        *known, new = rng.normal(size=31)
        found = series(np.array(known), errors=None)
        beyond += not -found.reach(rate / 2) <= new - found.middle <= found.reach(rate / 2)

    assert beyond <= stats.binom.ppf(0.999, runs, rate)


def test_a_shift_as_large_as_stated_is_found_within_three_windows() -> None:
    reference = plain()
    calibration = made(reference)
    threshold = of(calibration, "normal")
    (mean,) = (one for one in threshold.intervals if one.sign == "mean")
    assert threshold.detectable is not None
    assert mean.high is not None
    rng = np.random.default_rng(5)
    std = reference["normal"].std()

    shifted = threshold.detectable * std + rng.normal(size=(2000, 3, ROWS)).mean(axis=2)  # type: ignore[operator]

    assert (shifted > mean.high).any(axis=1).mean() == pytest.approx(0.95, abs=0.05)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    factor=st.sampled_from([1e-6, 0.3, 7.0, 1e6]),
    shift=st.sampled_from([0.0, -40.0, 1e4]),
    moved=st.sampled_from([0.0, 0.4, 3.0]),
)
def test_a_verdict_does_not_depend_on_the_unit_of_a_column(
    factor: float, shift: float, moved: float
) -> None:
    reference = plain(days=30)
    window = plain(seed=9, days=1).with_columns(pl.col("normal") + moved)

    def other(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns((pl.col("normal") + shift) * factor)

    before = detect(reference, window, made(reference), OF)
    after = detect(other(reference), other(window), made(other(reference)), OF)

    assert before.drifted == after.drifted
    assert before.columns[0].signs == after.columns[0].signs


@settings(derandomize=True, max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_thresholds_nor_verdicts_depend_on_the_order_of_rows(seed: int) -> None:
    reference, window = plain(days=25), plain(seed=9, days=1)
    shuffled = reference.sample(fraction=1, shuffle=True, seed=seed)

    expected = detect(reference, window, made(reference), OF)
    found = detect(shuffled, window.sample(fraction=1, shuffle=True, seed=seed), made(shuffled), OF)

    assert expected.drifted == found.drifted
    for one, other in zip(expected.columns, found.columns, strict=True):
        values = [(s.sign, s.value, s.high) for s in one.statistics]
        for (sign, value, high), s in zip(values, other.statistics, strict=True):
            assert sign == s.sign
            assert (value, high) == pytest.approx((s.value, s.high), rel=1e-6, abs=1e-9)


def test_no_window_of_the_reference_alarms() -> None:
    reference = plain(seed=6)
    calibration = made(reference, rate=0.5)

    days = by_day(reference)
    found = {detect(reference, one, calibration, OF).verdict for one in days}

    assert {"no_drift"} == found


def test_a_season_does_not_alarm_on_its_own_continuation_and_a_jump_out_of_it_does() -> None:
    rng = np.random.default_rng(7)

    def weather(day: int) -> dict[str, object]:
        return {"temp": 10 * np.sin(day / 19) + rng.normal(scale=3) + rng.normal(size=ROWS)}

    year = rows_of(150, weather)
    reference = year.filter(pl.col("event_timestamp") < START + timedelta(days=120))
    calibration = made(reference)

    following = year.filter(pl.col("event_timestamp") >= START + timedelta(days=120))
    days = by_day(following)

    assert {"no_drift"} == {detect(reference, one, calibration, OF).verdict for one in days}
    jumped = days[0].with_columns(pl.col("temp") + 100)
    assert ("temp",) == detect(reference, jumped, calibration, OF).drifted


def test_a_column_with_one_value_a_window_and_a_trend_is_left_out_and_a_weekday_is_not() -> None:
    rng = np.random.default_rng(8)
    reference = rows_of(
        DAYS,
        lambda day: {
            "normal": rng.normal(size=ROWS),
            "month": np.full(ROWS, 1 + day // 20),
            "weekday": np.full(ROWS, day % 7),
        },
    )

    found = made(reference)

    assert {"month"} == set(found.left_out)
    assert "one value in each window and follows a trend" in found.left_out["month"]
    assert ["normal", "weekday"] == [one.column for one in found.columns]


@pytest.mark.parametrize("windows", [MIN_WINDOWS - 1, MIN_WINDOWS])
def test_the_score_is_judged_from_enough_windows_that_have_one(windows: int) -> None:
    rng = np.random.default_rng(9)
    empty = np.full(ROWS, np.nan)
    reference = rows_of(
        DAYS,
        lambda day: {
            "normal": rng.normal(size=ROWS),
            "score": rng.beta(2, 5, ROWS) if day >= DAYS - windows else empty,
        },
    )

    found = made(reference)

    assert (windows < MIN_WINDOWS) is ("score" in found.left_out)
    if windows >= MIN_WINDOWS:
        signs: set[DriftSign] = {one.sign for one in of(found, "score").intervals}
        assert "nulls" not in signs


def test_what_cannot_alarm_takes_no_share_of_the_false_alarms() -> None:
    rng = np.random.default_rng(10)

    def with_holes(_: int) -> dict[str, object]:
        normal = rng.normal(size=ROWS)
        held = np.where(rng.random(ROWS) < rng.uniform(0.05, 0.95), rng.normal(size=ROWS), np.nan)
        return {"normal": normal, "held": held}

    found = made(rows_of(DAYS, with_holes))

    limits = {one.sign: one for one in of(found, "held").intervals}
    assert "nulls" not in limits
    assert sum(len(one.intervals) for one in found.columns) == found.statistics
    assert all(one.low is not None or one.high is not None for one in limits.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            lambda rows: rows.head((MIN_WINDOWS - 1) * ROWS), "a threshold needs", id="few"
        ),
        pytest.param(lambda rows: rows.clear(), "a threshold needs", id="no rows"),
        pytest.param(lambda rows: rows.drop("event_timestamp"), "needs a time", id="no times"),
        pytest.param(lambda rows: rows.select("event_timestamp"), "no column to", id="no columns"),
    ],
)
def test_a_reference_that_cannot_give_thresholds_is_refused(
    change: Callable[[pl.DataFrame], pl.DataFrame], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        made(change(plain()))


def test_smaller_windows_get_wider_thresholds() -> None:
    reference = plain()
    wide = calibrate(reference, window_hours=24, false_alarm_rate=0.01, rows=40)
    narrow = made(reference)

    assert (40, 30) == (wide.rows, wide.min_rows)
    assert of(wide, "normal").detectable > 1.4 * of(narrow, "normal").detectable  # type: ignore[operator]


def test_a_column_of_few_numbers_is_compared_as_categories() -> None:
    assert "jensenshannon" == choose(pl.Series([1.0, 2.0, None] * 50))
    assert "wasserstein" == choose(pl.Series(range(100)))


@pytest.mark.parametrize("sign", ["mean", "spread", "nulls", "distribution"])
@given(value=st.floats(1e-6, 0.999))
def test_scales_are_undone(sign: DriftSign, value: float) -> None:
    assert value == pytest.approx(statistics.unscaled(sign, statistics.scaled(sign, value)))
