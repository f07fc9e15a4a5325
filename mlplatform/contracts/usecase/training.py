"""Training rules of a use case: candidates, search spaces, gates, slices."""

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from mlplatform.contracts.base import Contract
from mlplatform.contracts.model import Metric

ModelKind = Literal["logistic_regression", "xgboost", "lightgbm"]


class Choice(Contract):
    """One of the listed values."""

    choice: tuple[float | int | str, ...] = Field(min_length=1)


class Uniform(Contract):
    """A real number between two bounds, uniform."""

    uniform: tuple[float, float]


class LogUniform(Contract):
    """A real number between two bounds, uniform in its logarithm."""

    loguniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


_SPACES: Final = {"choice": "Choice", "uniform": "Uniform", "loguniform": "LogUniform"}


def _space(value: Any) -> str | None:
    """Name the kind of space by its only key, so that an error speaks of one kind, not three."""
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", ())
    return next((kind for key, kind in _SPACES.items() if key in keys), None)


Distribution = Annotated[
    Annotated[Choice, Tag("Choice")]
    | Annotated[Uniform, Tag("Uniform")]
    | Annotated[LogUniform, Tag("LogUniform")],
    Discriminator(
        _space,
        custom_error_type="space",
        custom_error_message="is none of {choice: [a, b]}, {uniform: [low, high]}, "
        "{loguniform: [low, high]}; write one of them",
    ),
]


class CandidateRule(Contract):
    """One kind of model and the space that is searched for its hyperparameters."""

    kind: ModelKind
    role: Literal["baseline", "candidate"] = "candidate"
    trials: int = Field(default=1, ge=1, le=200, description="Configurations tried.")
    search: dict[str, Distribution] = Field(default={}, description="By the library's own names.")
    fixed: dict[str, float | int | str] = Field(default={}, description="Set, not searched.")


class Training(Contract):
    """How models are trained."""

    seed: int = Field(default=7, ge=0)
    imbalance: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced: positives weighted by negatives / positives; calibration undoes "
        "the shift that this gives the probabilities.",
    )
    calibration: Literal["none", "sigmoid"] = Field(
        default="sigmoid", description="Fitted on validation data, exported with the model."
    )
    max_rounds: int = Field(default=400, ge=1, description="Boosting rounds at most.")
    early_stopping_rounds: int = Field(default=20, ge=1)
    candidates: tuple[CandidateRule, ...] = Field(min_length=2)


class ImprovementGate(Contract):
    """The candidate beats another model: the paired interval's lower end exceeds the margin."""

    kind: Literal["improvement"]
    name: str
    metric: Metric
    against: Literal["baseline", "champion"]
    margin: float = Field(
        description="In the metric's unit, for the better; below 0, against the champion only: "
        "may be worse by at most this."
    )


class ThresholdGate(Contract):
    """A metric's estimate on the test window lies on the right side of a bound."""

    kind: Literal["threshold"]
    name: str
    metric: Metric
    bound: float = Field(description="At least this where higher is better, else at most.")


class SliceGate(Contract):
    """No slice is worse than the other model by more than the margin, with confidence."""

    kind: Literal["slices"]
    name: str
    metric: Metric
    against: Literal["baseline", "champion"]
    margin: float = Field(ge=0, description="Loss allowed on any slice, in the metric's unit.")


Gate = Annotated[ImprovementGate | ThresholdGate | SliceGate, Field(discriminator="kind")]


class Slices(Contract):
    """Groups that are evaluated on their own."""

    columns: tuple[str, ...]
    min_rows: int = Field(default=500, ge=1, description="Smaller groups are left out.")
