"""Model contracts: candidates, what evaluation measured, what the gates said, what is signed."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime, Window

Metric = Literal["pr_auc", "roc_auc", "log_loss", "calibration_error"]
"""Metrics of binary classification: average precision, area under the ROC curve, mean negative
log-likelihood in nats, expected calibration error over ten equal-count bins."""

HIGHER_IS_BETTER: dict[Metric, bool] = {
    "pr_auc": True,
    "roc_auc": True,
    "log_loss": False,
    "calibration_error": False,
}

Role = Literal["baseline", "candidate", "champion"]


class Interval(Contract):
    """A point estimate with its bootstrap percentile interval."""

    estimate: float
    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)


class Candidate(Contract):
    """One trained, calibrated model, exported to ONNX."""

    name: str
    role: Role
    path: Path = Field(
        description="The ONNX file, calibration inside: features in, probability out."
    )
    digest: str = Field(
        description="SHA-256 of the ONNX file; equal data and seed give equal bytes."
    )
    features: tuple[str, ...]
    params: dict[str, float | int | str] = Field(description="The chosen hyperparameters.")
    trials: int = Field(ge=1, description="Configurations tried.")
    best_iteration: int = Field(
        ge=0, description="Boosting rounds kept by early stopping; 0: none."
    )
    training_loss: float = Field(description="Log loss on the training rows, calibrated.")
    validation_loss: float = Field(description="Log loss on the validation rows, calibrated.")
    validation_score: float = Field(
        description="North-star metric on the validation rows: models are chosen by it, so that "
        "the test window stays untouched."
    )
    train_rows: int = Field(gt=0)
    fit_seconds: float = Field(ge=0)
    max_export_difference: float = Field(
        ge=0, description="Largest |ONNX - native| probability on validation and probe rows."
    )


class Champion(Contract):
    """The model that is served now, as an evaluation needs it: it may have other features."""

    name: str
    path: Path = Field(description="Its ONNX file.")
    features: tuple[str, ...] = Field(description="Its inputs, in its own order.")


class Comparison(Contract):
    """A paired comparison on the same rows; positive `difference` means the candidate is better."""

    against: str = Field(description="Name of the other model.")
    role: Role = Field(description="Role of the other model.")
    metric: Metric
    difference: Interval


class SliceMetric(Contract):
    """One metric on one slice of the test window."""

    column: str
    value: str
    rows: int = Field(gt=0)
    metric: Metric
    estimate: Interval
    comparisons: tuple[Comparison, ...] = ()


class Ablation(Contract):
    """The cost of losing one feature group: its columns set to missing, model unchanged."""

    group: str
    features: tuple[str, ...]
    metric: Metric
    difference: Interval = Field(description="Metric of the full model minus without the group.")


class CurvePoint(Contract):
    """A point of a curve; its meaning is the curve's."""

    x: float
    y: float
    rows: int = Field(default=0, ge=0)


class Evaluation(Contract):
    """What one model did on the untouched test window."""

    candidate: str
    role: Role
    window: Window
    rows: int = Field(gt=0)
    positive_rate: float = Field(ge=0, le=1)
    metrics: dict[Metric, Interval]
    comparisons: tuple[Comparison, ...] = ()
    slices: tuple[SliceMetric, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    importance: dict[str, float] = Field(
        default={}, description="Loss of the north-star metric when the feature is permuted."
    )
    calibration: tuple[CurvePoint, ...] = Field(
        default=(), description="Mean predicted (x) against observed rate (y), by equal-count bin."
    )
    precision_recall: tuple[CurvePoint, ...] = Field(
        default=(), description="Recall x, precision y."
    )


class GateResult(Contract):
    """One gate's answer with the evidence that it rests on."""

    gate: str
    passed: bool
    reason: str = Field(description="In words, with the numbers.")
    metric: Metric
    observed: float
    required: float


class GateReport(Contract):
    """All gates on the best candidate; `passed` only when each one holds."""

    candidate: str
    results: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(result.passed for result in self.results)


class Manifest(Contract):
    """What a signed model directory says that it is; the signature covers it.

    A signature alone proves only that the files were signed once. The manifest ties them to one
    version, so that an old signed model cannot be replayed under a new version's name.
    """

    name: str = Field(min_length=1)
    version: int = Field(ge=1, description="Assigned by the registry before the signing.")
    run_id: str = Field(min_length=1)
    model_digest: str = Field(description="SHA-256 of the ONNX file.")
    data_digest: str = Field(description="SHA-256 of the training set's content.")
    git_commit: str
    feature_service: str
    features: tuple[str, ...] = Field(min_length=1, description="Model inputs, in order.")
    created_at: UtcDatetime


class ModelRef(Contract):
    """A registered, signed model version."""

    name: str
    version: int = Field(ge=1)
    digest: str = Field(description="SHA-256 of the ONNX file.")
    uri: str = Field(description="Where the registry keeps the signed directory.")
    signature: str = Field(description="SHA-256 of the signature file.")
    run_id: str
    created: bool = Field(description="False: this digest was registered before.")
    registered_at: UtcDatetime
