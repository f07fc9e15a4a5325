"""The times of the real flights, checked against the zone database and against each other."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from mlplatform.errors import DataError
from usecases.flight_delay import sources

YEAR = (datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 2, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return sources.read(*YEAR)["flights"]


@pytest.fixture(scope="module")
def published() -> pl.DataFrame:
    """The publisher's own columns, by the same key as our flights."""
    import zipfile

    with zipfile.ZipFile(sources._file("flights.csv.zip")) as archive:
        rows = pl.read_csv(
            archive.read("flights.csv"), null_values=["NA"], infer_schema_length=20_000
        )
    zones = pl.read_csv(sources._file("airports.csv"), null_values=["\\N"]).select(
        dest="faa", zone="tzone"
    )
    key = pl.concat_str(
        pl.date("year", "month", "day").dt.to_string(), "carrier", "flight", "origin", separator="-"
    )
    unlisted = pl.col("dest").replace_strict(dict(sources.UNLISTED_ZONES), default=None)
    return rows.with_columns(flight_key=key).join(zones, on="dest", how="left").with_columns(
        zone=pl.col("zone").fill_null(unlisted)
    )  # fmt: skip


def test_all_flights_of_the_year_are_read_each_once(flights: pl.DataFrame) -> None:
    assert (336_776, 336_776) == (flights.height, flights["flight_key"].n_unique())
    assert 8_255 == flights["cancelled"].sum()
    assert 1_175 == flights.filter(~pl.col("cancelled") & pl.col("landed_at").is_null()).height


@pytest.mark.parametrize(
    ("key", "departure", "arrival"),
    [
        pytest.param(
            "2013-01-01-UA-1545-EWR",
            "2013-01-01T10:15",
            "2013-01-01T14:19",
            id="winter: 5:15 EST, lands 8:19 in Houston",
        ),
        pytest.param(
            "2013-03-09-B6-727-JFK",
            "2013-03-10T04:59",
            "2013-03-10T08:38",
            id="leaves 23:59 EST before spring's change, lands in Puerto Rico after it",
        ),
        pytest.param(
            "2013-03-09-AA-185-JFK",
            "2013-03-10T02:35",
            "2013-03-10T08:50",
            id="lands in Los Angeles after New York's change and before its own",
        ),
        pytest.param(
            "2013-03-09-HA-51-JFK",
            "2013-03-09T14:00",
            "2013-03-10T01:40",
            id="9:00 EST to Honolulu, which never changes",
        ),
        pytest.param(
            "2013-03-10-HA-51-JFK",
            "2013-03-10T14:00",
            "2013-03-11T01:30",
            id="10:00 EDT to Honolulu, the same moment of the day",
        ),
        pytest.param(
            "2013-11-02-B6-839-JFK",
            "2013-11-03T03:59",
            "2013-11-03T07:37",
            id="leaves 23:59 EDT before autumn's change, lands in Puerto Rico after it",
        ),
        pytest.param(
            "2013-11-02-B6-523-JFK",
            "2013-11-03T00:40",
            "2013-11-03T06:59",
            id="lands in Los Angeles after New York's change and before its own",
        ),
        pytest.param(
            "2013-11-03-HA-51-JFK",
            "2013-11-03T15:00",
            "2013-11-04T01:55",
            id="10:00 EST to Honolulu",
        ),
    ],
)
def test_known_flights_around_the_clock_changes_have_their_moments_in_utc(
    flights: pl.DataFrame, key: str, departure: str, arrival: str
) -> None:
    (row,) = flights.filter(pl.col("flight_key") == key).iter_rows(named=True)
    got = (row["scheduled_departure"], row["scheduled_arrival"])

    assert (_utc(departure), _utc(arrival)) == got


def test_both_schedules_show_the_published_local_times_by_the_zone_database(
    flights: pl.DataFrame, published: pl.DataFrame
) -> None:
    """Independent of the code: each of the 336,776 moments is put on a clock by zoneinfo."""
    rows = flights.join(published, on="flight_key", validate="1:1")
    new_york = ZoneInfo("America/New_York")
    zones = {name: ZoneInfo(name) for name in rows["zone"].unique()}
    wrong = 0
    for left, shown, lands, showed, zone in rows.select(
        "scheduled_departure", "sched_dep_time", "scheduled_arrival", "sched_arr_time", "zone"
    ).iter_rows():
        start, end = left.astimezone(new_york), lands.astimezone(zones[zone])
        wrong += (start.hour * 100 + start.minute != shown) or (
            end.hour * 100 + end.minute != showed % 2400
        )

    assert 336_776 == rows.height
    assert 0 == wrong


def test_every_flight_is_scheduled_to_take_between_50_minutes_and_12_hours(
    flights: pl.DataFrame,
) -> None:
    """A zone or a date that is wrong shows here: it is off by an hour or by a day."""
    minutes = (flights["scheduled_arrival"] - flights["scheduled_departure"]).dt.total_minutes()

    assert (50, 700) == (minutes.min(), minutes.max())


def test_landing_agrees_with_the_published_clock_and_with_the_time_in_the_air(
    flights: pl.DataFrame, published: pl.DataFrame
) -> None:
    """`arr_time` and `air_time` are not used by the source; the landing follows from delays.

    One flight of 327,346 landed in the hour that spring skipped: the airport's clock still showed
    winter time. Ground time (taxi out and in) is always between 5 and 235 minutes.
    """
    landed = flights.join(published, on="flight_key").filter(pl.col("landed_at").is_not_null())
    shown = pl.concat(
        group.select(
            "flight_key",
            shown=pl.col("landed_at").dt.convert_time_zone(zone).dt.hour().cast(pl.Int64) * 100
            + pl.col("landed_at").dt.minute(),
            arr_time=pl.col("arr_time") % 2400,
        )
        for (zone,), group in landed.group_by("zone")
        if isinstance(zone, str)
    )
    ground = (landed["landed_at"] - landed["departed_at"]).dt.total_minutes() - landed["air_time"]

    assert 327_346 == landed.height
    assert 1 == shown.filter(pl.col("shown") != pl.col("arr_time")).height
    assert (5, 235) == (ground.min(), ground.max())


@pytest.mark.parametrize(
    ("departure", "zone", "clock", "arrival"),
    [
        pytest.param(
            "2013-11-03T05:00", "America/Chicago", 130, "2013-11-03T06:30", id="repeated: first"
        ),
        pytest.param(
            "2013-11-03T06:45", "America/Chicago", 130, "2013-11-03T07:30", id="repeated: second"
        ),
        pytest.param(
            "2013-03-10T05:00",
            "America/Chicago",
            230,
            "2013-03-10T08:30",
            id="skipped: as CST",
        ),
        pytest.param(
            "2013-03-10T05:00", "America/Phoenix", 230, "2013-03-10T09:30", id="Phoenix never skips"
        ),
        pytest.param(
            "2013-11-03T05:00", "Pacific/Honolulu", 130, "2013-11-03T11:30", id="nor Honolulu"
        ),
        pytest.param("2013-07-01T12:00", "America/Denver", 600, "2013-07-02T12:00", id="tomorrow"),
        pytest.param("2013-07-01T12:00", "America/Denver", 2400, "2013-07-02T06:00", id="midnight"),
    ],
)
def test_a_timetables_clock_means_its_first_moment_after_departure(
    departure: str, zone: str, clock: int, arrival: str
) -> None:
    flight = pl.DataFrame(
        {"scheduled_departure": [_utc(departure)], "zone": [zone], "sched_arr_time": [clock]},
        schema_overrides={"scheduled_departure": pl.Datetime("us", "UTC")},
    )

    assert [_utc(arrival)] == sources.scheduled_arrivals(flight).to_list()


def test_arrivals_keep_the_order_of_the_flights() -> None:
    zones = ["America/Chicago", "America/Denver", "America/Chicago"]
    noon = _utc("2013-07-01T12:00")
    flights = pl.DataFrame(
        {"scheduled_departure": [noon] * 3, "zone": zones, "sched_arr_time": [900, 900, 1000]},
        schema_overrides={"scheduled_departure": pl.Datetime("us", "UTC")},
    )
    hours = [2, 3, 3]

    assert [noon + timedelta(hours=hour) for hour in hours] == sources.scheduled_arrivals(
        flights
    ).to_list()


def test_a_window_holds_its_start_and_not_its_end() -> None:
    hour = _utc("2013-06-01T12:00")
    tables = sources.read(hour, hour + timedelta(hours=1))

    assert [hour] * 3 == tables["weather"]["observed_hour"].to_list()
    assert tables["flights"]["scheduled_departure"].is_between(
        hour, hour + timedelta(hours=1), closed="left"
    ).all()  # fmt: skip
    assert set(sources.TABLES) == set(tables)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(datetime(2013, 1, 1), YEAR[1], id="no zone"),  # noqa: DTZ001  # on purpose
        pytest.param(YEAR[1], YEAR[0], id="backwards"),
        pytest.param(YEAR[0], YEAR[0], id="empty"),
    ],
)
def test_a_window_without_zone_or_length_is_refused(start: datetime, end: datetime) -> None:
    with pytest.raises(DataError, match=r"pass two times with a zone"):
        sources.read(start, end)


def test_a_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(DataError, match=r"weather\.csv not found: install the package nycfl"):
        sources._weather.__wrapped__()


def test_a_destination_without_a_zone_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNLISTED_ZONES", {"SJU": "America/Puerto_Rico"})

    with pytest.raises(DataError, match=r"time zone of BQN, PSE, STT is unknown"):
        sources._flights.__wrapped__()


def test_the_wind_that_no_one_could_have_measured_is_missing() -> None:
    hour = _utc("2013-02-12T08:00")
    weather = sources.read(hour, hour + timedelta(hours=1))["weather"]

    assert [None] == weather.filter(pl.col("origin") == "EWR")["wind_speed"].to_list()


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
