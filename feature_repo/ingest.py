"""From the source to raw events on disk, and from raw events to rows of the feature views.

This module exists so that a run can be repeated, interrupted and resumed without a row lost or
doubled. It only ever adds files: a raw part is named after the window of event time that it
covers and appears complete or not at all, and the newest window's end is where the next `land`
starts. A feature view goes on from the newest `created_timestamp` that it holds.

It refuses tables that were never landed, columns without the declared event time, and times
without a zone. Of several writers of one data root each waits for the others (`sole_writer`): two
that land different windows at once would both write the shared part of them. An event that the
source adds for a window that has been landed is not picked up; a source that corrects its past
needs its own correction table.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from feature_repo import catalog, fingerprint
from feature_repo.sole_writer import sole_writer
from feature_repo.store import root_of
from mlplatform.errors import DataError, ServiceError, shorten

_LOG: Final = logging.getLogger("mlplatform.features")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = "%Y%m%dT%H%M%S%fZ"
"""Times in names of parts, UTC with microseconds: names sort as the windows do."""


def land(usecase: str, root: str, until: datetime) -> dict[str, int]:
    """Copy the source's new raw events to `<root>/raw/<usecase>/<table>/`, a part for each month.

    Args:
        usecase: Name of the use case.
        root: Data root.
        until: Events from here on are left for later; with a zone.

    Returns:
        Rows added, by table; 0 when everything before `until` was there already.

    Raises:
        SpecError: No such use case.
        DataError: The source cannot be read, or `until` has no zone.
        ServiceError: Another process writes to the data root for longer than a writer may take.
    """
    code = catalog.load(usecase)
    until = _utc(until)
    with sole_writer(root):
        return _land(code, root, until)


def _land(code: catalog.UseCaseCode, root: str, until: datetime) -> dict[str, int]:
    usecase, landed = code.spec.name, landed_until(code, root)
    added = dict.fromkeys(code.tables, 0)
    for table, events in newer(code, landed, until).items():
        moment = code.spec.data.tables[table].event_time
        months = events.with_columns(__month=pl.col(moment).dt.truncate("1mo")).partition_by(
            "__month", as_dict=True, include_key=False
        )
        for (month,), rows in sorted(months.items()):
            first = max(month, landed[table])
            last = min(_next_month(month), until)
            name = f"part-{first.strftime(_STAMP)}-{last.strftime(_STAMP)}.parquet"
            _write(rows.sort(moment), raw_folder(usecase, root, table) / name)
            added[table] += rows.height
        _LOG.info("%s: landed %s rows of %s", usecase, f"{added[table]:,}", table)
    return added


def landed_until(code: catalog.UseCaseCode, root: str) -> dict[str, datetime]:
    """Return up to when each table's events have been landed; 1970 where none were."""
    folders = {table: raw_folder(code.spec.name, root, table) for table in code.tables}
    return {table: _landed_until(folder) for table, folder in folders.items()}


def newer(
    code: catalog.UseCaseCode, since: Mapping[str, datetime], until: datetime
) -> dict[str, pl.DataFrame]:
    """Read the source's events from each table's own moment on; no table where nothing is due.

    Args:
        code: The use case.
        since: First event time, by table.
        until: First event time that is left out.

    Raises:
        DataError: The source cannot be read, or lacks a declared event time.
    """
    start = min(since.values())
    if start >= until:
        return {}
    tables = code.read(start, until)
    times = {table: _event_time(code, table, tables) for table in code.tables}
    return {
        table: tables[table].filter(pl.col(moment) >= since[table])
        for table, moment in times.items()
    }


def read_raw(usecase: str, root: str, as_of: datetime) -> dict[str, pl.DataFrame]:
    """Return the landed raw events with event time before `as_of`, sorted by event time.

    What became known about an event later (a landing after `as_of`) is still in its row: labels
    and features carry the time at which they were known, and their readers go by that.

    Raises:
        SpecError: No such use case.
        DataError: A table was never landed, or `as_of` has no zone.
    """
    code = catalog.load(usecase)
    as_of = _utc(as_of)
    tables = {}
    for table in code.tables:
        rule = code.spec.data.tables[table]
        folder = raw_folder(usecase, root, table)
        parts = sorted(folder.glob("part-*.parquet"))
        if not parts:
            raise DataError(f"{usecase}: no raw {table} in {folder}: land the source's events")
        try:
            # A column that only some parts have is null in the others: validation says so.
            rows = pl.concat([pl.read_parquet(part) for part in parts], how="diagonal")
            tables[table] = rows.filter(pl.col(rule.event_time) < as_of).sort(
                [rule.event_time, *(name for name in rule.unique if name in rows.columns)],
                maintain_order=True,
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{usecase}: raw {table} in {folder} cannot be read: {shorten(error)}; remove the "
                "damaged parts and everything after them, then land again"
            ) from error
    return tables


def extend(usecase: str, store: Any, root: str, until: datetime) -> dict[str, pl.DataFrame]:
    """Land raw events and append features up to a time; return the landed events.

    Args:
        usecase: Its name.
        store: The feature store of `root`, with the definitions applied.
        root: Data root.
        until: With a zone.

    Raises: as `land`, `read_raw` and `write_features`.
    """
    land(usecase, root, until)
    raw = read_raw(usecase, root, until)
    write_features(usecase, store, raw, until)
    return raw


def write_features(
    usecase: str, store: Any, raw: Mapping[str, pl.DataFrame], as_of: datetime
) -> dict[str, int]:
    """Compute each batch view and append the rows that became known since the last call.

    A view whose history was computed by other code starts over (`feature_repo.fingerprint`).

    Args:
        usecase: Name of the use case.
        store: An open store (`feature_repo.store.open_store`) that the views were applied to.
        raw: Raw events before `as_of`, all of them: windows reach back.
        as_of: Rows known after it are left for later; with a zone.

    Returns:
        Rows added, by view; 0 when called again with the same `as_of`.

    Raises:
        SpecError: No such use case.
        DataError: `as_of` has no zone.
        ServiceError: The store does not know a view, or cannot write; another process writes to the
            data root for longer than a writer may take.
    """
    as_of = _utc(as_of)
    with sole_writer(root_of(store)):
        return _write_features(catalog.load(usecase), store, raw, as_of)


def _write_features(
    code: catalog.UseCaseCode, store: Any, raw: Mapping[str, pl.DataFrame], as_of: datetime
) -> dict[str, int]:
    usecase = code.spec.name
    made_by = fingerprint.of_code(code.folder)
    added = {}
    for name, compute in code.batch.items():
        started = time.perf_counter()
        rows = compute(raw)
        try:
            view = store.get_feature_view(name)
            if fingerprint.start_over_if_changed(_history(store, view), made_by):
                _LOG.info("%s: the code changed, so %s is computed anew", usecase, name)
            known = newest_created(store, view)
            new = rows.filter(pl.col("created_timestamp").is_between(known, as_of, closed="right"))
            if new.height:
                _append(store, view, new)
        except Exception as error:
            raise ServiceError(
                f"{usecase}: feature view {name}: {shorten(error)}; apply the definitions first "
                "(feature_repo.store.apply)"
            ) from error
        added[name] = new.height
        seconds = time.perf_counter() - started
        _LOG.info("%s: %s rows of %s in %.1f s", usecase, f"{new.height:,}", name, seconds)
    return added


def newest_created(store: Any, view: Any) -> datetime:
    """Return the newest `created_timestamp` that a view's parts hold; 1970 when there are none."""
    newest = _newest(history_parts(store, view), "created_timestamp")
    return _EPOCH if newest is None else newest


def history_parts(store: Any, view: Any) -> list[Path]:
    """Return the files of a view's history, sorted by name; none before its first row."""
    return sorted(_history(store, view).glob("part-*.parquet"))


def _history(store: Any, view: Any) -> Path:
    return Path(store.config.offline_store.root, view.batch_source.path)


def raw_folder(usecase: str, root: str, table: str) -> Path:
    """Return where a raw table's parts lie."""
    return Path(root) / "raw" / usecase / table


def _append(store: Any, view: Any, rows: pl.DataFrame) -> None:
    # Not through store.write_to_offline_store: it goes through pandas, which turns integers with
    # nulls into floats.
    from feature_repo.offline_store import AsofOfflineStore

    AsofOfflineStore.offline_write_batch(store.config, view, rows.to_arrow(), None)


def _event_time(code: catalog.UseCaseCode, table: str, tables: Mapping[str, pl.DataFrame]) -> str:
    rule = code.spec.data.tables.get(table)
    if rule is None:
        raise DataError(f"{code.spec.name}: table {table} is not declared under data.tables")
    if table not in tables or rule.event_time not in tables[table].columns:
        raise DataError(
            f"{code.spec.name}: the source's table {table} has no column {rule.event_time}, its "
            "declared event time: the source changed, or data.tables is out of date"
        )
    return rule.event_time


def _landed_until(folder: Path) -> datetime:
    ends = [part.stem.rsplit("-", 1)[-1] for part in folder.glob("part-*.parquet")]
    return max((datetime.strptime(end, _STAMP).replace(tzinfo=UTC) for end in ends), default=_EPOCH)


def _newest(parts: list[Path], column: str) -> datetime | None:
    if not parts:
        return None
    newest = pl.scan_parquet(parts).select(pl.col(column).max()).collect().item()
    return newest if isinstance(newest, datetime) else None


def _next_month(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise DataError(f"time {moment} has no zone: write it in UTC")
    return moment.astimezone(UTC)


def _write(rows: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    rows.write_parquet(partial)
    partial.replace(path)
