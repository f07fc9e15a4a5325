"""The batch features against slow oracles that look at one row at a time."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from usecases.flight_delay import features, sources, views

World = Callable[..., dict[str, pl.DataFrame]]
Row = dict[str, Any]
MINUTE = timedelta(minutes=1)


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def flights_of(raw: dict[str, pl.DataFrame], **keys: str) -> list[Row]:
    rows = raw["flights"].iter_rows(named=True)
    return [row for row in rows if all(row[name] == value for name, value in keys.items())]


def congestion_at(raw: dict[str, pl.DataFrame], origin: str, now: datetime) -> Row:
    """What someone at the airport could have counted at `now`, flight by flight."""
    due = [row for row in flights_of(raw, origin=origin) if row["scheduled_departure"] <= now]
    left = [row for row in due if not row["cancelled"] and row["departed_at"] <= now]
    waiting = [row for row in due if not row["cancelled"] and row["departed_at"] > now]
    waits = [(now - row["scheduled_departure"]) / MINUTE for row in waiting]
    expected: Row = {"waiting": len(waiting), "waiting_minutes": mean(waits)}
    for name, hours in (("1h", 1), ("3h", 3)):
        since = now - timedelta(hours=hours)
        # A flight that left early is counted from its scheduled departure on.
        recent = [
            row for row in left if max(row["departed_at"], row["scheduled_departure"]) > since
        ]
        gone = [row for row in due if row["cancelled"] and row["scheduled_departure"] > since]
        expected |= {
            f"departures_{name}": len(recent),
            f"departure_delay_{name}": mean([row["dep_delay"] for row in recent]),
            f"cancelled_share_{name}": mean([0] * len(recent) + [1] * len(gone)),
        }
    return expected


def rates_at(
    raw: dict[str, pl.DataFrame], prefix: str, spans: dict[str, int], now: datetime, **keys: str
) -> Row:
    expected: Row = {}
    for name, hours in spans.items():
        known = []
        for row in flights_of(raw, **keys):
            when = row["scheduled_departure"] if row["cancelled"] else row["landed_at"]
            if when is not None and now - timedelta(hours=hours) < when <= now:
                known.append(row["cancelled"] or row["arr_delay"] >= 15)
        expected[f"{prefix}_late_rate_{name}"] = mean(known)
        expected[f"{prefix}_flights_{name}"] = len(known)
    return expected


def compare(rows: pl.DataFrame, expect: Callable[[Row], Row]) -> None:
    expected = [expect(row) for row in rows.iter_rows(named=True)]
    schema = {name: rows.schema[name] for name in expected[0]}

    assert_frame_equal(
        pl.DataFrame(expected, schema=schema), rows.select(list(schema)), rel_tol=1e-6
    )
    assert {views.PUBLISH_LAG} == set(rows["created_timestamp"] - rows["event_timestamp"])


@pytest.mark.parametrize("seed", range(3))
def test_congestion_is_what_could_be_counted_at_the_snapshot(world: World, seed: int) -> None:
    raw = world(seed)
    rows = views.origin_congestion(raw)

    assert 200 < rows.height
    compare(rows, lambda row: congestion_at(raw, row["origin"], row["event_timestamp"]))


@pytest.mark.parametrize("seed", range(3))
def test_carrier_rates_are_those_of_labels_known_in_the_window(world: World, seed: int) -> None:
    raw = world(seed, hours=200)
    spans = {"24h": 24, "7d": 7 * 24}

    compare(
        views.carrier_delay(raw),
        lambda row: rates_at(raw, "carrier", spans, row["event_timestamp"], carrier=row["carrier"]),
    )


@pytest.mark.parametrize("seed", range(3))
def test_route_rates_are_those_of_labels_known_in_the_window(world: World, seed: int) -> None:
    raw = world(seed, flights=150, hours=40 * 24)
    spans = {"30d": 30 * 24}
    rows = views.route_delay(raw)

    assert 4 == rows.n_unique(["origin", "dest"])
    compare(
        rows,
        lambda row: rates_at(
            raw, "route", spans, row["event_timestamp"], origin=row["origin"], dest=row["dest"]
        ),
    )


def test_an_empty_window_gives_a_null_rate_and_a_count_of_zero(world: World) -> None:
    rows = views.carrier_delay(world(1, flights=3, hours=30 * 24))
    quiet = rows.filter(pl.col("carrier_flights_24h") == 0)

    assert 0 < quiet.height
    assert quiet.height == quiet["carrier_late_rate_24h"].null_count()
    assert 0 == rows.filter(pl.col("carrier_flights_24h") > 0)["carrier_late_rate_24h"].null_count()


def test_weather_is_known_an_hour_after_the_hour_that_it_is_filed_under(world: World) -> None:
    raw = world(1)
    rows = views.origin_weather(raw)

    assert raw["weather"]["observed_hour"].to_list() == rows["event_timestamp"].to_list()
    assert {timedelta(hours=1)} == set(rows["created_timestamp"] - rows["event_timestamp"])
    assert raw["weather"]["temp"].to_list() == rows["temp"].to_list()


def one_leg(world: World, **changes: Any) -> pl.DataFrame:
    raw = world(1)
    flights = raw["flights"]
    row = flights.filter(pl.col("landed_at").is_not_null() & pl.col("tailnum").is_not_null())
    values = row.row(0, named=True) | changes
    return views.aircraft_leg({"flights": pl.DataFrame([values], schema=flights.schema)})


def test_a_leg_is_known_a_minute_after_landing_though_it_speaks_of_its_departure(
    world: World,
) -> None:
    due = datetime(2013, 5, 1, 12, tzinfo=UTC)
    landed = due + timedelta(hours=5)
    rows = one_leg(world, scheduled_departure=due, landed_at=landed, arr_delay=40)

    assert (due, landed + MINUTE, 40.0, 0, landed) == rows.select(
        "event_timestamp",
        "created_timestamp",
        "previous_arrival_delay",
        "previous_cancelled",
        "previous_landed_at",
    ).row(0)


def test_a_cancelled_leg_is_known_a_minute_after_its_departure_and_has_no_delay(
    world: World,
) -> None:
    due = datetime(2013, 5, 1, 12, tzinfo=UTC)
    nothing = dict.fromkeys(("departed_at", "landed_at", "dep_delay", "arr_delay"))
    rows = one_leg(world, scheduled_departure=due, cancelled=True, **nothing)

    assert (due + MINUTE, None, 1, None) == rows.select(
        "created_timestamp", "previous_arrival_delay", "previous_cancelled", "previous_landed_at"
    ).row(0)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"landed_at": None, "arr_delay": None}, id="diverted"),
        pytest.param({"tailnum": None}, id="aircraft unknown"),
    ],
)
def test_a_leg_without_an_end_or_an_aircraft_is_no_leg(
    world: World, changes: dict[str, None]
) -> None:
    assert 0 == one_leg(world, **changes).height


@pytest.mark.parametrize("view", features.BATCH)
def test_rows_of_a_shorter_history_are_the_same_rows(world: World, view: str) -> None:
    """Day by day gives what all at once gives: raw events from `as_of` on change nothing before."""
    raw = world(5, flights=200, hours=72)
    compute = features.BATCH[view]
    for hours in (25, 41, 60):
        as_of = datetime(2013, 5, 1, tzinfo=UTC) + timedelta(hours=hours, minutes=7)
        earlier = {
            "flights": raw["flights"].filter(pl.col("scheduled_departure") < as_of),
            "weather": raw["weather"].filter(pl.col("observed_hour") < as_of),
        }
        known = [
            compute(tables).filter(pl.col("created_timestamp") <= as_of).sort(pl.all())
            for tables in (earlier, raw)
        ]

        assert 0 < known[0].height
        assert_frame_equal(known[0], known[1])


@pytest.mark.parametrize("view", features.BATCH)
def test_no_events_give_no_rows_of_the_same_types(world: World, view: str) -> None:
    raw = world(1)
    empty = features.BATCH[view]({name: table.clear() for name, table in raw.items()})

    assert 0 == empty.height
    assert features.BATCH[view](raw).schema == empty.schema


def test_every_row_of_the_real_june_is_known_after_what_it_speaks_of() -> None:
    raw = sources.read(datetime(2013, 6, 1, tzinfo=UTC), datetime(2013, 6, 8, tzinfo=UTC))
    for name, compute in features.BATCH.items():
        rows = compute(raw)

        assert 0 < rows.height, name
        assert (rows["created_timestamp"] > rows["event_timestamp"]).all(), name
