"""One window judged from end to end: what was served in it, what is wrong, and why.

The order is that of the causes: whether data are whole, whether serving computes what training
would, whether inputs or scores have moved; and, on the newest labels that are due, whether the
model has lost. What is found is a `WindowReport`. It tells nobody and asks for nothing: that is
what `monitoring.rounds` is for.

A window is judged as often as one likes. What its labels are is fixed by its own end and not by
the time of the look, so each window of labels is judged by one window of requests, also after an
outage of the monitor. Bad data are a finding and never an exception; a service that is away is an
exception and never a finding.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from feature_repo import predictions
from feature_repo.catalog import UseCaseCode
from feature_repo.profile.reference import Reference
from mlplatform.contracts import OnlineLayout, Window
from mlplatform.contracts.drift import DriftCalibration, DriftReport
from mlplatform.contracts.skew import SkewReport
from mlplatform.contracts.watch import LayerHealth, Wholeness, WindowReport
from mlplatform.errors import DataError, ModelError, shorten
from mlplatform.ledger import Ledger
from monitoring import drift, kept, layers, served, skew, verdict, whole, windows
from monitoring.champion import Watched
from monitoring.matured import Matured, labelled

PAGES: Final = 14
"""Evidently's pages that are kept, of the newest windows: 4 to 5 MB each."""
_AUDITED: Final = 2000
"""Requests of a window that are joined again: a fault of 0.2 % of the rows shows at 98 %."""
_PIPELINE: Final = ("run", "training_set", "rollout")

Labels = Callable[[datetime, datetime], pl.DataFrame]
"""The labels of predictions since a time, as they are known at another."""
Detect = Callable[[pl.DataFrame, pl.DataFrame, DriftCalibration, Window, Path | None], DriftReport]
"""As `monitoring.drift.detect`."""
History = Callable[[datetime], Any]
"""A feature store whose offline history reaches a time."""


class Monitor:
    """Judges the windows of one use case.

    Args:
        code: The use case.
        layout: Of its feature service.
        archive: Root of the archived prediction log.
        out: Where reports are kept, see `monitoring.kept`.
        labels: Reads the labels.
        ledger: What training and rollouts did.
        watched: Loads a version; raises ModelError where it is not to be trusted.
        history: Opens the offline store; None: served vectors are not audited.
        pages: Evidently's pages to keep; 0: none is drawn, which saves seconds a window.
        detect: Compares a window; another one than ours may draw its page later.
    """

    def __init__(
        self,
        code: UseCaseCode,
        layout: OnlineLayout,
        archive: str | Path,
        out: Path,
        labels: Labels,
        ledger: Ledger,
        watched: Callable[[int], Watched],
        history: History | None = None,
        pages: int = PAGES,
        detect: Detect = drift.detect,
    ) -> None:
        self._code, self._layout, self._archive, self._out = code, layout, archive, out
        self._labels, self._ledger, self._watched = labels, ledger, watched
        self._history, self._pages, self._detect = history, pages, detect

    def judge(self, window: Window, now: datetime) -> WindowReport:
        """Judge a window; return its report.

        Args:
            window: One of `monitoring.windows.windows`, which has ended.
            now: The time of the look.

        Raises:
            DataError: The window has not ended, a report that was kept cannot be read, or the log
                was damaged while it was read.
            ServiceError: A service is out of reach; judge the window again.
            LedgerError: A row of the ledger cannot be read.
        """
        usecase = self._code.spec.name
        if window.end > now:
            raise DataError(
                f"the window of {usecase} from {window.start.isoformat()} ends at "
                f"{window.end.isoformat()}, after {now.isoformat()}: judge it when it has ended"
            )
        rows, trouble = self._read(window)
        live = served.live(rows)
        version = served.champion(live) or self._before(window)
        model, doubt = self._load(version)
        report = self._inputs(window, now, live, version, model, trouble or doubt)
        if version is not None and not trouble:
            report = self._labelled(report, version, model)
        return report.model_copy(update={"layers": self._layers(report, live)})

    def keep(self, report: WindowReport) -> None:
        """Keep a report, and of Evidently's pages the newest: its window is no longer due."""
        kept.write(self._out, report)
        kept.forget_pages(self._out, report.usecase, self._pages)

    def _read(self, window: Window) -> tuple[pl.DataFrame, str]:
        """Return the archived rows of a window, and what is wrong with the archive."""
        try:
            return predictions.read(self._archive, self._code.spec.name, window), ""
        except DataError as error:
            return pl.DataFrame(schema=dict(predictions.SCHEMA)), str(error)

    def _before(self, window: Window) -> int | None:
        """Return the champion of the windows before: where nobody answers, it should have."""
        report = kept.last(self._out, self._code.spec.name, window.start)
        return None if report is None else report.version

    def _load(self, version: int | None) -> tuple[Watched | None, str]:
        if version is None:
            return None, "no model has answered so far: there is nothing to compare with"
        try:
            return self._watched(version), ""
        except ModelError as error:
            return None, f"version {version} cannot be compared with: {error}"

    def _inputs(
        self,
        window: Window,
        now: datetime,
        live: pl.DataFrame,
        version: int | None,
        model: Watched | None,
        trouble: str,
    ) -> WindowReport:
        """Return what requests and answers show, before any label."""
        spec = self._code.spec
        audit: SkewReport | None = None
        moved: DriftReport | None = None
        page = kept.folder(self._out, spec.name, window) / kept.PAGE
        page.unlink(missing_ok=True)
        if model is None or version is None or trouble:
            found = Wholeness(
                window=window, rows=live.height, verdict="inconclusive", reason=trouble
            )
        else:
            before, unread = self._read(
                Window(start=window.start - (window.end - window.start), end=window.start)
            )
            earlier = None if unread or before.is_empty() else served.live(before)
            found = whole.check(spec, self._layout, model.reference, live, window, earlier)
            audit = self._audit(live, window)
            moved = self._drift(live, window, version, model.reference, page)
        return WindowReport(
            usecase=spec.name,
            window=window,
            judged_at=now,
            version=version,
            findings=(verdict.of_inputs(spec.name, window, found, audit, moved, now),),
            whole=found,
            skew=audit,
            drift=moved,
            page=str(page) if self._pages and _drawn(moved) else "",
        )

    def _audit(self, live: pl.DataFrame, window: Window) -> SkewReport | None:
        if self._history is None or live.is_empty():
            return None
        try:
            store = self._history(window.end)
            return skew.audit(self._code, self._layout, store, served.evenly(live, _AUDITED))
        except (DataError, pl.exceptions.PolarsError) as error:  # a request that is no JSON
            return SkewReport(
                usecase=self._code.spec.name,
                window=window,
                rows=0,
                mismatched_rows=0,
                verdict="inconclusive",
                reason=f"requests cannot be joined again: {shorten(error)}",
            )

    def _drift(
        self, live: pl.DataFrame, window: Window, version: int, reference: Reference, page: Path
    ) -> DriftReport | None:
        profile, hours = reference.profile, self._code.spec.monitoring.window_hours
        untold = profile.uncalibrated
        if profile.window_hours != hours:
            untold = (
                f"its thresholds are of windows of {profile.window_hours:g} h, and the spec says "
                f"{hours:g} h: train it again"
            )
        if profile.calibration is None or untold:
            reason = f"version {version} has no thresholds: {untold}"
            return DriftReport(window=window, rows=0, verdict="inconclusive", reason=reason)
        rows = served.vectors(live, profile.features, profile.feature_service, version)
        page.parent.mkdir(parents=True, exist_ok=True)
        return self._detect(
            reference.rows, rows, profile.calibration, window, page if self._pages else None
        )

    def _labelled(self, report: WindowReport, version: int, model: Watched | None) -> WindowReport:
        """Return the report with what the scores promise, and what the labels due by now say."""
        spec = self._code.spec
        of = windows.matured(
            spec.monitoring.window_hours, spec.label.delay_hours, report.window.end
        )
        past = kept.one(self._out, spec.name, of)
        found: Matured = labelled(
            spec,
            predictions=lambda over, columns: predictions.read(
                self._archive, spec.name, over, columns
            ),
            labels=self._labels,
            version=version,
            registered=None if model is None else model.evaluation,
            window=report.window,
            of=of,
            said=None if past is None else past.estimate,
            out=self._out,
            now=report.judged_at,
        )
        findings = report.findings
        if found.performance is not None:
            judged = verdict.of_performance(found.performance, of, report.judged_at)
            findings = (*findings, judged)
        return report.model_copy(update={"findings": findings, **vars(found)})

    def _layers(self, report: WindowReport, live: pl.DataFrame) -> tuple[LayerHealth, ...]:
        spec = self._code.spec
        found = (self._ledger.last(spec.name, kind) for kind in _PIPELINE)
        rows = [entry.decision for entry in found if entry is not None]
        return (
            layers.infrastructure(spec, live),
            layers.pipeline(spec, rows, report.judged_at),
            layers.model(report.drift, report.performance),
        )


def _drawn(moved: DriftReport | None) -> bool:
    """Return whether there was anything to draw a page of."""
    return moved is not None and any(one.distance is not None for one in moved.columns)
