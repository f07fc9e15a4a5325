"""The request-time features of `flight_delay`: what the request itself says, on New York's clock.

This module exists so that a training batch and one live request go through the same few lines of
numpy: `request` takes columns of any length. It imports neither Feast nor polars, so that the
gateway that answers requests does not have to load them. It refuses a prediction without a time.
"""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from mlplatform.errors import DataError

Column = npt.NDArray[Any]

REQUEST_INPUTS: Final = (
    "event_timestamp",
    "distance",
    "scheduled_arrival",
    "previous_scheduled_arrival",
    "previous_landed_at",
)
"""Columns that `request` reads. Times are UTC as datetime64 of any unit, NaT where unknown;
distance is in miles. The last two come from the feature view `aircraft_leg`."""

_ZONE: Final = "America/New_York"


def request(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return the request-time features, float32, one value for each row.

    `departure_hour` (hours since local midnight), `departure_weekday` (1 Monday to 7 Sunday),
    `departure_month` (1-12), `distance_miles`, `scheduled_minutes` (gate to gate by timetable),
    `leg_gap_minutes` (from the scheduled arrival of the aircraft's previous leg to this scheduled
    departure: flight back and turn-round) and `leg_slack_minutes` (the same from its actual
    landing). Unknown is NaN.

    Args:
        columns: At least the columns of `REQUEST_INPUTS`, equally long.

    Raises:
        DataError: A column is missing, or a row has no `event_timestamp`.
    """
    missing = [name for name in REQUEST_INPUTS if name not in columns]
    if missing:
        raise DataError(
            f"flight_delay: request features need the columns {', '.join(missing)}: "
            "join them or take them from the request"
        )
    # Times go through whole seconds: finer units of different sources compare equal.
    now, arrival, previous, landed = (
        np.asarray(columns[name]).astype("datetime64[s]")
        for name in (
            "event_timestamp",
            "scheduled_arrival",
            "previous_scheduled_arrival",
            "previous_landed_at",
        )
    )
    if np.isnat(now).any():
        raise DataError(
            f"flight_delay: {int(np.isnat(now).sum())} of {now.size} requests have no "
            "event_timestamp: the time of the prediction is always known"
        )
    local = new_york_clock(now)
    day = local.astype("datetime64[D]")
    features: dict[str, Column] = {
        "departure_hour": (local - day).astype(np.float64) / 3600,
        "departure_weekday": (day.astype(np.int64) + 3) % 7 + 1,  # 1970-01-01 was a Thursday
        "departure_month": local.astype("datetime64[M]").astype(np.int64) % 12 + 1,
        "distance_miles": np.asarray(columns["distance"]),
        "scheduled_minutes": _minutes(arrival - now),
        "leg_gap_minutes": _minutes(now - previous),
        "leg_slack_minutes": _minutes(now - landed),
    }
    return {name: values.astype(np.float32) for name, values in features.items()}


def new_york_clock(moments: Column) -> Column:
    """Return what New York's clocks show at moments in UTC; both datetime64[s], without NaT."""
    if not moments.size:
        return moments
    years = moments.astype("datetime64[Y]").astype(np.int64) + 1970
    changes, offsets = _offsets(int(years.min()), int(years.max()))
    shown: Column = moments + offsets[np.searchsorted(changes, moments, side="right")]
    return shown


@functools.lru_cache(maxsize=64)
def _offsets(first: int, last: int) -> tuple[Column, Column]:
    """Return the zone's changes in the years `first` to `last` and the offsets around them.

    There is one more offset than changes.
    """
    years = [_changes(year) for year in range(first, last + 1)]
    changes = [change for _, found in years for change in found]
    offsets = [years[0][0], *(offset for _, offset in changes)]
    return (
        np.array([moment for moment, _ in changes], dtype="datetime64[s]"),
        np.array([int(offset.total_seconds()) for offset in offsets], dtype="timedelta64[s]"),
    )


@functools.cache
def _changes(year: int) -> tuple[timedelta, tuple[tuple[datetime, timedelta], ...]]:
    """Return the zone's offset as a year begins, and its changes in it: moment and new offset.

    The zone database tells an offset at a moment, not when it changes: we ask once a day and halve
    the day of a change down to the second. That takes a millisecond, once for each year.
    """
    zone = ZoneInfo(_ZONE)

    def offset(moment: datetime) -> timedelta:
        shift = moment.astimezone(zone).utcoffset()
        return shift if shift is not None else timedelta()

    day = datetime(year, 1, 1, tzinfo=UTC)
    first = known = offset(day)
    found = []
    while day.year == year:
        following = day + timedelta(days=1)
        if offset(following) != known:
            low, high = day, following
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (middle, high) if offset(middle) == known else (low, middle)
            known = offset(high)
            found.append((high.replace(tzinfo=None), known))
        day = following
    return first, tuple(found)


def _minutes(span: Column) -> Column:
    """Return a span of seconds in minutes; NaT becomes NaN."""
    minutes: Column = np.where(np.isnat(span), np.nan, span.astype(np.float64) / 60)
    return minutes
