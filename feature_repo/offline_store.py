"""Feast's offline store on sorted Parquet parts, with the exact point-in-time join.

Feast's own stores on files lose label rows, confuse composite keys or let rows that arrived later
leak into the past (DESIGN.md, "Point-in-time joins"); this one is held to an oracle in
`tests/unit/joins`. `feature_repo.pit` joins, `feature_repo.parts` reads and writes, and this
module speaks Feast.

Sources are `FileSource`s whose path is a folder of parts, relative to the store's root (or a
single file, or a URI). A folder that does not exist is an empty history, with a warning: a view may
be declared before its first row arrives. Knowledge time is on by default. Feast passes its
`filter_by_created_timestamp` on only when it is True, so switching it off for a comparison is a
setting of the store, or the keyword False in a direct call of this class.

It refuses entity rows as SQL, retrieval without entity rows, and feature logs.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import (
    OfflineStore,
    RetrievalJob,
    RetrievalMetadata,
)
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from feature_repo import parts
from feature_repo.history import View, microseconds, segments, sort_order
from feature_repo.pit import check_names, lookup
from feature_repo.retrieval import AsofRetrievalJob
from feature_repo.translation import (
    UTC_TIME,
    arrow_type,
    entity_rows,
    epoch,
    file_source,
    join_view,
    source_view,
    time_column,
    typed_batch,
)
from mlplatform.errors import DataError, PlatformError

_LOG: Final = logging.getLogger("mlplatform.features")


class AsofOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast ships no types
    """Settings of the store, as in `feature_store.yaml`."""

    type: Literal["feature_repo.offline_store.AsofOfflineStore"] = (
        "feature_repo.offline_store.AsofOfflineStore"
    )

    root: str = "offline"
    """What sources' relative paths are relative to: a folder, itself relative to the repository's
    path, or a URI such as s3://bucket/prefix."""

    filter_by_created_timestamp: bool = True
    """Whether a row counts only from its creation time on. Off, late rows leak into the past."""


class AsofOfflineStore(OfflineStore):  # type: ignore[misc]  # Feast ships no types
    """Reads and writes feature views as sorted Parquet parts; see the module."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002  # Feast's signature
        **options: Any,
    ) -> RetrievalJob:
        """Return a job that joins features to entity rows as of their time.

        Args:
            config: Holds the store's settings.
            feature_views: Views that `feature_refs` name.
            feature_refs: `view:feature`.
            entity_df: pandas or polars frame with the join keys and `event_timestamp` (or exactly
                one timestamp column) with a zone. All its columns come out unchanged and first,
                except that the time is in UTC and microseconds.
            registry: Where on-demand views are found.
            project: Feast's project.
            full_feature_names: Name columns `view__feature`.
            options: `filter_by_created_timestamp` overrides the store's setting.

        Raises:
            DataError: The entity rows are refused, here or when the job runs.
        """
        if isinstance(entity_df, str) or entity_df is None:
            found = "SQL" if isinstance(entity_df, str) else "no entity rows"
            raise DataError(
                f"the entity rows of a training set must be a data frame, found {found}: this "
                "store reads files and has no SQL engine"
            )
        unknown = sorted(set(options) - {"filter_by_created_timestamp", "start_date", "end_date"})
        if unknown:
            raise DataError(f"get_historical_features has no option {unknown}")
        known_only = options.get("filter_by_created_timestamp")
        if known_only is None:
            known_only = config.offline_store.filter_by_created_timestamp
        entities = entity_rows(entity_df)
        time = time_column(entities)
        views = [
            join_view(view, feature_refs, full_names=full_feature_names, known_only=known_only)
            for view in feature_views
        ]
        span = pl.Series(entities.column(time)).cast(pl.Datetime("us", "UTC"))

        def evaluate() -> Any:
            return _join(config, entities, time, list(zip(feature_views, views, strict=True)))

        return AsofRetrievalJob(
            evaluate,
            lambda path: _place(config, path),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.column_names if name != time],
                min_event_timestamp=span.min(),
                max_event_timestamp=span.max(),
            ),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
                feature_refs, project, registry
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return a job for the newest row of each key with event time in [start, end].

        Rows with a null key are left out: they belong to no entity.
        """
        view = source_view(data_source, join_key_columns, timestamp_field, created_timestamp_column)

        def evaluate() -> Any:
            rows = _read(config, data_source, view, feature_name_columns, (start_date, end_date))
            rows = _keyed(rows, view)
            rows = rows[sort_order(rows, view)]
            history, _ = segments(rows, view)
            return _pulled(rows[history.ends - 1] if rows.height else rows, view)

        return AsofRetrievalJob(evaluate, lambda path: _place(config, path))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return a job for all rows with event time in [start, end], in the order of writing.

        This is what Feast materializes from. There, rows with a null key are left out, since they
        belong to no entity and Feast fails on them, and so are rows that a later one with the same
        key, event time and creation time replaced, since Feast would pick either; a saved
        dataset keeps all its rows.
        """
        view = source_view(data_source, join_key_columns, timestamp_field, created_timestamp_column)
        saved_dataset = not data_source.timestamp_field

        def evaluate() -> Any:
            span = (start_date, end_date)
            rows = _read(config, data_source, view, feature_name_columns, span)
            if not saved_dataset:
                rows = _keyed(rows, view).unique(
                    view.index_columns, keep="last", maintain_order=True
                )
            return _pulled(rows, view)

        return AsofRetrievalJob(evaluate, lambda path: _place(config, path))

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: Any,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to a view's source as one sorted part; the same rows again add nothing.

        Args:
            config: Holds the store's settings.
            feature_view: Its batch source says where, its schema says which columns and types.
            table: `pyarrow.Table` with exactly the view's keys, features and times, in any order;
                columns go by the source's names or the view's.
            progress: Called with the number of rows, written or found there.

        Raises:
            DataError: A column is missing, unknown, of a type that does not fit, or a time has a
                null or no zone.
        """
        view = join_view(feature_view, None, full_names=False, known_only=True)
        typed = typed_batch(feature_view, view, table)
        parts.append(_place(config, file_source(feature_view).path), typed, view)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,  # noqa: ARG004  # Feast's signature
        data: Any,  # noqa: ARG004
        source: Any,
        logging_config: Any,  # noqa: ARG004
        registry: BaseRegistry,  # noqa: ARG004
    ) -> None:
        """Refuse: served features are logged by the gateway, with the prediction."""
        raise PlatformError(
            f"{type(source).__name__} cannot be logged through this store: the gateway logs the "
            "features of each prediction itself"
        )

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check that the parts that exist hold the source's time columns.

        Raises:
            DataError: They do not, or cannot be read.
        """
        if not isinstance(data_source, FileSource):
            return
        schema = parts.schema(_place(config, data_source.path))
        times = [data_source.timestamp_field, data_source.created_timestamp_column]
        missing = [time for time in times if time and schema and time not in schema.names]
        if missing:
            raise DataError(
                f"the newest part of {data_source.path} lacks the time columns {missing}; "
                f"it has {schema.names if schema else []}"
            )

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """Return the columns of the newest part.

        Raises:
            DataError: Nothing was written yet.
        """
        schema = parts.schema(_place(config, data_source.path))
        if schema is None:
            raise DataError(
                f"source {data_source.name} holds no rows yet, so its columns are unknown: give "
                "the feature view a schema, and write its first rows with offline_write_batch"
            )
        return [(field.name, str(field.type)) for field in schema]


def _place(config: RepoConfig, path: str) -> parts.Folder:
    base = Path(config.repo_path) if config.repo_path else None
    return parts.folder(config.offline_store.root, path, base)


def _join(
    config: RepoConfig, entities: Any, time: str, views: list[tuple[FeatureView, View]]
) -> Any:
    check_names(entities.column_names, [view for _, view in views])
    keys = {key for _, view in views for key in view.keys if key in entities.column_names}
    labels = pl.DataFrame(pl.from_arrow(entities.select([*sorted(keys), time])))
    place = entities.column_names.index(time)
    result = entities.set_column(place, time, entities.column(time).cast(UTC_TIME, safe=False))
    histories = []
    for feature_view, view in views:
        source = file_source(feature_view)
        pieces = parts.pieces(_place(config, source.path))
        if not pieces:
            _LOG.warning("feature view %s has no rows in %s yet", view.name, source.path)
        histories.append((view, pieces))
    joined = lookup(labels, histories, time=time)
    for (feature_view, view), values in zip(views, joined, strict=True):
        mapping = feature_view.batch_source.field_mapping
        types = {field.name: arrow_type(field) for field in feature_view.features}
        found = values.to_arrow(compat_level=pl.CompatLevel.oldest())
        for stored, name in view.features.items():
            kind = types[mapping.get(stored, stored)]
            result = result.append_column(name, found.column(name).cast(kind))
    return result


def _read(
    config: RepoConfig,
    source: DataSource,
    view: View,
    features: Sequence[str],
    span: tuple[datetime | None, datetime | None],
) -> pl.DataFrame:
    """Return keys, features and times of all rows with event time in the span, ends included."""
    columns = list(dict.fromkeys([*view.key_columns, *features, *view.index_columns]))
    found = parts.pieces(_place(config, source.path))
    if not found:
        _LOG.warning("source %s has no rows in %s yet", source.name, source.path)
        times = {view.event, view.created}
        kinds = {n: pl.Datetime("us", "UTC") if n in times else pl.Null() for n in columns}
        return pl.DataFrame(schema=kinds)
    low, high = (epoch(moment) for moment in span)
    kept = []
    for piece in found:
        rows = piece.read(columns)
        event = microseconds(rows, view.event, f"source {source.name}")
        inside = event.is_not_null()
        if low is not None:
            inside &= event >= low
        if high is not None:
            inside &= event <= high
        kept.append(rows.filter(inside))
    joined: pl.DataFrame = pl.concat(kept, how="vertical_relaxed")
    return joined


def _keyed(rows: pl.DataFrame, view: View) -> pl.DataFrame:
    return rows.drop_nulls(view.key_columns) if view.keys else rows


def _pulled(rows: pl.DataFrame, view: View) -> Any:
    """Return rows as Feast expects them; without keys Feast looks for its dummy entity."""
    if not view.keys:
        rows = rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())
