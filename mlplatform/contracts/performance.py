"""What served models did on matured labels, and what was expected of them before.

Each request of a window is in exactly one number of a `Cohort`, so that a metric never hides what
it was not computed on. Verdicts are types, not exceptions: a window without evidence says so.
"""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime, Window
from mlplatform.contracts.model import Interval, Metric

PerformanceVerdict = Literal[
    "loss",  # worse than registered by more than is accepted, with the confidence of the interval
    "no_loss",  # not worse by that much, with the same confidence
    "immature",  # cannot be said yet: labels are still to come
    "inconclusive",  # cannot be said, and no label of this window will change that
]


class Cohort(Contract):
    """The requests of a window by what became of them; the numbers below add up to `requests`."""

    window: Window
    as_of: UtcDatetime = Field(description="The time of the look.")
    requests: int = Field(ge=0, description="Each counted once, by its first answer.")
    degraded: int = Field(default=0, ge=0, description="Scored without all that it needs.")
    fallback: int = Field(
        default=0,
        ge=0,
        description="Answered by the rules. They carry no version: each version counts them.",
    )
    unscored: int = Field(default=0, ge=0, description="The score is no probability.")
    open: int = Field(default=0, ge=0, description="The label's delay has not passed.")
    unlabelled: int = Field(default=0, ge=0, description="It has passed, and there is no label.")
    measured: int = Field(default=0, ge=0, description="What the metrics are computed on.")
    positive_rate: float | None = Field(
        default=None, ge=0, le=1, description="Of the measured ones; of an estimate: expected."
    )

    @property
    def scored(self) -> int:
        """Requests with a whole answer of the model."""
        return self.requests - self.degraded - self.fallback - self.unscored

    @property
    def maturity(self) -> float:
        """Share of the scored requests whose label delay has passed; 0 of nothing."""
        return 1 - self.open / self.scored if self.scored else 0.0


class Measurement(Contract):
    """One metric of one model, or a difference of two."""

    metric: Metric
    value: float
    interval: Interval | None = Field(
        description="By resampled days; None: too few days, or too few rows of a class."
    )


class MetricLoss(Contract):
    """A metric against what was registered for the version."""

    metric: Metric
    accepted: float = Field(description="Loss that the spec accepts, in the metric's unit.")
    registered: Interval
    live: Measurement = Field(
        description="`pr_auc` is that of the registered positive rate: it grows with the rate."
    )
    loss: Interval | None = Field(description="Registered minus live; positive: worse.")
    verdict: PerformanceVerdict


class Performance(Contract):
    """What one version did in a window."""

    usecase: str
    version: int = Field(ge=1)
    cohort: Cohort
    metrics: tuple[Measurement, ...] = ()
    losses: tuple[MetricLoss, ...] = Field(
        default=(), description="Of the metrics that the spec guards."
    )
    verdict: PerformanceVerdict
    reason: str = Field(description="In words, with the numbers.")


class PairedPerformance(Contract):
    """Two versions on the same requests: one answered, the other saw them as a shadow."""

    usecase: str
    champion: int = Field(ge=1)
    challenger: int = Field(ge=1)
    cohort: Cohort = Field(description="Of requests that both have a row of.")
    champion_metrics: tuple[Measurement, ...] = ()
    challenger_metrics: tuple[Measurement, ...] = ()
    gains: tuple[Measurement, ...] = Field(
        default=(), description="Positive: the challenger is better."
    )
    verdict: Literal["better", "worse", "immature", "inconclusive"] = Field(
        description="By the north star."
    )
    reason: str


class Estimate(Contract):
    """What a version's own probabilities promise for a window, before any label."""

    usecase: str
    version: int = Field(ge=1)
    cohort: Cohort = Field(description="No label counts: all scored requests are open.")
    metrics: tuple[Measurement, ...] = ()
    losses: tuple[MetricLoss, ...] = ()
    verdict: PerformanceVerdict
    reason: str


class Hindsight(Contract):
    """An estimate beside what came true."""

    estimate: Estimate
    realised: Performance | None = Field(default=None, description="None: not matured yet.")
    errors: dict[Metric, float] = Field(
        default={}, description="Estimated minus realised, of metrics that both have."
    )


class TrackRecord(Contract):
    """How well the estimates of one metric did."""

    metric: Metric
    windows: int = Field(ge=1)
    bias: float = Field(description="Mean error; positive: the estimates were too high.")
    mean_absolute_error: float = Field(ge=0)
    largest: float = Field(ge=0, description="Largest absolute error.")
