"""The files of a model directory, as they are before it is signed.

Beside the model and how to call it lies what monitoring needs of its training: the reference with
its thresholds, and the evaluation that live performance is compared with. Only the manifest
depends on the version, so all else is made before a version is reserved.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from feature_repo.profile import reference
from feature_repo.profile.reference import Reference
from mlplatform import signing
from mlplatform.contracts import Candidate, Evaluation, Manifest, TrainingSet, UseCase
from pipelines.steps import split
from pipelines.steps.onnx_scoring import Scorer

_LOGGER: Final = logging.getLogger("mlplatform.register")


@dataclass(frozen=True)
class Contents:
    """All of a model directory but its manifest and its signature."""

    model: Path
    config: Mapping[str, object]
    reference: Reference
    evaluation: Evaluation


def gather(
    spec: UseCase,
    training_set: TrainingSet,
    candidate: Candidate,
    evaluation: Evaluation,
    *,
    request_inputs: tuple[str, ...],
    threshold: float | None,
) -> Contents:
    """Return what a version of the candidate will hold.

    Args:
        spec: The use case.
        training_set: What the candidate was trained on; its rows become the reference.
        candidate: The model.
        evaluation: Its own, on the test window: rows that it was not fitted or chosen on.
        request_inputs: Raw inputs that a live request must carry.
        threshold: Probability from which the use case acts; None: it has none.

    Raises:
        DataError: The training set cannot be read, or is not what it says.
        ModelError: The candidate's file is no model of these features.
    """
    config: dict[str, object] = {
        "feature_service": spec.feature_service,
        "features": [{"name": name, "dtype": "float32"} for name in candidate.features],
        "input": "features",
        "output": "probability",
        "label": spec.label.name,
        "request_inputs": list(request_inputs),
        "threshold": threshold,
    }
    known = _reference(spec, training_set, candidate, evaluation)
    return Contents(candidate.path, config, known, evaluation)


def write(directory: Path, contents: Contents, manifest: Manifest) -> None:
    """Write the directory anew, ready to be signed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shutil.copyfile(contents.model, directory / signing.MODEL)
    config = json.dumps(contents.config, indent=2, sort_keys=True) + "\n"
    (directory / signing.CONFIG).write_text(config, encoding="utf-8")
    signing.write_manifest(directory, manifest)
    reference.write(contents.reference, directory)
    evaluation = contents.evaluation.model_dump_json(indent=2) + "\n"
    (directory / signing.EVALUATION).write_text(evaluation, encoding="utf-8")


def _reference(
    spec: UseCase, training_set: TrainingSet, candidate: Candidate, evaluation: Evaluation
) -> Reference:
    """Return the reference, with scores of the rows that the candidate was evaluated on."""
    rows, tested = split.read(training_set), evaluation.window
    untouched = pl.col("event_timestamp").is_between(tested.start, tested.end, closed="left")
    places = rows.select(untouched.arg_true()).to_series()
    inputs = split.matrix(rows[places], candidate.features)
    scores = np.full(rows.height, np.nan)
    if len(places):
        scores[places.to_numpy()] = Scorer(candidate.path, threads=1).probability(inputs)
    known = reference.build(spec, rows, candidate.features, scores, seed=spec.training.seed)
    profile = known.profile
    _LOGGER.info(
        "reference of %s rows in %d windows, %s of them with a score",
        f"{profile.rows:,}", profile.windows, f"{profile.score_rows:,}",
    )  # fmt: skip
    if profile.calibration is None:
        _LOGGER.warning("drift of this version cannot be judged: %s", profile.uncalibrated)
    return known
