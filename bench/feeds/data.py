"""Days of the prediction log, from rows of a training set; and the faults of feeds planted in them.

A row of the log is what the gateway would have written: the vector, the times of the rows that it
read, the request as JSON. The times are made: a view has a row where the training set has values
of it, as old as the view's rows usually are.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import polars as pl

from feature_repo import predictions
from feature_repo.profile.calibration import TIME
from mlplatform.contracts import OnlineLayout

KEYS: Final = ("flight_key", "origin", "dest", "carrier", "tailnum")

EVERY: Final[Mapping[str, timedelta]] = {
    "origin_weather": timedelta(hours=1),
    "origin_congestion": timedelta(minutes=15),
    "carrier_delay": timedelta(hours=1),
    "route_delay": timedelta(days=1),
    "aircraft_leg": timedelta(minutes=1),
}
"""How often a view has new rows; as old as that a row is when it is read first."""


def logged(rows: pl.DataFrame, layout: OnlineLayout, names: tuple[str, ...]) -> pl.DataFrame:
    """Return rows of a training set as rows of the archive.

    Args:
        rows: `request_id`, `event_timestamp`, keys and the features.
        layout: Of the feature service.
        names: The model's inputs, in order.
    """
    times = []
    for view in layout.views:
        inputs = [field.name for field in view.fields if field.name in names]
        at = pl.col(TIME).dt.truncate(EVERY[view.name]) - EVERY[view.name]
        held = pl.any_horizontal(pl.col(name).is_not_null() for name in inputs)
        times.append(pl.when(held).then(at))
    request = pl.struct(
        *(name for name in KEYS if name in rows.columns),
        distance=pl.col("distance_miles").cast(pl.Int64),
        scheduled_arrival=pl.col(TIME).dt.epoch("us"),
    )
    known: dict[str, pl.Expr] = {
        "gateway": pl.lit("gateway-0"),
        "sequence": pl.int_range(pl.len(), dtype=pl.Int64),
        "usecase": pl.lit("flight_delay"),
        "event_time": pl.col(TIME),
        "received_at": pl.col(TIME),
        "arrived_at": pl.col(TIME),
        "request_id": pl.col("request_id"),
        "entity": pl.col("flight_key"),
        "request": request.struct.json_encode(),
        "arm": pl.lit("champion"),
        "version": pl.lit(1, pl.Int64),
        "service": pl.lit(layout.service),
        "features": pl.concat_list(pl.col(names).cast(pl.Float32).fill_null(float("nan"))),
        "feature_times": pl.concat_list(times),
        "score": pl.lit(0.5),
        "decision": pl.lit(value=True),
        "degraded": pl.lit(value=False),
        "fallback": pl.lit(value=False),
        "reasons": pl.lit([], pl.List(pl.String)),
    }
    return rows.select(
        known.get(name, pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in predictions.SCHEMA.items()
    )


def vectors(day: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Return what monitoring compares: one column for each feature, null where there is none."""
    fields = pl.col("features").list.to_struct(fields=list(names))
    return (
        day.select(pl.col("event_time").alias(TIME), features=fields)
        .unnest("features")
        .with_columns(pl.col(names).fill_nan(None))
    )
