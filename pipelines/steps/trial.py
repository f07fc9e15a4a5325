"""One trial: fit a configuration, calibrate it, and score it on the validation rows.

A pure function of plan and rows; Ray only decides where it runs.
"""

import time
from dataclasses import dataclass

from feature_repo import metrics
from mlplatform.contracts import Metric
from mlplatform.contracts.usecase.training import Training
from mlplatform.errors import DataError
from pipelines.models.kind import Fitting, Rows
from pipelines.models.registry import KINDS
from pipelines.steps import calibration
from pipelines.steps.calibration import Sigmoid
from pipelines.steps.search import Plan


@dataclass(frozen=True)
class Trial:
    """A fitted configuration."""

    native: bytes
    rounds: int
    calibration: Sigmoid
    score: float
    """North-star metric on the validation rows, calibrated."""
    seconds: float


def run(plan: Plan, train: Rows, validation: Rows, training: Training, north_star: Metric) -> Trial:
    """Fit one configuration.

    Raises:
        SpecError: The library refuses a parameter.
        DataError: The metric is undefined on the validation rows.
    """
    started = time.perf_counter()
    kind = KINDS[plan.kind]
    fitted = kind.fit(
        train,
        validation,
        Fitting(
            params=plan.params,
            seed=training.seed,
            max_rounds=training.max_rounds,
            early_stopping_rounds=training.early_stopping_rounds,
            positive_weight=_positive_weight(train, training),
        ),
    )
    margins = kind.margin(fitted.native, validation.features)
    fit = calibration.fit(margins, validation.labels) if training.calibration == "sigmoid" else None
    sigmoid = fit or Sigmoid()
    score = metrics.estimates(validation.labels, sigmoid.probability(margins), [north_star])[
        north_star
    ]
    if not abs(score) < float("inf"):
        raise DataError(f"{north_star} of {plan.kind} on the validation rows is {score}")
    return Trial(fitted.native, fitted.rounds, sigmoid, score, time.perf_counter() - started)


def _positive_weight(train: Rows, training: Training) -> float:
    positives = int(train.labels.sum())
    if training.imbalance == "none":
        return 1.0
    return (len(train.labels) - positives) / positives
