"""What an audit of logged vectors found: which features serving saw differently, and why."""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime, Window

SkewCause = Literal[
    "stale",  # the online row was older than the offline one, or there was none
    "late_data",  # serving used what, offline, became known only after the request
    "default_fill",  # a constant or null stands where offline has a value
    "type",  # the same value in a narrower type: rounded, or cut to an integer
    "time_shift",  # a clock or time zone off by a constant
    "transform",  # the same inputs gave another value
]

ViewFinding = Literal[
    "in_step",  # online and offline rows have the same times
    "stopped",  # nothing newer than one moment reached the online store
    "lagging",  # rows reach the online store too late
    "ahead",  # the online store had rows before, offline, they were known
    "time_shift",  # times differ by a constant: a clock or time zone is off
    "history_behind",  # the offline history ends before the requests do: it proves nothing
]


class FeatureSkew(Contract):
    """One feature that differed."""

    feature: str
    view: str = Field(description="Its feature view; empty: computed from the request.")
    rows: int = Field(ge=1, description="Compared.")
    mismatched: int = Field(ge=1)
    announced: int = Field(
        ge=0, description="Of these, in answers that said that their features were not read."
    )
    causes: dict[SkewCause, int] = Field(description="Mismatched rows by cause, most first.")
    detail: str = Field(description="What is known of the difference, with an example.")

    @property
    def rate(self) -> float:
        """Mismatched share of the rows."""
        return self.mismatched / self.rows

    @property
    def cause(self) -> SkewCause:
        """The most frequent cause."""
        return next(iter(self.causes))


class ViewSkew(Contract):
    """The times of one view's rows, online against offline."""

    view: str
    rows: int = Field(ge=0, description="Requests for which either side had a row.")
    older: int = Field(ge=0, description="The online row was older; absent ones included.")
    absent: int = Field(ge=0, description="Online there was none.")
    newer: int = Field(ge=0, description="The online row was newer.")
    median_lag_seconds: float | None = Field(
        description="Offline minus online where both are there and differ; None: nowhere."
    )
    finding: ViewFinding
    since: UtcDatetime | None = Field(
        default=None, description="Of `stopped` and `history_behind`: the last time that arrived."
    )
    shift_hours: float | None = Field(default=None, description="Of `time_shift`.")
    detail: str


class SkewReport(Contract):
    """One audit."""

    usecase: str
    window: Window | None = Field(description="Event times compared; None: there were none.")
    rows: int = Field(ge=0, description="Compared.")
    mismatched_rows: int = Field(ge=0, description="With at least one feature that differed.")
    announced_rows: int = Field(
        default=0, ge=0, description="Of these, answers that said that features were not read."
    )
    left_out: dict[str, int] = Field(default={}, description="Rows not compared, by reason.")
    features: tuple[FeatureSkew, ...] = Field(
        default=(), description="Those that differed, most rows first."
    )
    views: tuple[ViewSkew, ...] = ()
    verdict: Literal["skew", "no_skew", "inconclusive"]
    reason: str
