"""How trained models behave: what they react to, what leaves them cold, what the gates refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform.contracts import Evaluation, GateReport, TrainingSet, UseCase
from pipelines.models.kind import Features, Floats
from pipelines.steps.evaluate import evaluate
from pipelines.steps.gate import gate
from pipelines.steps.onnx_scoring import Scorer
from pipelines.steps.split import matrix, split

GROUPS = {"push": ("push",), "pair": ("left", "right"), "gap": ("gap",), "noise": ("noise",)}
KINDS = ["logistic_regression", "xgboost", "lightgbm"]


@pytest.fixture(scope="module")
def rows(spec: UseCase, world: pl.DataFrame, trained: Any) -> Features:
    test = split(spec.split, world, spec.label.name).test
    return matrix(test.frame, trained.training_set.features)


@pytest.fixture(scope="module", params=KINDS)
def score(request: pytest.FixtureRequest, trained: Any) -> Callable[[Features], Floats]:
    return Scorer(trained.of(request.param).path, 1).probability


def _with(rows: Features, column: int, value: Any) -> Features:
    changed = rows.copy()
    changed[:, column] = value
    return changed


def _judge(
    spec: UseCase, training_set: TrainingSet, trained: Any
) -> tuple[tuple[Evaluation, ...], GateReport]:
    evaluations = evaluate(spec, training_set, trained.candidates, GROUPS, None, seed=7)
    return evaluations, gate(spec, evaluations, trained.candidates)


def test_more_push_raises_the_probability(
    score: Callable[[Features], Floats], rows: Features
) -> None:
    low, middle, high = (score(_with(rows, 0, value)).mean() for value in (-1.5, 0.0, 1.5))

    assert low + 0.1 < middle < high - 0.1


def test_noise_leaves_the_probability_nearly_as_it_is(
    score: Callable[[Features], Floats], rows: Features
) -> None:
    noise = np.abs(score(_with(rows, 4, 1.0)) - score(_with(rows, 4, -1.0))).mean()
    push = np.abs(score(_with(rows, 0, 1.0)) - score(_with(rows, 0, -1.0))).mean()

    assert noise < push / 3


def test_a_missing_value_means_what_it_meant_in_training(
    score: Callable[[Features], Floats], rows: Features
) -> None:
    assert score(_with(rows, 3, np.nan)).mean() > score(_with(rows, 3, 0.0)).mean() + 0.1


def test_the_order_of_rows_does_not_change_their_scores(
    score: Callable[[Features], Floats], rows: Features
) -> None:
    order = np.random.default_rng(1).permutation(len(rows))

    assert np.allclose(score(rows)[order], score(rows[order]), atol=1e-6)


def test_rows_with_every_value_missing_still_get_a_probability(
    score: Callable[[Features], Floats],
) -> None:
    probability = score(np.full((1, 5), np.nan, dtype=np.float32))

    assert 0 < probability[0] < 1


def test_the_better_model_passes_all_gates(spec: UseCase, trained: Any) -> None:
    (best, *_), report = _judge(spec, trained.training_set, trained)
    lost = {item.group: item.difference for item in best.ablations}

    assert report.passed, [item.reason for item in report.results if not item.passed]
    assert report.candidate in {"xgboost", "lightgbm"}
    assert lost["pair"].low > 0
    assert lost["push"].low > 0
    assert abs(lost["noise"].estimate) < lost["gap"].estimate


def test_models_of_pure_noise_are_rejected(
    fit_here: Callable[..., Any], spec: UseCase, world: pl.DataFrame
) -> None:
    shuffled = world.with_columns(pl.col("late").shuffle(seed=3))
    trained = fit_here(spec, shuffled)
    (best, *_), report = _judge(spec, trained.training_set, trained)
    beats = next(item for item in report.results if item.gate == "beats_baseline")

    assert not report.passed
    assert not beats.passed
    # Nothing leaks the label into what is measured: noise ranks like a coin.
    assert best.metrics["roc_auc"].low < 0.5 < best.metrics["roc_auc"].high


def test_a_slice_where_the_world_turned_is_rejected_by_name(
    spec: UseCase, trained: Any, world: pl.DataFrame, store: Callable[..., TrainingSet]
) -> None:
    test = split(spec.split, world, spec.label.name).test
    turned = (pl.col("event_timestamp") >= test.window.start) & (pl.col("carrier") == "BB")
    # The product of left and right changes its sign there: only models that use it suffer.
    changed = world.with_columns(
        pl.when(turned).then(-pl.col("left")).otherwise(pl.col("left")).alias("left")
    )
    _, report = _judge(spec, store(changed), trained)
    slices = next(item for item in report.results if item.gate == "no_slice_regresses")

    assert not slices.passed
    assert "carrier=BB" in slices.reason
    assert "carrier=AA" not in slices.reason
