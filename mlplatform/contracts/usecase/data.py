"""Data rules of a use case: tables, columns, freshness, size, label rate, split."""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract

ColumnType = Literal["string", "integer", "float", "timestamp", "boolean"]


class ColumnRule(Contract):
    """What one raw column must look like."""

    type: ColumnType
    max_null_rate: float = Field(default=0.0, ge=0, le=1, description="Share of nulls allowed.")
    min: float | None = Field(default=None, description="Smallest allowed value.")
    max: float | None = Field(default=None, description="Largest allowed value.")
    values: tuple[str, ...] = Field(default=(), description="Allowed values; empty: any.")
    pattern: str | None = Field(default=None, description="Regular expression of the whole value.")


class Ordering(Contract):
    """A cross-column rule: `low` is at most `high` in each row where both are present."""

    low: str
    high: str


class TableRule(Contract):
    """What one raw table must look like."""

    event_time: str = Field(description="Column with the time of the event; freshness reads it.")
    unique: tuple[str, ...] = Field(description="Columns that name a row.")
    columns: dict[str, ColumnRule]
    ordered: tuple[Ordering, ...] = ()


class LabelRate(Contract):
    """Band in which the share of positive labels must lie."""

    min: float = Field(ge=0, le=1, description="Fewer positives than this are refused.")
    max: float = Field(ge=0, le=1, description="More positives than this are refused.")


class DataRules(Contract):
    """Rules that are checked before anything costly runs."""

    freshness_hours: float = Field(
        default=48, gt=0, le=48, description="Newest event may be at most this old, in hours."
    )
    min_size_ratio: float = Field(
        default=0.8, ge=0.8, le=1, description="Rows against the previous run's set, at least."
    )
    max_degraded_rate: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of matured labels that may be left out of a training set because the "
        "live answer lacked features or came from the rules.",
    )
    label_rate: LabelRate
    tables: dict[str, TableRule] = Field(min_length=1, description="Raw tables, by name.")


class Split(Contract):
    """Temporal split: train, gap, validation, gap, test; the newest rows are the test."""

    validation_days: int = Field(gt=0, description="Tuning, early stopping and calibration.")
    test_days: int = Field(gt=0, description="Evaluation only.")
    gap_hours: float = Field(ge=0, description="Between parts; at least the label's delay.")
