"""Feast's objects in the terms of the join: views, entity rows, declared types, batches to write.

It exists so that `feature_repo.offline_store` is only the contract with Feast. All checks of what
callers hand to Feast are here: it refuses sources that are not files, entity rows without a usable
time, and batches whose columns or types are not what the feature view declares.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import pandas as pd
import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.field import Field
from feast.infra.offline_stores.file_source import FileSource
from feast.types import UnixTimestamp, from_feast_to_pyarrow_type

from feature_repo.history import View, microseconds
from mlplatform.errors import DataError, shorten

UTC_TIME: Final = pa.timestamp("us", "UTC")
_TIME: Final = "event_timestamp"


def file_source(feature_view: FeatureView) -> FileSource:
    """Return a view's batch source; raises `DataError` when it is not made of files."""
    source = feature_view.batch_source
    if not isinstance(source, FileSource):
        raise DataError(
            f"feature view {feature_view.name} reads from {type(source).__name__}: this store "
            "reads FileSource only"
        )
    return source


def join_view(
    feature_view: FeatureView, refs: Sequence[str] | None, *, full_names: bool, known_only: bool
) -> View:
    """Return how a view is joined; `refs` None asks for all its features."""
    source = file_source(feature_view)
    stored = {new: old for old, new in source.field_mapping.items()}
    projection = feature_view.projection
    # Key columns sorted by name: Feast does not promise an order and parts are sorted by them.
    keys = sorted(f.name for f in feature_view.entity_columns if f.name != DUMMY_ENTITY_ID)
    if refs is None:
        asked = [field.name for field in feature_view.features]
    else:
        prefix = f"{projection.name_to_use()}:"
        asked = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
    # As Feast's duckdb store: the alias or the name, without a version.
    prefix = f"{projection.name_alias or feature_view.name}__" if full_names else ""
    return View(
        name=feature_view.name,
        keys={projection.join_key_map.get(key, key): stored.get(key, key) for key in keys},
        features={stored.get(name, name): f"{prefix}{name}" for name in asked},
        event=stored.get(source.timestamp_field, source.timestamp_field),
        created=stored.get(source.created_timestamp_column, source.created_timestamp_column)
        or None,
        ttl=feature_view.ttl,
        known_only=known_only,
    )


def source_view(source: DataSource, keys: list[str], event: str, created: str | None) -> View:
    """Return a source read as it is: no features, event time alone decides."""
    return View(
        source.name, {key: key for key in keys}, {}, event, created or None, known_only=False
    )


def entity_rows(entity_df: Any) -> Any:
    """Return entity rows as a `pyarrow.Table`; raises `DataError` for what is no clean frame."""
    if isinstance(entity_df, pl.DataFrame):
        return entity_df.to_arrow(compat_level=pl.CompatLevel.oldest())
    if not isinstance(entity_df, pd.DataFrame):
        raise DataError(
            f"entity rows must be a pandas or polars frame, not {type(entity_df).__name__}"
        )
    try:
        return pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata()
    except pa.ArrowException as error:
        raise DataError(
            f"a column of the entity rows mixes types: {shorten(error)}; give it one type"
        ) from error


def time_column(entities: Any) -> str:
    """Return the column with the labels' time; raises `DataError` when none is usable."""
    times = [field.name for field in entities.schema if pa.types.is_timestamp(field.type)]
    time = _TIME if _TIME in entities.column_names else times[0] if len(times) == 1 else None
    if time is None:
        raise DataError(
            f"the entity rows need a timestamp column named {_TIME} (or exactly one timestamp "
            f"column); their timestamps are {times}"
        )
    microseconds(pl.DataFrame(pl.from_arrow(entities.select([time]))), time, "the entity rows")
    return time


def arrow_type(field: Field) -> Any:
    """Return the Arrow type of a declared field; times have a zone, which Feast leaves out."""
    if field.dtype == UnixTimestamp:
        return UTC_TIME
    try:
        return from_feast_to_pyarrow_type(field.dtype)
    except ValueError as error:
        raise DataError(f"field {field.name}: {field.dtype} cannot be stored: {error}") from error


def typed_batch(feature_view: FeatureView, view: View, table: Any) -> Any:
    """Return the table with the source's columns and the declared types."""
    mapping = feature_view.batch_source.field_mapping
    stored = {new: old for old, new in mapping.items()}
    table = table.rename_columns([stored.get(name, name) for name in table.column_names])
    fields = [*feature_view.entity_columns, *feature_view.features]
    types = {
        stored.get(field.name, field.name): arrow_type(field)
        for field in fields
        if field.name != DUMMY_ENTITY_ID
    }
    types |= {time: UTC_TIME for time in (view.event, view.created) if time}
    extra = sorted(set(table.column_names) - set(types))
    missing = sorted(set(types) - set(table.column_names))
    if extra or missing:
        raise DataError(
            f"rows for feature view {view.name}: missing columns {missing}, unknown columns "
            f"{extra}: write exactly the view's keys, features and times"
        )
    frame = pl.DataFrame(pl.from_arrow(table.select(list(types))))
    for time in (view.event, view.created):
        if time and microseconds(frame, time, f"rows for feature view {view.name}").null_count():
            raise DataError(
                f"rows for feature view {view.name}: {time} has "
                f"{frame[time].null_count()} nulls: a row without it can never be used"
            )
    plain = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = {}
    for name, kind in types.items():
        try:
            # Nanoseconds are cut to microseconds; all other casts must keep the value.
            columns[name] = plain.column(name).cast(
                kind, safe=name not in {view.event, view.created}
            )
        except pa.ArrowException as error:
            raise DataError(
                f"rows for feature view {view.name}: column {name} does not fit its declared "
                f"type {kind}: {shorten(error)}"
            ) from error
    return pa.table(columns)


def epoch(moment: datetime | None) -> int | None:
    """Return microseconds since 1970; raises `DataError` for a time without a zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise DataError(f"time {moment} has no zone: write it in UTC")
    epoch: Any = pl.Series([moment], dtype=pl.Datetime("us", "UTC")).dt.epoch("us").item()
    return int(epoch)
