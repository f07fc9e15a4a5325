"""The time in which the servers of one machine live: that of their requests.

The data of an example are years old, so a rollout's hours are counted in the time that requests
carry. It runs as ours does, from the moment at which the servers stand, and a replay, which lives
faster, says how far it has come. Commands in other processes read it from a file.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from mlplatform.contracts import Contract, UtcDatetime


class _Mark(Contract):
    """What time it was when."""

    moment: UtcDatetime
    at: float
    """Seconds since 1970, by the machine's clock."""


class Clock:
    """The servers' time.

    Args:
        moment: What time it is.
        path: File from which other processes read it; None: nobody does.
    """

    def __init__(self, moment: datetime, path: Path | None = None) -> None:
        self._path = path
        self._mark = _Mark(moment=moment, at=time.time())
        self._write()

    def now(self) -> datetime:
        """Return the time; it runs on from what was seen last."""
        return _now(self._mark)

    def seen(self, moment: datetime) -> None:
        """Go to the time of a request, unless it is earlier: time does not go back."""
        if moment > self.now():
            self._mark = _Mark(moment=moment, at=time.time())
            self._write()

    def _write(self) -> None:
        if self._path is not None:
            scratch = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            scratch.write_text(self._mark.model_dump_json(), encoding="utf-8")
            scratch.rename(self._path)


def read(path: Path) -> datetime:
    """Return the time that a file tells; the machine's own where there is none that can be read."""
    try:
        return _now(_Mark.model_validate_json(path.read_bytes()))
    except (OSError, ValidationError):
        return datetime.now(UTC)


def _now(mark: _Mark) -> datetime:
    return mark.moment + timedelta(seconds=max(0.0, time.time() - mark.at))
