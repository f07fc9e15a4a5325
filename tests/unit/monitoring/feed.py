"""A small use case as monitoring sees it: days of its log, and the reference that they are beside.

Requests come by day and hardly by night, fewer on Saturdays. The weather belongs to the quarter of
an hour (`temp` is measured in °C and told in °F, so it lies on a grid), the rest to the row.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo import catalog, predictions
from feature_repo.profile.calibration import SCORE, TIME, calibrate
from feature_repo.profile.reference import Reference
from mlplatform.contracts import OnlineField, OnlineGroup, OnlineLayout, OnlineView, UseCase, Window
from mlplatform.contracts.profile import Profile

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
NAMES: Final = ("temp", "wind", "rain", "distance", "gap", "delay", "flag")
SPEC: Final[UseCase] = catalog.spec("flight_delay")
REFERENCE_DAYS: Final = 40

Matrix = npt.NDArray[np.float32]
_NAN: Final = np.float32("nan")


def _view(name: str, ttl_hours: float, *fields: str) -> OnlineView:
    return OnlineView(
        name=name,
        ttl_seconds=ttl_hours * 3600,
        fields=tuple(OnlineField(name=field, dtype="float32") for field in fields),
    )


LAYOUT: Final = OnlineLayout(
    project="tests",
    service="service_v1",
    groups=(
        OnlineGroup(keys=("origin",), views=(_view("weather", 4, "temp", "wind", "rain"),)),
        OnlineGroup(keys=("tailnum",), views=(_view("leg", 24, "gap", "delay", "flag"),)),
    ),
)


def window(day: int) -> Window:
    return Window(start=START + day * DAY, end=START + (day + 1) * DAY)


def drawn(day: int, *, warmer: float = 0.0, rows: int = 600) -> tuple[list[datetime], Matrix]:
    """Return the times and vectors of a day, the same ones for the same day."""
    rng = np.random.default_rng(day)
    of_day = (START + day * DAY).isoweekday()
    rows = round(rows * (0.8 if of_day == 6 else 1.0) * rng.normal(1, 0.02))
    hours = np.sort(
        np.where(rng.random(rows) < 0.98, rng.uniform(10, 23, rows), 24 * rng.random(rows))
    )
    at = (4 * hours).astype(int)
    celsius = np.round(8 + warmer / 1.8 + rng.normal(0, 2) + rng.normal(0, 2, 96), 1)
    knots = np.round(np.abs(rng.normal(8, 3, 96)))
    values = np.column_stack(
        [
            np.round(celsius * 1.8 + 32, 2)[at],
            (knots * 1.15078)[at],
            np.where(rng.random(96) < 0.05, 0.01, 0.0)[at],
            rng.choice(np.arange(100, 3000, 7), rows),
            rng.gamma(2, 30, rows),
            np.where(rng.random(rows) < 0.1, np.nan, rng.normal(5, 30, rows)),
            rng.random(rows) < 0.05,
        ]
    ).astype(np.float32)
    return [START + day * DAY + timedelta(hours=hour) for hour in hours.tolist()], values


def log(day: int, times: Sequence[datetime], values: Matrix) -> pl.DataFrame:
    """Return the archive's rows of requests at these times."""
    hour = pl.col("event_time").dt.truncate("1h")
    request = msgspec.json.encode(dict.fromkeys(SPEC.serving.request, 1)).decode()
    known: dict[str, Any] = {
        "request_id": [f"{day}-{number}" for number in range(len(times))],
        "entity": [f"flight-{number}" for number in range(len(times))],
        "event_time": list(times),
        "features": pl.Series(values).cast(pl.List(pl.Float32)),
    }
    rows = pl.DataFrame(known, schema_overrides={"event_time": pl.Datetime("us", "UTC")})
    return rows.with_columns(
        request=pl.lit(request),
        arm=pl.lit("champion"),
        version=pl.lit(1),
        service=pl.lit(LAYOUT.service),
        feature_times=pl.concat_list(
            hour - timedelta(hours=1), pl.col("event_time") - timedelta(minutes=40)
        ),
        reasons=pl.lit([], pl.List(pl.String)),
    ).select(
        (pl.col(name) if name in _MADE else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in predictions.SCHEMA.items()
    )


_MADE: Final = {
    "request_id", "entity", "event_time", "features", "request", "arm", "version", "service",
    "feature_times", "reasons",
}  # fmt: skip


def sound(day: int, **changes: Any) -> pl.DataFrame:
    """Return the log of a day on which nothing is wrong."""
    return log(day, *drawn(day, **changes))


def reference(
    days: Sequence[int] = range(REFERENCE_DAYS), *, rows: int = 600, hours: float = 24
) -> Reference:
    """Return what a model that was trained on these days is registered with."""
    frames = []
    for day in days:
        times, values = drawn(day, rows=rows)
        frame = pl.DataFrame(values, schema=dict.fromkeys(NAMES, pl.Float32)).fill_nan(None)
        frames.append(frame.insert_column(0, pl.Series(TIME, times, pl.Datetime("us", "UTC"))))
    kept = pl.concat(frames).with_columns(pl.lit(None, pl.Float32).alias(SCORE))
    profile = Profile(
        usecase=SPEC.name,
        feature_service=LAYOUT.service,
        features=NAMES,
        window=Window(start=START, end=START + len(days) * DAY),
        training_rows=kept.height,
        window_hours=hours,
        windows=round(len(days) * 24 / hours),
        rows=kept.height,
        row_share=1.0,
        score_rows=0,
        calibration=None,
    )
    return Reference(profile, kept)


def calibrated(known: Reference) -> Reference:
    """Return the same with thresholds of drift."""
    found = calibrate(known.rows, window_hours=24, false_alarm_rate=0.01)
    return Reference(known.profile.model_copy(update={"calibration": found}), known.rows)


def vectors(day: pl.DataFrame) -> pl.DataFrame:
    """Return what drift is looked for in: a column for each input, and no score."""
    values = np.array(day["features"].to_list(), dtype=np.float32).reshape(-1, len(NAMES))
    frame = pl.DataFrame(values, schema=dict.fromkeys(NAMES, pl.Float32)).fill_nan(None)
    return frame.with_columns(pl.lit(None, pl.Float32).alias(SCORE))


def changed(
    day: pl.DataFrame, name: str, change: Callable[[Matrix], Any], since_hour: int = 0
) -> pl.DataFrame:
    """Return the day with another feature from an hour on."""
    values = np.array(day["features"].to_list(), dtype=np.float32)
    hit = (day["event_time"].dt.hour() >= since_hour).to_numpy()
    values[hit, NAMES.index(name)] = change(values[hit, NAMES.index(name)])
    return day.with_columns(pl.Series("features", values).cast(pl.List(pl.Float32)))


def stopped(day: pl.DataFrame, view: int, since: datetime) -> pl.DataFrame:
    """Return the day with a view whose newest row is of then; too old, it gives no features."""
    inner = LAYOUT.views[view]
    gone = pl.col("event_time") - since > timedelta(seconds=inner.ttl_seconds or 0)
    old = [pl.col("feature_times").list.get(number) for number in range(len(LAYOUT.views))]
    old[view] = pl.min_horizontal(old[view], pl.lit(since, pl.Datetime("us", "UTC")))
    late = day.select(gone).to_series().to_numpy()
    values = np.array(day["features"].to_list(), dtype=np.float32)
    places = [NAMES.index(field.name) for field in inner.fields]
    values[late[:, None] & np.isin(np.arange(len(NAMES)), places)] = _NAN
    return day.with_columns(
        pl.Series("features", values).cast(pl.List(pl.Float32)), feature_times=pl.concat_list(old)
    )
