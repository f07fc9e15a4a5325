"""What follows from a window: it is judged, the trigger and people hear of it, decisions queue up.

This is the whole of what a CronJob does with each window, and what a replay on one machine does.
Each part may be repeated: after an error, do the round again.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from feature_repo import predictions
from mlplatform.contracts import UseCase, Window
from mlplatform.contracts.retrain import History
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import DataError
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

        Raises: as `Monitor.judge` and `monitoring.requests.notice`.
        """
        spec = self.spec
        report = self.monitor.judge(window, now)
        history = notice(
            self.requests,
            self.ledger,
            spec.name,
            report.findings,
            spec.monitoring,
            now,
            approval=spec.monitoring.approval,
        )
        self._queue(window)
        self.outbox.announce(spec.name, alerts_of(report, history, spec.monitoring, now))
        return report, history

    def _queue(self, window: Window) -> None:
        """Queue the window's decisions that people should look at."""
        try:
            rows = predictions.read(self.archive, self.spec.name, window, review.COLUMNS)
        except DataError:  # the report says so
            return
        self.reviews.add(review.select(self.spec, rows, window))
