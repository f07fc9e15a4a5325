"""The sigmoid is the optimum, undoes class weights, and never turns a model upside down."""

import numpy as np
import pytest
from scipy.optimize import minimize

from pipelines.steps.calibration import Sigmoid, fit, sigmoid


@pytest.mark.parametrize(
    ("centre", "spread"), [(0.0, 1.0), (40.0, 0.01), (-5.0, 300.0)], ids=["unit", "narrow", "wide"]
)
def test_the_fit_is_the_optimum_of_platts_loss(
    centre: float, spread: float, rng: np.random.Generator
) -> None:
    scaled = rng.normal(size=4000)
    labels = (rng.random(4000) < sigmoid(0.8 * scaled - 1.2)).astype(np.int8)
    margins = centre + spread * scaled
    positives = labels.sum()
    target = np.where(
        labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
    )

    def loss(parameters: np.ndarray) -> float:
        margin = parameters[0] * scaled + parameters[1]
        return float((np.logaddexp(0, margin) - target * margin).sum())

    optimum = minimize(loss, np.zeros(2), tol=1e-12).x
    found = fit(margins, labels)

    assert optimum[0] == pytest.approx(found.slope * spread, abs=1e-4)
    assert optimum[1] == pytest.approx(found.intercept + found.slope * centre, abs=1e-4)


def test_it_undoes_the_shift_of_class_weights(rng: np.random.Generator) -> None:
    truth = rng.normal(-1.5, 1.0, 50_000)
    labels = (rng.random(50_000) < sigmoid(truth)).astype(np.int8)

    calibrated = fit(truth + np.log(4.0), labels)

    assert calibrated.slope == pytest.approx(1.0, abs=0.05)
    assert calibrated.intercept == pytest.approx(-np.log(4.0), abs=0.05)


def test_a_model_that_ranks_backwards_becomes_a_constant_at_the_base_rate(
    rng: np.random.Generator,
) -> None:
    margins = rng.normal(size=2000)
    labels = (rng.random(2000) < sigmoid(-2 * margins - 1)).astype(np.int8)
    probability = fit(margins, labels).probability(margins)

    assert probability.max() == probability.min()
    assert labels.mean() == pytest.approx(probability[0], abs=1e-3)


def test_a_perfect_separation_stays_finite(rng: np.random.Generator) -> None:
    margins = np.concatenate([rng.uniform(-9, -8, 500), rng.uniform(8, 9, 500)])
    found = fit(margins, np.repeat([0, 1], 500).astype(np.int8))

    assert np.isfinite([found.slope, found.intercept]).all()
    assert found.probability(np.array([-9.0, 9.0])) == pytest.approx([0.002, 0.998], abs=2e-3)


def test_equal_margins_give_the_base_rate() -> None:
    labels = np.repeat([0, 1], [90, 10]).astype(np.int8)

    assert fit(np.full(100, 2.0), labels).probability(np.array([2.0])) == pytest.approx(
        [11 / 102], abs=2e-3
    )


def test_extreme_margins_do_not_overflow() -> None:
    assert [0.0, 0.5, 1.0] == Sigmoid().probability(np.array([-1e4, 0.0, 1e4])).tolist()
