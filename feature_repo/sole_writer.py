"""One writer at a time for one data root, in whatever process or pod it works.

Landing asks what is there and adds the rest, features likewise, and Feast reads its registry,
changes it and writes it back: two who do so at once would lose or double what the other one wrote.
So all three hold a locked file of the root meanwhile. The kernel opens the lock when its holder is
gone, however it went. It counts between the pods of one node on any file system, and between nodes
on NFSv4 (Linux makes a lock on the server of it); a file system without locks is not one to put a
data root on. Readers need no lock: files appear whole.
"""

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlplatform.errors import ServiceError, shorten

FILE: Final = "writer.lock"
"""Of the data root; it stays, empty, whether it is locked or not."""

_PATIENCE_SECONDS: Final = 900.0
"""Longest wait: the slowest writer, a first materialization of a year, takes about two minutes."""
_POLL_SECONDS: Final = 0.1

_log: Final = logging.getLogger("mlplatform.features")


@contextlib.contextmanager
def sole_writer(root: str | Path, patience_seconds: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Write to a data root alone; not to be nested.

    Args:
        root: Data root; made if it is not there.
        patience_seconds: Longest wait for another writer.

    Raises:
        ServiceError: Another writer was at work all that time, or the root cannot be locked.
    """
    path = Path(root) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ServiceError(f"{path} cannot be opened: {shorten(error)}; check the root") from error
    with file:
        deadline, waits = time.monotonic() + patience_seconds, False
        while not _locked(file.fileno(), path):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"another process has held {path} for {patience_seconds:g} s: look for a "
                    "landing, a materialization or a pipeline that hangs, and try again"
                )
            if not waits:
                _log.info("waits for another writer of %s", path.parent)
                waits = True
            time.sleep(_POLL_SECONDS)
        yield


def _locked(file: int, path: Path) -> bool:
    """Lock a file without waiting; return False where another one holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ServiceError(
            f"{path} cannot be locked: {shorten(error)}; put the data root on a file system that "
            "has locks (a local disk, NFSv4)"
        ) from error
    return True
