"""Logged requests joined again, offline: what each vector should have been, and why it was not.

For each request there are two offline vectors. `offline` is what training would see: the
point-in-time join at the request's time. `held` is what the online store should have held: the
history's rows with exactly the times that the gateway logged. A served vector that equals `held`
and not `offline` differs because of a row; one that equals neither, because of a value.

It goes through the offline store, the use case's request function and the layout, as training and
serving do. It refuses nothing of the log: rows that cannot be compared are counted by reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.catalog import UseCaseCode
from feature_repo.inputs import with_inputs
from feature_repo.past_rows import EVENT, past_rows
from mlplatform.contracts import OnlineLayout, OnlineType, OnlineView

COLUMNS: Final = (
    "request_id", "event_time", "request", "service", "features", "feature_times", "reasons",
)  # fmt: skip
"""Columns of the archive (`feature_repo.predictions`) that are read here."""

Matrix = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]

_UTC: Final = pl.Datetime("us", "UTC")
_FIELDS: Final[Mapping[str, pl.DataType]] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "timestamp": pl.Int64(),
}
_STORED: Final[Mapping[OnlineType, pl.DataType]] = {
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "bool": pl.Boolean(),
    "timestamp": _UTC,
}


@dataclass(frozen=True)
class Replay:
    """N requests with F features of V views; times are microseconds since 1970, 0: no row.

    Attributes:
        rows: `COLUMNS`, [N].
        features: Names in the vectors' order, [F].
        served: What the model was given, [N, F].
        offline: What training would see, [N, F].
        held: The same from the history's rows of the online store's times, [N, F].
        inputs: What request-time features read, of `held`: columns [N].
        online_us: Event time of the row that was served, [N, V], expired ones included.
        offline_us: Of the row of `offline`, [N, V]; expired ones are none.
        found: Whether the history has a row of exactly that online time, [N, V].
        left_out: Logged rows that are not among the N, by reason.
    """

    rows: pl.DataFrame
    features: tuple[str, ...]
    served: Matrix
    offline: Matrix
    held: Matrix
    inputs: dict[str, npt.NDArray[Any]]
    online_us: Times
    offline_us: Times
    found: npt.NDArray[np.bool_]
    left_out: dict[str, int]

    @property
    def at_us(self) -> Times:
        """Event time of each request, [N]."""
        return microseconds(self.rows["event_time"])


def replay(code: UseCaseCode, layout: OnlineLayout, store: Any, logged: pl.DataFrame) -> Replay:
    """Join logged requests again at their own time.

    Args:
        code: The use case.
        layout: Of its feature service (`feature_repo.layout.load`).
        store: From `feature_repo.store.open_store`; its history must reach the last request.
        logged: `COLUMNS` of the prediction log.

    Raises:
        DataError: A request lacks a join key, or a join does not return each row once.
        ServiceError: The store does not know a view of the layout.
    """
    features = tuple(name for group in code.groups.values() for name in group)
    rows, left_out = _comparable(logged, layout, len(features))
    asked = _requests(code, rows)
    views = layout.views
    at = microseconds(rows["event_time"])
    online = np.array(
        rows["feature_times"].cast(pl.List(pl.Int64)).to_list(), dtype=np.float64
    ).reshape(rows.height, len(views))
    online_us = np.nan_to_num(online, nan=0.0).astype(np.int64)
    offline_us = np.zeros_like(online_us)
    found = np.zeros(online_us.shape, dtype=np.bool_)
    offline: list[pl.DataFrame] = []
    held: list[pl.DataFrame] = []
    for number, view in enumerate(views):
        known = past_rows(store, view.name, asked, known_only=True)
        event = microseconds(known[EVENT])
        offline_us[:, number] = np.where(alive(view, event, at), event, 0)
        offline.append(_values(view, known, offline_us[:, number] > 0))
        moments = (
            pl.Series(EVENT, online_us[:, number])
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC")
        )
        then = past_rows(store, view.name, asked.with_columns(moments), known_only=False)
        same = (microseconds(then[EVENT]) == online_us[:, number]) & (online_us[:, number] > 0)
        found[:, number] = same
        held.append(_values(view, then, same & alive(view, online_us[:, number], at)))
    expected, _ = _vectors(code, asked, offline, features)
    by_row, inputs = _vectors(code, asked, held, features)
    served = np.array(rows["features"].to_list(), dtype=np.float32).reshape(-1, len(features))
    return Replay(
        rows=rows,
        features=features,
        served=served,
        offline=expected,
        held=by_row,
        inputs=inputs,
        online_us=online_us,
        offline_us=offline_us,
        found=found,
        left_out=left_out,
    )


def microseconds(times: pl.Series) -> Times:
    """Return times as microseconds since 1970; 0 where there is none."""
    return times.dt.epoch("us").fill_null(0).to_numpy()


def _comparable(
    logged: pl.DataFrame, layout: OnlineLayout, width: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    reason = (
        pl.when(pl.col("features").list.len().fill_null(0) == 0)
        .then(pl.lit("no_vector"))
        .when(pl.col("service") != layout.service)
        .then(pl.lit("other_service"))
        .when(pl.col("features").list.len() != width)
        .then(pl.lit("other_width"))
        .when(pl.col("feature_times").list.len() != len(layout.views))
        .then(pl.lit("other_layout"))
    )
    marked = logged.select(*COLUMNS, left_out=reason)
    counts = marked.drop_nulls("left_out")["left_out"].value_counts().sort("left_out")
    kept = marked.filter(pl.col("left_out").is_null()).drop("left_out")
    return kept.sort("event_time", "request_id"), dict(counts.iter_rows())


def _requests(code: UseCaseCode, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the fields of the requests as they came, with `event_timestamp`."""
    fields = code.spec.serving.request
    kinds = pl.Struct({name: _FIELDS[field.type] for name, field in fields.items()})
    asked = rows.select(
        "request_id",
        pl.col("event_time").alias(EVENT),
        __request=pl.col("request").str.json_decode(kinds),
    ).unnest("__request")
    times = [name for name, field in fields.items() if field.type == "timestamp"]
    return asked.with_columns(pl.col(times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))


def same(one: Matrix, other: Matrix) -> npt.NDArray[np.bool_]:
    """Return where two matrices hold the same number, or both none."""
    both: npt.NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return both


def alive(view: OnlineView, event_us: Times, at_us: Times) -> npt.NDArray[np.bool_]:
    """Return where there is a row that is not older than its view's time to live."""
    there = event_us > 0
    if view.ttl_seconds is None:
        return there
    return there & (at_us - event_us <= round(view.ttl_seconds * 1_000_000))


def _values(view: OnlineView, rows: pl.DataFrame, alive: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """Return the view's fields in the types of the online store, null where a row is not alive."""
    kept = pl.Series(alive)
    return rows.select(
        pl.when(kept).then(pl.col(field.name).cast(_STORED[field.dtype])).alias(field.name)
        for field in view.fields
    )


def _vectors(
    code: UseCaseCode,
    asked: pl.DataFrame,
    views: Sequence[pl.DataFrame],
    features: Sequence[str],
) -> tuple[Matrix, dict[str, npt.NDArray[Any]]]:
    """Return the model's inputs [N, F] from the views' rows, and what request() read [N]."""

    def join(requests: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([requests, *views], how="horizontal")

    joined = with_inputs(asked, join=join, request=code.request, request_inputs=code.request_inputs)
    matrix = joined.select(
        pl.col(name).cast(pl.Float32).fill_null(float("nan")) for name in features
    ).to_numpy()
    return matrix, {name: joined[name].to_numpy() for name in code.request_inputs}
