"""What a version's quality probably is, before any label: from its own calibrated scores.

If a row with score p is positive with probability p, then the expected number of true and false
positives at every threshold follows from the scores alone, and so do the expected metrics:
confidence-based performance estimation, Białek et al. (2024), "Estimating model performance under
covariate shift without labels", arXiv:2401.08348 (NannyML's CBPE); Garg et al. (2022), "Leveraging
unlabeled data to predict out-of-distribution performance", arXiv:2201.04234, show when any such
estimate must fail. Each row counts as a positive with weight p and as a negative with 1 - p.

It stands and falls with the calibration: it sees that inputs have moved to where the model is less
sure, and is blind to a changed relation of inputs and label. So it is a hint and no measurement:
its interval is that of the days drawn, not of this assumption, and `hindsight` keeps it beside
what came true. Calibration itself cannot be estimated this way: its expected error is zero.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from pydantic import ValidationError

from mlplatform.contracts import Evaluation, Metric, UseCase, Window
from mlplatform.contracts.performance import (
    Estimate,
    Hindsight,
    Measurement,
    MetricLoss,
    Performance,
    TrackRecord,
)
from mlplatform.errors import DataError, shorten
from monitoring.cohort import answers, sentence
from monitoring.kept import put
from monitoring.sample import Sample, figures, judge

METRICS: Final[tuple[Metric, ...]] = ("pr_auc", "roc_auc", "log_loss")
"""What can be estimated."""

_STAMP: Final = "%Y%m%dT%H%M%SZ"


def estimate(
    spec: UseCase,
    rows: pl.DataFrame,
    *,
    version: int,
    registered: Evaluation | None,
    window: Window,
    as_of: datetime,
    seed: int = 0,
) -> Estimate:
    """Estimate the metrics of one version on the requests of a window.

    Args:
        spec: Names the guarded metrics.
        rows: `monitoring.cohort.COLUMNS` of the prediction log, of any versions and times.
        version: Whose rows count, as champion, challenger or shadow alike.
        registered: Its evaluation when it was registered; None: nothing to compare with.
        window: Of event time.
        as_of: The time of the look.
        seed: Of the resamples.
    """
    cohort, scored = answers(rows, version, window, as_of)
    metrics: tuple[Measurement, ...] = ()
    losses: tuple[MetricLoss, ...] = ()
    if cohort.scored:
        sample = expected(scored["score"], scored["event_time"])
        cohort = cohort.model_copy(update={"positive_rate": sample.positive_rate})
        metrics, found = figures(spec, registered, sample, METRICS, seed)
        losses = tuple(item for item in found if item.metric in METRICS)
    verdict, reason = judge(spec, losses, sentence(cohort, estimated=True))
    return Estimate(
        usecase=spec.name,
        version=version,
        cohort=cohort,
        metrics=metrics,
        losses=losses,
        verdict=verdict,
        reason=f"estimated: {reason}",
    )


def expected(scores: pl.Series, times: pl.Series) -> Sample:
    """Return each row twice: positive with its score as the weight, negative with the rest."""
    probability = scores.to_numpy()
    labels = np.repeat(np.array([1, 0], dtype=np.int8), len(probability))
    weights = np.concatenate([probability, 1 - probability])
    return Sample(labels, np.tile(probability, 2), pl.concat([times, times]), weights)


def hindsight(said: Estimate, realised: Performance) -> Hindsight:
    """Return the estimate beside what came true.

    Raises:
        DataError: They are of different versions or windows.
    """
    ours, theirs = (
        (found.usecase, found.version, found.cohort.window) for found in (said, realised)
    )
    if ours != theirs:
        raise DataError(
            f"an estimate of {ours[0]} version {ours[1]} from {ours[2].start} cannot be judged by "
            f"what version {theirs[1]} of {theirs[0]} did from {theirs[2].start}: measure the "
            "same version and window"
        )
    true = {item.metric: item.value for item in realised.metrics}
    errors = {
        item.metric: item.value - true[item.metric] for item in said.metrics if item.metric in true
    }
    return Hindsight(estimate=said, realised=realised, errors=errors)


def track_record(past: Iterable[Hindsight]) -> tuple[TrackRecord, ...]:
    """Return how well the estimates did, by metric; nothing where none has come true."""
    found: dict[Metric, list[float]] = {}
    for item in past:
        for metric, error in item.errors.items():
            found.setdefault(metric, []).append(error)
    return tuple(
        TrackRecord(
            metric=metric,
            windows=len(errors),
            bias=float(np.mean(errors)),
            mean_absolute_error=float(np.mean(np.abs(errors))),
            largest=float(np.max(np.abs(errors))),
        )
        for metric, errors in found.items()
    )


def keep(root: Path, found: Hindsight) -> Path:
    """Write an estimate, or the estimate with what came true in its place, and return the file.

    It lies at `<root>/<usecase>/v<version>/<start>-<end>.json`: one for each window.
    """
    said = found.estimate
    path = _file(root, said.usecase, said.version, said.cohort.window)
    put(path, found.model_dump_json(indent=1))
    return path


def kept(root: Path, usecase: str, version: int) -> tuple[Hindsight, ...]:
    """Return what `keep` wrote, oldest first; nothing before the first.

    Raises:
        DataError: A file cannot be read.
    """
    return tuple(map(_load, sorted((root / usecase / f"v{version}").glob("*.json"))))


def kept_of(root: Path, usecase: str, version: int, window: Window) -> Hindsight | None:
    """Return what `keep` wrote of one window; None: nothing. Raises as `kept`."""
    path = _file(root, usecase, version, window)
    return _load(path) if path.exists() else None


def _load(path: Path) -> Hindsight:
    try:
        return Hindsight.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"the estimate {path} cannot be read: {shorten(error)}; move the file away, and judge "
            "its window again"
        ) from error


def _file(root: Path, usecase: str, version: int, window: Window) -> Path:
    name = f"{window.start.strftime(_STAMP)}-{window.end.strftime(_STAMP)}.json"
    return root / usecase / f"v{version}" / name
