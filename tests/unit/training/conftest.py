"""Rows, specs and hand-made ONNX models: nothing here is trained."""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform import spec as specs
from mlplatform.contracts import Candidate, Role, TrainingSet, UseCase, Window
from pipelines.models import logistic_regression
from pipelines.steps.calibration import Sigmoid
from pipelines.steps.onnx_export import graph

START = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def flight_delay(root: Path) -> UseCase:
    return specs.load(root / "usecases" / "flight_delay" / "usecase.yaml")


@pytest.fixture(scope="session")
def vary(flight_delay: UseCase) -> Callable[..., UseCase]:
    """The use case with some of its top-level parts replaced or updated."""

    def build(**changes: Any) -> UseCase:
        content = flight_delay.model_dump()
        for name, change in changes.items():
            merge = isinstance(change, dict)
            content[name] = {**content[name], **change} if merge else change
        return UseCase.model_validate(content)

    return build


@pytest.fixture
def frame() -> Callable[..., pl.DataFrame]:
    """Rows spread evenly over days, with a label and the given columns."""

    def build(labels: Sequence[int], days: float, **columns: Any) -> pl.DataFrame:
        count = len(labels)
        times = [START + timedelta(days=days * row / count) for row in range(count)]
        return pl.DataFrame(
            {
                "event_timestamp": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                "late": pl.Series(labels, dtype=pl.Int8),
                **columns,
            }
        )

    return build


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[pl.DataFrame, Sequence[str]], TrainingSet]:
    """Rows as a training set on disk."""

    def build(rows: pl.DataFrame, features: Sequence[str]) -> TrainingSet:
        path = tmp_path / "training_set.parquet"
        rows.write_parquet(path)
        return TrainingSet(
            path=path,
            rows=rows.height,
            window=Window(start=START, end=START + timedelta(days=365)),
            feature_service="flight_delay_v1",
            features=tuple(features),
            digest="0" * 64,
            data_age_hours=1.0,
            positive_rate=0.5,
            immature_rows=0,
        )

    return build


@pytest.fixture
def linear(tmp_path: Path) -> Callable[..., Candidate]:
    """A model that is a weighted sum of its features, exported to ONNX."""

    def build(
        name: str, role: Role, weights: dict[str, float], validation_score: float = 0.5
    ) -> Candidate:
        width = len(weights)
        numbers = {
            "median": [0.0] * width,
            "mean": [0.0] * width,
            "scale": [1.0] * width,
            "weight": list(weights.values()),
            "missing": [0.0] * width,
            "bias": 0.0,
        }
        nodes = logistic_regression.nodes(json.dumps(numbers).encode())
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(graph(nodes, width, Sigmoid()))
        return Candidate(
            name=name,
            role=role,
            path=path,
            digest=hashlib.sha256(path.read_bytes()).hexdigest(),
            features=tuple(weights),
            params={},
            trials=1,
            best_iteration=0,
            training_loss=0.5,
            validation_loss=0.5,
            validation_score=validation_score,
            train_rows=100,
            fit_seconds=0.0,
            max_export_difference=0.0,
        )

    return build


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20130101)
