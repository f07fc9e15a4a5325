"""Faults of feeds, planted in three days of the prediction log as they would have come.

Each takes the days and returns them broken. A view that stopped keeps its last row until its time
to live is over; then there is none, as the gateway would have it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from bench.feeds.data import vectors
from mlplatform.contracts import OnlineLayout, OnlineView

Days = Sequence[pl.DataFrame]
Matrix = npt.NDArray[Any]

_NOON: Final = 17
"""Hour in UTC: in the thick of the day."""
_UNITS: Final[dict[str, tuple[str, Callable[[Matrix], Matrix]]]] = {
    "temp": ("°F to °C", lambda x: (x - 32) / 1.8),
    "wind_speed": ("mph to km/h", lambda x: x * 1.609344),
    "pressure": ("millibars to inHg", lambda x: x / 33.8638866667),
    "visib": ("miles to kilometres", lambda x: x * 1.609344),
    "distance_miles": ("miles to kilometres", lambda x: x * 1.609344),
    "scheduled_minutes": ("minutes to hours", lambda x: x / 60),
    "departure_delay_1h": ("minutes to seconds", lambda x: x * 60),
    "waiting_minutes": ("minutes to seconds", lambda x: x * 60),
    "carrier_late_rate_24h": ("share to percent", lambda x: x * 100),
}


@dataclass(frozen=True)
class Fault:
    """One way in which a feed breaks."""

    kind: str
    name: str
    plant: Callable[[Days], list[pl.DataFrame]]


def faults(
    layout: OnlineLayout, names: tuple[str, ...], reference: pl.DataFrame
) -> Iterator[Fault]:
    """Yield all that is planted.

    Args:
        layout: Of the feature service.
        names: The model's inputs, in order.
        reference: Its medians are the defaults.
    """
    yield Fault("volume", "no requests at all", lambda days: [day.clear() for day in days])
    yield Fault("volume", "one request of two", lambda days: [day[::2] for day in days])
    yield Fault("gap", "none for three hours", _gap)
    yield Fault("duplicates", "an hour that came twice", _hour_twice)
    for number, view in enumerate(layout.views):
        yield Fault("stale", view.name, _stopped(view, number, names))
    for name, (conversion, change) in _UNITS.items():
        yield Fault("unit", f"{name}, {conversion}", _changed(names, name, change, hour=0))
    name = "temp"
    yield Fault(
        "unit", "temp, °F to °C from noon on", _changed(names, name, _UNITS[name][1], _NOON)
    )
    for name in names:
        if reference[name].n_unique() > 10:  # more than categories
            value = np.float32(reference[name].median() or 0)  # type: ignore[arg-type]  # of numbers
            fill = _constant(value)
            yield Fault("defaults", f"{name} = {value:.4g}", _changed(names, name, fill, hour=0))
    for name in ("distance_miles", "humid"):
        fill = _constant(np.float32(0))
        yield Fault("defaults", f"{name} = 0 from noon on", _changed(names, name, fill, _NOON))
    yield Fault("nulls", "humid", _changed(names, "humid", _constant(np.float32("nan")), hour=0))


def replaced(day: pl.DataFrame, values: Matrix) -> pl.DataFrame:
    """Return the day with other vectors, [N, F]."""
    return day.with_columns(pl.Series("features", values).cast(pl.List(pl.Float32)))


def midnight(day: pl.DataFrame) -> datetime:
    """Return when a day begins."""
    start: datetime = day["event_time"].dt.truncate("1d")[0]
    return start


def _gap(days: Days) -> list[pl.DataFrame]:
    hour = pl.col("event_time").dt.hour()
    return [day.filter(~hour.is_between(_NOON, _NOON + 2)) for day in days]


def _hour_twice(days: Days) -> list[pl.DataFrame]:
    return [
        pl.concat(
            [
                day,
                day.filter(pl.col("event_time").dt.hour() == _NOON).with_columns(
                    pl.col("request_id") + "-again", pl.col("sequence") + day.height
                ),
            ]
        )
        for day in days
    ]


def _constant(value: np.float32) -> Callable[[Matrix], Matrix]:
    return lambda x: np.full_like(x, value)


def _changed(
    names: tuple[str, ...], name: str, change: Callable[[Matrix], Matrix], hour: int
) -> Callable[[Days], list[pl.DataFrame]]:
    """Return what changes a feature from an hour of the first day on."""
    place = names.index(name)

    def plant(days: Days) -> list[pl.DataFrame]:
        since = midnight(days[0]) + timedelta(hours=hour)
        found = []
        for day in days:
            values = vectors(day, names).select(names).fill_null(float("nan")).to_numpy().copy()
            hit = (day["event_time"] >= since).to_numpy()
            values[hit, place] = change(values[hit, place])
            found.append(replaced(day, values))
        return found

    return plant


def _stopped(
    view: OnlineView, number: int, names: tuple[str, ...]
) -> Callable[[Days], list[pl.DataFrame]]:
    fields = [field.name for field in view.fields if field.name in names]
    keys = {
        "origin_weather": ["origin"],
        "origin_congestion": ["origin"],
        "carrier_delay": ["carrier"],
        "route_delay": ["origin", "dest"],
        "aircraft_leg": ["tailnum"],
    }[view.name]

    def plant(days: Days) -> list[pl.DataFrame]:
        rows = pl.concat(days)
        since = midnight(days[0]) + timedelta(hours=_NOON)
        asked = rows["request"].str.json_decode(pl.Struct(dict.fromkeys(keys, pl.String)))
        now = vectors(rows, names).select(names)
        time = pl.col("event_time")
        frozen = (
            pl.concat([asked.struct.unnest(), now.select(fields)], how="horizontal")
            .with_columns(rows["event_time"], read=rows["feature_times"].list.get(number))
            .with_columns(pl.when(time < since).then(pl.col(*fields, "read")))
            .with_columns(pl.col(*fields, "read").forward_fill().over(keys))
        )
        ttl = timedelta(seconds=view.ttl_seconds or 0)
        young = time - pl.col("read") <= ttl
        held = frozen.with_columns(pl.when(young).then(pl.col(name)).alias(name) for name in fields)
        values = now.with_columns(held[name] for name in fields).fill_null(float("nan")).to_numpy()
        reads = [rows["feature_times"].list.get(at) for at in range(len(rows["feature_times"][0]))]
        reads[number] = held["read"]
        times = pl.DataFrame([one.alias(str(at)) for at, one in enumerate(reads)])
        rows = replaced(rows, values).with_columns(
            times.select(feature_times=pl.concat_list(pl.all())).to_series()
        )
        edges = np.cumsum([0, *(day.height for day in days)])
        return [rows[first:end] for first, end in itertools.pairwise(edges.tolist())]

    return plant
