"""What follows from a window: it is judged, the trigger and people hear of it, decisions queue up.

This is the whole of what a CronJob does with each window, and what a replay on one machine does.
Each part may be repeated: after an error, do the round again. A report is kept when all have heard
of it and not before, so a window whose round was cut short anywhere is still due.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from feature_repo import predictions
from mlplatform.contracts import Decision, UseCase, Window
from mlplatform.contracts.retrain import History
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import DataError, LedgerError
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from monitoring import review
from monitoring.announcements import alerts_of
from monitoring.monitor import Monitor
from monitoring.outbox import Outbox
from monitoring.requests import RequestStore, notice


@dataclass(frozen=True)
class Rounds:
    """Judges windows of one use case and passes on what was found.

    Attributes:
        spec: The use case.
        archive: Root of the archived prediction log.
        monitor: Judges.
        requests: The trigger's history.
        ledger: Where decisions are kept.
        reviews: Decisions that people look at.
        outbox: Alerts.
    """

    spec: UseCase
    archive: str | Path
    monitor: Monitor
    requests: RequestStore
    ledger: Ledger
    reviews: ReviewStore
    outbox: Outbox

    def go(self, window: Window, now: datetime) -> tuple[WindowReport, History]:
        """Judge a window; return its report, and the trigger's history that knows of it.

        Raises:
            DataError: As `Monitor.judge`, or what a store holds cannot be read.
            StaleError: Other writers were faster twenty times.
            ServiceError: A service is out of reach.
            LedgerError: The ledger's chain is broken.
        """
        spec = self.spec
        report = self.monitor.judge(window, now)
        record(self.ledger, report)
        history = notice(
            self.requests,
            self.ledger,
            spec.name,
            report.findings,
            spec.monitoring,
            now,
        )
        self._queue(window)
        self.outbox.announce(spec.name, alerts_of(report, history, spec.monitoring, now))
        self.monitor.keep(report)
        return report, history

    def _queue(self, window: Window) -> None:
        """Queue the window's decisions that people should look at."""
        try:
            rows = predictions.read(self.archive, self.spec.name, window, review.COLUMNS)
        except DataError:  # the report says so
            return
        self.reviews.add(review.select(self.spec, rows, window))


def record(ledger: Ledger, report: WindowReport) -> None:
    """Put the findings of a window on the ledger; the first judgement to that effect stands.

    Raises:
        ServiceError: The ledger cannot be reached.
        LedgerError: Its chain is broken.
    """
    for found in report.findings:
        window = found.window.start.isoformat()
        row = Decision(
            key=f"{found.usecase}/monitor/{found.watch}/{window}/{found.cause}",
            usecase=found.usecase,
            kind="monitor",
            subject=f"{found.watch}/{window}",
            verdict=found.cause,
            reason=found.why or found.cause,
            evidence={"finding": found.model_dump(mode="json"), "version": report.version},
            actor="monitoring",
            at=found.judged_at,
        )
        if ledger.get(row.key) is None:
            try:
                ledger.append(row)
            except LedgerError:
                if ledger.get(row.key) is None:  # nobody was faster: it is broken
                    raise
