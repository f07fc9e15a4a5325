"""A small world with a known truth, and models that Ray trained on it once for all tests.

The label depends on `push` (up), on the product `left` · `right`, which a linear model cannot
see, and on whether `gap` is missing; `noise` does nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform import spec as specs
from mlplatform.contracts import Candidate, Metric, TrainingSet, UseCase, Window
from mlplatform.contracts.usecase.training import Training
from pipelines.models.kind import Rows
from pipelines.steps import trial
from pipelines.steps.ray_session import session
from pipelines.steps.search import Plan
from pipelines.steps.train import train

FEATURES = ("push", "left", "right", "gap", "noise")
START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS = 60
CPUS = 2

Stored = Callable[[pl.DataFrame], TrainingSet]


def _world(rows: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, len(FEATURES))).astype(np.float32)
    missing = rng.random(rows) < 0.2
    push, left, right = values[:, 0], values[:, 1], values[:, 2]
    margin = push + 2.0 * np.tanh(left * right) + 1.2 * missing - 1.5
    values[missing, 3] = np.nan
    labels = (rng.random(rows) < 1 / (1 + np.exp(-margin))).astype(np.int8)
    times = [START + timedelta(days=DAYS * row / rows) for row in range(rows)]
    return pl.DataFrame(
        {
            "event_timestamp": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "late": labels,
            "carrier": rng.choice(["AA", "BB"], rows),
            **{name: values[:, column] for column, name in enumerate(FEATURES)},
        }
    ).with_columns(pl.col(FEATURES).fill_nan(None))


@pytest.fixture(scope="session")
def world() -> pl.DataFrame:
    return _world(rows=4000, seed=5)


@pytest.fixture(scope="session")
def spec(root: Path) -> UseCase:
    """The use case with a short search, a few rounds and two slices."""
    content = specs.load(root / "usecases" / "flight_delay" / "usecase.yaml").model_dump()
    search: dict[str, Any] = {"learning_rate": {"loguniform": [0.1, 0.3]}}
    content["split"] = {"validation_days": 15, "test_days": 15, "gap_hours": 24}
    content["slices"] = {"columns": ["carrier"], "min_rows": 200}
    content["training"] |= {
        "max_rounds": 40,
        "candidates": [
            {"kind": "logistic_regression", "role": "baseline"},
            {"kind": "xgboost", "trials": 2, "search": search, "fixed": {"max_depth": 4}},
            {"kind": "lightgbm", "trials": 2, "search": search, "fixed": {"num_leaves": 15}},
        ],
    }
    return UseCase.model_validate(content)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Rows as a training set on disk."""

    def build(rows: pl.DataFrame) -> TrainingSet:
        path = tmp_path_factory.mktemp("rows") / "training_set.parquet"
        rows.write_parquet(path)
        return TrainingSet(
            path=path,
            rows=rows.height,
            window=Window(start=START, end=START + timedelta(days=DAYS)),
            feature_service="flight_delay_v1",
            features=FEATURES,
            digest="0" * 64,
            data_age_hours=1.0,
            positive_rate=float(rows["late"].mean()),  # type: ignore[arg-type]
            immature_rows=0,
        )

    return build


@dataclass(frozen=True)
class Trained:
    training_set: TrainingSet
    candidates: tuple[Candidate, ...]

    def of(self, kind: str) -> Candidate:
        return next(item for item in self.candidates if item.name == kind)


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """One Ray for all tests that train: starting it takes longer than training."""
    with session(CPUS):
        yield


@pytest.fixture(scope="session")
def fit(
    ray: None, store: Stored, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[UseCase, pl.DataFrame], Trained]:
    """Train on rows."""
    del ray

    def build(spec: UseCase, rows: pl.DataFrame) -> Trained:
        training_set = store(rows)
        return Trained(
            training_set, train(spec, training_set, tmp_path_factory.mktemp("models"), CPUS)
        )

    return build


@pytest.fixture
def fit_here(
    store: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[UseCase, pl.DataFrame], Trained]:
    """Train in this process, one after the other: the same trials, without Ray."""

    def one_by_one(
        plans: Sequence[Plan],
        fit: Rows,
        held_out: Rows,
        training: Training,
        metric: Metric,
        cpus: int,
        scratch_parent: Path | None,
    ) -> tuple[trial.Trial, ...]:
        del cpus, scratch_parent
        return tuple(trial.run(plan, fit, held_out, training, metric) for plan in plans)

    monkeypatch.setattr("pipelines.steps.train.run_all", one_by_one)

    def build(spec: UseCase, rows: pl.DataFrame) -> Trained:
        training_set = store(rows)
        return Trained(training_set, train(spec, training_set, tmp_path, CPUS))

    return build


@pytest.fixture(scope="session")
def trained(
    fit: Callable[[UseCase, pl.DataFrame], Trained], spec: UseCase, world: pl.DataFrame
) -> Trained:
    return fit(spec, world)
