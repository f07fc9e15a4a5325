"""Materialization: what is known goes online once, late rows included, whatever was lost before."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_repo import catalog, fingerprint, ingest, materialize, store
from feature_repo.offline_store import AsofOfflineStore
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.errors import DataError, ServiceError
from tests.unit.features.conftest import START, make_world
from tests.unit.online.conftest import World, frame

USECASE = "flight_delay"
HOUR = timedelta(hours=1)
DAY = START + 25 * HOUR
"""The first moment at which each view has a row: routes have theirs at midnight and a minute."""
NEXT = START + 30 * HOUR
ROOT = Path(str(store.__file__)).parent.parent


@pytest.fixture
def flights(tmp_path: Path, redis: RedisSync) -> Any:
    """A store whose offline history holds all of a small world's rows."""
    opened = store.open_store(str(tmp_path / "data"), redis.address.url)
    store.apply(opened)
    ingest.write_features(USECASE, opened, make_world(1), START + 72 * HOUR)
    return opened


def content(redis: RedisSync) -> dict[bytes, Any]:
    """All that Redis holds: strings whole, hashes by field."""
    found = {}
    for key in redis.execute("KEYS", "*"):
        kind = redis.execute("TYPE", key)
        if kind == b"hash":
            parts = redis.execute("HGETALL", key)
            found[key] = dict(zip(parts[::2], parts[1::2], strict=True))
        else:
            found[key] = redis.execute("GET", key)
    return found


def newest(opened: Any, view: str, until: Any) -> pl.DataFrame:
    """The slow way: of all rows known at `until` and young enough, the newest of each key."""
    found = opened.get_feature_view(view)
    parts = sorted(
        Path(opened.config.offline_store.root, found.batch_source.path).glob("*.parquet")
    )
    rows = pl.concat([pl.read_parquet(part) for part in parts]).filter(
        pl.col("event_timestamp").is_between(until - found.ttl, until),
        pl.col("created_timestamp") <= until,
    )
    return rows.sort("event_timestamp", "created_timestamp").unique(
        found.join_keys, keep="last", maintain_order=True
    )


def values(opened: Any, view: str, rows: pl.DataFrame) -> pl.DataFrame:
    found = opened.get_feature_view(view)
    names = [field.name for field in found.features]
    keys = rows.select(found.join_keys).to_dicts()
    online = opened.get_online_features([f"{view}:{name}" for name in names], keys).to_dict()
    return pl.DataFrame({name: online[name] for name in names}, schema=rows.select(names).schema)


def test_each_view_holds_the_newest_rows_that_were_known(flights: Any) -> None:
    changed = materialize.materialize(flights, USECASE, DAY)

    for view, count in changed.items():
        expected = newest(flights, view, DAY)
        found = values(flights, view, expected)
        assert expected.height == count > 0
        assert expected.select(found.columns).equals(found, null_equal=True), view


def test_running_again_changes_nothing(flights: Any, redis: RedisSync) -> None:
    materialize.materialize(flights, USECASE, DAY)
    before = content(redis)

    assert {0} == set(materialize.materialize(flights, USECASE, DAY).values())
    assert before == content(redis)


def test_an_earlier_moment_puts_nothing_older_online(flights: Any, redis: RedisSync) -> None:
    materialize.materialize(flights, USECASE, NEXT)
    before = content(redis)

    materialize.materialize(flights, USECASE, DAY)

    assert before == content(redis)


def test_going_on_in_steps_ends_where_one_run_ends(flights: Any, redis: RedisSync) -> None:
    for hours in (7, 13, 24, 30):
        materialize.materialize(flights, USECASE, START + hours * HOUR)
    steps = {view: values(flights, view, newest(flights, view, NEXT)) for view in VIEWS}
    redis.execute("FLUSHALL")
    materialize.materialize(flights, USECASE, NEXT)

    for view in VIEWS:
        assert steps[view].equals(
            values(flights, view, newest(flights, view, NEXT)), null_equal=True
        )


VIEWS = tuple(catalog.load(USECASE).batch)
LEG = {"tailnum": "N9ZZZ", "previous_arrival_delay": 5.0, "previous_cancelled": 0}


def late(opened: Any, event: Any, created: Any, delay: float) -> None:
    """Append one leg to the offline history of `aircraft_leg`."""
    view = opened.get_feature_view("aircraft_leg")
    schema = {"tailnum": pl.String(), "previous_arrival_delay": pl.Float32(),
              "previous_cancelled": pl.Int32()}  # fmt: skip
    moments = ("previous_scheduled_arrival", "previous_landed_at", "event_timestamp",
               "created_timestamp")  # fmt: skip
    row = LEG | {"previous_arrival_delay": delay} | dict.fromkeys(moments, event)
    rows = pl.DataFrame(
        [row | {"created_timestamp": created}],
        schema=schema | dict.fromkeys(moments, pl.Datetime("us", "UTC")),
    )
    AsofOfflineStore.offline_write_batch(opened.config, view, rows.to_arrow(), None)


def delay_online(opened: Any) -> Any:
    rows = [{"tailnum": "N9ZZZ"}]
    found = opened.get_online_features(["aircraft_leg:previous_arrival_delay"], rows).to_dict()
    return found["previous_arrival_delay"][0]


def test_a_row_that_is_known_later_waits_for_its_time(flights: Any) -> None:
    late(flights, DAY - HOUR, DAY + HOUR, 7.0)

    materialize.materialize(flights, USECASE, DAY)
    assert delay_online(flights) is None
    materialize.materialize(flights, USECASE, DAY + HOUR)
    assert 7.0 == delay_online(flights)


def test_a_row_that_arrives_after_the_mark_comes_however_old_its_event_is(flights: Any) -> None:
    materialize.materialize(flights, USECASE, DAY)
    late(flights, DAY - 18 * HOUR, DAY + HOUR, 8.0)

    changed = materialize.materialize(flights, USECASE, DAY + 2 * HOUR, overlap=timedelta(0))

    assert 8.0 == delay_online(flights)
    assert changed["aircraft_leg"] >= 1


@pytest.mark.parametrize(
    ("overlap", "found"),
    [
        pytest.param(20 * HOUR, 9.0, id="within the overlap"),
        pytest.param(timedelta(0), None, id="without an overlap"),
    ],
)
def test_a_row_that_is_written_offline_after_the_mark_needs_the_overlap(
    flights: Any, overlap: timedelta, found: float | None
) -> None:
    materialize.materialize(flights, USECASE, DAY)
    late(flights, DAY - 20 * HOUR, DAY - 19 * HOUR, 9.0)

    materialize.materialize(flights, USECASE, DAY + HOUR, overlap=overlap)

    assert found == delay_online(flights)


def test_an_emptied_redis_is_filled_again(flights: Any, redis: RedisSync) -> None:
    materialize.materialize(flights, USECASE, DAY)
    before = content(redis)
    redis.execute("FLUSHALL")

    assert {None} == set(materialize.marks(flights, USECASE).values())
    materialize.materialize(flights, USECASE, DAY)
    assert before == content(redis)


def test_a_redis_that_fell_back_to_an_older_state_goes_on_from_there(
    flights: Any, redis: RedisSync
) -> None:
    """Feast's registry has the later mark, Redis the earlier data with the earlier mark."""
    materialize.materialize(flights, USECASE, DAY)
    old = {key: redis.execute("DUMP", key) for key in redis.execute("KEYS", "*")}
    materialize.materialize(flights, USECASE, NEXT)
    expected = content(redis)
    redis.execute("FLUSHALL")
    redis.pipeline([("RESTORE", key, 0, dump) for key, dump in old.items()])

    assert {DAY} == set(materialize.marks(flights, USECASE).values())
    materialize.materialize(flights, USECASE, NEXT, overlap=timedelta(0))
    assert expected == content(redis)


def test_a_registry_that_knows_of_no_run_starts_over(
    flights: Any, redis: RedisSync, tmp_path: Path
) -> None:
    """The marks in Redis belong to another data root's rows."""
    materialize.materialize(flights, USECASE, DAY)
    other = store.open_store(str(tmp_path / "other"), redis.address.url)
    store.apply(other)

    assert {None} == set(materialize.marks(other, USECASE).values())


def test_changed_feature_code_starts_over(
    flights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    materialize.materialize(flights, USECASE, DAY)
    monkeypatch.setattr(fingerprint, "of_code", lambda _: "other code")

    assert {None} == set(materialize.marks(flights, USECASE).values())
    materialize.materialize(flights, USECASE, DAY)
    assert {DAY} == set(materialize.marks(flights, USECASE).values())


def test_a_mark_that_is_damaged_starts_over(flights: Any, redis: RedisSync) -> None:
    materialize.materialize(flights, USECASE, DAY)
    for key in redis.execute("KEYS", "packed-mark:*"):
        redis.execute("SET", key, "[]")

    assert {None} == set(materialize.marks(flights, USECASE).values())


KILLED = """
import os, signal, sys
from datetime import datetime
from feature_repo import online_writer, store
from feature_repo.materialize import materialize

root, url, until, after = sys.argv[1:]
online_writer._CHUNK = 3
left = int(after)
done = online_writer.OnlineWriter._store

def store_and_die(self, target, rows):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return done(self, target, rows)

online_writer.OnlineWriter._store = store_and_die
materialize(store.open_store(root, url), "flight_delay", datetime.fromisoformat(until))
"""


@pytest.mark.parametrize("transactions", [1, 4])
def test_a_run_that_is_killed_and_run_again_ends_as_if_it_had_not_been(
    flights: Any, redis: RedisSync, tmp_path: Path, transactions: int
) -> None:
    materialize.materialize(flights, USECASE, DAY)
    expected = content(redis)
    redis.execute("FLUSHALL")
    arguments = [str(tmp_path / "data"), redis.address.url, DAY.isoformat(), str(transactions)]

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
    )

    assert -signal.SIGKILL == killed.returncode, killed.stderr
    assert expected != content(redis)
    materialize.materialize(flights, USECASE, DAY)
    assert expected == content(redis)


def test_feasts_own_command_materializes_only_what_was_known(flights: Any) -> None:
    """`feast materialize` ends in the same engine."""
    late(flights, DAY - HOUR, DAY + HOUR, 7.0)
    flights.materialize(DAY - 6 * HOUR, DAY, feature_views=["aircraft_leg"])

    assert delay_online(flights) is None


def test_integers_beside_nulls_stay_exact(world: World) -> None:
    """Feast's own engine takes them through floats: 2**53 + 1 becomes 2**53."""
    view = world.store.get_feature_view("ride")
    rows = frame(
        "ride",
        {"rider": 1, "i64": 2**53 + 1, "event_timestamp": DAY},
        {"rider": 2, "i64": None, "event_timestamp": DAY},
        {"rider": 3, "i64": 2**63 - 1, "event_timestamp": DAY},
    )
    AsofOfflineStore.offline_write_batch(world.store.config, view, rows.to_arrow(), None)

    world.store.materialize(DAY - HOUR, DAY, feature_views=["ride"])
    riders = [{"rider": rider} for rider in (1, 2, 3)]
    found = world.store.get_online_features(["ride:i64"], riders).to_dict()["i64"]

    assert [2**53 + 1, None, 2**63 - 1] == found


def test_strings_of_a_layout_that_is_gone_are_pruned(flights: Any, redis: RedisSync) -> None:
    materialize.materialize(flights, USECASE, DAY)
    before = content(redis)
    redis.execute("SET", f"packed:{store.PROJECT}:0123456789abcdef:3:abc", "x")
    redis.execute("SET", f"packed-mark:{store.PROJECT}:0123456789abcdef:view", "x")
    redis.execute("SET", "packed:another:0123456789abcdef:3:abc", "x")

    assert 2 == materialize.prune(flights)
    assert {*before, b"packed:another:0123456789abcdef:3:abc"} == set(content(redis))


def test_a_moment_without_a_zone_is_refused(flights: Any) -> None:
    with pytest.raises(DataError, match="has no zone"):
        materialize.materialize(flights, USECASE, DAY.replace(tzinfo=None))


def test_a_store_without_a_redis_or_without_definitions_is_refused(tmp_path: Path) -> None:
    opened = store.open_store(str(tmp_path))

    with pytest.raises(ServiceError, match=r"materialization failed: .*apply the definitions"):
        materialize.materialize(opened, USECASE, DAY)
    store.apply(opened)
    with pytest.raises(ServiceError, match="open it with the URL of a Redis"):
        materialize.materialize(opened, USECASE, DAY)


def test_a_redis_that_is_away_is_a_service_error(tmp_path: Path) -> None:
    opened = store.open_store(str(tmp_path), "redis://127.0.0.1:1/0")
    store.apply(opened)

    with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:1/0"):
        materialize.materialize(opened, USECASE, DAY)
