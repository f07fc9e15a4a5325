"""What counts as late, and when that was known."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from usecases.flight_delay import sources

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
TWO_HOURS = timedelta(hours=2)


def flight(**changes: Any) -> pl.DataFrame:
    """One flight that leaves at noon and is scheduled to land two hours later."""
    row = {
        "flight_key": "2013-07-01-UA-1-EWR",
        "carrier": "UA",
        "flight": 1,
        "origin": "EWR",
        "dest": "ORD",
        "tailnum": "N1",
        "distance": 719,
        "scheduled_departure": NOON,
        "scheduled_arrival": NOON + TWO_HOURS,
        "departed_at": NOON,
        "landed_at": NOON + TWO_HOURS,
        "dep_delay": 0,
        "arr_delay": 0,
        "cancelled": False,
    } | changes
    return pl.DataFrame([row], schema=sources._flights().schema)


def label_of(**changes: Any) -> tuple[int | None, datetime | None]:
    (row,) = sources.labels({"flights": flight(**changes)}).iter_rows(named=True)
    return row["late"], row["label_timestamp"]


@pytest.mark.parametrize(
    ("minutes", "late"),
    [
        pytest.param(-30, 0, id="early"),
        pytest.param(14, 0, id="14 minutes is on time"),
        pytest.param(15, 1, id="15 minutes is late"),
        pytest.param(600, 1, id="hours"),
    ],
)
def test_a_landed_flight_is_late_from_15_minutes_on_and_known_on_landing(
    minutes: int, late: int
) -> None:
    landed = NOON + TWO_HOURS + timedelta(minutes=minutes)

    assert (late, landed) == label_of(arr_delay=minutes, landed_at=landed)


def test_a_cancelled_flight_is_late_and_known_at_its_scheduled_departure() -> None:
    nothing = dict.fromkeys(("departed_at", "landed_at", "dep_delay", "arr_delay"))

    assert (1, NOON) == label_of(cancelled=True, **nothing)


def test_a_diverted_flight_never_has_a_label() -> None:
    assert (None, None) == label_of(landed_at=None, arr_delay=None)


def test_labels_carry_keys_times_slices_and_the_requests_own_facts() -> None:
    labels = sources.labels({"flights": flight(tailnum=None)})

    assert {
        "request_id": "2013-07-01-UA-1-EWR",
        "flight_key": "2013-07-01-UA-1-EWR",
        "origin": "EWR",
        "dest": "ORD",
        "carrier": "UA",
        "tailnum": None,
        "event_timestamp": NOON,
        "label_timestamp": NOON + TWO_HOURS,
        "late": 0,
        "hour": 8,
        "distance": 719,
        "scheduled_arrival": NOON + TWO_HOURS,
    } == labels.row(0, named=True)
    assert labels.schema["late"] == pl.Int8
    assert labels.schema["label_timestamp"] == pl.Datetime("us", "UTC")


def test_the_years_labels_are_unique_sorted_and_never_known_before_the_prediction() -> None:
    raw = sources.read(datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 2, 1, tzinfo=UTC))
    labels = sources.labels(raw)
    known = labels.filter(pl.col("late").is_not_null())

    assert 336_776 == labels["request_id"].n_unique()
    assert 1_175 == labels["label_timestamp"].null_count()
    assert labels["event_timestamp"].is_sorted()
    assert (known["label_timestamp"] >= known["event_timestamp"]).all()
    assert 0.2633 == pytest.approx(float(known["late"].sum()) / known.height, abs=5e-4)


def test_no_flight_gives_no_label_with_the_same_columns() -> None:
    empty = sources.labels({"flights": flight().clear()})

    assert sources.labels({"flights": flight()}).schema == empty.schema
    assert 0 == empty.height
