"""What `flight_delay` asks the feature store for: entities, sources, views and the model's inputs.

This module is where a feature is declared: its function is in `views` (batch) or `request`
(request time), its type, owner and freshness here. `GROUPS` fixes the order of the model's inputs.
It holds no values and reads no data; `feature_repo/definitions.py` hands its objects to Feast.

To change how a feature is computed once a model uses it, add `flight_delay_v2` beside the service
below: a registered model names the service that it was trained on.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import polars as pl
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int32, String, UnixTimestamp

from usecases.flight_delay import views
from usecases.flight_delay.request import REQUEST_INPUTS, request

__all__ = ["BATCH", "FEATURES", "GROUPS", "REQUEST_INPUTS", "SERVICE", "VIEWS", "request"]

_OWNER: Final = "flight-operations"

flight = Entity(
    name="flight",
    join_keys=["flight_key"],
    value_type=ValueType.STRING,
    description="One departure; the unit of a rollout's assignment. It has no features of its own.",
)
origin = Entity(
    name="origin",
    join_keys=["origin"],
    value_type=ValueType.STRING,
    description="Airport of departure: EWR, JFK or LGA.",
)
destination = Entity(
    name="destination",
    join_keys=["dest"],
    value_type=ValueType.STRING,
    description="Airport of arrival; with `origin` the key of a route.",
)
carrier = Entity(
    name="carrier",
    join_keys=["carrier"],
    value_type=ValueType.STRING,
    description="Two-character IATA code of the airline.",
)
aircraft = Entity(
    name="aircraft",
    join_keys=["tailnum"],
    value_type=ValueType.STRING,
    description="Registration of the aircraft; unknown for some cancelled flights.",
)


def _view(
    name: str, entities: list[Entity], ttl: timedelta, freshness: str, schema: list[Field]
) -> FeatureView:
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        # With the keys in it Feast has nothing to infer from files that may not exist yet.
        schema=[*(Field(name=key.join_key, dtype=String) for key in entities), *schema],
        source=FileSource(
            name=f"flight_delay_{name}",
            path=f"flight_delay/{name}",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        owner=_OWNER,
        tags={"owner": _OWNER, "freshness": freshness},
    )


origin_weather = _view(
    "origin_weather",
    [origin],
    # A report is one hour old when it appears and two when the next does: two may be missed.
    ttl=timedelta(hours=4),
    freshness="1 h",
    schema=[
        Field(name="temp", dtype=Float32, description="Temperature, °F."),
        Field(name="humid", dtype=Float32, description="Relative humidity, %."),
        Field(name="wind_speed", dtype=Float32, description="Wind, mph."),
        Field(name="wind_gust", dtype=Float32, description="Gusts, mph; null: none reported."),
        Field(name="precip", dtype=Float32, description="Precipitation of the hour, inches."),
        Field(name="pressure", dtype=Float32, description="Sea-level pressure, millibars."),
        Field(name="visib", dtype=Float32, description="Visibility, miles, at most 10."),
    ],
)
origin_congestion = _view(
    "origin_congestion",
    [origin],
    ttl=timedelta(hours=1),  # four snapshots; an older one says nothing about the queue now
    freshness="15 min",
    schema=[
        *(
            field
            for name in views.CONGESTION_WINDOWS
            for field in (
                Field(name=f"departures_{name}", dtype=Int32),
                Field(name=f"departure_delay_{name}", dtype=Float32, description="Minutes, mean."),
                Field(name=f"cancelled_share_{name}", dtype=Float32),
            )
        ),
        Field(name="waiting", dtype=Int32, description="Flights due that have not left."),
        Field(name="waiting_minutes", dtype=Float32, description="Their mean wait so far."),
    ],
)
carrier_delay = _view(
    "carrier_delay",
    [carrier],
    ttl=timedelta(hours=3),  # three snapshots
    freshness="1 h",
    schema=[
        field
        for name in views.CARRIER_WINDOWS
        for field in (
            Field(name=f"carrier_late_rate_{name}", dtype=Float32),
            Field(name=f"carrier_flights_{name}", dtype=Int32),
        )
    ],
)
route_delay = _view(
    "route_delay",
    [origin, destination],
    ttl=timedelta(days=2),  # two snapshots
    freshness="1 d",
    schema=[
        field
        for name in views.ROUTE_WINDOWS
        for field in (
            Field(name=f"route_late_rate_{name}", dtype=Float32),
            Field(name=f"route_flights_{name}", dtype=Int32),
        )
    ],
)
aircraft_leg = _view(
    "aircraft_leg",
    [aircraft],
    # After a day without a leg from New York the aircraft's last delay there has been slept off.
    ttl=timedelta(hours=24),
    freshness="1 min",
    schema=[
        Field(name="previous_arrival_delay", dtype=Float32, description="Minutes."),
        Field(name="previous_cancelled", dtype=Int32, description="1: the leg was cancelled."),
        Field(name="previous_scheduled_arrival", dtype=UnixTimestamp, description="Input."),
        Field(name="previous_landed_at", dtype=UnixTimestamp, description="Input."),
    ],
)

VIEWS: Final = (origin_weather, origin_congestion, carrier_delay, route_delay, aircraft_leg)

SERVICE: Final = FeatureService(
    name="flight_delay_v1",
    features=list(VIEWS),
    owner=_OWNER,
    description="Batch features of the flight_delay model, and two inputs of its request features.",
    tags={"owner": _OWNER, "usecase": "flight_delay"},
)

BATCH: Final[Mapping[str, Callable[[Mapping[str, pl.DataFrame]], pl.DataFrame]]] = {
    "origin_weather": views.origin_weather,
    "origin_congestion": views.origin_congestion,
    "carrier_delay": views.carrier_delay,
    "route_delay": views.route_delay,
    "aircraft_leg": views.aircraft_leg,
}
"""Feature view → the function that computes its rows from raw events."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "weather": tuple(field.name for field in origin_weather.features),
    "congestion": tuple(field.name for field in origin_congestion.features),
    "carrier": tuple(field.name for field in carrier_delay.features),
    "route": tuple(field.name for field in route_delay.features),
    "aircraft": (
        "previous_arrival_delay",
        "previous_cancelled",
        "leg_gap_minutes",
        "leg_slack_minutes",
    ),
    "request": (
        "departure_hour",
        "departure_weekday",
        "departure_month",
        "distance_miles",
        "scheduled_minutes",
    ),
}
"""The model's inputs in its order, by group; evaluation asks what each group is worth."""

FEATURES: Final = tuple(name for group in GROUPS.values() for name in group)
"""The model's inputs, in order."""
