"""What monitoring saw in one window: whether the data are whole, how the layers do, and the cause.

A window is judged in three layers: the infrastructure that answered, the pipelines that feed it,
and the model. The first cause that is found names the window; the others are kept beside it.
"""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime, Window
from mlplatform.contracts.drift import DriftReport
from mlplatform.contracts.performance import Estimate, Hindsight, PairedPerformance, Performance
from mlplatform.contracts.retrain import Finding
from mlplatform.contracts.skew import SkewReport

FaultKind = Literal[
    "volume",  # far fewer or far more requests than the reference ever had
    "gap",  # a stretch without requests, longer than the reference ever had
    "duplicates",  # the same requests came twice
    "stale",  # a feature view has stopped
    "schema",  # vectors or fields are not those of the model
    "nulls",  # values are missing that the reference has
    "defaults",  # one constant stands where the reference has many values
    "unit",  # the values are those of the reference in another unit
]
"""What is broken in a feed; to train on it would teach the model the breakage."""

Layer = Literal["infrastructure", "pipeline", "model"]


class DataFault(Contract):
    """One thing that is broken."""

    kind: FaultKind
    subject: str = Field(description="A feature, a feature view, or `requests`.")
    why: str = Field(description="In words, with the numbers.")


class Wholeness(Contract):
    """Whether the data of a window are whole."""

    window: Window
    rows: int = Field(ge=0)
    verdict: Literal["whole", "fault", "inconclusive"]
    reason: str = Field(description="In words, with the numbers.")
    faults: tuple[DataFault, ...] = ()


class Vital(Contract):
    """One sign of life of a layer."""

    name: str = Field(description="As the metric of the same meaning is called.")
    value: float
    limit: float | None = Field(description="From the spec; None: for information.")
    ok: bool
    why: str = Field(description="In words, with the unit.")


class LayerHealth(Contract):
    """How one layer does."""

    layer: Layer
    verdict: Literal["ok", "trouble", "unknown"]
    vitals: tuple[Vital, ...] = ()


class WindowReport(Contract):
    """All that was seen of one window at one look."""

    usecase: str
    window: Window
    judged_at: UtcDatetime
    version: int | None = Field(description="The champion of the window; None: nobody answered.")
    findings: tuple[Finding, ...] = Field(description="At most one for each watch.")
    whole: Wholeness
    skew: SkewReport | None = Field(default=None, description="None: not audited.")
    drift: DriftReport | None = Field(default=None, description="None: nothing to compare with.")
    performance: Performance | None = Field(
        default=None, description="On the newest matured windows, not on this one."
    )
    pair: PairedPerformance | None = Field(
        default=None, description="The champion beside a challenger, on the same matured rows."
    )
    estimate: Estimate | None = None
    hindsight: Hindsight | None = Field(
        default=None, description="What was estimated of the matured window, beside what came true."
    )
    layers: tuple[LayerHealth, ...] = ()
    page: str = Field(default="", description="File of Evidently's page; empty: there is none.")
