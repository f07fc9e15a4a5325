"""Whether the inputs and scores of a window differ from those that the model was trained on.

A verdict is a type, not an exception: a window that cannot be compared says so and why. Shares are
of rows, distances in the unit of their method.
"""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, Window

DriftMethod = Literal["wasserstein", "ed", "jensenshannon"]
"""Evidently's names: Wasserstein distance in standard deviations of the reference, energy distance
in the square root of the column's unit, Jensen-Shannon distance (0 to 0.83)."""

DriftVerdict = Literal["drift", "no_drift", "inconclusive"]

DriftSign = Literal["distribution", "nulls", "new_categories"]
"""What moved: the values, the share of rows without one, the share of categories never seen."""


class ColumnThreshold(Contract):
    """What a window may differ by in one column without being called drift."""

    column: str
    method: DriftMethod = Field(description="Pinned: Evidently's own choice depends on row counts.")
    distance: float = Field(gt=0, description="Largest distance of values; beyond it: drift.")
    nulls: float = Field(gt=0, description="Largest change of the share of nulls, up or down.")
    new_categories: float = Field(gt=0, description="Largest share in categories never seen.")


class DriftCalibration(Contract):
    """Thresholds that windows of the reference itself hardly ever exceed."""

    columns: tuple[ColumnThreshold, ...]
    window_hours: float = Field(gt=0)
    rows: int = Field(gt=0, description="Of the median window of the reference.")
    min_rows: int = Field(gt=0, description="A smaller window is noisier than what was calibrated.")
    windows: int = Field(gt=0, description="Of the reference, each compared with all the others.")
    false_alarm_rate: float = Field(description="Asked for: per window, over all columns.")
    held_out_alarms: int = Field(
        ge=0, description="Of these windows, with thresholds from the other folds."
    )


class ColumnDrift(Contract):
    """One column of one window."""

    column: str
    method: DriftMethod = Field(description="As Evidently reported it back.")
    verdict: DriftVerdict
    reason: str = Field(description="In words, with the numbers.")
    signs: tuple[DriftSign, ...] = ()
    distance: float | None = Field(default=None, description="None: nothing to compare.")
    threshold: float
    rows: int = Field(ge=0, description="With a value.")
    null_share: float = Field(ge=0, le=1)
    reference_null_share: float = Field(ge=0, le=1)
    null_threshold: float = Field(description="Largest change that is no drift.")
    new_share: float = Field(default=0.0, ge=0, le=1, description="Of values: categories new.")
    new_threshold: float


class DriftReport(Contract):
    """All columns of one window against the reference."""

    window: Window
    rows: int = Field(ge=0)
    verdict: DriftVerdict = Field(
        description="drift: a column drifted; inconclusive: none did, but one cannot be compared."
    )
    reason: str
    columns: tuple[ColumnDrift, ...] = ()

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the columns that drifted."""
        return tuple(one.column for one in self.columns if one.verdict == "drift")
