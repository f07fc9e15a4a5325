"""A small random airport world, in the shape of the use case's raw tables."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

START = datetime(2013, 5, 1, tzinfo=UTC)
FLIGHTS: dict[str, Any] = {
    "flight_key": pl.String,
    "carrier": pl.String,
    "flight": pl.Int64,
    "origin": pl.String,
    "dest": pl.String,
    "tailnum": pl.String,
    "distance": pl.Int64,
    "scheduled_departure": pl.Datetime("us", "UTC"),
    "scheduled_arrival": pl.Datetime("us", "UTC"),
    "departed_at": pl.Datetime("us", "UTC"),
    "landed_at": pl.Datetime("us", "UTC"),
    "dep_delay": pl.Int64,
    "arr_delay": pl.Int64,
    "cancelled": pl.Boolean,
}
WEATHER: dict[str, Any] = {
    "origin": pl.String,
    "observed_hour": pl.Datetime("us", "UTC"),
    **dict.fromkeys(
        ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure",
         "visib"),
        pl.Float64,
    ),
}  # fmt: skip

World = Callable[..., dict[str, pl.DataFrame]]


def _flight(draw: random.Random, number: int, hours: int) -> dict[str, Any]:
    # Multiples of five minutes: many flights share a moment with each other and with the grids.
    due = START + timedelta(minutes=5 * draw.randrange(hours * 12))
    arrival = due + timedelta(minutes=5 * draw.randrange(12, 60))
    fate = draw.random()
    left = None if fate < 0.1 else draw.choice([-10, -5, 0, 0, 5, 20, 90, 300])
    landed = None if left is None or fate < 0.15 else left + draw.choice([-15, 0, 10, 14, 15])
    return {
        "flight_key": f"{due:%Y-%m-%d}-UA-{number}-EWR",
        "carrier": draw.choice(["UA", "B6"]),
        "flight": number,
        "origin": draw.choice(["EWR", "JFK"]),
        "dest": draw.choice(["BOS", "LAX"]),
        "tailnum": draw.choice(["N1AAA", "N2AAA", "N3AAA", None]),
        "distance": draw.randrange(100, 3000),
        "scheduled_departure": due,
        "scheduled_arrival": arrival,
        "departed_at": None if left is None else due + timedelta(minutes=left),
        "landed_at": None if landed is None else arrival + timedelta(minutes=landed),
        "dep_delay": left,
        "arr_delay": landed,
        "cancelled": left is None,
    }


def make_world(seed: int, flights: int = 60, hours: int = 30) -> dict[str, pl.DataFrame]:
    draw = random.Random(seed)  # noqa: S311  # test data, no secret
    rows = [_flight(draw, number, hours) for number in range(1, flights + 1)]
    weather = [
        {"origin": origin, "observed_hour": START + timedelta(hours=hour)}
        | {name: float(draw.randrange(100)) for name, kind in WEATHER.items() if kind == pl.Float64}
        for hour in range(hours)
        for origin in ("EWR", "JFK")
    ]
    return {
        "flights": pl.DataFrame(rows, schema=FLIGHTS).sort("scheduled_departure", "flight_key"),
        "weather": pl.DataFrame(weather, schema=WEATHER).sort("observed_hour", "origin"),
    }


@pytest.fixture(scope="session")  # a function, so that examples of one test may share it
def world() -> World:
    """Make raw tables of some random hours: `world(seed, flights=60, hours=30)`."""
    return make_world
