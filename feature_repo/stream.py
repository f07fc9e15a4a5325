"""The push path: rows of feature views as they become known, computed by the batch functions.

Between two materializations the world goes on. `updates` computes what became known in a window
with the same functions that fill the offline store, `schedule` puts it in the order in which it
became known, and `push` writes it, so that the online store at any moment holds what a
point-in-time join of that moment would find.

It refuses a window without a zone, an empty one, and values that the views do not declare (through
`feature_repo.online_writer`). It has no state: a window may be pushed twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from feature_repo.catalog import UseCaseCode
from feature_repo.materialize import writer_of
from feature_repo.store import feast_errors
from mlplatform.errors import DataError

Updates = Mapping[str, pl.DataFrame]
"""Rows by feature view, as `updates` returns them."""

_EVENT: Final = "event_timestamp"
_CREATED: Final = "created_timestamp"
_KNOWN: Final = "__known"


@dataclass(frozen=True, slots=True)
class Update:
    """Rows of one view that became known at one moment.

    Attributes:
        known_us: The moment, microseconds since 1970.
        view: Feature view.
        rows: Its keys, features and times.
    """

    known_us: int
    view: str
    rows: pl.DataFrame


class Pusher:
    """Writes rows of feature views online, by the views' names.

    Args:
        store: From `feature_repo.store.open_store` with a Redis, definitions applied.

    Raises:
        ServiceError: The store has no online store.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._writer = writer_of(store)
        self._views: dict[str, Any] = {}

    def write(self, view: str, rows: pl.DataFrame) -> int:
        """Write rows of a view, where they are not older than what is there.

        Args:
            view: Feature view; its definition is read from the registry once.
            rows: Its keys, features and times, exactly.

        Returns:
            Entities that changed.

        Raises:
            DataError: The rows are not what the view declares, or lack a key or a time.
            SpecError: The view has no place in the online store.
            ServiceError: The registry does not know the view, or Redis is out of reach.
        """
        if view not in self._views:
            with feast_errors(
                f"feature view {view} cannot be pushed",
                "apply the definitions first (feature_repo.store.apply)",
            ):
                self._views[view] = self._store.get_feature_view(view)
        changed: int = self._writer.write(self._views[view], rows)
        return changed


def updates(
    code: UseCaseCode, raw: Mapping[str, pl.DataFrame], since: datetime, until: datetime
) -> dict[str, pl.DataFrame]:
    """Return the rows of each batch view that became known in `(since, until]`.

    Args:
        code: The use case.
        raw: Raw events; those after `until` are not looked at. All before it are needed that a
            function looks back to: `flight_delay` counts on from a key's first flight, and a year
            of it takes 0.9 s.
        since: The end of the window before; with a zone.
        until: The end of this window; with a zone.

    Raises:
        DataError: A time has no zone, or the window is empty.
    """
    if since.tzinfo is None or until.tzinfo is None or since >= until:
        raise DataError(
            f"{code.spec.name}: no updates in ({since}, {until}]: pass two times with a zone, the "
            "earlier one first"
        )
    known = {
        table: rows.filter(pl.col(code.spec.data.tables[table].event_time) <= until)
        for table, rows in raw.items()
    }
    window = pl.col(_CREATED).is_between(since, until, closed="right")
    return {name: compute(known).filter(window) for name, compute in code.batch.items()}


def schedule(found: Updates) -> Iterator[Update]:
    """Yield the rows in the order in which they became known: the later of event and creation.

    Rows of one view and one moment come together; at one moment views come by name.
    """
    batches: list[Update] = []
    for view, rows in found.items():
        known = pl.max_horizontal(_EVENT, _CREATED).dt.epoch("us").alias(_KNOWN)
        # Of rows with one moment the newest event comes last, though the writer would see to it.
        ordered = rows.with_columns(known).sort(_KNOWN, _EVENT, _CREATED, maintain_order=True)
        for (moment,), group in ordered.partition_by(
            _KNOWN, as_dict=True, maintain_order=True, include_key=False
        ).items():
            batches.append(Update(int(str(moment)), view, group))
    yield from sorted(batches, key=lambda update: (update.known_us, update.view))


def push(pusher: Pusher, found: Updates, until: datetime | None = None) -> int:
    """Write updates in the order in which they became known; return the entities changed.

    Args:
        pusher: Writes.
        found: From `updates`.
        until: Rows known later are left out; with a zone. None: all.

    Raises:
        DataError: `until` has no zone, or rows are not what a view declares.
        ServiceError: Redis is out of reach; pushing the window again is safe.
    """
    if until is not None and until.tzinfo is None:
        raise DataError(f"time {until} has no zone: write it in UTC")
    last = None if until is None else int(until.astimezone(UTC).timestamp() * 1_000_000)
    changed = 0
    for update in schedule(found):
        if last is not None and update.known_us > last:
            break
        changed += pusher.write(update.view, update.rows)
    return changed
