"""A model's scores on the test rows: what comparisons, slices and ablations are computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from feature_repo.metrics import Measured, Resamples, measure
from mlplatform.contracts import Comparison, Interval, Metric, Role, Window
from mlplatform.errors import DataError
from pipelines.models.kind import Features, Floats, Labels
from pipelines.steps.onnx_scoring import Scorer


@dataclass(frozen=True)
class HeldOut:
    """The test window, the same for all models."""

    window: Window
    frame: pl.DataFrame
    labels: Labels
    resamples: Resamples


@dataclass(frozen=True)
class Scored:
    """A model with its scores, [N], and its metrics on the test rows."""

    name: str
    role: Role
    scorer: Scorer
    features: tuple[str, ...]
    inputs: Features
    """[N, F], its own features in its own order."""
    scores: Floats
    measured: Mapping[Metric, Measured]


def score(
    name: str,
    role: Role,
    scorer: Scorer,
    features: tuple[str, ...],
    inputs: Features,
    rows: HeldOut,
) -> Scored:
    """Score a model on the test rows and measure it."""
    scores = scorer.probability(inputs)
    measured = measure(rows.labels, scores, rows.resamples)
    return Scored(name, role, scorer, features, inputs, scores, measured)


def compare(
    ours: Mapping[Metric, Measured],
    others: Sequence[tuple[Scored, Mapping[Metric, Measured]]],
    metrics: Sequence[Metric],
) -> tuple[Comparison, ...]:
    """Compare paired, on the same resamples; what has no interval is left out."""
    return tuple(
        Comparison(against=other.name, role=other.role, metric=metric, difference=difference)
        for other, theirs in others
        for metric in metrics
        if (difference := ours[metric].gain_over(theirs[metric])) is not None
    )


def certain(interval: Interval | None, what: str) -> Interval:
    """Return the interval.

    Raises:
        DataError: There is none, as too many resampled sets of days have one class only.
    """
    if interval is None:
        raise DataError(
            f"{what} on the test window has no interval: in more than a tenth of the resampled "
            "sets of days all labels are equal; set split.test_days higher"
        )
    return interval
