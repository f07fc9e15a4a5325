"""Training through Ray: reproducible, blind to the test window, clear when it refuses."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlplatform.contracts import TrainingSet, UseCase
from mlplatform.errors import SpecError
from pipelines.models.kind import Rows
from pipelines.models.registry import KINDS
from pipelines.steps import trial
from pipelines.steps.calibration import Sigmoid
from pipelines.steps.onnx_export import graph
from pipelines.steps.search import plans
from pipelines.steps.split import split

ALONE = """
import json, logging, pathlib, sys
from mlplatform.contracts import TrainingSet, UseCase
from pipelines.steps.train import train
logging.basicConfig(stream=sys.stderr)
logging.getLogger("mlplatform").setLevel(logging.INFO)
given = json.loads(sys.stdin.read())
found = train(
    UseCase.model_validate(given["spec"]),
    TrainingSet.model_validate(given["training_set"]),
    pathlib.Path(given["out"]),
    1,
)
print(json.dumps({item.name: item.digest for item in found}))
"""


def test_each_kind_gives_one_model_with_its_files(trained: Any, spec: UseCase) -> None:
    kinds = [rule.kind for rule in spec.training.candidates]

    assert kinds == [item.name for item in trained.candidates]
    assert [1, 2, 2] == [item.trials for item in trained.candidates]
    for item in trained.candidates:
        content = item.path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == item.digest
        assert item.path.with_suffix(KINDS[item.name].suffix).stat().st_size > 0
        assert item.max_export_difference <= 1e-5
        assert not list(item.path.parent.glob("*.pkl"))


def test_the_best_trial_by_the_north_star_is_kept(
    trained: Any, spec: UseCase, world: pl.DataFrame
) -> None:
    parts = split(spec.split, world, spec.label.name)
    fit, held_out = (
        part.rows(trained.training_set.features, spec.label.name)
        for part in (parts.train, parts.validation)
    )
    scores = {
        plan.params["learning_rate"]: trial.run(
            plan, fit, held_out, spec.training, spec.goal.north_star
        ).score
        for plan in plans(spec)
        if plan.kind == "xgboost"
    }
    best = trained.of("xgboost")

    assert max(scores.values()) == best.validation_score
    assert scores[best.params["learning_rate"]] == best.validation_score


def test_a_fresh_process_with_another_number_of_cpus_gives_the_same_bytes(
    trained: Any, spec: UseCase, tmp_path: Path, root: Path
) -> None:
    given = {
        "spec": spec.model_dump(mode="json"),
        "training_set": trained.training_set.model_dump(mode="json"),
        "out": str(tmp_path),
    }
    # Without the variables of the session's Ray, the process starts its own.
    hidden = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=root,
        env=environment,
        timeout=120,
        check=True,
    )

    assert {item.name: item.digest for item in trained.candidates} == json.loads(done.stdout)
    # What a person sees: one line for each trial and each best, and nothing of the libraries'.
    lines = done.stderr.strip().splitlines()
    assert [] == [line for line in lines if not line.startswith("INFO:mlplatform.train:")]
    assert 5 == sum("validation pr_auc" in line and "best" not in line for line in lines)
    assert 3 == sum("best" in line for line in lines)


def test_another_seed_gives_another_model(spec: UseCase, world: pl.DataFrame) -> None:
    features = ("push", "left", "right", "gap", "noise")
    parts = split(spec.split, world, spec.label.name)
    fit, held_out = (
        part.rows(features, spec.label.name) for part in (parts.train, parts.validation)
    )

    def digest(seed: int) -> str:
        training = spec.training.model_copy(update={"seed": seed})
        plan = plans(spec.model_copy(update={"training": training}))[-1]
        done = trial.run(plan, fit, held_out, training, spec.goal.north_star)
        content = graph(KINDS[plan.kind].nodes(done.native), len(features), done.calibration)
        return hashlib.sha256(content).hexdigest()

    assert digest(7) == digest(7)
    assert digest(7) != digest(8)


def test_labels_of_the_test_window_change_no_model(
    trained: Any, fit_here: Callable[..., Any], spec: UseCase, world: pl.DataFrame
) -> None:
    test = split(spec.split, world, spec.label.name).test
    future = pl.col("event_timestamp") >= test.window.start
    flipped = world.with_columns(
        pl.when(future).then(1 - pl.col("late")).otherwise(pl.col("late")).alias("late"),
        pl.when(future).then(pl.lit(9.0)).otherwise(pl.col("push")).alias("push"),
    )

    again = fit_here(spec, flipped)

    assert [item.digest for item in trained.candidates] == [
        item.digest for item in again.candidates
    ]


def test_what_a_trial_refuses_ends_the_training_with_its_own_message(
    fit: Callable[..., Any], spec: UseCase, world: pl.DataFrame
) -> None:
    rules = [
        rule.model_copy(update={"fixed": {"max_deph": 4}}) if rule.kind == "xgboost" else rule
        for rule in spec.training.candidates
    ]
    training = spec.training.model_copy(update={"candidates": tuple(rules)})

    with pytest.raises(SpecError, match=r"xgboost knows no such parameter.*max_deph"):
        fit(spec.model_copy(update={"training": training}), world)


@pytest.mark.parametrize("imbalance", ["none", "balanced"])
@pytest.mark.parametrize("index", [0, 1, -1], ids=["logistic_regression", "xgboost", "lightgbm"])
def test_calibrated_probabilities_average_to_the_rate_also_under_class_weights(
    spec: UseCase, world: pl.DataFrame, imbalance: str, index: int
) -> None:
    features = ("push", "left", "right", "gap", "noise")
    parts = split(spec.split, world, spec.label.name)
    fit, held_out = (
        part.rows(features, spec.label.name) for part in (parts.train, parts.validation)
    )
    training = spec.training.model_copy(update={"imbalance": imbalance})
    plan = plans(spec)[index]
    done = trial.run(plan, fit, held_out, training, spec.goal.north_star)
    mean = done.calibration.probability(
        KINDS[plan.kind].margin(done.native, held_out.features)
    ).mean()

    assert held_out.labels.mean() == pytest.approx(mean, abs=0.005)


def test_without_calibration_the_margin_is_the_answer(spec: UseCase, world: pl.DataFrame) -> None:
    rows = split(spec.split, world, spec.label.name).train.rows(("push",), spec.label.name)
    training = spec.training.model_copy(update={"calibration": "none"})

    done = trial.run(plans(spec)[0], rows, rows, training, spec.goal.north_star)

    assert Sigmoid() == done.calibration


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_a_tiny_batch_is_learnt_by_heart(spec: UseCase, world: pl.DataFrame, kind: str) -> None:
    few = split(spec.split, world, spec.label.name).train.frame.head(64)
    rows = Rows(
        few.select("push", "left", "right").to_numpy().astype("float32"), few["late"].to_numpy()
    )
    fixed = {
        "xgboost": {"max_depth": 8, "min_child_weight": 0, "learning_rate": 0.5},
        "lightgbm": {"min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0, "learning_rate": 0.5},
    }
    plan = next(plan for plan in plans(spec) if plan.kind == kind)
    memorising = type(plan)(plan.kind, plan.role, 1, 1, dict(fixed[kind]))

    done = trial.run(memorising, rows, rows, spec.training, "pr_auc")

    assert 1.0 == pytest.approx(done.score)


def test_the_training_set_is_only_read(trained: Any) -> None:
    training_set: TrainingSet = trained.training_set

    assert [training_set.path.name] == [item.name for item in training_set.path.parent.iterdir()]
