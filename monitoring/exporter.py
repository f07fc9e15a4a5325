"""What Prometheus reads of the monitor, for the monitor itself runs for seconds at a time.

Nothing is computed here but the check of the ledger's chain: a scrape reads what the last run
kept. What cannot be read, or is not there yet, is left out, and `mlplatform_monitor_source_up`
says so; a scrape never fails.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import SecretStr

from feature_repo import predictions
from mlplatform.contracts import Decision, Rollout
from mlplatform.contracts.retrain import History
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import LedgerError, PlatformError, ServiceError, shorten
from mlplatform.ledger import Head, Ledger
from mlplatform.ledger.database import Database
from mlplatform.ledger.state import StateTable
from mlplatform.reviews import ReviewStore
from monitoring import gauges, kept
from monitoring.gauges import Samples
from monitoring.requests import RequestStore

_VERIFY_SECONDS: Final = 300.0
"""Between two checks of the whole chain: 10,000 rows take 0.3 s and the time to read them."""
_REPORTS: Final = 14
"""Newest reports among which the newest matured one is looked for."""

_log: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Sources:
    """Where the values of one use case come from; each may raise PlatformError or OSError."""

    reports: Callable[[], Sequence[WindowReport]]
    """The newest, oldest first."""
    history: Callable[[], History | None]
    rollout: Callable[[], Rollout | None]
    run: Callable[[], Decision | None]
    """The ledger's newest row of kind `run`."""
    archived_at: Callable[[], datetime | None]
    waiting: Callable[[], int]
    """Decisions that wait for a person."""
    verify: Callable[[], int]
    """Checks the ledger and returns its rows; raises LedgerError where it is broken."""


def sources(usecase: str, ledger_url: str | SecretStr, out: Path, archive: Path) -> Sources:
    """Return where the values of a use case lie.

    Args:
        usecase: Its name.
        ledger_url: The ledger's database; made if it is not there.
        out: Root of the kept reports.
        archive: Root of the prediction archive.

    Raises:
        SettingsError: `ledger_url` names no database that a ledger can be kept in.
        ServiceError: The database cannot be reached.
    """
    ledger, requests, reviews = (
        Ledger(ledger_url),
        RequestStore(ledger_url),
        ReviewStore(ledger_url),
    )
    rollouts = StateTable(Database(ledger_url), "rollouts", Rollout, "rollout")

    def history() -> History | None:
        stored = requests.read(usecase)
        return None if stored is None else stored.history

    def rollout() -> Rollout | None:
        stored = rollouts.read(usecase)
        return None if stored is None else stored[1]

    def run() -> Decision | None:
        last = ledger.last(usecase, "run")
        return None if last is None else last.decision

    return Sources(
        reports=lambda: newest_reports(out, usecase),
        history=history,
        rollout=rollout,
        run=run,
        archived_at=lambda: archived_at(archive, usecase),
        waiting=lambda: reviews.waiting(usecase),
        verify=_Verification(ledger).rows,
    )


def newest_reports(out: Path, usecase: str) -> tuple[WindowReport, ...]:
    """Return the newest reports, oldest first, back to one that knows matured labels.

    Raises:
        DataError: A report cannot be read.
    """
    found: list[WindowReport] = []
    before: datetime | None = None
    while len(found) < _REPORTS:
        report = kept.last(out, usecase, before)
        if report is None:
            break
        found.append(report)
        if report.performance is not None:
            break
        before = report.window.start
    return tuple(reversed(found))


def archived_at(archive: Path, usecase: str) -> datetime | None:
    """Return when the newest file of the archive was written; None: there is none."""
    for hour in reversed(predictions.hours(archive, usecase)):
        files, _ = predictions.parts(hour)
        if files:
            return datetime.fromtimestamp(max(path.stat().st_mtime for path in files), UTC)
    return None


class _Verification:
    """Checks a ledger now and then; what was found is what it says in between.

    It keeps the last good head, so that a ledger that was forged as a whole is found as well.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._lock = ledger, threading.Lock()
        self._known: Head | None = None
        self._next = 0.0

    def rows(self) -> int:
        with self._lock:
            if self._known is None or time.monotonic() >= self._next:
                known = self._ledger.head()
                self._ledger.verify(self._known)
                self._known, self._next = known, time.monotonic() + _VERIFY_SECONDS
            return self._known.count


class Exporter(Collector):
    """Collects the values of all use cases anew at each scrape.

    Args:
        usecases: Name → where its values come from.
    """

    def __init__(self, usecases: Mapping[str, Sources]) -> None:
        self._usecases = dict(usecases)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics."""
        samples = Samples()
        for usecase, found in self._usecases.items():
            _collect(samples, usecase, found)
        return samples.families()


def _collect(samples: Samples, usecase: str, found: Sources) -> None:
    def read(source: str, of: Callable[[], _T]) -> _T | None:
        try:
            value = of()
        except (PlatformError, OSError) as error:
            _log.warning("%s: %s cannot be read: %s", usecase, source, shorten(error))
            samples.add(usecase, "monitor_source_up", 0, source=source)
            return None
        samples.add(usecase, "monitor_source_up", 1, source=source)
        return value

    reports, history = read("reports", found.reports) or (), read("trigger", found.history)
    gauges.of_findings(samples, usecase, reports, history)
    gauges.of_reports(samples, usecase, reports)
    gauges.of_history(samples, usecase, history)
    gauges.of_rollout(samples, usecase, read("rollout", found.rollout))
    gauges.of_run(samples, usecase, read("runs", found.run))
    archived = read("archive", found.archived_at)
    if archived is not None:
        samples.add(usecase, "archive_newest_timestamp_seconds", archived.timestamp())
    waiting = read("reviews", found.waiting)
    if waiting is not None:
        samples.add(usecase, "review_waiting", waiting)
    rows = read("ledger", lambda: _verified(found))
    if rows is not None:
        samples.add(usecase, "ledger_intact", float(rows >= 0))
        if rows >= 0:
            samples.add(usecase, "ledger_rows", rows)


def _verified(found: Sources) -> int:
    """Return the ledger's rows; -1 where it is broken, which is a finding and no outage."""
    try:
        return found.verify()
    except LedgerError as error:
        _log.error("the ledger is broken: %s", shorten(error))
        return -1


@contextlib.contextmanager
def serve(exporter: Exporter, host: str, port: int) -> Iterator[int]:
    """Serve the metrics over HTTP until the block is left; gives the port.

    Args:
        exporter: Whose.
        host: Address to listen on.
        port: Port; 0: a free one.

    Raises:
        ServiceError: The port cannot be listened on.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ServiceError(
            f"metrics cannot be served on {host}:{port}: {shorten(error)}; choose another port"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
