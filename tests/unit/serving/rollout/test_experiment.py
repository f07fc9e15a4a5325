"""What may be read from an experiment, and when."""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlplatform.contracts import Moments, Pair, Stage, Statistics
from mlplatform.errors import DataError
from serving.rollout.experiment import (
    _chi_square_tail,
    always_valid,
    fixed_horizon,
    read,
    sample_ratio,
)
from serving.rollout.sample_size import Size, required_entities

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def moments(values: Any) -> Moments:
    values = np.asarray(values, dtype=float)
    return Moments(n=len(values), total=float(values.sum()), squares=float((values**2).sum()))


def rate(ones: int, entities: int) -> Moments:
    return Moments(n=entities, total=float(ones), squares=float(ones))


def stage(champion: Moments, challenger: Moments, weight: float = 0.5) -> Stage:
    pair = Pair(champion=champion, challenger=challenger)
    return Stage(epoch=1, weight=weight, values=dict.fromkeys(("decision_rate", "loss"), pair))


def statistics(*stages: Stage, misassigned: int = 0) -> Statistics:
    return Statistics(
        usecase="flight_delay",
        number=3,
        version=7,
        digest="abc",
        at=NOW,
        stages=stages,
        misassigned=misassigned,
    )


def size(entities: int) -> Size:
    plan = required_entities(0.2, 0.05)
    return plan.model_copy(update={"champion": entities, "challenger": entities})


def test_a_rate_is_compared_by_the_two_proportion_z_test() -> None:
    reading = fixed_horizon([stage(rate(200, 1000), rate(240, 1000))], "decision_rate", size(1000))
    # Without the continuity correction chi-square is z².
    expected = stats.chi2_contingency([[200, 800], [240, 760]], correction=False).pvalue

    assert reading.final
    assert pytest.approx(expected) == reading.p_value
    assert pytest.approx(0.04) == reading.difference


def test_a_mean_is_compared_by_welchs_test() -> None:
    generator = np.random.default_rng(1)
    arms = generator.beta(1, 4, 4000), generator.beta(1.2, 4, 1500)
    reading = fixed_horizon([stage(moments(arms[0]), moments(arms[1]))], "loss", size(1500))
    expected = stats.ttest_ind(arms[1], arms[0], equal_var=False)
    low, high = expected.confidence_interval()

    assert reading.p_value is not None
    assert reading.p_value == pytest.approx(expected.pvalue, rel=0.02)
    assert pytest.approx((low, high), abs=1e-4) == (reading.low, reading.high)


def test_a_rate_that_moved_while_the_weight_changed_is_no_difference() -> None:
    # Both arms: 10 % on the first day, 40 % on the second. Pooled, the challenger looks far worse.
    first = stage(rate(1800, 18_000), rate(200, 2_000), weight=0.1)
    second = stage(rate(4000, 10_000), rate(4000, 10_000), weight=0.5)
    found = read(statistics(first, second), "decision_rate", size=size(12_000))

    assert found.challenger is not None
    assert found.champion is not None
    assert found.challenger > found.champion + 0.1
    assert found.fixed is not None
    assert found.always is not None
    assert pytest.approx(0) == found.fixed.difference
    assert found.fixed.p_value == 1
    assert found.always.low < 0 < found.always.high


@pytest.mark.parametrize("entities", [0, 1, 999])
def test_before_its_planned_size_a_fixed_horizon_says_nothing(entities: int) -> None:
    arms = rate(0, entities), rate(entities, entities)  # as different as can be
    reading = fixed_horizon([stage(*arms)], "decision_rate", size(1000))

    assert not reading.final
    assert (None, None, None) == (reading.p_value, reading.low, reading.high)
    assert f"{entities:,} of 1,000 planned" in reading.reason


def test_without_a_plan_there_is_no_horizon() -> None:
    reading = fixed_horizon([stage(rate(0, 9_000), rate(9_000, 9_000))], "decision_rate", None)

    assert not reading.final
    assert reading.p_value is None
    assert "always-valid" in reading.reason


def test_peeking_fools_the_fixed_horizon_and_not_the_always_valid_reading() -> None:
    runs, looks, batch = 400, 20, 200
    generator = np.random.default_rng(7)
    fooled = excluded = convinced = 0
    for _ in range(runs):
        ones = np.cumsum(generator.binomial(batch, 0.3, (looks, 2)), axis=0).tolist()
        seen = [
            [stage(rate(a, batch * look), rate(b, batch * look))]
            for look, (a, b) in enumerate(ones, start=1)
        ]
        peeked = [fixed_horizon(one, "decision_rate", size(1)).p_value for one in seen]
        readings = [always_valid(one, "decision_rate", 0.05) for one in seen]
        fooled += any(value is not None and value < 0.05 for value in peeked)
        excluded += any(not reading.low <= 0 <= reading.high for reading in readings)
        convinced += any(reading.log_e >= math.log(20) for reading in readings)

    assert fooled > 3 * 0.05 * runs
    assert excluded <= 0.05 * runs
    assert convinced <= 0.05 * runs


def test_a_real_difference_is_found_by_both_readings() -> None:
    arms = rate(6_000, 20_000), rate(6_800, 20_000)
    found = read(statistics(stage(*arms)), "decision_rate", size=size(20_000))

    assert found.fixed is not None
    assert found.always is not None
    assert found.fixed.low is not None
    assert 0 < found.always.low < found.fixed.low < 0.04
    assert found.always.log_e > math.log(20)


def test_a_broken_split_makes_every_reading_void() -> None:
    arms = rate(2_000, 10_000), rate(1_600, 9_000)  # a tenth of the challenger's are missing
    found = read(statistics(stage(*arms)), "decision_rate", size=size(9_000))

    assert "sample-ratio mismatch" in found.void
    assert "9,000 entities where 9,500" in found.void
    assert (None, None) == (found.fixed, found.always)


def test_an_answer_of_the_wrong_arm_makes_every_reading_void() -> None:
    found = read(statistics(stage(rate(20, 100), rate(20, 100)), misassigned=1), "decision_rate")

    assert "another arm" in found.void
    assert (None, None) == (found.fixed, found.always)


def test_a_sound_split_is_called_broken_as_rarely_as_stated() -> None:
    runs, looks, batch, weights = 1_000, 20, 100, (0.05, 0.5)
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(runs):
        hits = [np.cumsum(generator.binomial(batch, weight, looks)).tolist() for weight in weights]
        first = stage(rate(0, batch * looks - hits[0][-1]), rate(0, hits[0][-1]), weights[0])
        alarms += any(
            sample_ratio(
                [first, stage(rate(0, batch * look - hit), rate(0, hit), weights[1])], "loss"
            ).log_e
            >= math.log(100)
            for look, hit in enumerate(hits[1], start=1)
        )

    assert alarms <= 0.01 * runs


@settings(derandomize=True, max_examples=200)
@given(st.floats(0, 200), st.integers(1, 12))
def test_the_tail_of_chi_square_is_scipys(statistic: float, degrees: int) -> None:
    expected = stats.chi2.sf(statistic, degrees)

    assert pytest.approx(expected, rel=1e-9, abs=1e-300) == _chi_square_tail(statistic, degrees)


def test_an_experiment_that_nobody_has_entered_is_read_without_a_claim() -> None:
    found = read(statistics(), "loss", size=size(100))

    assert (None, None, "") == (found.champion, found.challenger, found.void)
    assert found.fixed is not None
    assert not found.fixed.final
    assert found.always is not None
    assert (-1, 1) == pytest.approx((found.always.low, found.always.high), abs=1e-4)


def test_a_loss_without_its_labels_is_not_read_but_a_rate_is() -> None:
    half = stage(rate(200, 1000), rate(240, 1000))
    seen = msgspec.structs.replace(statistics(half), unread="the labels cannot be read")

    with pytest.raises(DataError, match="the labels cannot be read"):
        read(seen, "loss")
    assert read(seen, "decision_rate") == read(statistics(half), "decision_rate")


def test_an_answer_that_is_no_number_is_named() -> None:
    broken = Moments(n=10, total=math.nan, squares=math.nan)

    with pytest.raises(DataError, match="loss of rollout flight_delay/3 are not finite"):
        read(statistics(stage(rate(2, 10), broken)), "loss")
