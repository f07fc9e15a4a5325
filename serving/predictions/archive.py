"""From the stream to hourly Parquet files, every row exactly once.

Each round reads the stream from its start, drops what has been taken, commits the rest
(`serving.predictions.commits`), and then deletes exactly the entries that it has read. What was
taken is known by the highest sequence of each gateway, not by the position in the stream: a
gateway's rows come in order, so a row at or below its gateway's highest is a repetition. Positions
would lie when Redis loses its data and its clock has gone back; then new entries are below the
last one that was read, and to trim by position would delete them unread.

An entry that is no row is set aside under `_quarantine/` and counted. It refuses to guess: an
archive whose last record is damaged stops it. A process may be killed at any point, and several
may run at once; one of them makes each commit.
"""

import base64
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import polars as pl

from feature_repo.predictions import SCHEMA
from mlplatform.contracts.prediction import Prediction
from mlplatform.errors import ServiceError, shorten
from serving.predictions import stream
from serving.predictions.commits import At, Commit, Commits, Seen, make_folder, sync

_PAGE: Final = 2_000
"""Entries read or deleted by one command: about a millisecond of Redis, which serves features."""
_CHUNK: Final = 20_000
"""Entries in one file: some 20 MB in memory, and what is read again after a kill."""
_FORGET_SECONDS: Final = 30 * 86_400.0
"""A gateway that was silent for so long has no spilled rows left; its name is new at each start."""
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999: an id beyond it (somebody chose it) counts as this."""

_log: Final = logging.getLogger(__name__)


class Redis(Protocol):
    """What the archiver needs of a client."""

    def execute(self, *command: bytes | str | float) -> Any:
        """Return the reply to one command; raises ServiceError."""


@dataclass
class _Chunk:
    """Consecutive entries of one hour."""

    hour: str
    entries: list[tuple[str, dict[bytes, bytes]]]
    rows: list[tuple[str, Prediction]] = field(default_factory=list)
    malformed: list[tuple[str, dict[bytes, bytes], str]] = field(default_factory=list)


class Archiver:
    """Archives one use case.

    Args:
        redis: A connection to the stream's server.
        root: Folder of the archive.
        usecase: Whose rows.
        now: Seconds since 1970; tests turn it.
        at: Called after each step; tests kill the process there.

    Raises:
        ServiceError: The folder cannot be written.
    """

    def __init__(
        self,
        redis: Redis,
        root: Path,
        usecase: str,
        *,
        now: Callable[[], float] = time.time,
        at: At = lambda _: None,
    ) -> None:
        self._redis, self._usecase, self._now, self._at = redis, usecase, now, at
        self._folder = root / usecase
        self._key = stream.key(usecase)
        self._commits = Commits(self._folder, at)
        self.rows = 0
        """Rows archived by this process."""
        self.duplicates = 0
        """Repetitions that were left out."""
        self.malformed = 0
        """Entries that were set aside."""

    def catch_up(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Archive what is in the stream now, file by file, until it is empty or `stop` says so.

        Raises:
            ServiceError: Redis or the disk does not answer; what was not taken stays in the stream.
            DataError: The archive's last record is damaged.
        """
        try:
            while not stop() and (chunk := self._next()) is not None:
                self._take(chunk)
        except (OSError, pl.exceptions.PolarsError) as error:  # a full disk is either
            raise ServiceError(
                f"the archive cannot write {self._folder}: {shorten(error)}; rows wait in Redis"
            ) from error

    def _next(self) -> _Chunk | None:
        chunk: _Chunk | None = None
        start = "-"
        while chunk is None or len(chunk.entries) < _CHUNK:
            page = _pairs(self._redis.execute("XRANGE", self._key, start, "+", "COUNT", _PAGE))
            for name, fields in page:
                hour = _hour(name)
                chunk = chunk or _Chunk(hour, [])
                if hour != chunk.hour:
                    return chunk
                chunk.entries.append((name, fields))
            if len(page) < _PAGE:
                break
            start = f"({page[-1][0]}"
        return chunk

    def _take(self, chunk: _Chunk) -> None:
        latest = self._commits.latest()
        gateways = self._sort(chunk, latest)
        if chunk.malformed:
            self._set_aside(chunk)
        if chunk.rows:
            made = self._commits.add(latest, _frame(chunk.rows), chunk.hour, gateways)
            if made is None:
                return  # another archiver was first: read again, see what it has left
        self._delete([name for name, _ in chunk.entries])
        self._at("deleted")
        duplicates = len(chunk.entries) - len(chunk.rows) - len(chunk.malformed)
        self.rows += len(chunk.rows)
        self.duplicates += duplicates
        self.malformed += len(chunk.malformed)
        _log.info(
            "%s: %d rows archived, %d repetitions left out, %d entries set aside, %s",
            self._usecase,
            len(chunk.rows),
            duplicates,
            len(chunk.malformed),
            chunk.hour,
        )

    def _sort(self, chunk: _Chunk, latest: Commit | None) -> dict[str, Seen]:
        """Fill the chunk's rows and malformed entries; return the state after them."""
        now = self._now()
        known = latest.gateways if latest else {}
        gateways = {name: seen for name, seen in known.items() if now - seen.at < _FORGET_SECONDS}
        for name, fields in chunk.entries:
            try:
                row = self._row(fields)
            except ValueError as error:
                chunk.malformed.append((name, fields, shorten(error)))
                continue
            seen = gateways.get(row.gateway)
            if seen is None or row.sequence > seen.sequence:
                gateways[row.gateway] = Seen(sequence=row.sequence, at=now)
                chunk.rows.append((name, row))
        return gateways

    def _row(self, fields: dict[bytes, bytes]) -> Prediction:
        if stream.FIELD not in fields:
            raise ValueError(f"it has no field {stream.FIELD.decode()}")
        row = stream.unpack(fields[stream.FIELD])
        if row.usecase != self._usecase:
            raise ValueError(f"it is a row of {row.usecase!r}")
        if len(row.features) % 4:
            raise ValueError("its features are no float32 values")
        for name in _INTEGERS:
            if not -(2**63) <= getattr(row, name) < 2**63:
                raise ValueError(f"its {name} is beyond 64 bit")
        if not all(-(2**63) <= moment < 2**63 for moment in row.feature_times):
            raise ValueError("one of its feature_times is beyond 64 bit")
        return row

    def _set_aside(self, chunk: _Chunk) -> None:
        """Write the malformed entries to a file that writing again replaces."""
        folder = self._folder / "_quarantine"
        make_folder(folder)
        lines = [
            json.dumps(
                {
                    "id": name,
                    "reason": reason,
                    "fields": {_text(key): _text(value) for key, value in fields.items()},
                }
            )
            for name, fields, reason in chunk.malformed
        ]
        path = folder / f"{chunk.malformed[0][0]}.jsonl"
        partial = path.with_suffix(".tmp")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sync(partial)
        partial.replace(path)
        sync(folder)
        _log.warning(
            "%s: %d entries of the stream are no rows: %s; the first: %s",
            self._usecase,
            len(lines),
            path,
            chunk.malformed[0][2],
        )
        self._at("set aside")

    def _delete(self, names: Sequence[str]) -> None:
        # Not XTRIM MINID: after a loss of data and a clock that went back it would delete entries
        # that nobody has read.
        for at in range(0, len(names), _PAGE):
            self._redis.execute("XDEL", self._key, *names[at : at + _PAGE])


_INTEGERS: Final = tuple(
    item.name for item in msgspec.structs.fields(Prediction) if item.type is int
)


def _frame(rows: Sequence[tuple[str, Prediction]]) -> pl.DataFrame:
    """Return rows as the archive keeps them."""
    found = [row for _, row in rows]
    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in found]
        for name in SCHEMA
        if name not in {"arrived_at", "stream_id", "request", "features", "feature_times"}
    }
    vectors = [np.frombuffer(row.features, dtype="<f4") for row in found]
    columns |= {
        "arrived_at": [1000 * _milliseconds(name) for name, _ in rows],
        "stream_id": [name for name, _ in rows],
        "request": [msgspec.json.encode(row.request).decode() for row in found],
        "features": pl.Series(vectors, dtype=pl.List(pl.Float32)),
        "feature_times": [[moment or None for moment in row.feature_times] for row in found],
    }
    return pl.DataFrame(
        {
            name: pl.Series(name, columns[name], dtype=_stored(kind), strict=True).cast(kind)
            for name, kind in SCHEMA.items()
        }
    )


def _stored(kind: pl.DataType) -> pl.DataType:
    """Return the type to build a column as: times come as integers."""
    if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Datetime):
        return pl.List(pl.Int64())
    return pl.Int64() if isinstance(kind, pl.Datetime) else kind


def _hour(name: str) -> str:
    moment = datetime.fromtimestamp(_milliseconds(name) / 1000, UTC)
    return f"date={moment:%Y-%m-%d}/hour={moment:%H}"


def _milliseconds(name: str) -> int:
    return min(int(name.partition("-")[0]), _LAST_MS)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _pairs(reply: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return the entries in a reply to XRANGE."""
    return [
        (name.decode(), dict(zip(fields[::2], fields[1::2], strict=True))) for name, fields in reply
    ]
