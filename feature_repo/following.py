"""The push path as a process: the online store follows the source between two materializations.

Each round reads what the source has had since the last landing, computes with all that was landed
before it what became known, and writes that online. It only reads the data root, so it never waits
for a writer and leaves no file behind, however often it looks. It keeps no state either: a new
process goes on from where materialization says that the online store stands, and a stretch that is
pushed twice changes nothing.

It refuses to follow before the first materialization: the views are not declared yet.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from feature_repo import catalog, ingest, stream
from feature_repo.materialize import marks
from feature_repo.store import open_store
from mlplatform.errors import PlatformError, ServiceError, shorten

OVERLAP: Final = timedelta(minutes=10)
"""Rows known this long before the last round are looked at again: a source shows an event a while
after it is known. What is later still comes with the next materialization."""

_log: Final = logging.getLogger("mlplatform.push")


class Source:
    """All raw events of a use case, landed or not.

    What has been landed is kept in memory and read again only when more of it has been landed.

    Args:
        code: The use case.
        root: Data root.
    """

    def __init__(self, code: catalog.UseCaseCode, root: str) -> None:
        self._code, self._root = code, root
        self._landed: dict[str, datetime] = {}
        self._rows: dict[str, pl.DataFrame] = {}

    def until(self, moment: datetime) -> dict[str, pl.DataFrame]:
        """Return the events before a moment, as `ingest.read_raw` would after a landing.

        Raises:
            DataError: The source or a landed part cannot be read.
        """
        landed = ingest.landed_until(self._code, self._root)
        if landed != self._landed:
            name, end = self._code.spec.name, max(landed.values())
            self._rows = ingest.read_raw(name, self._root, end)
            self._landed = landed
        new = ingest.newer(self._code, landed, moment)
        times = {table: self._code.spec.data.tables[table].event_time for table in self._rows}
        return {
            table: pl.concat([rows, *([new[table]] if table in new else [])], how="diagonal")
            .filter(pl.col(times[table]) < moment)
            .sort(times[table], maintain_order=True)
            for table, rows in self._rows.items()
        }


@dataclass
class Follower:
    """Pushes what becomes known of one use case.

    Attributes:
        usecase: Its name.
        root: Data root, with the views declared and events landed.
        redis_url: The online store.
        now: What tells the time.
    """

    usecase: str
    root: str
    redis_url: str
    now: Callable[[], datetime]
    _source: Source | None = None
    _pusher: stream.Pusher | None = None
    _until: datetime | None = None

    def round(self) -> int:
        """Push what became known since the last round; return the entities that changed.

        Raises:
            DataError: The source cannot be read, or gives what the views do not declare.
            ServiceError: Redis is out of reach, or nothing has been materialized yet.
        """
        code, now = catalog.load(self.usecase), self.now()
        if self._source is None or self._pusher is None or self._until is None:
            store = self._opened()
            self._until = _standing(store, self.usecase, now)
            self._source, self._pusher = Source(code, self.root), stream.Pusher(store)
        if now <= self._until:
            return 0
        raw = self._source.until(now)
        found = stream.updates(code, raw, self._until - OVERLAP, now)
        changed = stream.push(self._pusher, found, now)
        self._until = now
        return changed

    def _opened(self) -> Any:
        if not (Path(self.root) / "registry.db").exists():
            raise ServiceError(
                f"{self.usecase}: no feature views are declared in {self.root}: materialize first "
                "(python -m feature_repo materialize)"
            )
        return open_store(self.root, self.redis_url)


def _standing(store: Any, usecase: str, now: datetime) -> datetime:
    """Return up to when the online store is complete; now, where materialization starts over."""
    found = marks(store, usecase).values()
    known = [mark for mark in found if mark is not None]
    return min(known) if known and len(known) == len(found) else now


@dataclass
class Work:
    """Rounds until somebody asks to end, whatever goes wrong in one.

    Attributes:
        round: One round; returns the entities that changed.
        every_seconds: Pause between two rounds.
        ready: Touched after each good round, where it is named: its age grows while there is
            trouble, which no restart would cure.
    """

    round: Callable[[], int]
    every_seconds: float
    ready: Path | None
    _trouble: str = field(default="", init=False)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; trouble is said when it begins, changes and ends.

        Raises:
            OSError: The file that says that it works cannot be written.
        """
        self._withdraw()
        while not stop.is_set():
            self._attempt()
            stop.wait(self.every_seconds)
        self._withdraw()

    def _attempt(self) -> None:
        try:
            changed = self.round()
        except (PlatformError, OSError) as error:
            said = f"{type(error).__name__}: {shorten(error)}"
            if said != self._trouble:
                _log.warning("%s; tried again every %g s", said, self.every_seconds)
            self._trouble = said
            return
        if self._trouble:
            _log.warning("works again")
            self._trouble = ""
        if changed:
            _log.info("%s entities changed", f"{changed:,}")
        if self.ready is not None:
            self.ready.touch()

    def _withdraw(self) -> None:
        """Remove the file that says that it works, which an earlier process may have left."""
        if self.ready is not None:
            self.ready.parent.mkdir(parents=True, exist_ok=True)
            self.ready.unlink(missing_ok=True)
