"""Logged vectors against the point-in-time join: equal ones count, others are named."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from feature_repo import catalog, ingest
from feature_repo import store as stores
from local.parity import Parity, parity
from local.replayed import Hop, Replayed

END = datetime(2013, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def code() -> catalog.UseCaseCode:
    found = catalog.load("flight_delay")
    start = datetime(2013, 1, 1, tzinfo=UTC)

    def first_days(_: datetime, end: datetime) -> dict[str, pl.DataFrame]:
        return found.read(start, min(end, END))

    return replace(found, read=first_days)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("offline")


@pytest.fixture(scope="module")
def logged(code: catalog.UseCaseCode, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """A hundred requests with the vectors that the join gives, as the log would hold them."""
    folder = str(tmp_path_factory.mktemp("served"))
    ingest.land("flight_delay", folder, END)
    raw, store = ingest.read_raw("flight_delay", folder, END), stores.open_store(folder)
    stores.apply(store)
    ingest.write_features("flight_delay", store, raw, END)
    labels = code.labels(raw).filter(pl.col("event_timestamp") < datetime(2013, 1, 3, tzinfo=UTC))
    rows = stores.join_features(store, "flight_delay_v1", labels.tail(100))
    rows = rows.with_columns(
        pl.Series(name, values)
        for name, values in code.request(
            {name: rows[name].to_numpy() for name in code.request_inputs}
        ).items()
    )
    names = [name for group in code.groups.values() for name in group]
    vectors = rows.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy()
    return rows.select("request_id").with_columns(pl.Series("features", vectors.tolist()))


def changed(logged: pl.DataFrame, row: int, feature: int, value: float) -> pl.DataFrame:
    vectors: list[Any] = logged["features"].to_list()
    vectors[row][feature] = value
    return logged.with_columns(pl.Series("features", vectors))


def test_vectors_of_the_join_are_equal(
    code: catalog.UseCaseCode, logged: pl.DataFrame, root: Path
) -> None:
    assert Parity(100, 100, {}) == parity(code, logged, root, END)


@pytest.mark.parametrize("value", [np.nextafter(np.float32(7), np.float32(8)), 0.0, float("nan")])
def test_one_changed_value_is_found_and_its_feature_named(
    code: catalog.UseCaseCode, logged: pl.DataFrame, root: Path, value: float
) -> None:
    weekday = [name for group in code.groups.values() for name in group].index("departure_weekday")
    found = parity(code, changed(logged, 17, weekday, float(value)), root, END)

    assert Parity(100, 99, {"departure_weekday": 1}) == found


def replayed(**values: Any) -> Replayed:
    hop = Hop(p50=1, p99=2, budget=50)
    known = dict.fromkeys(
        ("refused", "lost", "unlogged", "doubled", "mislogged", "degraded", "fallback"), 0
    )
    moment = datetime(2013, 12, 1, tzinfo=UTC)
    good: dict[str, Any] = {
        "usecase": "flight_delay",
        "version": 1,
        "start": moment,
        "end": moment,
        "per_second": 100,
        "sent": 10,
        "answered": 10,
        "positive": 2,
        "p999_ms": 3,
        "hops": {"client": hop},
        "compared": 10,
        "equal": 10,
        "differing": {},
    }
    return Replayed.model_validate(good | known | values)


def test_a_replay_is_good_when_nothing_was_lost_and_vectors_are_equal() -> None:
    assert replayed().good


@pytest.mark.parametrize(
    "values",
    [
        {"lost": 1},
        {"refused": 1},
        {"unlogged": 1},
        {"doubled": 1},
        {"mislogged": 1},
        {"equal": 9},
        {"fallback": 10, "compared": 0, "equal": 0},
        {"compared": 0, "equal": 0},
    ],
    ids=str,
)
def test_a_replay_that_lost_or_compared_nothing_is_not_good(
    values: dict[str, Any],
) -> None:
    assert not replayed(**values).good
