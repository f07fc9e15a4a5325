"""The archived prediction log: its columns, and reading it.

Serving writes it (`serving.predictions`), monitoring and audits read it; they meet here. It lies
under `<root>/<usecase>/date=YYYY-MM-DD/hour=HH/`, by the hour (UTC) in which the row reached the
stream, in files `part-<first>-<last>.parquet` named after the commits whose rows they hold. While
small files of an hour are merged, the merged one and the small ones lie side by side for a moment:
a file whose commits another file of its folder holds as well does not count. Every row is then
there exactly once, named by `gateway` and `sequence`.

It writes nothing and needs no server.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

import polars as pl

from mlplatform.contracts import Window
from mlplatform.errors import DataError, shorten

_TIME: Final = pl.Datetime("us", "UTC")

SCHEMA: Final[Mapping[str, pl.DataType]] = MappingProxyType(
    {
        "gateway": pl.String(),
        "sequence": pl.Int64(),
        "request_id": pl.String(),
        "usecase": pl.String(),
        "event_time": _TIME,
        "received_at": _TIME,
        "arrived_at": _TIME,  # in the stream, by Redis's clock
        "stream_id": pl.String(),
        "entity": pl.String(),
        "request": pl.String(),  # JSON: keys and inputs as they came, times as microseconds
        "arm": pl.String(),
        "version": pl.Int64(),
        "epoch": pl.Int64(),
        "service": pl.String(),
        "features": pl.List(pl.Float32()),  # the vector that was used, NaN where it was
        "feature_times": pl.List(_TIME),  # by view in the layout's order, null: no row
        "score": pl.Float64(),
        "decision": pl.Boolean(),
        "degraded": pl.Boolean(),
        "fallback": pl.Boolean(),
        "reasons": pl.List(pl.String()),
        "total_us": pl.Int64(),
        "features_us": pl.Int64(),
        "inference_us": pl.Int64(),
        "decision_us": pl.Int64(),
    }
)
"""Columns of the archive; what they mean is in `mlplatform.contracts.prediction`."""

_NAME: Final = re.compile(r"part-(\d+)-(\d+)\.parquet")
_CLOCKS: Final = timedelta(days=1)
"""A row may be about so much later than it arrived: clients' clocks and time zones."""
_ATTEMPTS: Final = 5
"""To read while files are merged away: a merge takes longer than listing and opening."""
_DAMAGE: Final = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # of 3,000 files with changed bytes 6 made Polars panic
    OSError,
)


def part_name(first: int, last: int) -> str:
    """Return the name of the file that holds the rows of commits `first` to `last` in a folder."""
    return f"part-{first:012d}-{last:012d}.parquet"


def commits_of(part: Path) -> tuple[int, int] | None:
    """Return the first and last commit of a file; None when it is no part."""
    found = _NAME.fullmatch(part.name)
    return (int(found[1]), int(found[2])) if found else None


def hours(root: str | Path, usecase: str, since: datetime | None = None) -> list[Path]:
    """Return the folders of a use case's hours, oldest first.

    Args:
        root: Folder of the archive.
        usecase: Whose hours.
        since: Leave out hours that had ended by then; None: none.
    """
    found = sorted((Path(root) / usecase).glob("date=*/hour=*"))
    if since is None:
        return found
    first = f"{since.astimezone(UTC):date=%Y-%m-%d/hour=%H}"
    return [hour for hour in found if f"{hour.parent.name}/{hour.name}" >= first]


def parts(hour: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that count in an hour's folder, oldest first, and those that do not."""
    found = [
        (commits, path) for path in hour.iterdir() if (commits := commits_of(path)) is not None
    ]
    found.sort(key=lambda item: (item[0][0], -item[0][1]))  # a file comes before those inside it
    counting: list[Path] = []
    covered: list[Path] = []
    reached = -1
    for (_, last), path in found:
        (covered if last <= reached else counting).append(path)
        reached = max(reached, last)
    return counting, covered


def read(
    root: str | Path,
    usecase: str,
    window: Window | None = None,
    columns: Sequence[str] = tuple(SCHEMA),
) -> pl.DataFrame:
    """Return the archived rows in the order of their arrival; none when there is no archive yet.

    Args:
        root: Folder of the archive (`ArchiveSettings.root`).
        usecase: Whose rows.
        window: Of event time; None: all. Hours of arrival that had ended a day before it are not
            opened.
        columns: Of `SCHEMA`.

    Raises:
        DataError: A file is damaged, or the files change faster than they can be read.
    """
    since = None if window is None else window.start - _CLOCKS
    return _attempt(root, usecase, since, lambda files: _scan(files, window).select(columns))


def read_new(
    root: str | Path,
    usecase: str,
    columns: Sequence[str],
    *,
    known: Collection[str] = (),
    since: datetime | None = None,
) -> tuple[frozenset[str], pl.DataFrame]:
    """Return the files that count now, and the rows of those that the caller does not know yet.

    A file never changes, so whoever keeps its rows need not read it again; those of a file that
    no longer counts are in another one, which does.

    Args:
        root: Folder of the archive.
        usecase: Whose rows.
        columns: Of `SCHEMA`.
        known: Files that an earlier call returned.
        since: Leave out hours of arrival that had ended by then; None: none.

    Returns:
        The files, and the rows with their file in the column `part`; in the order of arrival.

    Raises:
        DataError: A file is damaged, or the files change faster than they can be read.
    """
    counting: frozenset[str] = frozenset()

    def rows(files: Sequence[Path]) -> pl.LazyFrame:
        nonlocal counting
        counting = frozenset(map(str, files))
        new = [file for file in files if str(file) not in known]
        return _scan(new, None, part="part").select("part", *columns)

    found = _attempt(root, usecase, since, rows)
    return counting, found


def first_answers(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the first live answer to each request, in the order of arrival.

    A client that asks twice is answered twice; what it learnt first counts. Shadows answer nobody.
    """
    live = rows.filter(pl.col("arm") != "shadow").sort("received_at", "gateway", "sequence")
    return live.unique("request_id", keep="first", maintain_order=True)


def _attempt(
    root: str | Path,
    usecase: str,
    since: datetime | None,
    rows: Callable[[Sequence[Path]], pl.LazyFrame],
) -> pl.DataFrame:
    trouble: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            files = [path for hour in hours(root, usecase, since) for path in parts(hour)[0]]
            return rows(files).collect()
        except FileNotFoundError as error:
            trouble = error  # merged away between listing and opening
        except _DAMAGE as error:
            raise DataError(
                f"the prediction log of {usecase} in {root} cannot be read: {shorten(error)}; "
                "move the damaged file away and restore it from a backup"
            ) from error
    raise DataError(
        f"the prediction log of {usecase} in {root} changes while it is read: {trouble}; try again"
    )


def _scan(files: Sequence[Path], window: Window | None, part: str | None = None) -> pl.LazyFrame:
    if not files:
        return pl.LazyFrame(schema={**SCHEMA, **({part: pl.String()} if part else {})})
    rows = pl.scan_parquet(
        list(files), hive_partitioning=False, glob=False, include_file_paths=part
    )
    if window is None:
        return rows
    return rows.filter(pl.col("event_time").is_between(window.start, window.end, closed="left"))
