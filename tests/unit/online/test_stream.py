"""The push path: the rows of a window are those of the batch computation, in order of knowledge."""

import itertools
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from feature_repo import catalog, layout, store, stream
from feature_repo.online import OnlineReader
from feature_repo.stream import Pusher
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.errors import DataError, ServiceError
from tests.unit.features.conftest import START, make_world

CODE = catalog.load("flight_delay")
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("since", "until"),
    [
        pytest.param(0, 24, id="the first day"),
        pytest.param(24, 30, id="some hours"),
        pytest.param(30.25, 30.5, id="a quarter of an hour"),
        pytest.param(12, 48, id="past the last event"),
    ],
)
def test_the_rows_of_a_window_are_those_that_the_batch_computation_adds_in_it(
    seed: int, since: float, until: float
) -> None:
    """The batch knows all events, the stream only those up to the window's end."""
    raw = make_world(seed)
    first, last = START + since * HOUR, START + until * HOUR

    found = stream.updates(CODE, raw, first, last)

    rows = 0
    for name, compute in CODE.batch.items():
        expected = compute(raw).filter(
            (pl.col("created_timestamp") > first) & (pl.col("created_timestamp") <= last)
        )
        rows += expected.height
        assert_frame_equal(expected, found[name], check_row_order=False)
    assert rows > 0


def test_windows_side_by_side_give_each_row_once() -> None:
    raw = make_world(4)
    moments = [START + 7 * number * HOUR for number in range(6)]
    parts = [
        stream.updates(CODE, raw, since, until) for since, until in itertools.pairwise(moments)
    ]
    whole = stream.updates(CODE, raw, moments[0], moments[-1])

    for name, rows in whole.items():
        assert_frame_equal(
            rows, pl.concat([part[name] for part in parts]), check_row_order=False
        )  # fmt: skip


@pytest.mark.parametrize(
    ("since", "until"),
    [
        pytest.param(START, START, id="empty"),
        pytest.param(START, START - HOUR, id="backwards"),
        pytest.param(START, (START + HOUR).replace(tzinfo=None), id="no zone"),
    ],
)
def test_a_window_that_is_none_is_refused(since: datetime, until: datetime) -> None:
    with pytest.raises(DataError, match="flight_delay: no updates in"):
        stream.updates(CODE, make_world(1), since, until)


def test_updates_come_in_the_order_in_which_they_became_known() -> None:
    found = stream.updates(CODE, make_world(5), START, START + 30 * HOUR)

    updates = list(stream.schedule(found))

    moments = [update.known_us for update in updates]
    assert sorted(moments) == moments
    assert sum(rows.height for rows in found.values()) == sum(u.rows.height for u in updates)
    for update in updates:
        known = update.rows.select(pl.max_horizontal("event_timestamp", "created_timestamp"))
        assert [update.known_us] == known.to_series().dt.epoch("us").unique().to_list()


def test_pushing_up_to_a_moment_gives_what_a_join_of_that_moment_gives(
    tmp_path: Path, redis: RedisSync
) -> None:
    """Real feature functions, all views of the service, four moments of one replayed day."""
    from feature_repo.ingest import write_features

    raw = make_world(6, flights=120, hours=40)
    opened = store.open_store(str(tmp_path), redis.address.url)
    store.apply(opened)
    write_features("flight_delay", opened, raw, START + 60 * HOUR)
    pusher = Pusher(opened)
    found = stream.updates(CODE, raw, START - HOUR, START + 60 * HOUR)
    placed = layout.load("flight_delay")
    features = [
        field.name
        for view in placed.views
        for field in view.fields
        if field.dtype != "timestamp"
    ]  # fmt: skip
    reader = OnlineReader(placed, features, CODE.request_inputs)
    flights = raw["flights"].select("origin", "dest", "carrier", "tailnum")
    keys = flights.to_dict(as_series=False)
    values = 0

    for hours in (6.1, 20, 33.5, 45):
        moment = START + hours * HOUR
        stream.push(pusher, found, until=moment)
        at = np.full(flights.height, int(moment.timestamp() * 1_000_000))
        payload, replies = reader.command(keys, flights.height)
        read = reader.decode(redis.exchange(payload, replies), keys, flights.height, at)
        labels = flights.with_columns(event_timestamp=pl.lit(moment))
        joined = store.join_features(opened, "flight_delay_v1", labels)
        expected = joined.select(pl.col(features).cast(pl.Float32)).to_numpy()
        landed = joined["previous_landed_at"].dt.replace_time_zone(None).to_numpy()

        assert np.array_equal(expected, read.matrix, equal_nan=True)
        assert np.array_equal(landed, read.inputs["previous_landed_at"], equal_nan=True)
        values += int(np.isfinite(read.matrix).sum())
    assert values > 1000


def test_pushing_needs_a_known_view_a_redis_and_a_time_with_a_zone(
    tmp_path: Path, redis: RedisSync
) -> None:
    opened = store.open_store(str(tmp_path), redis.address.url)
    store.apply(opened)

    with pytest.raises(ServiceError, match="feature view nothing cannot be pushed"):
        Pusher(opened).write("nothing", pl.DataFrame())
    with pytest.raises(DataError, match="has no zone"):
        stream.push(Pusher(opened), {}, until=START.replace(tzinfo=None))
    with pytest.raises(ServiceError, match="no online store"):
        Pusher(store.open_store(str(tmp_path)))
