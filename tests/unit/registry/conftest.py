"""A real MLflow server for the session and small real models to register."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import SecretStr
from ruamel.yaml import YAML

from local.mlflow_server import Server, mlflow_server
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import (
    Candidate,
    Evaluation,
    GateReport,
    GateResult,
    Interval,
    ModelRef,
    TrainingSet,
    UseCase,
    Window,
)
from mlplatform.settings import RegistrySettings
from pipelines.steps.register import register

FEATURES = ("distance", "hour", "wind")
NOW = datetime(2013, 12, 31, 12, tzinfo=UTC)
DAYS, TESTED_DAYS, DAILY = 60, 25, 40
ROWS = DAYS * DAILY


@dataclass(frozen=True)
class Work:
    """Everything that one registration needs; `run` registers it."""

    spec: UseCase
    training_set: TrainingSet
    candidate: Candidate
    evaluation: Evaluation
    gate: GateReport
    keys: signing.KeyPair
    workdir: Path

    def run(self, registry: Registry) -> ModelRef:
        return register(
            self.spec,
            self.training_set,
            self.candidate,
            self.evaluation,
            self.gate,
            registry,
            self.keys,
            "0123abc",
            self.workdir,
            NOW,
            request_inputs=("distance", "scheduled_departure"),
            threshold=0.4,
        )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture(scope="session")
def registry(server: Server) -> Registry:
    return Registry(RegistrySettings(tracking_uri=server.url, timeout_seconds=10))


@pytest.fixture(scope="session")
def registry_of() -> Callable[[str], Registry]:
    """A registry at another address, with short patience."""
    return lambda url: Registry(
        RegistrySettings(tracking_uri=url, password=SecretStr("secret"), timeout_seconds=1)
    )


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> signing.KeyPair:
    folder = tmp_path_factory.mktemp("keys")
    pair = signing.KeyPair(folder / "key.pem", folder / "key.pub")
    signing.create_key_pair(pair.private, pair.public)
    return pair


def _spec(name: str) -> UseCase:
    path = Path(__file__).parents[3] / "usecases" / "flight_delay" / "usecase.yaml"
    values: dict[str, Any] = YAML(typ="safe").load(path)
    values["name"] = name
    return UseCase.model_validate(values)


def _onnx(path: Path, weight: float) -> str:
    """Write a logistic model of the three features; return its digest."""
    weights = np.full((len(FEATURES), 1), weight, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["score"]),
            helper.make_node("Sigmoid", ["score"], ["probability"]),
        ],
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(FEATURES)])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return signing.file_digest(path)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of a training set, every day alike."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "rows.parquet"
    values = {name: rng.normal(size=ROWS).astype(np.float32) for name in FEATURES}
    start, step = NOW - timedelta(days=DAYS), timedelta(days=DAYS) / ROWS
    times = [start + number * step for number in range(ROWS)]
    pl.DataFrame(values).with_columns(
        pl.Series("event_timestamp", times, dtype=pl.Datetime("us", "UTC")),
        pl.Series("late", rng.integers(0, 2, ROWS, dtype=np.int8)),
    ).write_parquet(path)
    return path


@pytest.fixture
def make_work(tmp_path: Path, keys: signing.KeyPair, rows: Path) -> Callable[..., Work]:
    """Return a maker of registrations: by model name, weight (other bytes), and data digest."""

    def make(name: str, *, weight: float = 0.5, data: str = "d" * 64) -> Work:
        path = tmp_path / f"{name}-{weight}.onnx"
        digest = _onnx(path, weight)
        window = Window(start=NOW - timedelta(days=DAYS), end=NOW)
        interval = Interval(estimate=0.5, low=0.45, high=0.55)
        return Work(
            spec=_spec(name),
            training_set=TrainingSet(
                path=rows,
                rows=ROWS,
                window=window,
                feature_service="flight_delay_v1",
                features=FEATURES,
                digest=data,
                data_age_hours=12.5,
                positive_rate=0.25,
                immature_rows=3,
            ),
            candidate=Candidate(
                name="xgboost",
                role="candidate",
                path=path,
                digest=digest,
                features=FEATURES,
                params={"max_depth": 6, "learning_rate": 0.1},
                trials=3,
                best_iteration=40,
                training_loss=0.41,
                validation_loss=0.44,
                validation_score=0.52,
                train_rows=800,
                fit_seconds=1.5,
                max_export_difference=1e-7,
            ),
            evaluation=Evaluation(
                candidate="xgboost",
                role="candidate",
                window=Window(start=NOW - timedelta(days=TESTED_DAYS), end=NOW),
                rows=ROWS * TESTED_DAYS // DAYS,
                positive_rate=0.25,
                metrics={"pr_auc": interval, "log_loss": interval},
            ),
            gate=GateReport(candidate="xgboost", results=(_passing(),)),
            keys=keys,
            workdir=tmp_path / "work",
        )

    return make


def _passing() -> GateResult:
    return GateResult(
        gate="beats_baseline",
        passed=True,
        reason="0.05 better, at least 0.01 asked",
        metric="pr_auc",
        observed=0.05,
        required=0.01,
    )
