"""The monitor's metrics: which there are, and their values of what is kept. Pure.

All are gauges: what is shown is what was found last, however often it was looked at. Times are
seconds since 1970, in the time that windows and decisions speak of. What is not known has no
sample; nothing is ever 0 because it is unknown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, get_args

from prometheus_client.core import GaugeMetricFamily

from mlplatform.contracts import Decision, Rollout
from mlplatform.contracts.performance import Measurement, Performance
from mlplatform.contracts.retrain import CAUSES, Finding, History, Phase, Watch
from mlplatform.contracts.rollout import Phase as RolloutPhase
from mlplatform.contracts.watch import WindowReport

METRICS: Final = MappingProxyType(
    {
        "monitor_source_up": ("1: what is kept could be read.", ("source",)),
        "monitor_window_end_timestamp_seconds": ("Of the newest window found on.", ("watch",)),
        "monitor_judged_timestamp_seconds": ("When the newest window was judged.", ()),
        "monitor_rows": ("Live answers in the newest window.", ()),
        "monitor_finding": ("1: the newest window's cause.", ("watch", "cause")),
        "monitor_fault": ("1: broken in the newest window.", ("kind", "subject")),
        "monitor_layer_ok": ("1: the layer was well; no sample: unknown.", ("layer",)),
        "monitor_vital": ("A sign of life, in its own unit.", ("layer", "name")),
        "monitor_vital_limit": ("Its limit, from the spec.", ("layer", "name")),
        "monitor_vital_ok": ("1: within its limit.", ("layer", "name")),
        "monitor_drift_distance": ("Between window and reference.", ("column", "method")),
        "monitor_drift_threshold": ("Distance from which it is drift.", ("column", "method")),
        "monitor_drift_excess": ("Of the strongest statistic; above 1: drift.", ("column",)),
        "monitor_drifted": ("1: the column drifted.", ("column",)),
        "monitor_skew_share": ("Of compared rows, by feature that differed.", ("feature", "cause")),
        "monitor_performance": ("Of the newest matured windows.", ("metric", "version")),
        "monitor_performance_registered": ("The same at registration.", ("metric", "version")),
        "monitor_performance_accepted": ("Loss that the spec accepts.", ("metric", "version")),
        "monitor_estimate": ("Before labels, of the newest window.", ("metric", "version")),
        "monitor_maturity": ("Share of the window's requests whose label is due.", ()),
        "monitor_unlabelled_share": ("Of the due ones, those without a label.", ()),
        "trigger_decision": ("1: what was decided last.", ("kind", "reason")),
        "trigger_phase": ("1: of the newest retraining.", ("phase",)),
        "trigger_phase_since_timestamp_seconds": ("When it came into this phase.", ()),
        "trigger_without_gain": ("Runs in a row without a better model.", ()),
        "training_last": ("1: the verdict of the newest run.", ("verdict",)),
        "training_last_timestamp_seconds": ("When the newest run ended.", ()),
        "rollout_phase": ("1: of the newest rollout.", ("version", "phase")),
        "rollout_entered_timestamp_seconds": ("When it came into this phase.", ()),
        "rollout_frozen": ("1: both versions are worse than before; it waits.", ()),
        "archive_newest_timestamp_seconds": ("When the newest archived file was written.", ()),
        "review_waiting": ("Decisions that wait for a person.", ()),
        "ledger_intact": ("1: the chain of hashes holds.", ()),
        "ledger_rows": ("Rows of the ledger.", ()),
    }
)
"""By name without `mlplatform_`: the help text, and the labels besides `usecase`."""

_RECOVERING: Final = "both versions to recover"
"""How a rollout says that it is frozen (`serving.rollout.readiness`)."""


@dataclass
class Samples:
    """Values to be scraped, of all use cases."""

    _values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def add(self, usecase: str, name: str, value: float, /, **labels: str) -> None:
        """Set one value; raises KeyError for a metric or a label that is none of `METRICS`.

        Of two values with equal labels the later one counts: a scrape with both would be refused.
        """
        wanted = METRICS[name][1]
        if set(labels) != set(wanted):
            raise KeyError(f"{name} has the labels {wanted}, not {tuple(labels)}")
        row = (usecase, *(labels[label] for label in wanted))
        self._values.setdefault(name, {})[row] = value

    def families(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics that have values."""
        for name, values in self._values.items():
            text, labels = METRICS[name]
            family = GaugeMetricFamily(f"mlplatform_{name}", text, labels=("usecase", *labels))
            for row, value in values.items():
                family.add_metric(row, value)
            yield family


def of_findings(
    samples: Samples, usecase: str, reports: Sequence[WindowReport], history: History | None
) -> None:
    """Add what the newest window of each watch shows."""
    found = [finding for report in reports for finding in report.findings]
    found += [] if history is None else history.findings
    for watch in get_args(Watch):
        newest = max((f for f in found if f.watch == watch), key=_order, default=None)
        if newest is None:
            continue
        end = newest.window.end.timestamp()
        samples.add(usecase, "monitor_window_end_timestamp_seconds", end, watch=watch)
        for cause in sorted(CAUSES[newest.watch]):
            is_it = float(cause == newest.cause)
            samples.add(usecase, "monitor_finding", is_it, watch=watch, cause=cause)


def of_reports(samples: Samples, usecase: str, reports: Sequence[WindowReport]) -> None:
    """Add what is kept of windows, oldest first: of the newest, and of the newest matured one."""
    if not reports:
        return
    newest = reports[-1]
    samples.add(usecase, "monitor_judged_timestamp_seconds", newest.judged_at.timestamp())
    samples.add(usecase, "monitor_rows", newest.whole.rows)
    for fault in newest.whole.faults:
        samples.add(usecase, "monitor_fault", 1, kind=fault.kind, subject=fault.subject)
    _of_layers(samples, usecase, newest)
    _of_columns(samples, usecase, newest)
    if newest.estimate is not None:
        version = newest.estimate.version
        _measured(samples, usecase, "monitor_estimate", newest.estimate.metrics, version)
    matured = [report.performance for report in reports if report.performance is not None]
    if matured:
        _of_performance(samples, usecase, matured[-1])


def of_history(samples: Samples, usecase: str, history: History | None) -> None:
    """Add what the trigger knows."""
    if history is None:
        return
    samples.add(usecase, "trigger_without_gain", history.without_gain)
    if (said := history.said) is not None:
        samples.add(usecase, "trigger_decision", 1, kind=said.kind, reason=said.reason)
    if (last := history.last) is not None:
        for phase in get_args(Phase):
            samples.add(usecase, "trigger_phase", float(phase == last.phase), phase=phase)
        since = last.ended_at or last.submitted_at or last.request.asked_at
        samples.add(usecase, "trigger_phase_since_timestamp_seconds", since.timestamp())


def of_rollout(samples: Samples, usecase: str, rollout: Rollout | None) -> None:
    """Add how far the newest rollout is."""
    if rollout is None:
        return
    version = str(rollout.challenger.version)
    for phase in get_args(RolloutPhase):
        is_it = float(phase == rollout.phase)
        samples.add(usecase, "rollout_phase", is_it, version=version, phase=phase)
    entered = rollout.entered_at.timestamp()
    samples.add(usecase, "rollout_entered_timestamp_seconds", entered)
    samples.add(usecase, "rollout_frozen", float(_RECOVERING in rollout.waits_for))


def of_run(samples: Samples, usecase: str, run: Decision | None) -> None:
    """Add how the newest training run ended."""
    if run is not None:
        samples.add(usecase, "training_last", 1, verdict=run.verdict)
        samples.add(usecase, "training_last_timestamp_seconds", run.at.timestamp())


def _of_layers(samples: Samples, usecase: str, report: WindowReport) -> None:
    for health in report.layers:
        if health.verdict != "unknown":
            is_well = float(health.verdict == "ok")
            samples.add(usecase, "monitor_layer_ok", is_well, layer=health.layer)
        for vital in health.vitals:
            labels = {"layer": health.layer, "name": vital.name}
            samples.add(usecase, "monitor_vital", vital.value, **labels)
            samples.add(usecase, "monitor_vital_ok", float(vital.ok), **labels)
            if vital.limit is not None:
                samples.add(usecase, "monitor_vital_limit", vital.limit, **labels)


def _of_columns(samples: Samples, usecase: str, report: WindowReport) -> None:
    for column in () if report.drift is None else report.drift.columns:
        name, labels = column.column, {"column": column.column, "method": column.method}
        if column.distance is not None:
            samples.add(usecase, "monitor_drift_distance", column.distance, **labels)
        samples.add(usecase, "monitor_drift_threshold", column.threshold, **labels)
        samples.add(usecase, "monitor_drift_excess", column.excess, column=name)
        drifted = float(column.verdict == "drift")
        samples.add(usecase, "monitor_drifted", drifted, column=name)
    for feature in () if report.skew is None else report.skew.features:
        labels = {"feature": feature.feature, "cause": feature.cause}
        samples.add(usecase, "monitor_skew_share", feature.rate, **labels)


def _of_performance(samples: Samples, usecase: str, performance: Performance) -> None:
    version, cohort = performance.version, performance.cohort
    _measured(samples, usecase, "monitor_performance", performance.metrics, version)
    for loss in performance.losses:
        labels = {"metric": loss.metric, "version": str(version)}
        registered = loss.registered.estimate
        samples.add(usecase, "monitor_performance_registered", registered, **labels)
        samples.add(usecase, "monitor_performance_accepted", loss.accepted, **labels)
    samples.add(usecase, "monitor_maturity", cohort.maturity)
    if due := cohort.measured + cohort.unlabelled:
        samples.add(usecase, "monitor_unlabelled_share", cohort.unlabelled / due)


def _measured(
    samples: Samples, usecase: str, name: str, found: Sequence[Measurement], version: int
) -> None:
    for item in found:
        samples.add(usecase, name, item.value, metric=item.metric, version=str(version))


def _order(finding: Finding) -> tuple[datetime, datetime]:
    return finding.window.end, finding.judged_at
