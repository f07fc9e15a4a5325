"""What the registry's run says of a training: tags, parameters and metrics."""

from mlplatform.contracts import Candidate, Evaluation, GateReport, TrainingSet, UseCase


def tags(
    spec: UseCase, training_set: TrainingSet, gate: GateReport, git_commit: str
) -> dict[str, str]:
    """Return where a version comes from, and what its gates said."""
    return {
        "mlflow.source.git.commit": git_commit,
        "git_commit": git_commit,
        "data_digest": training_set.digest,
        "feature_service": spec.feature_service,
        "window": f"{training_set.window.start:%Y-%m-%d}/{training_set.window.end:%Y-%m-%d}",
        **{f"gate.{result.gate}": result.reason for result in gate.results},
    }


def params(spec: UseCase, candidate: Candidate) -> dict[str, object]:
    """Return how the model was made."""
    return {
        **{f"model.{name}": value for name, value in candidate.params.items()},
        "candidate": candidate.name,
        "seed": spec.training.seed,
        "imbalance": spec.training.imbalance,
        "calibration": spec.training.calibration,
        "trials": candidate.trials,
        "best_iteration": candidate.best_iteration,
    }


def metrics(
    training_set: TrainingSet, candidate: Candidate, evaluation: Evaluation
) -> dict[str, float]:
    """Return what was measured: on the test window, of the data, and while it was made."""
    measured: dict[str, float] = {}
    for metric, interval in evaluation.metrics.items():
        measured[f"test_{metric}"] = interval.estimate
        measured[f"test_{metric}_low"] = interval.low
        measured[f"test_{metric}_high"] = interval.high
    return measured | {
        "training_loss": candidate.training_loss,
        "validation_loss": candidate.validation_loss,
        "dataset_rows": training_set.rows,
        "train_rows": candidate.train_rows,
        "test_rows": evaluation.rows,
        "feature_count": len(candidate.features),
        "data_age_hours": training_set.data_age_hours,
        "positive_rate": training_set.positive_rate,
        "fit_seconds": candidate.fit_seconds,
        "max_export_difference": candidate.max_export_difference,
    }
