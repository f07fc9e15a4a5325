"""A real Redis, and a small world of views with every type, a composite key and two lifetimes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

from feature_repo import layout
from feature_repo.materialize import writer_of
from feature_repo.online import OnlineReader, OnlineRows
from feature_repo.store import PROJECT, open_store
from local.redis_server import redis_server
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.contracts import OnlineLayout

START = datetime(2026, 3, 1, tzinfo=UTC)
TIMES = {
    "event_timestamp": pl.Datetime("us", "UTC"),
    "created_timestamp": pl.Datetime("us", "UTC"),
}
RIDE = {
    "rider": pl.Int64(),
    "f32": pl.Float32(),
    "f64": pl.Float64(),
    "i32": pl.Int32(),
    "i64": pl.Int64(),
    "flag": pl.Boolean(),
    "moment": pl.Datetime("us", "UTC"),
    **TIMES,
}
RATING = {"rider": pl.Int64(), "stars": pl.Float32(), "votes": pl.Int32(), **TIMES}
TRAFFIC = {"city": pl.String(), "zone": pl.String(), "speed": pl.Float32(), **TIMES}
SCHEMAS: dict[str, dict[str, Any]] = {"ride": RIDE, "rating": RATING, "traffic": TRAFFIC}
FEATURES = ("f32", "f64", "i32", "i64", "flag", "stars", "votes", "speed")
INPUTS = ("moment", "i32", "f32")

_FEAST = {
    pl.Float32(): Float32,
    pl.Float64(): Float64,
    pl.Int32(): Int32,
    pl.Int64(): Int64,
    pl.Boolean(): Bool,
    pl.Datetime("us", "UTC"): UnixTimestamp,
    pl.String(): String,
}


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def microseconds(minutes: float) -> int:
    return int(at(minutes).timestamp() * 1_000_000)


def view(name: str, entities: list[Entity], ttl: timedelta | None) -> FeatureView:
    fields = {key: kind for key, kind in SCHEMAS[name].items() if key not in TIMES}
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[Field(name=key, dtype=_FEAST[kind]) for key, kind in fields.items()],
        source=FileSource(
            name=f"{name}_source",
            path=f"world/{name}",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )


def declare() -> dict[str, Any]:
    rider = Entity(name="rider", value_type=ValueType.INT64)
    city = Entity(name="city", value_type=ValueType.STRING)
    zone = Entity(name="zone", value_type=ValueType.STRING)
    views = {
        "ride": view("ride", [rider], timedelta(hours=1)),
        "rating": view("rating", [rider], None),
        "traffic": view("traffic", [city, zone], timedelta(minutes=10)),
    }
    service = FeatureService(name="trips_v1", features=list(views.values()))
    return {"rider": rider, "city": city, "zone": zone, **views, "service": service}


def frame(name: str, *rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of a view; what is left out is null, a row is known at its event unless it says so."""
    filled = [
        {"created_timestamp": row["event_timestamp"], **row} if "created_timestamp" not in row
        else row
        for row in rows
    ]  # fmt: skip
    return pl.DataFrame(filled, schema=SCHEMAS[name])


@dataclass(frozen=True)
class World:
    """A store with the views applied, and a reader of their service."""

    store: Any
    layout: OnlineLayout
    reader: OnlineReader
    redis: RedisSync

    def write(self, name: str, *rows: dict[str, Any]) -> int:
        return self.write_frame(name, frame(name, *rows))

    def write_frame(self, name: str, rows: pl.DataFrame) -> int:
        changed: int = writer_of(self.store).write(self.store.get_feature_view(name), rows)
        return changed

    def read(self, keys: dict[str, list[Any]], minutes: float = 0) -> OnlineRows:
        rows = len(next(iter(keys.values())))
        return self.read_at(keys, np.full(rows, microseconds(minutes)))

    def read_at(self, keys: dict[str, list[Any]], at_us: npt.NDArray[np.int64]) -> OnlineRows:
        full = {name: keys.get(name, [None] * len(at_us)) for name in ("rider", "city", "zone")}
        payload, replies = self.reader.command(full, len(at_us))
        return self.reader.decode(
            self.redis.exchange(payload, replies), full, len(at_us), at_us
        )  # fmt: skip

    def value(self, feature: str, rider: int, minutes: float = 0) -> float:
        return float(self.read({"rider": [rider]}, minutes).matrix[0, FEATURES.index(feature)])


OpenWorld = Callable[[], World]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis"), guarded=False) as server:
        yield server.url


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisSync]:
    with connect(redis_url) as connection:
        connection.execute("FLUSHALL")
        yield connection


def make_world(root: Path, redis: RedisSync, objects: dict[str, Any] | None = None) -> World:
    store = open_store(str(root), redis.address.url)
    stamped = layout.stamp(declare() if objects is None else objects)
    store.apply(list(stamped.values()))
    views = {item.name: item for item in stamped.values() if isinstance(item, FeatureView)}
    found = layout.of_service(stamped["service"], views, PROJECT)
    return World(store, found, OnlineReader(found, FEATURES, INPUTS), redis)


@pytest.fixture
def world(tmp_path: Path, redis: RedisSync) -> World:
    return make_world(tmp_path / "data", redis)
