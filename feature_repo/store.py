"""The feature store of a data root: opening it, telling it what is declared, joining labels.

This module exists so that stages get a Feast store from a path, without a `feature_store.yaml`, a
working directory or a global. It is where Feast's errors become ours. It refuses a join that does
not return each label exactly once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl

from feature_repo.sole_writer import sole_writer
from mlplatform.errors import DataError, PlatformError, ServiceError, shorten

PROJECT: Final = "mlplatform"
"""Feast's name for everything in one registry; the same in feature_store.yaml."""

_TIME: Final = "event_timestamp"


def open_store(root: str, redis_url: str | None = None) -> Any:
    """Return the `feast.FeatureStore` of a data root; its folder is created when missing.

    Args:
        root: Data root: `<root>/registry.db` and `<root>/offline/` belong to the store.
        redis_url: Online store: redis://[user:password@]host:port[/db], rediss:// for TLS; nothing
            connects before the first read or write. None: the store has no online store.

    Raises:
        ServiceError: Feast refuses the configuration or its registry cannot be read.
    """
    from feast import FeatureStore, RepoConfig

    from feature_repo.offline_store import AsofOfflineStoreConfig

    base = Path(root).resolve()
    with feast_errors(
        f"feature store at {base} cannot be opened",
        "if the registry is damaged, delete registry.db and run again",
    ):
        base.mkdir(parents=True, exist_ok=True)
        return FeatureStore(
            config=RepoConfig(
                project=PROJECT,
                provider="local",
                registry={
                    "registry_store_type": "feature_repo.registry.FolderRegistryStore",
                    "path": str(base / "registry.db"),
                },
                offline_store=AsofOfflineStoreConfig(root=str(base / "offline")),
                online_store=_online(redis_url),
                batch_engine={"type": "feature_repo.online_engine.PackedComputeEngine"},
                entity_key_serialization_version=3,
            )
        )


def _online(redis_url: str | None) -> Any:
    if redis_url is None:
        return None
    from feature_repo.online_store import PackedRedisOnlineStoreConfig, connection_string

    return PackedRedisOnlineStoreConfig(connection_string=connection_string(redis_url))


def root_of(store: Any) -> Path:
    """Return the data root of an open store."""
    return Path(store.config.registry.path).parent


def apply(store: Any) -> tuple[str, ...]:
    """Make the registry hold exactly what the use cases declare; again: no change.

    Args:
        store: From `open_store`.

    Returns:
        The names of all feature views, sorted.

    Raises:
        SpecError: Use cases contradict each other.
        ServiceError: Feast refuses a definition or cannot write its registry, or another process
            writes to the data root for longer than a writer may take.
    """
    from feature_repo import definitions

    objects = list(definitions.declared().values())
    names = {(type(item), item.name) for item in objects}
    with (
        sole_writer(root_of(store)),
        feast_errors(
            f"feature store {store.project}: apply failed",
            "check the definitions in usecases/*/features.py",
        ),
    ):
        known = [*store.list_feature_services(), *store.list_feature_views()]
        gone = [item for item in known if (type(item), item.name) not in names]
        store.apply(objects, objects_to_delete=gone, partial=False)
        return tuple(sorted(view.name for view in store.list_feature_views()))


def join_features(store: Any, service: str, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the labels with the features of a service that were known at `event_timestamp`.

    Only keys and times go through Feast, so that its pandas frame changes no other column's type.

    Args:
        store: From `open_store`, with the definitions applied.
        service: Name of the feature service.
        labels: One row for each label: the join keys of the service's views, `event_timestamp`.

    Returns:
        The same rows in the same order, all columns of `labels` first.

    Raises:
        DataError: The labels lack a key, or the join did not return each label once.
        ServiceError: The registry has no such service, or Feast failed otherwise.
    """
    with feast_errors(
        f"feature service {service}: the join failed",
        "apply the definitions first (feature_repo.store.apply)",
    ):
        wanted = store.get_feature_service(service)
        views = [store.get_feature_view(view.name) for view in wanted.feature_view_projections]
        keys = sorted({key for view in views for key in view.join_keys})
        entities = _entities(labels, keys, service)
        job = store.get_historical_features(entity_df=entities, features=wanted)
        joined = pl.DataFrame(job.to_arrow())
    if joined.height != labels.height:
        raise DataError(
            f"feature service {service}: the join returned {joined.height:,} rows for "
            f"{labels.height:,} labels: each label must come out once"
        )
    return labels.hstack(joined.drop(*keys, _TIME))


def _entities(labels: pl.DataFrame, keys: list[str], service: str) -> pl.DataFrame:
    missing = [name for name in (*keys, _TIME) if name not in labels.columns]
    if missing:
        raise DataError(
            f"feature service {service}: the labels lack {', '.join(missing)}: `labels` in the "
            "use case's sources.py must return every entity key"
        )
    return labels.select(*keys, _TIME)


@contextmanager
def feast_errors(what: str, advice: str) -> Iterator[None]:
    """Turn what Feast raises (bare exceptions of many kinds) into a `ServiceError`."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        raise ServiceError(f"{what}: {shorten(error)}; {advice}") from error
