"""The batch features of `flight_delay`: what was known about origin, carrier, route, aircraft.

Each function turns raw events into rows with the keys, `event_timestamp` (what time the row
speaks of), `created_timestamp` (when it was there to be read) and the features. The two times
are what keeps the future out: a row is used at a moment *t* only when both are at most *t*.

Two rules hold for all of them, and the tests check them against slow oracles. A row is made only
of what was known at its `event_timestamp` or, for the aircraft's leg, at its landing. A raw event
counts from its own event time on, even if something about it was known earlier: a flight that
leaves early is counted at its scheduled departure. So the rows up to a moment follow from the raw
events before it, and adding events day by day gives the rows that all events at once give.

They refuse nothing: raw events have passed validation. An empty window gives a null rate, not 0:
"nobody flew" and "nobody was late" are different.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import polars as pl

from usecases.flight_delay import sources, windows

PUBLISH_LAG: Final = timedelta(minutes=1)
"""From a fact to its feature: the feed's message, the sum, the write. It also keeps a cancelled
flight, known at its own scheduled departure, out of the features of its own prediction."""

WEATHER_LAG: Final = timedelta(minutes=60)
"""From the start of an observed hour to its report. The publisher files the hour's first report
under the start of the hour and gives it the precipitation up to minute 51 (nycflights13,
data-raw/weather.R); the routine report of minute 51 is out a few minutes later."""

CONGESTION_EVERY: Final = timedelta(minutes=15)
"""Congestion moves within minutes; a quarter hour holds about four departures of one origin."""

CARRIER_EVERY: Final = timedelta(hours=1)
"""An hour moves a 24 h rate by about a twentieth."""

ROUTE_EVERY: Final = timedelta(days=1)
"""A day moves a 30 d rate by a thirtieth."""

CONGESTION_WINDOWS: Final = {"1h": timedelta(hours=1), "3h": timedelta(hours=3)}
CARRIER_WINDOWS: Final = {"24h": timedelta(hours=24), "7d": timedelta(days=7)}
ROUTE_WINDOWS: Final = {"30d": timedelta(days=30)}

RUN_ON: Final = timedelta(days=1)
"""Snapshots run on for this long after the last event, so that a quiet night has its own. Those
later than the moment of the run are not true yet: the writer leaves them for the next run."""

Raw = Mapping[str, pl.DataFrame]


def origin_weather(raw: Raw) -> pl.DataFrame:
    """Return the hourly weather by origin, in the units of the raw table.

    The dew point is left out: temperature and humidity give it.
    """
    measured = ("temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return raw["weather"].select(
        "origin",
        event_timestamp="observed_hour",
        created_timestamp=pl.col("observed_hour") + WEATHER_LAG,
        **{name: pl.col(name).cast(pl.Float32) for name in measured},
    )


def origin_congestion(raw: Raw) -> pl.DataFrame:
    """Return how departures ran at each origin: a snapshot each quarter hour.

    By window: `departures_*` (count), `departure_delay_*` (mean, minutes) and
    `cancelled_share_*` (of departed and cancelled). At the snapshot: `waiting` (flights past their
    scheduled departure that have not left) and `waiting_minutes` (their mean wait so far).
    """
    flights, keys = raw["flights"], ["origin"]
    minute = pl.col("scheduled_departure").dt.epoch("s") // 60
    due = flights.filter(~pl.col("cancelled")).select(
        "origin", known_at="scheduled_departure", flights=1, due_minute=minute
    )
    left = flights.filter(pl.col("departed_at").is_not_null()).select(
        "origin",
        known_at=pl.max_horizontal("departed_at", "scheduled_departure"),
        departures=1,
        delay="dep_delay",
        due_minute=minute,
    )
    cancelled = flights.filter("cancelled").select(
        "origin", known_at="scheduled_departure", cancelled=1
    )
    snapshots = _snapshots(flights, keys, CONGESTION_EVERY)
    columns = []
    for name, window in CONGESTION_WINDOWS.items():
        sums = windows.trailing(snapshots, left, keys, ["departures", "delay"], window)
        gone = windows.trailing(snapshots, cancelled, keys, ["cancelled"], window)
        columns.append(
            sums.hstack(gone).select(
                pl.col("departures").cast(pl.Int32).alias(f"departures_{name}"),
                _rate("delay", "departures").alias(f"departure_delay_{name}"),
                _rate("cancelled", pl.col("departures") + pl.col("cancelled")).alias(
                    f"cancelled_share_{name}"
                ),
            )
        )
    all_due = windows.trailing(snapshots, due, keys, ["flights", "due_minute"])
    all_left = windows.trailing(snapshots, left, keys, ["departures", "due_minute"])
    now = snapshots["snapshot"].dt.epoch("s") // 60
    waiting = all_due["flights"] - all_left["departures"]
    waited = now * waiting - (all_due["due_minute"] - all_left["due_minute"])
    backlog = pl.DataFrame({"waiting": waiting, "waited": waited}).select(
        pl.col("waiting").cast(pl.Int32), waiting_minutes=_rate("waited", "waiting")
    )
    return _published(snapshots).hstack(pl.concat([*columns, backlog], how="horizontal"))


def carrier_delay(raw: Raw) -> pl.DataFrame:
    """Return the share of late flights by carrier: a snapshot each hour.

    By window: `carrier_late_rate_*` and `carrier_flights_*`, over the flights whose label became
    known in the window.
    """
    return _late_rates(raw, "carrier", ["carrier"], CARRIER_EVERY, CARRIER_WINDOWS)


def route_delay(raw: Raw) -> pl.DataFrame:
    """Return the share of late flights by origin and destination: a snapshot each day.

    By window: `route_late_rate_*` and `route_flights_*`, over the flights whose label became known
    in the window.
    """
    return _late_rates(raw, "route", ["origin", "dest"], ROUTE_EVERY, ROUTE_WINDOWS)


def aircraft_leg(raw: Raw) -> pl.DataFrame:
    """Return the legs of each aircraft; the last one that had ended is the previous leg.

    The row speaks of the leg's scheduled departure and is known once the leg has landed (a
    cancelled leg: at departure), so a leg in the air is not visible. A diverted leg never is: where
    it ended is not recorded.

    `previous_arrival_delay` is null after a cancellation; `previous_scheduled_arrival` and
    `previous_landed_at` are inputs of the request-time features.
    """
    flights = raw["flights"]
    ended = pl.when("cancelled").then("scheduled_departure").otherwise("landed_at")
    return flights.filter(pl.col("tailnum").is_not_null() & ended.is_not_null()).select(
        "tailnum",
        event_timestamp="scheduled_departure",
        created_timestamp=ended + PUBLISH_LAG,
        previous_arrival_delay=pl.col("arr_delay").cast(pl.Float32),
        previous_cancelled=pl.col("cancelled").cast(pl.Int32),
        previous_scheduled_arrival="scheduled_arrival",
        previous_landed_at="landed_at",
    )


def _late_rates(
    raw: Raw, prefix: str, keys: list[str], every: timedelta, spans: Mapping[str, timedelta]
) -> pl.DataFrame:
    known = (
        sources.labels(raw)
        .filter(pl.col("label_timestamp").is_not_null())
        .select(*keys, known_at="label_timestamp", flights=1, late="late")
    )
    snapshots = _snapshots(raw["flights"], keys, every)
    columns = [
        windows.trailing(snapshots, known, keys, ["flights", "late"], window).select(
            _rate("late", "flights").alias(f"{prefix}_late_rate_{name}"),
            pl.col("flights").cast(pl.Int32).alias(f"{prefix}_flights_{name}"),
        )
        for name, window in spans.items()
    ]
    return _published(snapshots).hstack(pl.concat(columns, how="horizontal"))


def _snapshots(flights: pl.DataFrame, keys: list[str], every: timedelta) -> pl.DataFrame:
    scheduled = flights.select(*keys, known_at="scheduled_departure")
    return windows.grid(scheduled, keys, every, RUN_ON)


def _published(snapshots: pl.DataFrame) -> pl.DataFrame:
    return snapshots.rename({"snapshot": "event_timestamp"}).with_columns(
        created_timestamp=pl.col("event_timestamp") + PUBLISH_LAG
    )


def _rate(total: str, count: str | pl.Expr) -> pl.Expr:
    """Return total / count; null where there is nothing to divide by."""
    count = pl.col(count) if isinstance(count, str) else count
    return pl.when(count > 0).then(pl.col(total) / count).cast(pl.Float32)
