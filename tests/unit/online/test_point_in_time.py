"""Online equals point-in-time: what is written in order of knowledge reads as a join of that time.

The oracle is `feature_repo.store.join_features`, which the joins' own tests hold to a slower one.
"""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import store, stream
from feature_repo.offline_store import AsofOfflineStore
from feature_repo.stream import Pusher
from tests.unit.online.conftest import FEATURES, World, at, frame

TTL_MINUTES = 60
LAST = 200

RIDES = st.lists(
    st.fixed_dictionaries(
        {
            "rider": st.integers(1, 2),
            "event": st.integers(0, LAST),
            "late": st.sampled_from([-30, 0, 0, 0, 1, 7, 59, 60, 61, 150]),
            "i32": st.one_of(st.none(), st.integers(-5, 5)),
            "f32": st.one_of(st.none(), st.floats(width=32, allow_nan=False)),
        }
    ),
    min_size=1,
    max_size=12,
)
MOMENTS = st.lists(st.integers(0, LAST + 2 * TTL_MINUTES), min_size=1, max_size=6, unique=True)


def history(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A late row is known after its event; a negative lateness is known before it."""
    return frame(
        "ride",
        *(
            {
                "rider": row["rider"],
                "i32": row["i32"],
                "f32": row["f32"],
                "event_timestamp": at(row["event"]),
                "created_timestamp": at(row["event"] + row["late"]),
            }
            for row in rows
        ),
    ).unique(["rider", "event_timestamp", "created_timestamp"], keep="last", maintain_order=True)


@settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example starts empty
)
@given(rows=RIDES, moments=MOMENTS)
def test_at_any_moment_the_reader_finds_what_a_join_of_that_moment_finds(
    world: World, rows: list[dict[str, Any]], moments: list[int]
) -> None:
    offline = Path(world.store.config.offline_store.root)
    shutil.rmtree(offline, ignore_errors=True)
    world.redis.execute("FLUSHALL")
    ride = history(rows)
    for name in ("rating", "traffic"):
        never = {"rider": -1} if name == "rating" else {"city": "-", "zone": "-"}
        view = world.store.get_feature_view(name)
        row = frame(name, {**never, "event_timestamp": at(0)}).to_arrow()
        AsofOfflineStore.offline_write_batch(world.store.config, view, row, None)
    view = world.store.get_feature_view("ride")
    AsofOfflineStore.offline_write_batch(world.store.config, view, ride.to_arrow(), None)
    pusher = Pusher(world.store)
    waiting = list(stream.schedule({"ride": ride}))

    for moment in sorted(moments):
        while waiting and waiting[0].known_us <= at(moment).timestamp() * 1_000_000:
            update = waiting.pop(0)
            pusher.write(update.view, update.rows)
        found = world.read({"rider": [1, 2]}, moment).matrix[:, : len(FEATURES)]
        labels = pl.DataFrame(
            {
                "rider": [1, 2],
                "city": ["a", "a"],
                "zone": ["a", "a"],
                "event_timestamp": [at(moment)] * 2,
            },
            schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
        )
        joined = store.join_features(world.store, "trips_v1", labels)
        expected = joined.select(pl.col(list(FEATURES)).cast(pl.Float32)).to_numpy()

        assert np.array_equal(expected, found, equal_nan=True)


@pytest.mark.parametrize(
    ("age", "there"),
    [
        pytest.param(timedelta(minutes=TTL_MINUTES), True, id="as old as allowed"),
        pytest.param(timedelta(minutes=TTL_MINUTES, microseconds=1), False, id="older"),
    ],
)
def test_the_reader_and_the_join_agree_on_the_last_microsecond(
    world: World, age: timedelta, there: bool
) -> None:
    ride = frame("ride", {"rider": 1, "i32": 4, "event_timestamp": at(0)})
    view = world.store.get_feature_view("ride")
    AsofOfflineStore.offline_write_batch(world.store.config, view, ride.to_arrow(), None)
    Pusher(world.store).write("ride", ride)
    moment = at(0) + age
    labels = pl.DataFrame({"rider": [1], "city": [""], "zone": [""], "event_timestamp": [moment]})
    joined = store.join_features(world.store, "trips_v1", labels)["i32"].item()
    us = np.array([int((moment - at(0)).total_seconds() * 1e6) + int(at(0).timestamp()) * 10**6])

    found = world.read_at({"rider": [1]}, us).matrix[0, FEATURES.index("i32")]

    assert there == (joined is not None)
    assert there == (not np.isnan(found))
