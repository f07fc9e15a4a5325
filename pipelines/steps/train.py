"""Train all candidates of a use case and export the best configuration of each kind to ONNX.

Same data, spec and seed give the same files, byte for byte, on any number of cores: the
configurations are drawn up front, each model is fitted by one thread, and what finishes first
decides nothing. (Another CPU family may round a sum differently; equal machines agree.) It
refuses to export a model that answers differently from the native one.
"""

import hashlib
import logging
from pathlib import Path

from feature_repo import metrics
from mlplatform.contracts import Candidate, TrainingSet, UseCase
from pipelines.models.kind import Rows
from pipelines.models.registry import KINDS
from pipelines.steps.onnx_export import export
from pipelines.steps.onnx_scoring import Scorer
from pipelines.steps.search import Plan, plans
from pipelines.steps.selection import best_index
from pipelines.steps.split import Part, read, split
from pipelines.steps.trial import Trial
from pipelines.steps.tuning import run_all

_log = logging.getLogger("mlplatform.train")


def train(
    spec: UseCase,
    training_set: TrainingSet,
    out: Path,
    compute: int,
    scratch: Path | None = None,
) -> tuple[Candidate, ...]:
    """Train, choose the best configuration of each kind on validation rows, and export it.

    Writes `<kind>.onnx` and, beside it, the native form (`.json`, `.ubj`, `.txt`) to `out`.

    Args:
        spec: The use case.
        training_set: Rows and features.
        out: Folder of the models; made when absent.
        compute: CPUs to use; one trial runs on each.
        scratch: Folder for the files of trials, on a volume of all nodes; None: of this machine.

    Returns:
        One model for each kind, in the order of the spec.

    Raises:
        DataError: A part of the split is empty or has one class.
        SpecError: A parameter is the platform's own, or unknown to its library.
        ModelError: A trial failed, or an export differs from its native model.
    """
    chosen = plans(spec)
    parts = split(spec.split, read(training_set), spec.label.name)
    fit, held_out = (
        _rows(part, training_set, spec.label.name) for part in (parts.train, parts.validation)
    )
    _log.info("%d trials on %d CPUs", len(chosen), compute)
    trials = run_all(chosen, fit, held_out, spec.training, spec.goal.north_star, compute, scratch)
    out.mkdir(parents=True, exist_ok=True)
    candidates = []
    for rule in spec.training.candidates:
        pairs = [pair for pair in zip(chosen, trials, strict=True) if pair[0].kind == rule.kind]
        best = best_index([trial.score for _, trial in pairs], spec.goal.north_star)
        candidate = _exported(*pairs[best], fit, held_out, training_set.features, out, compute)
        _log.info(
            "best %s: validation %s %.4f, log loss %.4f (train %.4f), export differs by %.1e",
            candidate.name,
            spec.goal.north_star,
            candidate.validation_score,
            candidate.validation_loss,
            candidate.training_loss,
            candidate.max_export_difference,
        )
        candidates.append(candidate)
    return tuple(candidates)


def _rows(part: Part, training_set: TrainingSet, label: str) -> Rows:
    rows = part.rows(training_set.features, label)
    _log.info(
        "%s: %s rows, %s to %s UTC, %.1f %% positive",
        part.name,
        f"{len(rows.labels):,}",
        f"{part.window.start:%Y-%m-%d %H:%M}",
        f"{part.window.end:%Y-%m-%d %H:%M}",
        100 * rows.labels.mean(),
    )
    return rows


def _exported(
    plan: Plan,
    trial: Trial,
    fit: Rows,
    held_out: Rows,
    features: tuple[str, ...],
    out: Path,
    threads: int,
) -> Candidate:
    """Write the model's files and measure its loss on the rows that it has seen."""
    kind = KINDS[plan.kind]
    exported = export(kind, trial.native, trial.calibration, held_out.features)
    path = out / f"{plan.kind}.onnx"
    path.write_bytes(exported.content)
    path.with_suffix(kind.suffix).write_bytes(trial.native)
    scorer = Scorer(exported.content, threads)
    training_loss, validation_loss = (
        metrics.estimates(rows.labels, scorer.probability(rows.features), ["log_loss"])["log_loss"]
        for rows in (fit, held_out)
    )
    return Candidate(
        name=plan.kind,
        role=plan.role,
        path=path,
        digest=hashlib.sha256(exported.content).hexdigest(),
        features=features,
        params=plan.params,
        trials=plan.of,
        best_iteration=trial.rounds,
        training_loss=training_loss,
        validation_loss=validation_loss,
        validation_score=trial.score,
        train_rows=len(fit.labels),
        fit_seconds=trial.seconds,
        max_export_difference=exported.max_difference,
    )
