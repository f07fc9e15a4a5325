"""Materialization: what the offline store knows goes online, from where the last run ended.

Each view has a mark: the moment up to which everything that was known is online. It is kept in
Redis beside the data, one for each packed string that holds the view, and in Feast's registry
outside of it; the older one counts. So an emptied Redis, a new layout or changed feature code
starts over from the view's time to live, and a Redis that fell back to an older state goes on from
there. The mark is written after the data: a run that is killed is run again with the same result.

What is new is found by knowledge time, not by event time: a row that arrived late is new although
its event lies before the mark, however late it is. Only rows known by `until` go online. It refuses
a time without a zone.
"""

import contextlib
import io
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import polars as pl

from feature_repo import catalog, fingerprint, layout, packed
from feature_repo.ingest import history_parts
from feature_repo.sole_writer import sole_writer
from feature_repo.store import feast_errors, root_of
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.errors import DataError, ServiceError

OVERLAP: Final = timedelta(hours=1)
"""Rows known this long before the mark are looked at again: a writer of the offline store may be
late by its own clock or its own run, and what is online already is not written again."""

_LOG: Final = logging.getLogger("mlplatform.features")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)


def materialize(
    store: Any, usecase: str, until: datetime, *, overlap: timedelta = OVERLAP
) -> dict[str, int]:
    """Bring each view of a use case online as it was known at `until`.

    Args:
        store: From `feature_repo.store.open_store` with a Redis, definitions applied.
        usecase: Name of the use case.
        until: Rows with a later event or creation time are left for later; with a zone.
        overlap: How far before the mark rows are looked at again, by their creation time.

    Returns:
        Entities that changed, by view; 0 when called again. Views without a place in the online
        store are left out.

    Raises:
        SpecError: No such use case.
        DataError: `until` has no zone, or an offline part cannot be read.
        ServiceError: Redis is out of reach, or the definitions were not applied.
    """
    if until.tzinfo is None:
        raise DataError(f"time {until} has no zone: write it in UTC")
    until = until.astimezone(UTC)
    code = catalog.load(usecase)
    made_by = fingerprint.of_code(code.folder)
    changed = {}
    for name in code.batch:
        started = time.perf_counter()
        with feast_errors(
            f"{usecase}: feature view {name}: materialization failed",
            "apply the definitions (feature_repo.store.apply) and check that Redis runs",
        ):
            view = store.get_feature_view(name)
            if not layout.placements(view):
                _LOG.info("%s: %s is in no service that is served", usecase, name)
                continue
            with sole_writer(root_of(store)):  # Feast's registry keeps how far a view is
                changed[name] = _bring(store, view, until, overlap, made_by)
        seconds = time.perf_counter() - started
        rows = f"{changed[name]:,}"
        _LOG.info("%s: %s entities of %s online in %.1f s", usecase, rows, name, seconds)
    return changed


def marks(store: Any, usecase: str) -> dict[str, datetime | None]:
    """Return up to when each placed view is online; None: it starts over at the next run.

    Raises:
        SpecError: No such use case.
        ServiceError: Redis is out of reach, or the definitions were not applied.
    """
    code = catalog.load(usecase)
    made_by = fingerprint.of_code(code.folder)
    with feast_errors(f"{usecase}: the marks cannot be read", "apply the definitions first"):
        views = [store.get_feature_view(name) for name in code.batch]
        return {view.name: _mark(store, view, made_by) for view in views if layout.placements(view)}


def prune(store: Any) -> int:
    """Delete the strings and marks of layouts that the registry no longer names.

    Only when no gateway reads them any more: a model that is still served has its own layout.

    Returns:
        Keys deleted.

    Raises:
        ServiceError: Redis is out of reach, or the registry cannot be read.
    """
    from feature_repo.online_store import scan

    with feast_errors("old layouts cannot be pruned", "check that Redis runs"):
        redis = redis_of(store)
        places = [place for view in store.list_feature_views() for place in layout.placements(view)]
        current = {place.fingerprint for place in places}
        deleted = 0
        for kind in ("packed", "packed-mark"):
            for keys in scan(redis, f"{kind}:{store.project}:*".encode()):
                old = [key for key in keys if key.decode(errors="replace").split(":")[2]
                       not in current]  # fmt: skip
                if old:
                    deleted += int(redis.execute("DEL", *old))
        return deleted


def redis_of(store: Any) -> RedisSync:
    """Return the connection of a store's writer.

    Raises:
        ServiceError: The store was opened without a Redis.
    """
    redis: RedisSync = writer_of(store).redis
    return redis


def writer_of(store: Any) -> Any:
    """Return the `feature_repo.online_writer.OnlineWriter` of a store.

    Raises:
        ServiceError: The store was opened without a Redis.
    """
    online = store._get_provider().online_store  # noqa: SLF001  # Feast has no public way
    if online is None:
        raise ServiceError("the feature store has no online store: open it with the URL of a Redis")
    return online.writer(store.config)


def _bring(store: Any, view: Any, until: datetime, overlap: timedelta, made_by: str) -> int:
    mark = _mark(store, view, made_by)
    start = _start(store, view, mark, until, overlap)
    changed = 0
    if start is not None:
        # Feast prints its progress; ours is logged.
        with contextlib.redirect_stdout(io.StringIO()):
            store.materialize(start, until, feature_views=[view.name])
        engine = store._get_provider().batch_engine  # noqa: SLF001  # Feast has no public way
        changed = engine.written.get(view.name, 0)
    if mark is None or mark < until:
        _set_marks(store, view, until, made_by)
    return changed


def _start(
    store: Any, view: Any, mark: datetime | None, until: datetime, overlap: timedelta
) -> datetime | None:
    """Return the first event time to materialize from; None when nothing is new."""
    oldest = until - view.ttl if view.ttl else _EPOCH
    if mark is None:
        return oldest
    source = view.batch_source
    event, created = source.timestamp_field, source.created_timestamp_column
    parts = history_parts(store, view)
    if not parts:
        return None
    known = pl.col(created or event)
    first = (
        pl.scan_parquet(parts)
        .filter(known > mark - overlap, known <= until, pl.col(event) <= until)
        .select(pl.col(event).min())
        .collect()
        .item()
    )
    return None if first is None else max(first.astimezone(UTC), oldest)


def _mark(store: Any, view: Any, made_by: str) -> datetime | None:
    """Return the older of the marks in Redis and in the registry; None: start over."""
    from feature_repo.online_store import mark_key

    places = layout.placements(view)
    keys = [mark_key(store.project, view.name, place) for place in places]
    found = [outside] if (outside := _latest(view)) else []
    for raw in redis_of(store).execute("MGET", *keys):
        try:
            mark = json.loads(raw) if raw is not None else {}
            if mark["made_by"] != made_by:
                return None
            found.append(datetime.fromisoformat(mark["until"]))
        except (ValueError, KeyError, TypeError):  # none, or not ours: the view starts over
            return None
    return min(found) if len(found) == len(keys) + 1 else None


def _latest(view: Any) -> datetime | None:
    """Return up to when Feast's registry says that a view was materialized."""
    end: datetime | None = view.most_recent_end_time
    if end is None:
        return None
    return end.astimezone(UTC) if end.tzinfo else end.replace(tzinfo=UTC)


def _set_marks(store: Any, view: Any, until: datetime, made_by: str) -> None:
    from feature_repo.online_store import mark_key

    mark = json.dumps({"until": until.isoformat(), "made_by": made_by, "format": packed.FORMAT})
    redis_of(store).pipeline(
        [("SET", mark_key(store.project, view.name, p), mark) for p in layout.placements(view)]
    )
    recorded = _latest(view)
    if recorded is None or recorded < until:
        # A run that found nothing new did not go through Feast, which records the others.
        store.registry.apply_materialization(view, store.project, until - _TICK, until)
