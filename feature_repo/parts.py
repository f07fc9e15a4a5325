"""Where a feature view's history lies: Parquet parts in a folder, only ever added to.

A part is sorted as the join wants it (`feature_repo.history.sort_order`), appears complete or not
at all, and is named after its content, so that the same batch written twice is one file. Nothing
is ever rewritten: a correction is a row with a later creation time. Among rows that agree in key,
event time and creation time the part written last wins; the time of writing is in the part's
footer, so it survives copies.

Paths are local or URIs such as s3://bucket/prefix; all I/O goes through `pyarrow.fs`. Parts that
others put there need not be sorted (they are sorted when read), but their times need a zone.
"""

import hashlib
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlparse

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from feature_repo.asof import Ints
from feature_repo.history import Piece, View, sort_order
from mlplatform.errors import DataError, shorten

_LOG: Final = logging.getLogger("mlplatform.features")
_WRITTEN: Final = b"mlplatform.written_ns"
_GROUP_ROWS: Final = 1 << 18
"""Rows of a row group: the unit that is read or skipped; 2 MB for a column of 8 bytes."""

PIECE_ROWS: Final = 1 << 20
"""Rows searched at once: arrays of 8 MB, small enough to stay near the processor's caches."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of parts (or one file) on a file system; it need not exist yet."""

    files: Any  # pyarrow.fs.FileSystem: pyarrow ships no types
    path: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A part whose footer has been read."""

    folder: Folder
    path: str
    footer: Any  # pyarrow.parquet.FileMetaData

    @property
    def written(self) -> int:
        return int((self.footer.metadata or {}).get(_WRITTEN, 0))

    @property
    def columns(self) -> list[str]:
        return list(self.footer.schema.to_arrow_schema().names)

    def rows(self, group: int) -> int:
        return int(self.footer.row_group(group).num_rows)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Row groups of one part."""

    part: _Part
    groups: tuple[int, ...]

    def read(self, columns: Sequence[str], groups: Sequence[int]) -> pl.DataFrame:
        try:
            if isinstance(self.part.folder.files, pafs.LocalFileSystem):
                return self._read_local(columns, groups)
            with pq.ParquetFile(
                self.part.path, filesystem=self.part.folder.files, metadata=self.part.footer
            ) as file:
                return _frame(file.read_row_groups(list(groups), columns=list(columns)))
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"part {self.part.path} cannot be read: {shorten(error)}; remove it and write "
                "its batch again"
            ) from error

    def _read_local(self, columns: Sequence[str], groups: Sequence[int]) -> pl.DataFrame:
        """Read runs of neighbouring groups with polars: half of pyarrow's time, measured."""
        ends = np.cumsum([0, *(self.part.rows(n) for n in range(self.part.footer.num_row_groups))])
        scan = pl.scan_parquet(self.part.path, glob=False, use_statistics=False).select(columns)
        runs = np.split(groups, np.flatnonzero(np.diff(groups) != 1) + 1)
        spans = [(int(ends[run[0]]), int(ends[run[-1] + 1])) for run in runs if len(run)]
        frames = [scan.slice(low, high - low).collect() for low, high in spans]
        found: pl.DataFrame = pl.concat(frames) if frames else scan.limit(0).collect()
        return found

    def take(self, columns: Sequence[str], groups: Sequence[int]) -> pl.DataFrame:
        """Return the columns, nulls for those that the part does not have."""
        found = [name for name in columns if name in self.part.columns]
        rows = sum(self.part.rows(group) for group in groups)
        held = self.read(found, groups) if found else pl.DataFrame()
        return pl.DataFrame(
            [
                held[name]
                if name in found
                else pl.Series(name, [None], dtype=pl.Null).new_from_index(0, rows)
                for name in columns
            ]
        )

    def sizes(self) -> list[int]:
        """Return the rows of each group."""
        return [self.part.rows(group) for group in self.groups]


@dataclass(frozen=True, slots=True)
class PartPiece:
    """Some row groups of parts, or small parts together: rows are numbered across them."""

    chunks: tuple[_Groups, ...]

    def types(self, columns: Sequence[str]) -> pl.Schema:
        """Return the types of these columns.

        Raises:
            DataError: A part lacks a column or cannot be read.
        """
        self._check(columns)
        return self.chunks[0].take(columns, []).schema

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return these columns of all rows; raises `DataError` as `types` does."""
        self._check(columns)
        return pl.concat(
            [chunk.read(columns, chunk.groups) for chunk in self.chunks], how="vertical_relaxed"
        )

    def _check(self, columns: Sequence[str]) -> None:
        for chunk in self.chunks:
            missing = [name for name in columns if name not in chunk.part.columns]
            if missing:
                raise DataError(
                    f"part {chunk.part.path} lacks {missing}, which the feature view declares as "
                    f"key or time; it has {chunk.part.columns}"
                )

    def take(self, columns: Sequence[str], rows: Ints) -> pl.DataFrame:
        """Return these columns of the given rows; groups without such a row are not read.

        A column that a part does not have (a feature declared after it was written) is null.
        """
        sizes = [chunk.sizes() for chunk in self.chunks]
        ends = np.cumsum(np.concatenate([np.array(size, dtype=np.int64) for size in sizes]))
        group_of = np.searchsorted(ends, rows, side="right")
        used = np.zeros(len(ends), dtype=np.bool_)
        used[group_of] = True
        # Rows of groups that are not read, before each group: what the numbers move down by.
        moved = np.cumsum(np.where(used, 0, np.diff(ends, prepend=0)))
        frames = [] if len(rows) else [self.chunks[0].take(columns, [])]
        first = 0
        for chunk, size in zip(self.chunks, sizes, strict=True):
            wanted = np.flatnonzero(used[first : first + len(size)])
            if len(wanted):
                frames.append(chunk.take(columns, [chunk.groups[number] for number in wanted]))
            first += len(size)
        table: pl.DataFrame = pl.concat(frames, how="vertical_relaxed")
        return table.select(pl.col(list(columns)).gather(rows - moved[group_of]))


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):  # from_arrow is typed for arrays as well
        raise TypeError(type(frame))
    return frame


def folder(root: str, path: str, base: Path | None = None) -> Folder:
    """Return where a source's parts lie; nothing is created or checked.

    Args:
        root: What a relative `path` is relative to: a local folder or a URI.
        path: A folder of parts or a single file; relative, absolute or a URI.
        base: What a relative local `root` is relative to; None: the working directory.

    Raises:
        DataError: The URI's scheme or its credentials are not understood.
    """
    joined = path if _is_absolute(path) else f"{root.rstrip('/')}/{path}"
    if not _is_absolute(joined):
        joined = str((base or Path()).resolve() / joined)
    try:
        files, inside = pafs.FileSystem.from_uri(joined)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{joined} is no place for feature parts: {shorten(error)}; use a local path or "
            "s3://bucket/prefix"
        ) from error
    return Folder(files, inside)


def _is_absolute(path: str) -> bool:
    return bool(urlparse(path).scheme) or Path(path).is_absolute()


def pieces(place: Folder, limit: int = PIECE_ROWS) -> list[Piece]:
    """Return a history's pieces in the order of writing; none when nothing was ever written.

    Args:
        place: From `folder`.
        limit: Rows of a piece, about. Larger parts are split at row groups; smaller ones that
            were written one after the other are taken together.

    Raises:
        DataError: A part is no Parquet file.
    """
    found: list[Piece] = []
    waiting: list[_Groups] = []
    rows = 0
    for part in _parts(place):
        groups: list[int] = []
        for group in range(part.footer.num_row_groups):
            groups.append(group)
            rows += part.rows(group)
            if rows >= limit:
                waiting.append(_Groups(part, tuple(groups)))
                found.append(PartPiece(tuple(waiting)))
                waiting, groups, rows = [], [], 0
        if groups:
            waiting.append(_Groups(part, tuple(groups)))
    if waiting:
        found.append(PartPiece(tuple(waiting)))
    return found


def schema(place: Folder) -> Any | None:
    """Return the Arrow schema of the part written last; None when there is none."""
    parts = _parts(place)
    return parts[-1].footer.schema.to_arrow_schema() if parts else None


def append(place: Folder, table: Any, view: View) -> str | None:
    """Write one batch as one sorted part; existing parts are left as they are.

    Args:
        place: From `folder`; created when missing.
        table: `pyarrow.Table` with the columns and types that the part shall have.
        view: Says which columns are keys and times.

    Returns:
        The part's name; None when this batch was there already or has no rows.

    Raises:
        DataError: A time column is missing or has no zone.
    """
    if not table.num_rows:
        return None
    frame = _frame(table)
    arranged = frame[sort_order(frame, view)].to_arrow().cast(table.schema)
    buffer, digest = _encode(arranged, view)
    name = f"part-{digest}.parquet"
    target = f"{place.path}/{name}"
    if place.files.get_file_info(target).type != pafs.FileType.NotFound:
        _LOG.info("%s: this batch is there already: %s", view.name, name)
        return None
    place.files.create_dir(place.path, recursive=True)
    if isinstance(place.files, pafs.LocalFileSystem):
        # A reader sees the whole part or none; object stores give that by themselves.
        partial = f"{place.path}/.{name}.{uuid.uuid4().hex}"
        with place.files.open_output_stream(partial) as stream:
            stream.write(buffer)
        place.files.move(partial, target)
    else:
        with place.files.open_output_stream(target) as stream:
            stream.write(buffer)
    return name


def _encode(table: Any, view: View) -> tuple[Any, str]:
    """Return the part's bytes, and the digest of its schema and data but not of its time.

    LZ4 and plain values decode 3 to 5 times faster than zstd or dictionaries of distinct floats,
    at 10 % more bytes; keys and text repeat, so they keep their dictionaries.
    """
    texts = [
        field.name
        for field in table.schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    dictionaries = sorted({*view.key_columns, *texts})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, compression="lz4", use_dictionary=dictionaries
    ) as writer:
        writer.write_table(table, row_group_size=_GROUP_ROWS)
        writer.add_key_value_metadata({_WRITTEN: str(time.time_ns()).encode()})
    part = sink.getvalue()
    # A Parquet file ends with its footer, the footer's length in 4 bytes and 4 bytes of magic.
    footer = int.from_bytes(part[-8:-4].to_pybytes(), "little")
    digest = hashlib.sha256(str(table.schema.remove_metadata()).encode())
    digest.update(memoryview(part)[: -8 - footer])
    return part, digest.hexdigest()[:32]


def _parts(place: Folder) -> list[_Part]:
    """Return the parts in the order of writing, ties by name."""
    info = place.files.get_file_info(place.path)
    if info.type == pafs.FileType.NotFound:
        return []
    if info.type == pafs.FileType.File:
        paths = [place.path]
    else:
        listed = place.files.get_file_info(pafs.FileSelector(place.path))
        paths = [
            found.path
            for found in listed
            if found.is_file
            and found.base_name.endswith(".parquet")
            and not found.base_name.startswith((".", "_"))
        ]
    return sorted(
        (_Part(place, path, _footer(place, path)) for path in paths),
        key=lambda part: (part.written, part.path),
    )


def _footer(place: Folder, path: str) -> Any:
    try:
        with place.files.open_input_file(path) as stream:
            return pq.read_metadata(stream)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet part: {shorten(error)}; remove it from the folder"
        ) from error
