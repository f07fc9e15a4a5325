"""How a use case is served, rolled out, watched, and what it may cost."""

from typing import Annotated, Literal

from pydantic import Field

from mlplatform.contracts.base import Contract
from mlplatform.contracts.model import Metric


class LatencyBudget(Contract):
    """The p99 budget of one request, split by hop; milliseconds. The hops add up to the total."""

    total: float = Field(gt=0, description="The sum of the hops.")
    network: float = Field(gt=0, description="Client to gateway and back.")
    features: float = Field(gt=0, description="Online features from Redis.")
    queue: float = Field(ge=0, description="Waiting for a batch in Triton.")
    inference: float = Field(gt=0, description="The model.")
    decision: float = Field(gt=0, description="Request-time features, rules, the log row.")


class RequestField(Contract):
    """One field of a live request."""

    type: Literal["string", "integer", "float", "timestamp"]
    optional: bool = Field(default=False, description="May be null or absent.")
    min: float | None = Field(default=None, description="Smallest allowed value.")
    max: float | None = Field(default=None, description="Largest allowed value.")
    values: tuple[str, ...] = Field(default=(), description="Allowed values; empty: any.")
    pattern: str | None = Field(default=None, description="Regular expression of the whole value.")


class Inference(Contract):
    """How Triton runs the model; batches wait for at most the budget's `queue`."""

    backend: Literal["onnxruntime", "tensorrt", "fil"] = Field(
        default="onnxruntime", description="On GPU nodes; one machine always runs onnxruntime."
    )
    max_batch: int = Field(default=64, ge=1, le=4096, description="Rows that run together.")
    instances: int = Field(default=1, ge=1, le=16, description="Copies of the model per server.")


class Serving(Contract):
    """What the online service must hold."""

    latency_ms: LatencyBudget
    peak_qps: float = Field(gt=0, description="Requests per second at the busiest hour.")
    availability: float = Field(gt=0.9, lt=1, description="Share of requests answered in budget.")
    decision_threshold: float = Field(
        default=0.5, gt=0, lt=1, description="Probability from which the use case acts."
    )
    inference: Inference = Inference()
    max_rows: int = Field(default=256, ge=1, le=4096, description="Rows in one batch request.")
    request: dict[str, RequestField] = Field(
        default={}, description="Fields of a live request; empty: scored in batches only."
    )
    required_views: tuple[str, ...] = Field(
        default=(), description="Feature views without which an answer is marked degraded."
    )
    defaults: dict[str, float] = Field(
        default={},
        description="Feature values where the online store is out of reach or a required "
        "view is stale; without one a value is null.",
    )


GuardrailMetric = Literal[
    "error_rate", "fallback_rate", "budget_overrun_rate", "decision_rate", "loss"
]


class Guardrail(Contract):
    """A live metric that a new version may not harm by more than its margin."""

    metric: GuardrailMetric
    margin: float = Field(gt=0, le=1, description="Absolute harm allowed.")


class RolloutPlan(Contract):
    """How a new version takes over traffic."""

    assignment_unit: str = Field(description="Entity whose salted hash picks the arm.")
    shadow_hours: float = Field(ge=0, description="Answers nobody sees, before the first step.")
    shadow_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Of requests shown to the new version besides, until its soak.",
    )
    weights: tuple[float, ...] = Field(min_length=1, description="Canary share by step, rising.")
    min_exposure: int = Field(ge=1, description="Entities per arm before a step may end.")
    guardrails: tuple[Guardrail, ...] = Field(min_length=1)
    rollback_alpha: float = Field(gt=0, le=0.1, description="False-rollback rate.")
    promotion_alpha: float = Field(gt=0, le=0.1, description="False-promotion rate.")
    stale_hours: float = Field(default=24, gt=0, description="Older evidence counts as none.")
    soak_hours: float = Field(ge=0, description="The old version stays warm this long.")
    deadline_hours: float = Field(gt=0, description="No evidence by then: hold, never promote.")


class Review(Contract):
    """How many decisions of a window people look at."""

    uncertain: int = Field(
        default=0, ge=0, description="Those nearest to the threshold, of the ones not drawn."
    )
    sampled: int = Field(default=0, ge=0, description="Drawn at random from all.")


class Monitoring(Contract):
    """What is watched and when it leads to retraining."""

    window_hours: float = Field(gt=0, description="Length of one window of requests.")
    false_alarm_rate: float = Field(gt=0, lt=0.5, description="Per window, over all features.")
    persistence: tuple[int, int] = Field(description="k of the last n windows must agree.")
    max_metric_loss: dict[Metric, Annotated[float, Field(gt=0)]] = Field(
        description="Loss accepted against the registered metric, in its unit."
    )
    cooldown_hours: float = Field(ge=0, description="Between the starts of two retrainings.")
    retrains_per_week: int = Field(ge=0, description="Runs in any seven days, at most.")
    stop_after_no_gain: int = Field(ge=1, description="Runs in a row without a better model.")
    schedule_days: float | None = Field(default=None, gt=0, description="None: on evidence only.")
    approval: bool = Field(default=False, description="A person must approve each retraining.")
    review: Review = Review()


class Cost(Contract):
    """Monthly bounds, in US dollars."""

    serving_per_month: float = Field(gt=0, description="Serving, US dollars.")
    training_per_month: float = Field(gt=0, description="Training, US dollars.")
