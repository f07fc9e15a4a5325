"""What people are to be told of a judged window and of the trigger. Pure.

For each alert that the window or the trigger can speak of, it says either that it fires or that it
is over; of what a window cannot tell it says nothing. Whether people know already is
`monitoring.outbox`'s business. An alert has the name of the Prometheus rule that watches the same.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from mlplatform.contracts.alert import Alert
from mlplatform.contracts.retrain import CAUSES, Cause, Finding, History
from mlplatform.contracts.usecase.operation import Monitoring
from mlplatform.contracts.watch import Layer, LayerHealth, WindowReport
from monitoring.alert_rules.rule import SEVERITIES

NAMES: Final[Mapping[Cause, str]] = MappingProxyType(
    {
        "data_fault": "DataFault",
        "skew": "Skew",
        "input_drift": "InputDrift",
        "output_drift": "OutputDrift",
        "performance_loss": "PerformanceLoss",
    }
)
"""The alert of each cause; the other causes are none."""

_LAYERS: Final[Mapping[Layer, str]] = MappingProxyType(
    {"infrastructure": "InfrastructureTrouble", "pipeline": "PipelineTrouble"}
)
"""The model layer has none: findings name what is wrong with it."""


def alerts_of(
    report: WindowReport, history: History | None, monitoring: Monitoring, now: datetime
) -> tuple[Alert, ...]:
    """Return what a judged window and the trigger say, what is over included.

    Args:
        report: Of the window.
        history: What the trigger knows; None: it has never been asked.
        monitoring: Of the use case's spec.
        now: The time, of the trigger's state.
    """
    found = [alert for finding in report.findings for alert in _of_finding(finding, report)]
    found += [alert for health in report.layers for alert in _of_layer(report, health)]
    if history is not None:
        found += _of_trigger(history, monitoring, now)
    return tuple(found)


def _of_finding(finding: Finding, report: WindowReport) -> Iterator[Alert]:
    """Yield the alert of the cause, and the end of those that the window denies."""
    at, denied = finding.window.end, _denied(finding, report)
    for cause in sorted(CAUSES[finding.watch] & set(NAMES)):
        if cause == finding.cause:
            fires = (", ".join(finding.blamed), finding.why or cause)
            yield _alert(finding.usecase, NAMES[cause], at, fires)
        elif cause in denied:
            yield _alert(finding.usecase, NAMES[cause], at)


def _denied(finding: Finding, report: WindowReport) -> set[Cause]:
    """Return the causes that are looked for in the window and certainly not there.

    A broken feed hides whether serving differs and whether the inputs have moved, and a skew hides
    the latter.
    """
    if finding.watch == "performance":
        return {"performance_loss"} if finding.cause == "healthy" else set()
    found: set[Cause] = set()
    if report.whole.verdict == "whole":
        found.add("data_fault")
        if report.skew is not None and report.skew.verdict == "no_skew":
            found.add("skew")
        if finding.cause in {"healthy", "input_drift", "output_drift"}:
            found |= {"input_drift", "output_drift"}
    return found - {finding.cause}


def _of_layer(report: WindowReport, health: LayerHealth) -> Iterator[Alert]:
    name = _LAYERS.get(health.layer)
    if name is None or health.verdict == "unknown":
        return
    bad = [vital for vital in health.vitals if not vital.ok]
    fires = (", ".join(vital.name for vital in bad), "; ".join(vital.why for vital in bad))
    at = report.window.end
    yield _alert(report.usecase, name, at, fires if health.verdict == "trouble" else None)


def _of_trigger(history: History, monitoring: Monitoring, now: datetime) -> Iterator[Alert]:
    usecase, said, last = history.usecase, history.said, history.last
    refused = awaited = stopped = failed = None
    if said is not None and said.kind == "refuse" and said.reason in {"data_fault", "skew"}:
        refused = (said.reason, f"no retraining, for it cannot help: {said.reason}")
    if history.without_gain >= monitoring.stop_after_no_gain:
        stopped = ("", f"{history.without_gain} runs in a row brought no better model")
    if last is not None and last.phase == "awaiting_approval":
        key = last.request.key
        awaited = (key, f"approve or deny request {key}: {last.request.why}")
    if last is not None and last.phase == "failed":
        failed = (last.run or "", f"run {last.run} broke down")
    yield _alert(usecase, "RetrainingRefused", now, refused)
    yield _alert(usecase, "RetrainingAwaitsApproval", now, awaited)
    yield _alert(usecase, "RetrainingWithoutGain", now, stopped)
    yield _alert(usecase, "TrainingFailed", now, failed)


def _alert(usecase: str, name: str, at: datetime, fires: tuple[str, str] | None = None) -> Alert:
    """Return an alert that fires, with subject and summary; without them that it is over."""
    subject, summary = fires or ("", "no longer so")
    return Alert(
        usecase=usecase,
        name=name,
        severity=SEVERITIES[name],
        state="firing" if fires else "resolved",
        subject=subject,
        summary=summary,
        at=at,
    )
