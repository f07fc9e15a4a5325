"""Rows of the prediction log on disk, while Redis does not take them.

One folder for each gateway process, locked while the process lives. In it segments of bounded
size, `0000000001.log`, ..., each a run of frames: length and CRC-32 of the row (little-endian, 4
bytes each), then the row. A segment is deleted when Redis has acknowledged all of its rows; what a
dead process left is adopted by a living one, under the lock.

A write is with the kernel before it returns, so it outlives a killed process; it is not synced to
the disk, so that a machine that loses power may lose the newest rows. A frame that a killed writer
left half-written is dropped and counted; a segment that was changed on disk is replayed up to the
change and set aside as `*.damaged`, never deleted. Several calls at once are refused by having one
thread: the caller's.
"""

import contextlib
import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from mlplatform.errors import ServiceError, shorten

_FRAME: Final = struct.Struct("<II")
_LOCK: Final = "lock"
_ATTEMPTS: Final = 50
"""To take a folder of our own, 10 ms apart: an adopter holds a new folder for a moment at most."""
_SEGMENT_BYTES: Final = 4 * 2**20
"""About 8,000 rows of 500 bytes: read into memory as a whole, and repeated as a whole by the next
process if this one is killed before the last row of it is acknowledged."""

_log: Final = logging.getLogger(__name__)


class Spill:
    """The spilled rows of one gateway process, oldest first."""

    def __init__(self, folder: Path, lock: int, segment_bytes: int) -> None:
        self.folder = folder
        self.torn = 0
        """Frames that were half-written, or changed on disk."""
        self._lock, self._segment_bytes = lock, segment_bytes
        self._sealed = sorted(folder.glob("*.log"))
        self.empty = not self._sealed
        """Whether everything was acknowledged; may be read from any thread."""
        last = self._sealed[-1].stem if self._sealed else "0"
        self._number = int(last) if last.isdecimal() else 0
        self._open: int | None = None
        self._path, self._size = folder, 0  # of the open segment
        self._head: list[bytes] = []
        self._reading: Path | None = None
        self._damaged = False

    @classmethod
    def create(cls, folder: Path, segment_bytes: int = _SEGMENT_BYTES) -> Self:
        """Make and lock the folder of a new gateway process.

        Raises:
            ServiceError: The folder cannot be written, or belongs to a process that had this
                name before: its numbering would start again.
        """
        try:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(FileNotFoundError):  # an adopter removed it as empty
                    folder.mkdir(parents=True, exist_ok=True)
                    lock = _take(folder / _LOCK, os.O_CREAT)
                    if lock is not None:
                        break
                time.sleep(0.01)
            else:
                raise ServiceError(
                    f"{folder} is in use: two gateway processes have one name; give each its own"
                )
            found = cls(folder, lock, segment_bytes)
        except OSError as error:
            raise ServiceError(
                f"the prediction log cannot write {folder}: {shorten(error)}; set "
                "MLPLATFORM_GATEWAY_SPILL to a folder on a disk that this process may write"
            ) from error
        if not found.empty:
            os.close(lock)
            raise ServiceError(
                f"{folder} holds rows of an earlier process of this name: a gateway needs a new "
                "name each time that it starts, for it numbers its rows from 1"
            )
        return found

    @classmethod
    def adopt(cls, root: Path) -> Iterator[Self]:
        """Lock and yield what dead processes left under `root`; remove the folders of tidy ones.

        Raises:
            OSError: `root` cannot be listed.
        """
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            try:
                lock = _take(folder / _LOCK, 0)
                if lock is None:
                    continue  # its process is alive, or another adopter was first
                try:
                    found = cls(folder, lock, _SEGMENT_BYTES)
                except OSError:
                    os.close(lock)  # or we would take ourselves for its living process
                    raise
                if found.empty:
                    found.close()
                else:
                    yield found
            except FileNotFoundError:  # being made, or removed by another adopter
                continue
            except OSError as error:
                _log.warning("spilled rows in %s cannot be adopted: %s", folder, shorten(error))

    def append(self, rows: Sequence[bytes]) -> None:
        """Write rows behind the others: all of them or, when the disk refuses, none.

        Raises:
            OSError: The disk is full or fails.
        """
        content = memoryview(
            b"".join(part for row in rows for part in (_FRAME.pack(len(row), zlib.crc32(row)), row))
        )
        if self._open is not None and self._size >= self._segment_bytes:
            self._seal()
        if self._open is None:
            self._begin()
        assert self._open is not None  # noqa: S101  # just begun
        self.empty = False
        written = 0
        try:
            while written < len(content):
                written += os.write(self._open, content[written:])
        except OSError:
            with contextlib.suppress(OSError):  # what stays behind reads as half-written
                os.ftruncate(self._open, self._size)
            self._seal()
            self.empty = not self._sealed and self._reading is None
            raise
        self._size += written

    def head(self, rows: int) -> list[bytes]:
        """Return the oldest rows, at most so many; none when nothing is left.

        Raises:
            OSError: A segment cannot be read.
        """
        while not self._head:
            self._drop_segment()
            if not self._sealed:
                self._seal()
            if not self._sealed:
                self.empty = True
                break
            self._load(self._sealed[0])
        return self._head[:rows]

    def advance(self, rows: int) -> None:
        """Forget the oldest rows: they were acknowledged.

        Raises:
            OSError: A segment cannot be deleted.
        """
        del self._head[:rows]
        if not self._head:
            self._drop_segment()
            self.empty = not self._sealed and not self._size

    def close(self) -> None:
        """Let go of the folder, whatever happens; an empty one is removed.

        Raises:
            OSError: It cannot be removed.
        """
        try:
            self._seal()
            if not self._sealed and self._reading is None:
                (self.folder / _LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something is set aside in it
                    self.folder.rmdir()
        finally:
            os.close(self._lock)

    def _begin(self) -> None:
        path = self.folder / f"{self._number + 1:010d}.log"
        self._open = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number += 1
        self._path, self._size = path, 0

    def _seal(self) -> None:
        if self._open is None:
            return
        os.close(self._open)
        self._open = None
        if self._size:
            self._sealed.append(self._path)
        else:
            self._path.unlink(missing_ok=True)
        self._size = 0

    def _load(self, path: Path) -> None:
        try:
            rows, trouble, self._damaged = _frames(path.read_bytes())
        except FileNotFoundError:
            rows, trouble, self._damaged = [], "the file was removed", False
        if trouble:
            self.torn += 1
            _log.warning("spilled rows: %s after %d rows: %s", path, len(rows), trouble)
        self._sealed.pop(0)
        self._reading, self._head = path, rows

    def _drop_segment(self) -> None:
        if self._reading is None:
            return
        if self._damaged:
            self._reading.rename(self._reading.with_suffix(".damaged"))
        else:
            self._reading.unlink(missing_ok=True)
        self._reading = None


def _frames(content: bytes) -> tuple[list[bytes], str, bool]:
    """Return the whole rows, what is wrong behind them, and whether that is damage."""
    rows: list[bytes] = []
    at = 0
    while at < len(content):
        start = at + _FRAME.size
        length, crc = _FRAME.unpack_from(content, at) if start <= len(content) else (0, 0)
        if not length or start + length > len(content):
            return rows, "a half-written row is dropped", False
        row = content[start : start + length]
        if zlib.crc32(row) != crc:
            return rows, "the file was changed, its rest is set aside", True
        rows.append(row)
        at = start + length
    return rows, "", False


def _take(path: Path, flags: int) -> int | None:
    """Lock a file; return None when it is locked, or was removed while we tried."""
    lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    taken = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = os.path.samestat(os.fstat(lock), path.stat())
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not taken:
            os.close(lock)
    return lock if taken else None
