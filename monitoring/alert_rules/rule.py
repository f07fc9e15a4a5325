"""One alert as Prometheus knows it, the severity of every alert, and words that rules share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from mlplatform.contracts import UseCase
from mlplatform.contracts.alert import Severity, runbook

SEVERITIES: Final[Mapping[str, Severity]] = MappingProxyType(
    {
        # Serving
        "NothingServes": "page",
        "ErrorBudgetBurnsFast": "page",
        "ErrorBudgetBurns": "page",
        "RulesAnswer": "page",
        "NoTraffic": "page",
        "RoutesDiffer": "page",
        "PredictionLogDrops": "page",
        "LatencyOverBudget": "ticket",
        "InferenceQueues": "ticket",
        "InferenceFails": "ticket",
        "AnswersDegraded": "ticket",
        "BreakerOpen": "ticket",
        "ShadowShed": "ticket",
        "PredictionLogSpills": "ticket",
        "PredictionLogQueues": "ticket",
        # Data
        "FeatureViewStale": "ticket",
        "ArchiverBehind": "ticket",
        "DataFault": "page",
        "Skew": "ticket",
        "LabelsMissing": "ticket",
        # Model
        "InputDrift": "ticket",
        "OutputDrift": "ticket",
        "PerformanceLoss": "ticket",
        "InfrastructureTrouble": "ticket",
        "PipelineTrouble": "ticket",
        # Decisions
        "MonitorDidNotRun": "ticket",
        "MonitorBlind": "ticket",
        "TrainingFailed": "ticket",
        "RetrainingRefused": "ticket",
        "RetrainingAwaitsApproval": "ticket",
        "RetrainingStuck": "ticket",
        "RetrainingWithoutGain": "ticket",
        "RolloutRolledBack": "ticket",
        "RolloutHeld": "ticket",
        "RolloutFrozen": "ticket",
        "LedgerBroken": "page",
        # Cluster
        "NobodyDrivesRollouts": "page",
        "WorkloadNotReady": "ticket",
        "ContainerRestarts": "ticket",
        "JobFailed": "ticket",
        "MaterializationLate": "ticket",
        "VolumeFills": "ticket",
    }
)
"""All alerts; each has a section in docs/operations.md. A page is for harm that goes on now and
that nothing but a person ends: what monitoring itself acts on (drift, loss, a bad rollout) is a
ticket, and so is what only grows into harm."""

FEW: Final = 10
"""Bad requests from which a share counts: one slow answer of three at night is no outage."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule."""

    name: str
    expr: str
    summary: str
    description: str
    """With `{{ $value }}` where the number stands, in the unit that it has in `expr`."""
    lasts: timedelta = timedelta()
    """How long it must be true."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def rendered(self, usecase: str = "") -> dict[str, Any]:
        """Return the rule as it stands in a group of Prometheus.

        Args:
            usecase: Whose; empty: the platform's, and what it is about says its namespace.
        """
        about = usecase or "{{ $labels.namespace }}"
        whose = {"usecase": usecase} if usecase else {}
        labels = {"severity": SEVERITIES[self.name], **whose, **self.labels}
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr}
        if self.lasts:
            rule["for"] = duration(self.lasts)
        return rule | {
            "labels": labels,
            "annotations": {
                "summary": f"{about}: {self.summary}",
                "description": self.description,
                "runbook_url": runbook(self.name),
            },
        }


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that rules share; evaluated before them."""

    name: str
    expr: str

    def rendered(self, usecase: str) -> dict[str, Any]:
        """Return the rule as it stands in a group of Prometheus."""
        return {"record": self.name, "expr": self.expr, "labels": {"usecase": usecase}}


def duration(length: timedelta) -> str:
    """Return a length of whole seconds as Prometheus writes it: 90m, 6h."""
    seconds = round(length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def tolerated(spec: UseCase) -> float:
    """Return the share of answers that may come from the rules, or without required features.

    It is the margin of the guardrail on `fallback_rate`, because that is what the use case bears of
    a new version; without one it is what the availability leaves.
    """
    margins = [item.margin for item in spec.rollout.guardrails if item.metric == "fallback_rate"]
    return margins[0] if margins else round(1 - spec.serving.availability, 9)
