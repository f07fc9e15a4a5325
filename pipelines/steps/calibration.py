"""Sigmoid calibration: from log-odds to probabilities that mean what they say.

Undoes the shift that class weights give, and the overconfidence of boosting. Two numbers,
fitted on validation rows, become part of the exported graph.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.models.kind import Floats, Labels

_ITERATIONS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Sigmoid:
    """`probability = 1 / (1 + exp(-(slope · margin + intercept)))`."""

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, margin: Floats) -> Floats:
        """Return probabilities of log-odds, [N]."""
        return sigmoid(self.slope * margin + self.intercept)


def sigmoid(margin: Floats) -> Floats:
    """Return `1 / (1 + exp(-margin))` without overflow."""
    small = np.exp(-np.abs(margin))
    return np.where(margin >= 0, 1.0, small) / (1.0 + small)


def fit(margins: Floats, labels: Labels) -> Sigmoid:
    """Fit Platt's sigmoid by Newton's method on the regularised targets.

    The slope is kept at 0 or above: a model that ranks validation rows backwards becomes a
    constant, not a model turned upside down by 30 days of data. Sums run in numpy's own fixed
    order, so that equal data gives equal numbers.

    Args:
        margins: Log-odds of the validation rows, [N].
        labels: Their labels, [N], both classes present.

    Returns:
        Slope and intercept. Source: Lin, Lin and Weng (2007), "A note on Platt's probabilistic
        outputs for support vector machines", Machine Learning 68.
    """
    positives = float((labels == 1).sum())
    negatives = float(len(labels) - positives)
    target = np.where(labels == 1, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    prior = float(np.log((positives + 1.0) / (negatives + 1.0)))
    centre = float(margins.mean())
    spread = float(margins.std()) or 1.0
    scaled = (margins - centre) / spread  # Newton's steps are well conditioned around 0
    slope, intercept = 0.0, prior
    loss = _loss(slope * scaled + intercept, target)
    for _ in range(_ITERATIONS):
        probability = sigmoid(slope * scaled + intercept)
        error, weight = probability - target, probability * (1.0 - probability)
        gradient = np.array([(error * scaled).sum(), error.sum()])
        cross = (weight * scaled).sum()
        hessian = np.array([[(weight * scaled * scaled).sum(), cross], [cross, weight.sum()]])
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        length = 1.0
        while length > _TOLERANCE:  # halve until the loss falls: far from the optimum it may not
            trial = slope - length * step[0], intercept - length * step[1]
            new = _loss(trial[0] * scaled + trial[1], target)
            if new <= loss:
                break
            length /= 2.0
        else:
            break
        (slope, intercept), gain, loss = (float(trial[0]), float(trial[1])), loss - new, new
        if gain <= _TOLERANCE * max(1.0, abs(loss)):
            break
    if slope <= 0.0:
        return Sigmoid(slope=0.0, intercept=prior)
    return Sigmoid(slope=slope / spread, intercept=intercept - slope * centre / spread)


def _loss(margin: Floats, target: Floats) -> float:
    return float((np.logaddexp(0.0, margin) - target * margin).sum())
