"""What replaces what online: by time, in one batch, between writers; and what a writer refuses."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from feature_repo import layout
from feature_repo.materialize import writer_of
from feature_repo.online_writer import OnlineWriter
from feature_repo.store import PROJECT, open_store
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.errors import DataError, ServiceError, SettingsError, SpecError
from tests.unit.online.conftest import World, at, declare, frame, make_world


def rated(minutes: float, created: float, stars: float | None, rider: int = 1) -> dict[str, Any]:
    times = {"event_timestamp": at(minutes), "created_timestamp": at(created)}
    return {"rider": rider, "stars": stars, "votes": 1, **times}


def feasts(world: World, rider: int = 1) -> Any:
    rows = [{"rider": rider}]
    return world.store.get_online_features(["rating:stars"], rows).to_dict()["stars"][0]


@pytest.mark.parametrize(
    ("second", "stays"),
    [
        pytest.param(rated(6, 6, 2.0), 2.0, id="later event"),
        pytest.param(rated(4, 9, 2.0), 1.0, id="earlier event that was known later"),
        pytest.param(rated(5, 8, 2.0), 2.0, id="correction of the same event"),
        pytest.param(rated(5, 6, 2.0), 1.0, id="older version of the same event"),
        pytest.param(rated(5, 7, 2.0), 2.0, id="both times the same: the later written"),
        pytest.param(rated(6, 6, None), None, id="later event with a null"),
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["two writes", "one batch"])
def test_a_row_replaces_what_is_not_newer(
    world: World, second: dict[str, Any], stays: float | None, together: bool
) -> None:
    first = rated(5, 7, 1.0)
    if together:
        world.write("rating", first, second)
    else:
        world.write("rating", first)
        world.write("rating", second)

    expected = np.nan if stays is None else stays
    assert np.array_equal(expected, world.value("stars", 1), equal_nan=True)
    assert stays == feasts(world)


def test_the_same_rows_again_change_nothing(world: World) -> None:
    rows = [rated(1, 1, 1.0, rider) for rider in range(300)]

    assert 300 == world.write("rating", *rows)
    assert 0 == world.write("rating", *rows)


def test_feasts_own_write_path_follows_the_same_rule_and_fills_the_string(world: World) -> None:
    def write(*rows: dict[str, Any]) -> None:
        world.store.write_to_online_store("rating", frame("rating", *rows).to_pandas())

    write(rated(5, 7, 1.0), rated(5, 8, 2.0), rated(4, 9, 3.0))
    write(rated(5, 6, 4.0))

    assert 2.0 == world.value("stars", 1) == feasts(world)
    write(rated(5, 9, 5.0))
    assert 5.0 == world.value("stars", 1) == feasts(world)


async def write_async(world: World, rows: pl.DataFrame) -> None:
    await world.store.write_to_online_store_async("rating", rows.to_pandas())


def test_feasts_asynchronous_path_fills_the_string_too(world: World) -> None:
    import asyncio

    asyncio.run(write_async(world, frame("rating", rated(5, 5, 3.0))))

    assert 3.0 == world.value("stars", 1) == feasts(world)


def test_a_view_of_two_services_is_written_to_both_and_a_new_one_is_filled_up(
    tmp_path: Path, redis: RedisSync
) -> None:
    from feast import FeatureService

    objects = declare()
    before = make_world(tmp_path / "data", redis, objects)
    before.write("rating", rated(1, 1, 1.0))
    alone = FeatureService(name="ratings_v1", features=[objects["rating"]])
    after = make_world(tmp_path / "data", redis, {**objects, "alone": alone})
    view = after.store.get_feature_view("rating")
    strings = [place.key(PROJECT, b"i1;") for place in layout.placements(view)]

    assert 1 == redis.execute("EXISTS", *strings)
    assert 1 == after.write("rating", rated(1, 1, 1.0))
    assert 2 == redis.execute("EXISTS", *strings)


def test_rows_of_racing_writers_end_with_the_newest_and_none_is_torn(
    world: World, redis_url: str
) -> None:
    """Four connections write the same riders' two views in different orders at once."""
    riders = range(20)
    failures: list[BaseException] = []

    def race(seed: int) -> None:
        try:
            with connect(redis_url) as connection:
                writer = OnlineWriter(connection, PROJECT)
                views = {name: world.store.get_feature_view(name) for name in ("ride", "rating")}
                for step in np.random.default_rng(seed).permutation(12).tolist():
                    moment = {"event_timestamp": at(step), "created_timestamp": at(step)}
                    for name, values in (
                        ("rating", {"stars": float(step), "votes": step}),
                        ("ride", {"f32": float(step), "i32": step}),
                    ):
                        rows = [{"rider": rider, **values, **moment} for rider in riders]
                        writer.write(views[name], frame(name, *rows))
        except BaseException as error:  # noqa: BLE001  # the test's thread must see it
            failures.append(error)

    threads = [threading.Thread(target=race, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = world.read({"rider": list(riders)}, 11)

    assert [] == failures
    assert {11.0} == set(found.matrix[:, [0, 2, 5, 6]].ravel().tolist())
    assert 11.0 == feasts(world, 7)


def test_a_write_that_the_server_refuses_is_a_service_error_and_leaves_nothing_half(
    world: World, redis: RedisSync
) -> None:
    redis.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(ServiceError, match=r"refused a command: (OOM|EXECABORT)"):
            world.write("rating", rated(1, 1, 1.0))
    finally:
        redis.execute("CONFIG", "SET", "maxmemory", "1gb")

    assert 0 == redis.execute("DBSIZE")
    assert 1 == world.write("rating", rated(1, 1, 1.0))


def test_a_writer_goes_on_after_its_connection_broke(world: World, redis: RedisSync) -> None:
    world.write("rating", rated(1, 1, 1.0))
    redis.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    with pytest.raises(ServiceError, match="check that it runs"):
        world.write("rating", rated(2, 2, 2.0))
    assert 1 == world.write("rating", rated(2, 2, 2.0))
    assert 2.0 == world.value("stars", 1)


def test_a_string_that_is_damaged_is_written_anew(world: World, redis: RedisSync) -> None:
    world.write("rating", rated(1, 1, 1.0))
    (key,) = redis.execute("KEYS", "packed:*")
    redis.execute("SET", key, b"\xff" * 20)

    assert 1 == world.write("rating", rated(1, 1, 1.0))
    assert 1.0 == world.value("stars", 1)


def test_deleting_a_view_clears_its_sections_and_no_other_views(world: World) -> None:
    world.write("rating", rated(1, 1, 1.0))
    world.write("ride", {"rider": 1, "f32": 2.0, "event_timestamp": at(1)})
    online = world.store._get_provider().online_store

    online.delete_table(world.store.config, world.store.get_feature_view("rating"))

    assert np.isnan(world.value("stars", 1, 2))
    assert 2.0 == world.value("f32", 1, 2)
    assert feasts(world) is None


def test_tearing_down_leaves_no_value(world: World) -> None:
    world.write("rating", rated(1, 1, 1.0))
    world.write("traffic", {"city": "a", "zone": "b", "speed": 1.0, "event_timestamp": at(1)})

    world.store.teardown()

    assert world.read({"rider": [1], "city": ["a"], "zone": ["b"]}, 1).stale.all()


def test_entities_expire_when_the_store_says_so(tmp_path: Path, redis: RedisSync) -> None:
    made = make_world(tmp_path / "data", redis)
    writer = OnlineWriter(redis, PROJECT, key_ttl_seconds=1000)

    writer.write(made.store.get_feature_view("rating"), frame("rating", rated(1, 1, 1.0)))

    keys = redis.execute("KEYS", "*")
    assert 2 == len(keys)
    assert all(0 < redis.execute("TTL", key) <= 1000 for key in keys)


GOOD = frame("rating", rated(1, 1, 1.0))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(GOOD.drop("stars"), r"missing columns \['stars'\]", id="missing"),
        pytest.param(GOOD.with_columns(more=1), r"unknown columns \['more'\]", id="unknown"),
        pytest.param(
            GOOD.with_columns(votes=pl.lit("many")), "do not fit its declared types", id="text"
        ),
        pytest.param(GOOD.with_columns(votes=pl.lit(2**40)), "do not fit", id="too large"),
        pytest.param(
            GOOD.with_columns(rider=pl.lit(None, pl.Int64)), "rider has 1 nulls", id="null key"
        ),
        pytest.param(
            GOOD.with_columns(event_timestamp=pl.lit(None, pl.Datetime("us", "UTC"))),
            "event_timestamp has 1 nulls",
            id="null time",
        ),
        pytest.param(
            GOOD.with_columns(pl.col("created_timestamp").dt.replace_time_zone(None)),
            "created_timestamp is Datetime.*needs its zone",
            id="no zone",
        ),
    ],
)
def test_rows_that_are_not_what_the_view_declares_are_refused(
    world: World, rows: pl.DataFrame, message: str
) -> None:
    with pytest.raises(DataError, match=f"rows for feature view rating.*{message}"):
        world.write_frame("rating", rows)


def test_columns_in_another_order_and_a_narrower_type_are_taken(world: World) -> None:
    rows = GOOD.select(reversed(GOOD.columns)).with_columns(pl.col("votes").cast(pl.Int16))

    assert 1 == world.write_frame("rating", rows)
    assert 0 == world.write_frame("rating", GOOD.clear())


def test_a_view_that_no_service_holds_is_refused_by_name(world: World) -> None:
    with pytest.raises(SpecError, match="feature view rating has no place in the online store"):
        writer_of(world.store).write(declare()["rating"], GOOD)


def test_a_store_without_a_redis_has_no_writer(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no online store: open it with the URL"):
        writer_of(open_store(str(tmp_path)))


def test_a_redis_cluster_is_refused(tmp_path: Path) -> None:
    opened = open_store(str(tmp_path), "redis://127.0.0.1:1/0")
    opened.config.online_store.redis_type = "redis_cluster"

    with pytest.raises(SettingsError, match="redis_type redis_cluster is not supported"):
        writer_of(opened)


def test_a_redis_that_is_away_is_a_service_error(tmp_path: Path, redis: RedisSync) -> None:
    made = make_world(tmp_path / "data", redis)
    with connect("redis://127.0.0.1:1/0") as nobody:
        writer = OnlineWriter(nobody, PROJECT)

        with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:1/0"):
            writer.write(made.store.get_feature_view("rating"), GOOD)


def test_times_before_1970_and_far_ahead_are_kept(world: World) -> None:
    world.write("rating", rated(0, 0, 1.0) | {"event_timestamp": at(0) - timedelta(days=40_000)})
    world.write("rating", rated(0, 0, 2.0) | {"event_timestamp": at(0) + timedelta(days=40_000)})

    assert 2.0 == world.value("stars", 1) == feasts(world)
