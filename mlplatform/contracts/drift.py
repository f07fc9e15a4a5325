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

DriftSign = Literal[
    "mean",  # of the values; numbers only
    "spread",  # their standard deviation within the window; numbers only
    "low_tail",  # share below nearly all values of the reference; numbers only
    "high_tail",  # share above them; numbers only
    "nulls",  # share of rows without a value
    "distribution",  # Evidently's distance
    "new_categories",  # share of values that the reference never held; categories only
]
"""What moved; each sign is one statistic of a window."""


class DriftInterval(Contract):
    """Where one statistic of a window lies when nothing has changed."""

    sign: DriftSign
    usual: float = Field(description="In the middle of the reference's windows.")
    low: float | None = Field(default=None, description="None: however low, it is no drift.")
    high: float | None = Field(default=None, description="None: however high, it is no drift.")


class ColumnThreshold(Contract):
    """What a window may be like in one column without being called drift."""

    column: str
    method: DriftMethod = Field(description="Pinned: Evidently's own choice depends on row counts.")
    distance: float = Field(gt=0, description="Largest distance of values; beyond it: drift.")
    intervals: tuple[DriftInterval, ...] = Field(
        description="Of each statistic that can show a drift at all."
    )
    tails: tuple[float, float] | None = Field(
        default=None, description="Nearly all values of the reference lie between; None: no number."
    )
    windows: int = Field(gt=0, description="Of the reference, that hold values of the column.")
    worth: float = Field(
        gt=0, description="Independent windows that tell as much: neighbours resemble each other."
    )
    detectable: float | None = Field(
        default=None,
        description="Smallest shift of the mean that three windows show with 95 %, in standard "
        "deviations of the reference's values; None: none is, or the column holds categories.",
    )


class DriftCalibration(Contract):
    """Thresholds that windows like the reference's hardly ever exceed."""

    columns: tuple[ColumnThreshold, ...]
    left_out: dict[str, str] = Field(
        default_factory=dict, description="Columns that cannot be judged, and why."
    )
    window_hours: float = Field(gt=0)
    rows: int = Field(gt=0, description="Of the median window of the reference.")
    min_rows: int = Field(gt=0, description="A smaller window is noisier than what was calibrated.")
    windows: int = Field(gt=0, description="Of the reference.")
    false_alarm_rate: float = Field(description="Asked for: per window, over all columns.")
    statistics: int = Field(
        ge=0, description="Over all columns; the false alarms are shared out among them."
    )
    held_out_alarms: int = Field(
        ge=0, description="Of these windows, with thresholds from the windows before and after."
    )


class DriftStatistic(Contract):
    """One statistic of a column in a window, beside its interval."""

    sign: DriftSign
    value: float
    usual: float
    low: float | None = None
    high: float | None = None
    excess: float = Field(
        description="Distance from the usual value over that of the interval's end; above 1: drift."
    )


class ColumnDrift(Contract):
    """One column of one window."""

    column: str
    method: DriftMethod = Field(description="As Evidently reported it back.")
    verdict: DriftVerdict
    reason: str = Field(description="In words, with the numbers; the strongest sign first.")
    signs: tuple[DriftSign, ...] = Field(default=(), description="The strongest first.")
    statistics: tuple[DriftStatistic, ...] = ()
    distance: float | None = Field(default=None, description="None: nothing to compare.")
    threshold: float
    rows: int = Field(ge=0, description="With a value.")
    null_share: float = Field(ge=0, le=1)
    reference_null_share: float = Field(ge=0, le=1)

    @property
    def excess(self) -> float:
        """How far the strongest statistic lies out; above 1: drift. 0 where there is none."""
        return max((one.excess for one in self.statistics), default=0.0)


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
        """Names of the columns that drifted, the strongest first."""
        found = [one for one in self.columns if one.verdict == "drift"]
        return tuple(one.column for one in sorted(found, key=lambda one: -one.excess))
