"""Request-time features: one function for a batch and for a single live request."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import DataError
from usecases.flight_delay.request import REQUEST_INPUTS, new_york_clock, request

Columns = dict[str, "np.ndarray[Any, Any]"]
DEPARTURE = "2013-07-01T13:30"


def columns(**changes: Any) -> Columns:
    """A flight at 9:30 in New York whose aircraft landed two hours before."""
    row: dict[str, Any] = {
        "event_timestamp": np.datetime64(DEPARTURE, "us"),
        "distance": 719,
        "scheduled_arrival": np.datetime64("2013-07-01T16:00", "us"),
        "previous_scheduled_arrival": np.datetime64("2013-07-01T11:00", "us"),
        "previous_landed_at": np.datetime64("2013-07-01T11:30", "us"),
    } | changes
    return {name: np.array([value]) for name, value in row.items()}


def test_a_request_gives_clock_distance_schedule_and_gap() -> None:
    got = {name: values.tolist() for name, values in request(columns()).items()}

    assert {
        "departure_hour": [9.5],
        "departure_weekday": [1.0],
        "departure_month": [7.0],
        "distance_miles": [719.0],
        "scheduled_minutes": [150.0],
        "leg_gap_minutes": [150.0],
        "leg_slack_minutes": [120.0],
    } == got


@pytest.mark.parametrize("name", ["previous_scheduled_arrival", "previous_landed_at"])
def test_an_unknown_previous_leg_gives_nan(name: str) -> None:
    feature = {
        "previous_scheduled_arrival": "leg_gap_minutes",
        "previous_landed_at": "leg_slack_minutes",
    }[name]
    got = request(columns(**{name: np.datetime64("NaT")}))

    assert [feature] == [key for key, values in got.items() if np.isnan(values).any()]


def test_one_row_equals_the_same_row_of_a_batch() -> None:
    draw = np.random.default_rng(7)
    size = 500
    year = np.datetime64("2013-01-01", "us") + draw.integers(0, 365 * 86_400, size).astype(
        "timedelta64[s]"
    )
    back = draw.integers(0, 1_440, size).astype("timedelta64[m]")
    recent = back < np.timedelta64(5, "h")
    batch: Columns = {
        "event_timestamp": year,
        "distance": draw.integers(80, 5_000, size),
        "scheduled_arrival": year + np.timedelta64(3, "h"),
        "previous_scheduled_arrival": np.where(recent, np.datetime64("NaT"), year - back),
        "previous_landed_at": year - back,
    }
    whole = request(batch)
    single = [
        request({name: values[row : row + 1] for name, values in batch.items()})
        for row in range(size)
    ]

    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([row[name] for row in single]))
        assert np.float32 == values.dtype


def test_an_empty_batch_gives_empty_features() -> None:
    empty = {name: values[:0] for name, values in columns().items()}

    assert {0} == {values.size for values in request(empty).values()}


@given(
    st.datetimes(
        min_value=datetime(1990, 1, 1), max_value=datetime(2035, 12, 31)  # noqa: DTZ001
    )
)  # fmt: skip
def test_new_yorks_clock_is_that_of_the_zone_database(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    shown = new_york_clock(np.array([moment], dtype="datetime64[s]"))
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo("America/New_York"))

    assert local.replace(tzinfo=None) == shown.astype(object)[0]


@pytest.mark.parametrize(
    ("moment", "hour"),
    [
        pytest.param("2013-03-10T06:59:59", 1 + 59 / 60 + 59 / 3600, id="last second of EST"),
        pytest.param("2013-03-10T07:00:00", 3.0, id="first second of EDT"),
        pytest.param("2013-11-03T05:59:59", 1 + 59 / 60 + 59 / 3600, id="last second of EDT"),
        pytest.param("2013-11-03T06:00:00", 1.0, id="first second of EST"),
    ],
)
def test_the_clock_changes_at_the_second_that_it_changes(moment: str, hour: float) -> None:
    got = request(columns(event_timestamp=np.datetime64(moment, "us")))

    assert pytest.approx(hour, abs=1e-5) == float(got["departure_hour"][0])


def test_weekdays_and_months_are_local_and_start_at_one() -> None:
    week = np.datetime64("2013-12-30T02:00", "us") + np.arange(7) * np.timedelta64(1, "D")
    got = request(
        {name: np.repeat(values, 7) for name, values in columns().items()}
        | {"event_timestamp": week}
    )

    assert [7, 1, 2, 3, 4, 5, 6] == got["departure_weekday"].tolist()
    assert [12, 12, 12, 1, 1, 1, 1] == got["departure_month"].tolist()


def test_times_of_other_units_give_the_same_features() -> None:
    fine = {
        name: values.astype("datetime64[ns]") if values.dtype.kind == "M" else values
        for name, values in columns().items()
    }

    assert request(columns()) == request(fine)


@pytest.mark.parametrize("name", REQUEST_INPUTS)
def test_a_missing_input_is_named(name: str) -> None:
    inputs = columns()
    del inputs[name]

    with pytest.raises(DataError, match=rf"need the columns {name}: join them"):
        request(inputs)


def test_a_request_without_a_time_is_refused() -> None:
    inputs = {name: np.repeat(values, 3) for name, values in columns().items()}
    inputs["event_timestamp"][1] = np.datetime64("NaT")

    with pytest.raises(DataError, match=r"1 of 3 requests have no event_timestamp"):
        request(inputs)


def test_request_features_load_neither_feast_nor_polars() -> None:
    import subprocess
    import sys

    code = (
        "import sys, usecases.flight_delay.request\n"
        "print(sorted({'feast', 'polars', 'pandas'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert "[]\n" == shown.stdout
