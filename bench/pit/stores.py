"""The same Feast definitions over the same files, once for each offline store.

Peers run at their best setting: the process's two threads for DuckDB, and without the condition on
creation times where the data needs none (every row known at its event).
"""

from pathlib import Path
from typing import Any

from bench.pit import data


def open_ours(folder: Path, size: data.Size) -> Any:
    """Return a `FeatureStore` on our offline store."""
    from feature_repo.offline_store import AsofOfflineStoreConfig

    settings = AsofOfflineStoreConfig(root=str(folder / "offline"))
    return _open(folder, size, settings, "ours", "")


def open_duckdb(folder: Path, size: data.Size, threads: int) -> Any:
    """Return a `FeatureStore` on Feast's duckdb store."""
    import ibis

    ibis.set_backend(ibis.duckdb.connect(threads=threads))
    return _open(folder, size, {"type": "duckdb"}, "duckdb", "/*.parquet")


def open_dask(folder: Path, size: data.Size) -> Any:
    """Return a `FeatureStore` on Feast's dask store."""
    return _open(folder, size, {"type": "dask"}, "dask", "")


def references(size: data.Size) -> list[str]:
    """Return all features of all views."""
    return [
        f"{data.view_name(number)}:{feature}"
        for number in range(size.views)
        for feature in data.features(number)
    ]


def _open(folder: Path, size: data.Size, settings: Any, name: str, suffix: str) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float32, Int64, String
    from feast.value_type import ValueType

    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / f"registry-{name}.db"),
            offline_store=settings,
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    text = {"device_id"}
    entities = {
        key: Entity(
            name=key,
            join_keys=[key],
            value_type=ValueType.STRING if key in text else ValueType.INT64,
        )
        for key in {data.key(number) for number in range(size.views)}
    }
    views = []
    for number in range(size.views):
        key = data.key(number)
        *floats, count = data.features(number)
        source = FileSource(
            name=f"source_{number}",
            path=f"{folder.resolve()}/offline/{data.view_name(number)}{suffix}",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        fields = [Field(name=feature, dtype=Float32) for feature in floats]
        fields += [
            Field(name=count, dtype=Int64),
            Field(name=key, dtype=String if key in text else Int64),
        ]
        views.append(
            FeatureView(
                name=data.view_name(number),
                entities=[entities[key]],
                ttl=data.ttl(number),
                schema=fields,
                source=source,
            )
        )
    store.apply([*entities.values(), *views])
    return store
