"""Merging the small files of past hours, a row each exactly once at every moment.

The archiver makes a file every few seconds; an hour of them is read some hundred times slower
than one. The merged file is named after all commits that it holds, so that the files which it
replaces stop to count when it appears (`feature_repo.predictions.parts`); they are deleted by a
later pass, when no reader is between its listing and its reading any more. A process may be killed
anywhere, and several may merge: the merged file appears by a hard link, one of them wins.

It refuses nothing: an hour that cannot be merged, because a file of it is damaged or the disk is
full, is said and stays as it is, and the other hours are merged.
"""

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.predictions import commits_of, hours, part_name, parts
from mlplatform.errors import shorten
from serving.predictions.commits import At, sync

_QUIET_SECONDS: Final = 300.0
"""After its end an hour gets no more rows but late ones; also how long a file that no longer
counts is kept for readers that have it on their list."""

_TROUBLE: Final = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # of 3,000 files with changed bytes 6 made Polars panic
    pa.ArrowException,
    OSError,
    ValueError,  # a folder whose name is no hour
)

_log: Final = logging.getLogger(__name__)


def merge(
    root: Path,
    usecase: str,
    *,
    now: Callable[[], float] = time.time,
    at: At = lambda _: None,
    newest: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Merge the files of hours that have passed; return the number of hours that were merged.

    Args:
        root: Folder of the archive.
        usecase: Whose rows.
        now: Seconds since 1970; tests turn it.
        at: Called after each step; tests kill the process there.
        newest: Look at this many newest hours only; None: at all.
        stop: Asked before each hour; true: leave the rest for another time.

    Raises:
        OSError: The archive's folder cannot be listed.
    """
    merged = 0
    for hour in hours(root, usecase)[-newest if newest else 0 :]:
        if stop():
            break
        try:
            merged += _merge_hour(hour, now(), at)
        except _TROUBLE as error:
            _log.warning("%s cannot be merged and stays as it is: %s", hour, shorten(error))
    return merged


def _merge_hour(hour: Path, now: float, at: At) -> bool:
    for left in hour.glob(".merge-*"):  # of a killed process; a living one's merge just fails
        left.unlink(missing_ok=True)
    counting, covered = parts(hour)
    if covered and max(path.stat().st_mtime for path in counting) + _QUIET_SECONDS < now:
        for path in covered:
            path.unlink(missing_ok=True)
        at("replaced")
    if len(counting) < 2 or _end(hour) + _QUIET_SECONDS > now:  # noqa: PLR2004  # two make one
        return False
    numbers = [found for path in counting if (found := commits_of(path))]
    temporary = hour / f".merge-{uuid.uuid4().hex}"
    try:
        pl.scan_parquet(counting, hive_partitioning=False, glob=False).sink_parquet(temporary)
        expected = sum(pq.read_metadata(path).num_rows for path in counting)
        if pq.read_metadata(temporary).num_rows != expected:
            _log.error("%s: the merged file has not all %d rows; left as it is", hour, expected)
            return False
        sync(temporary)
        at("merged")
        # A listing may miss a file that another archiver was just moving here; this one does not.
        if parts(hour)[0] != counting:
            return False
        os.link(temporary, hour / part_name(numbers[0][0], max(last for _, last in numbers)))
        sync(hour)
        at("replacing")
    except (FileNotFoundError, FileExistsError):  # another process merges this hour
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _log.info("%s: %d files merged", hour, len(counting))
    return True


def _end(hour: Path) -> float:
    text = f"{hour.parent.name.removeprefix('date=')} {hour.name.removeprefix('hour=')}"
    start = datetime.strptime(text, "%Y-%m-%d %H").replace(tzinfo=UTC)
    return start.timestamp() + timedelta(hours=1).total_seconds()
