"""The lock of one machine: a file's. It reaches the processes of the machine, and no further."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.errors import ServiceError, shorten


class FileLock:
    """Held by one process at a time, and let go when that one dies; a `ports.Lock`.

    Args:
        path: Of the file, which is made when it is absent; the same one for all processes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock; never waits, so that who has it cannot hold up anybody's rollback.

        Raises:
            ServiceError: Another process has it, or the folder has no locks.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.open("ab")
        except OSError as error:
            raise ServiceError(
                f"{self._path} cannot be opened: {shorten(error)}; choose a folder that this "
                "process may write"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ServiceError(
                    f"another process is setting aliases (it holds {self._path}): try again"
                ) from error
            except OSError as error:
                raise ServiceError(
                    f"{self._path} cannot be locked: {shorten(error)}; choose a folder of a "
                    "file system that has locks"
                ) from error
            yield
