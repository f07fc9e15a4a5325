"""Measure every model on the untouched test window, through ONNX, as it will be served.

The best candidate was chosen by its validation score (`selection.winner`); the test window
decides nothing before the gates read it, or its intervals would flatter the winner. Slices,
ablation and importance are measured for the winner alone.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from feature_repo.metrics import METRICS, by_day, calibration_curve, precision_recall_curve
from mlplatform.contracts import Candidate, Champion, Evaluation, Role, TrainingSet, UseCase
from mlplatform.errors import ModelError
from pipelines.steps import explain, slicing
from pipelines.steps.onnx_scoring import Scorer
from pipelines.steps.scored import HeldOut, Scored, certain, compare, score
from pipelines.steps.selection import winner
from pipelines.steps.split import labels, matrix, read, split

_log = logging.getLogger("mlplatform.evaluate")

_THREADS = 2
"""Threads of onnxruntime; the smallest machine that the platform is made for has two cores."""


def evaluate(
    spec: UseCase,
    training_set: TrainingSet,
    candidates: Sequence[Candidate],
    groups: Mapping[str, tuple[str, ...]],
    champion: Champion | None,
    seed: int,
) -> tuple[Evaluation, ...]:
    """Evaluate the candidates, and the champion when there is one, on the same test rows.

    Candidates are compared with the baseline and the champion, paired on the same resamples.

    Args:
        spec: The use case.
        training_set: What the candidates were trained on; its newest days are the test.
        candidates: One of them the baseline.
        groups: Feature groups by name, for the ablation.
        champion: The model that is served now; it reads its own feature list.
        seed: Of resamples and shuffles: equal seeds give equal evaluations.

    Returns:
        One evaluation for each model: the best candidate first, the others as given, the
        champion last.

    Raises:
        DataError: The test window is too short, has one class, or lacks a column.
        ModelError: A file is no model of this platform, or takes other features.
    """
    part = split(spec.split, read(training_set), spec.label.name).test
    rows = HeldOut(
        part.window,
        part.frame,
        labels(part.frame, spec.label.name),
        by_day(part.frame["event_timestamp"], seed),
    )
    best = winner(candidates, spec.goal.north_star)
    ordered = [best, *(item for item in candidates if item is not best)]
    models = [_score(item.name, item.role, item, rows) for item in ordered]
    if champion is not None:
        models.append(_score(champion.name, "champion", champion, rows))
    others = [model for model in models if model.role != "candidate"]
    first, *rest = (_evaluation(model, others, rows) for model in models)
    detail = _detail(spec, models[0], others, rows, groups, seed)
    return Evaluation.model_validate({**dict(first), **detail}), *rest


def _score(name: str, role: Role, model: Candidate | Champion, rows: HeldOut) -> Scored:
    started = time.perf_counter()
    scorer = Scorer(model.path, _THREADS)
    if scorer.width != len(model.features):
        raise ModelError(
            f"{role} {name} takes {scorer.width} features but lists {len(model.features)}: the "
            f"list does not belong to {model.path}"
        )
    inputs = matrix(rows.frame, model.features)
    scored = score(name, role, scorer, model.features, inputs, rows)
    _log.info(
        "%s %s: %s, %.1f s",
        role,
        name,
        ", ".join(f"{metric} {scored.measured[metric].estimate:.4f}" for metric in METRICS),
        time.perf_counter() - started,
    )
    return scored


def _evaluation(model: Scored, others: Sequence[Scored], rows: HeldOut) -> Evaluation:
    against = [(other, other.measured) for other in others] if model.role == "candidate" else []
    return Evaluation(
        candidate=model.name,
        role=model.role,
        window=rows.window,
        rows=len(rows.labels),
        positive_rate=float(rows.labels.mean()),
        metrics={
            metric: certain(measured.interval(), f"{metric} of {model.name}")
            for metric, measured in model.measured.items()
        },
        comparisons=compare(model.measured, against, METRICS),
        calibration=calibration_curve(rows.labels, model.scores),
        precision_recall=precision_recall_curve(rows.labels, model.scores),
    )


def _detail(
    spec: UseCase,
    model: Scored,
    others: Sequence[Scored],
    rows: HeldOut,
    groups: Mapping[str, tuple[str, ...]],
    seed: int,
) -> dict[str, object]:
    """Measure what only the winner is measured for."""
    started = time.perf_counter()
    metric = spec.goal.north_star
    detail: dict[str, object] = {
        "slices": slicing.slices(spec, rows, model, others),
        "ablations": explain.ablations(model, groups, rows, metric),
        "importance": explain.importance(model, rows, metric, seed),
    }
    _log.info(
        "best by validation is %s: slices, %d groups, %d features, %.1f s",
        model.name,
        len(groups),
        len(model.features),
        time.perf_counter() - started,
    )
    return detail
