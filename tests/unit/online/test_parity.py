"""The reader equals Feast's `get_online_features`; expiry is the one stated difference."""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from tests.unit.online.conftest import (
    FEATURES,
    RATING,
    RIDE,
    START,
    TRAFFIC,
    World,
    at,
    frame,
    microseconds,
)

TTL_MINUTES = 60
NOW_MINUTES = 90
BATCH = 2_000


def spread(draw: np.random.Generator, values: list[Any], rows: int) -> list[Any]:
    return [values[place] for place in draw.integers(len(values), size=rows)]


def minutes_ago(draw: np.random.Generator, rows: int) -> pl.Series:
    """Ages around the time to live; one row in ten is exactly as old as allowed."""
    seconds = draw.integers(0, 2 * TTL_MINUTES * 60, size=rows)
    seconds[::10] = TTL_MINUTES * 60
    known = at(NOW_MINUTES)
    return pl.Series([known - timedelta(seconds=int(age)) for age in seconds]).cast(
        pl.Datetime("us", "UTC")
    )


def rides(draw: np.random.Generator, riders: npt.NDArray[np.int64]) -> pl.DataFrame:
    rows = len(riders)
    event = minutes_ago(draw, rows)
    extreme = [0.0, -0.0, 1.5, float("nan"), None, float("inf"), -3.4e38, 1e-45]
    return pl.DataFrame(
        {
            "rider": riders,
            "f32": spread(draw, extreme, rows),
            "f64": spread(draw, [*extreme, 1e308, -5e-324], rows),
            "i32": spread(draw, [0, -1, None, 2**31 - 1, -(2**31)], rows),
            "i64": spread(draw, [0, None, 2**63 - 1, -(2**63), 2**53 + 1], rows),
            "flag": spread(draw, [True, False, None], rows),
            "moment": spread(draw, [None, START, START - timedelta(days=30_000)], rows),
            "event_timestamp": event,
            "created_timestamp": event,
        },
        schema=RIDE,
    )


def ratings(draw: np.random.Generator, riders: npt.NDArray[np.int64]) -> pl.DataFrame:
    rows = len(riders)
    event = minutes_ago(draw, rows)
    return pl.DataFrame(
        {
            "rider": riders,
            "stars": draw.random(rows).astype(np.float32),
            "votes": spread(draw, [0, 1, None, 7], rows),
            "event_timestamp": event,
            "created_timestamp": event,
        },
        schema=RATING,
    )


def number(value: Any) -> float:
    return np.nan if value is None else float(value)


@pytest.mark.parametrize(
    "entities", [4_000, pytest.param(100_000, marks=pytest.mark.loop)], ids="{:,}".format
)
def test_entities_read_as_feast_reads_them(world: World, entities: int) -> None:
    draw = np.random.default_rng(7)
    riders = np.arange(entities)
    with_ride = riders[draw.random(entities) < 0.8]
    with_rating = riders[draw.random(entities) < 0.8]
    world.write_frame("ride", rides(draw, with_ride))
    world.write_frame("rating", ratings(draw, with_rating))
    service = world.store.get_feature_service("trips_v1")
    expired = missing = 0

    for start in range(0, entities, BATCH):
        batch = list(range(start, start + BATCH))
        found = world.read({"rider": batch, "city": ["a"] * BATCH, "zone": ["b"] * BATCH},
                           NOW_MINUTES)  # fmt: skip
        rows = [{"rider": rider, "city": "a", "zone": "b"} for rider in batch]
        feast = world.store.get_online_features(service, rows).to_dict()
        with np.errstate(over="ignore"):
            expected = np.array(
                [[number(value) for value in feast[name]] for name in FEATURES]
            ).T.astype(np.float32)  # fmt: skip
        moments = [packed_moment(value) for value in feast["moment"]]
        traffic, rating, ride = found.stale.T
        there = found.event_us[:, 2] > 0
        # What is expired is there for Feast, and missing here.
        old = ride & there
        expired += int(old.sum())
        missing += int((~there).sum())
        assert ((microseconds(NOW_MINUTES) - found.event_us[old, 2]) > TTL_MINUTES * 60e6).all()
        assert np.isnan(found.matrix[old, :5]).all()
        expected[old, :5] = np.nan
        moments = [np.iinfo(np.int64).min if o else m for o, m in zip(old, moments, strict=True)]

        assert np.array_equal(expected, found.matrix, equal_nan=True)
        assert moments == found.inputs["moment"].view(np.int64).tolist()
        assert not (rating & (found.event_us[:, 1] > 0)).any()  # it has no time to live
        assert traffic.all()
    assert 0.3 < expired / len(with_ride) < 0.7
    assert entities - len(with_ride) == missing


def packed_moment(value: Any) -> int:
    if value is None:
        return int(np.iinfo(np.int64).min)
    return int((value - START).total_seconds()) * 1_000_000 + microseconds(0)


def test_composite_keys_that_concatenate_alike_read_as_feast_reads_them(world: World) -> None:
    pairs = [("1", "12"), ("11", "2"), ("", "112"), ("112", ""), ("1:1", "2")]
    pairs += [("é", "\n"), ("x" * 300, "y")]
    rows = [
        {"city": city, "zone": zone, "speed": float(place), "event_timestamp": at(0)}
        for place, (city, zone) in enumerate(pairs)
    ]
    world.write_frame("traffic", frame("traffic", *rows).select(list(TRAFFIC)))
    asked = [*pairs, ("12", "1"), ("11", "12")]
    entities = [{"city": city, "zone": zone} for city, zone in asked]
    feast = world.store.get_online_features(["traffic:speed"], entities).to_dict()["speed"]

    found = world.read({"city": [c for c, _ in asked], "zone": [z for _, z in asked]})

    speeds = [None if np.isnan(value) else value for value in found.matrix[:, -1].tolist()]
    assert [0, 1, 2, 3, 4, 5, 6, None, None] == feast == speeds


def test_a_timestamp_keeps_the_microseconds_that_feasts_message_drops(world: World) -> None:
    moment = START + timedelta(seconds=1, microseconds=250)
    world.write("ride", {"rider": 1, "moment": moment, "event_timestamp": at(0)})

    feast = world.store.get_online_features(["ride:moment"], [{"rider": 1}]).to_dict()["moment"]
    found = world.read({"rider": [1]}).inputs["moment"]

    assert [START + timedelta(seconds=1)] == feast
    assert [moment.replace(tzinfo=None)] == found.tolist()
