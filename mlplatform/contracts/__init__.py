"""The frozen models that cross a boundary between stages."""

from mlplatform.contracts.base import Contract, UtcDatetime, Window
from mlplatform.contracts.dataset import RuleResult, TrainingSet, ValidationReport
from mlplatform.contracts.decision import Decision, DecisionKind
from mlplatform.contracts.model import (
    HIGHER_IS_BETTER,
    Ablation,
    Candidate,
    Champion,
    Comparison,
    CurvePoint,
    Evaluation,
    GateReport,
    GateResult,
    Interval,
    Manifest,
    Metric,
    ModelRef,
    Role,
    SliceMetric,
)
from mlplatform.contracts.prediction import ArmName, Prediction
from mlplatform.contracts.serving import (
    Arm,
    OnlineField,
    OnlineGroup,
    OnlineLayout,
    OnlineType,
    OnlineView,
    Route,
    ServedModel,
    Shadow,
)
from mlplatform.contracts.usecase import UseCase

__all__ = [
    "HIGHER_IS_BETTER",
    "Ablation",
    "Arm",
    "ArmName",
    "Candidate",
    "Champion",
    "Comparison",
    "Contract",
    "CurvePoint",
    "Decision",
    "DecisionKind",
    "Evaluation",
    "GateReport",
    "GateResult",
    "Interval",
    "Manifest",
    "Metric",
    "ModelRef",
    "OnlineField",
    "OnlineGroup",
    "OnlineLayout",
    "OnlineType",
    "OnlineView",
    "Prediction",
    "Role",
    "Route",
    "RuleResult",
    "ServedModel",
    "Shadow",
    "SliceMetric",
    "TrainingSet",
    "UseCase",
    "UtcDatetime",
    "ValidationReport",
    "Window",
]
