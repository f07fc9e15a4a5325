"""What a use case is for: its goal, what it predicts, and about what."""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract
from mlplatform.contracts.model import Metric


class Goal(Contract):
    """Why the company wants this."""

    business: str = Field(min_length=1, description="What gets better, for whom.")
    ml_objective: str = Field(
        min_length=1, description="What is predicted, when, and what is done with it."
    )
    problem_type: Literal["binary_classification"]
    north_star: Metric = Field(description="The offline metric that candidates are ranked by.")
    owner: str = Field(min_length=1, description="Who is asked when it breaks.")


class Label(Contract):
    """What is predicted and when it becomes known."""

    name: str = Field(min_length=1, description="Column of the label.")
    definition: str = Field(min_length=1, description="When it is 1, in words.")
    delay_hours: float = Field(ge=0, description="By then nearly all labels are known.")


class Entity(Contract):
    """Something that features are about; several keys make a composite key."""

    name: str = Field(min_length=1, description="Also its name in Feast.")
    keys: tuple[str, ...] = Field(min_length=1, description="Columns of its key.")
