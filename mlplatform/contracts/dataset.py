"""Data contracts: what validation found and what a training set is."""

from pathlib import Path

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime, Window


class RuleResult(Contract):
    """One validation rule on one table."""

    table: str
    rule: str = Field(description="What must hold, in words, with the column's name.")
    passed: bool
    rows: int = Field(ge=0, description="Rows looked at.")
    failed_rows: int = Field(ge=0, description="Rows that break the rule; 0 for table-level rules.")
    observed: str = Field(default="", description="What was seen instead.")
    examples: tuple[str, ...] = Field(default=(), description="At most five offending values.")
    advice: str = Field(default="", description="What to do when the rule does not hold.")


class ValidationReport(Contract):
    """All rules on all tables of one run; `passed` only when each rule holds."""

    usecase: str
    as_of: UtcDatetime
    tables: dict[str, int] = Field(description="Rows by table.")
    results: tuple[RuleResult, ...]

    @property
    def failures(self) -> tuple[RuleResult, ...]:
        """The rules that do not hold."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return not self.failures


class TrainingSet(Contract):
    """A built training set: one row for each matured label, in label order."""

    path: Path = Field(description="Parquet file; see `columns` of the use case.")
    rows: int = Field(gt=0)
    window: Window = Field(description="Event times of the labels.")
    feature_service: str
    features: tuple[str, ...] = Field(description="Model inputs, in the model's order.")
    groups: dict[str, tuple[str, ...]] = Field(
        default={}, description="The same features by group, for the ablation."
    )
    request_inputs: tuple[str, ...] = Field(
        default=(), description="What request-time features are computed from."
    )
    digest: str = Field(description="SHA-256 of the content (values, not the file's bytes).")
    data_age_hours: float = Field(
        description="Hours between the newest label's event time and the time of the build."
    )
    positive_rate: float = Field(ge=0, le=1)
    immature_rows: int = Field(
        ge=0, description="Labels left out because they had not matured at the time of the build."
    )
    degraded_rows: int = Field(
        default=0,
        ge=0,
        description="Matured labels left out because the live answer to their request lacked "
        "features or came from the rules.",
    )
    reviewed_rows: int = Field(
        default=0, ge=0, description="Rows whose label a person gave, the source having none."
    )
    reviews_compared: int = Field(
        default=0, ge=0, description="Requests labelled by a person and by the source."
    )
    reviews_disagreed: int = Field(
        default=0, ge=0, description="Of these, with another label; the source's counts."
    )
