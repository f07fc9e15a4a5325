"""What one run did, in one JSON file: versions, rows, metrics, gates, seconds per step."""

from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue

from mlplatform.contracts import (
    Candidate,
    Contract,
    Decision,
    Evaluation,
    GateReport,
    Interval,
    Metric,
    ModelRef,
    TrainingSet,
    UtcDatetime,
    ValidationReport,
)
from pipelines.decisions import ORDER, Records

LIBRARIES = ("kfp", "feast", "great-expectations", "ray", "mlflow", "xgboost-cpu", "lightgbm")
"""Libraries whose versions a reader of the summary asks for."""


OVERHEAD = "start and end of step processes"
"""Name of the seconds that the pipeline took beyond its steps' own work."""


class Summary(Contract):
    """The outcome of one run of the pipeline."""

    usecase: str
    run: str
    as_of: str
    git_commit: str
    verdict: str = Field(description="registered, rejected or failed.")
    reason: str
    unchanged: bool = Field(description="True: nothing had changed since this run; none was made.")
    libraries: dict[str, str]
    raw_rows: dict[str, int]
    validation: ValidationReport | None = None
    training_set: TrainingSet | None = None
    candidates: tuple[Candidate, ...] = ()
    winner: str | None = None
    metrics: dict[str, dict[Metric, Interval]] = Field(
        default={}, description="By candidate, on the untouched test window."
    )
    gates: GateReport | None = None
    model: ModelRef | None = None
    seconds: dict[str, float] = Field(description="By step, without the start of its process.")
    started: dict[str, UtcDatetime] = Field(description="By step, when its work began.")
    total_seconds: float
    registry_url: str
    decisions: tuple[Decision, ...] = Field(description="This run's rows of the ledger.")

    @classmethod
    def from_journal(
        cls,
        journal: Records,
        decisions: tuple[Decision, ...],
        *,
        seconds: dict[str, float],
        registry_url: str,
    ) -> Self:
        """Put together what the steps and the ledger say of one run."""
        outcome = decisions[-1]
        validation = journal.get("validate", {}).get("report")
        training_set = journal.get("training_set", {}).get("training_set")
        gates = journal.get("gate", {}).get("report")
        model = journal.get("register", {}).get("model")
        evaluated = evaluations(journal)
        steps = {step: _seconds(journal[step]) for step in ORDER if step in journal}
        report = ValidationReport.model_validate(validation) if validation else None
        return cls(
            usecase=outcome.usecase,
            run=outcome.subject,
            as_of=str(outcome.evidence["as_of"]),
            git_commit=str(outcome.evidence["git_commit"]),
            verdict=outcome.verdict,
            reason=outcome.reason,
            unchanged=False,
            libraries={name: metadata.version(name) for name in LIBRARIES},
            raw_rows=report.tables if report else {},
            validation=report,
            training_set=TrainingSet.model_validate(training_set) if training_set else None,
            candidates=candidates(journal),
            winner=evaluated[0].candidate if evaluated else None,
            metrics={item.candidate: item.metrics for item in evaluated},
            gates=GateReport.model_validate(gates) if gates else None,
            model=ModelRef.model_validate(model) if model else None,
            seconds=seconds | steps,
            started={step: _started(journal[step]) for step in steps},
            total_seconds=round(sum(seconds.values()) + sum(steps.values()), 1),
            registry_url=registry_url,
            decisions=decisions,
        )

    def write(self, path: Path) -> None:
        """Write the summary as indented JSON, the old file replaced at once."""
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def candidates(journal: Records) -> tuple[Candidate, ...]:
    """Return the trained candidates of a journal."""
    return tuple(map(Candidate.model_validate, _items(journal, "train", "candidates")))


def evaluations(journal: Records) -> tuple[Evaluation, ...]:
    """Return the evaluations of a journal, the winner first."""
    return tuple(map(Evaluation.model_validate, _items(journal, "evaluate", "evaluations")))


def _items(journal: Records, step: str, key: str) -> list[JsonValue]:
    found = journal.get(step, {}).get(key)
    return found if isinstance(found, list) else []


def _started(record: dict[str, JsonValue]) -> datetime:
    return datetime.fromisoformat(str(record["started_at"]))


def _seconds(record: dict[str, JsonValue]) -> float:
    value = record.get("seconds")
    return float(value) if isinstance(value, int | float) else 0.0
