"""Nothing that became known after a prediction changes its features."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from feature_repo.history import FramePiece, View
from feature_repo.pit import join
from usecases.flight_delay import features, sources

World = Callable[..., dict[str, pl.DataFrame]]
Row = dict[str, Any]
START = datetime(2013, 5, 1, tzinfo=UTC)
HOURS = 30
MINUTE = timedelta(minutes=1)


def features_of(raw: dict[str, pl.DataFrame], labels: pl.DataFrame) -> pl.DataFrame:
    """Join the views at the labels' times and compute the request features: the model's inputs."""
    views = []
    for declared in features.VIEWS:
        names = [field.name for field in declared.features]
        view = View(
            name=declared.name,
            keys={key: key for key in declared.join_keys},
            features={name: name for name in names},
            ttl=declared.ttl,
        )
        views.append((view, [FramePiece(features.BATCH[declared.name](raw))]))
    joined = join(labels, views)
    inputs = {name: joined[name].to_numpy() for name in features.REQUEST_INPUTS}
    computed = features.request(inputs)
    return joined.with_columns(
        pl.Series(name, values, nan_to_null=True) for name, values in computed.items()
    ).select("request_id", *features.FEATURES)


def another_future(
    raw: dict[str, pl.DataFrame], now: datetime, seed: int
) -> dict[str, pl.DataFrame]:
    """Change everything that was not known at `now`, and nothing that was."""
    draw = random.Random(seed)  # noqa: S311  # test data, no secret

    def later() -> datetime:
        return now + MINUTE * draw.randrange(1, 600)

    def changed(row: Row) -> Row:
        due = row["scheduled_departure"]
        if due >= now:
            # Its fate is open; whether it will be cancelled is known at its departure.
            row["cancelled"] = draw.random() < 0.5
            row["departed_at"] = None if row["cancelled"] else max(due, later())
            row["landed_at"] = None if row["cancelled"] else later() + timedelta(hours=2)
        elif not row["cancelled"]:
            if row["departed_at"] > now:
                row["departed_at"] = later()
            if row["landed_at"] is None or row["landed_at"] > now:
                row["landed_at"] = draw.choice([None, max(later(), row["departed_at"])])
        left, landed = row["departed_at"], row["landed_at"]
        row["dep_delay"] = None if left is None else (left - due) // MINUTE
        row["arr_delay"] = None if landed is None else (landed - row["scheduled_arrival"]) // MINUTE
        return row

    flights, weather = raw["flights"], raw["weather"]
    rows = [changed(row) for row in flights.iter_rows(named=True)]
    fresh = pl.col("observed_hour") + timedelta(minutes=60) > now
    measured = [name for name, kind in weather.schema.items() if kind == pl.Float64]
    return {
        "flights": pl.DataFrame(rows, schema=flights.schema),
        "weather": weather.with_columns(
            pl.when(fresh).then(pl.col(name) + draw.random()).otherwise(name).alias(name)
            for name in measured
        ),
    }


def predictions_at(raw: dict[str, pl.DataFrame], now: datetime) -> pl.DataFrame:
    """The labels as if all flights of the world left at `now`, and those that really do."""
    labels = sources.labels(raw)
    return labels.with_columns(event_timestamp=pl.lit(now, dtype=pl.Datetime("us", "UTC")))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9), minutes=st.integers(0, HOURS * 12), future=st.integers(0, 10_000))
def test_another_future_gives_the_same_features(
    world: World, seed: int, minutes: int, future: int
) -> None:
    raw = world(seed, hours=HOURS)
    now = START + 5 * minutes * MINUTE
    labels = predictions_at(raw, now)

    assert_frame_equal(
        features_of(raw, labels), features_of(another_future(raw, now, future), labels)
    )


def test_another_past_gives_other_features(world: World) -> None:
    """The test above could not fail if features did not depend on events at all."""
    raw = world(3, hours=HOURS)
    now = START + timedelta(hours=29)  # the second day: the first daily snapshot lies behind
    labels = predictions_at(raw, now)
    other = another_future(raw, now - timedelta(hours=20), 1)
    before, after = features_of(raw, labels), features_of(other, labels)
    moved = [
        group
        for group, names in features.GROUPS.items()
        if not before.select(names).equals(after.select(names))
    ]

    # The request's own facts do not change with the world.
    assert [group for group in features.GROUPS if group != "request"] == moved


@pytest.mark.parametrize("cancelled", [pytest.param(True, id="cancelled"), False])
def test_a_flights_own_fate_is_in_none_of_its_features(world: World, cancelled: bool) -> None:
    """A cancellation is known at the very moment of the prediction: the lags keep it out."""
    raw = world(2)
    flights = raw["flights"]
    # On the grids of all snapshots, where own and other facts share one moment.
    midnight = START + timedelta(days=1)
    own = flights.with_row_index().filter(pl.col("tailnum").is_not_null())["index"][0]
    rows = flights.to_dicts()
    rows[own] |= {"scheduled_departure": midnight, "scheduled_arrival": midnight + 120 * MINUTE}
    flown = {"departed_at": midnight, "landed_at": midnight + 120 * MINUTE, "dep_delay": 0}
    gone = dict.fromkeys(("departed_at", "landed_at", "dep_delay", "arr_delay"))
    rows[own] |= {"cancelled": False, "arr_delay": 0} | flown
    plain = {**raw, "flights": pl.DataFrame(rows, schema=flights.schema)}
    rows[own] |= {"cancelled": True} | gone if cancelled else {"landed_at": None, "arr_delay": None}
    fated = {**raw, "flights": pl.DataFrame(rows, schema=flights.schema)}
    label = sources.labels(plain).filter(pl.col("request_id") == rows[own]["flight_key"])

    assert [midnight] == label["event_timestamp"].to_list()
    assert_frame_equal(features_of(plain, label), features_of(fated, label))


def test_a_leg_in_the_air_is_not_the_previous_leg(world: World) -> None:
    raw = world(1)
    template = raw["flights"].filter(pl.col("landed_at").is_not_null()).row(0, named=True)

    def leg(number: int, hour: int, hours: int, delay: int) -> Row:
        due = START + timedelta(hours=hour)
        arrival = due + timedelta(hours=hours)
        return template | {
            "flight_key": f"2013-05-01-UA-{number}-EWR",
            "tailnum": "N9AAA",
            "scheduled_departure": due,
            "departed_at": due,
            "dep_delay": 0,
            "scheduled_arrival": arrival,
            "landed_at": arrival + delay * MINUTE,
            "arr_delay": delay,
            "cancelled": False,
        }

    legs = [leg(1, 2, 2, 11), leg(2, 6, 2, 22), leg(3, 8, 1, 0)]
    legs_only = {**raw, "flights": pl.DataFrame(legs, schema=raw["flights"].schema)}
    third = sources.labels(legs_only).filter(pl.col("request_id") == "2013-05-01-UA-3-EWR")
    # The second leg was to land at 8:00 and did at 8:22; the feed says so at 8:23.
    seen = {
        minutes: features_of(
            legs_only, third.with_columns(pl.col("event_timestamp") + minutes * MINUTE)
        )
        for minutes in (0, 22, 23)
    }

    assert [11, 11, 22] == [row["previous_arrival_delay"].item() for row in seen.values()]
    assert [240, 262, 23] == [row["leg_gap_minutes"].item() for row in seen.values()]
    assert [229, 251, 1] == [row["leg_slack_minutes"].item() for row in seen.values()]


def test_a_leg_of_the_day_before_yesterday_is_forgotten_and_no_aircraft_has_no_leg(
    world: World,
) -> None:
    raw = world(1)
    labels = predictions_at(raw, START + timedelta(hours=HOURS + 49))
    aircraft = list(features.GROUPS["aircraft"])
    unknown = predictions_at(raw, START + timedelta(hours=HOURS)).with_columns(
        tailnum=pl.lit(None, dtype=pl.String)
    )

    for rows in (labels, unknown):
        assert {rows.height} == set(features_of(raw, rows).select(aircraft).null_count().row(0))
