"""The size of an experiment: enough to find the effect as often as was asked, and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.contracts import Counts, Moments, Pair, Stage
from mlplatform.errors import DataError
from serving.rollout.experiment import fixed_horizon
from serving.rollout.sample_size import Size, required_entities

RUNS = 3_000


def found(size: Size, rates: tuple[float, float], generator: np.random.Generator) -> float:
    """Return the share of simulated experiments of this size whose test rejects."""
    champion = generator.binomial(size.champion, rates[0], RUNS).tolist()
    challenger = generator.binomial(size.challenger, rates[1], RUNS).tolist()
    rejected = 0
    for ones in zip(champion, challenger, strict=True):
        arms = [
            Moments(n=n, total=k, squares=k)
            for n, k in zip((size.champion, size.challenger), ones, strict=True)
        ]
        stage = Stage(
            epoch=1,
            weight=size.weight,
            exposed=Counts(size.champion, size.challenger),
            values={"decision_rate": Pair(*arms)},
        )
        reading = fixed_horizon([stage], "decision_rate", size)
        rejected += reading.p_value is not None and reading.p_value < size.alpha
    return rejected / RUNS


@pytest.mark.parametrize(
    ("baseline", "effect", "weight", "power"),
    [
        pytest.param(0.2, 0.03, 0.5, 0.8, id="even split"),
        pytest.param(0.03, 0.015, 0.2, 0.9, id="rare and uneven"),
        pytest.param(0.5, -0.05, 0.3, 0.8, id="a fall"),
    ],
)
def test_a_planned_experiment_finds_its_effect_as_often_as_asked_and_rarely_anything_else(
    baseline: float, effect: float, weight: float, power: float
) -> None:
    size = required_entities(baseline, effect, weight=weight, power=power)
    generator = np.random.default_rng(5)
    spread = 4 * (0.25 / RUNS) ** 0.5

    assert abs(found(size, (baseline, baseline + effect), generator) - power) < spread
    assert abs(found(size, (baseline, baseline), generator) - size.alpha) < spread / 2


def test_the_size_is_the_published_one() -> None:
    # The example of R's power.prop.test: n = 76.7 in each arm.
    size = required_entities(0.50, 0.25, power=0.90)

    assert (77, 77, 154) == (size.champion, size.challenger, size.total)


def test_a_mean_needs_what_its_deviation_asks_for() -> None:
    # 2 (z_0.975 + z_0.9)² = 21.01 in each arm for a difference of one deviation.
    size = required_entities(0.0, 1.0, deviation=1.0, power=0.90)

    assert (22, 22) == (size.champion, size.challenger)


@settings(derandomize=True, max_examples=100)
@given(st.floats(0.01, 0.4), st.floats(0.001, 0.2), st.floats(0.02, 0.98))
def test_an_uneven_split_and_a_smaller_effect_cost_entities(
    deviation: float, effect: float, weight: float
) -> None:
    even = required_entities(0.2, effect, deviation=deviation)
    uneven = required_entities(0.2, effect, deviation=deviation, weight=weight)
    half = required_entities(0.2, effect / 2, deviation=deviation)

    assert uneven.total >= even.total - 2
    assert abs(half.total - 4 * even.total) <= 8


def test_the_duration_is_the_entities_over_those_of_a_day() -> None:
    size = required_entities(0.1, 0.02, entities_per_day=1_000)

    assert size.total / 1_000 == size.days


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"effect": 0.0}, "has no size", id="no effect"),
        pytest.param({"effect": 0.95}, "lies between 0 and 1", id="beyond a rate"),
        pytest.param({"weight": 1.0}, "weight must lie", id="no champion"),
        pytest.param({"power": 0.01}, "must exceed alpha", id="no power"),
        pytest.param({"deviation": 0.0}, "deviation must be above 0", id="no deviation"),
        pytest.param({"entities_per_day": 0.0}, "never make", id="no traffic"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        required_entities(**({"baseline": 0.1, "effect": 0.01} | changes))
