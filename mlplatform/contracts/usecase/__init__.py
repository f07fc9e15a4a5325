"""`UseCase`: the one file from which everything else is derived, parsed from `usecase.yaml`.

It refuses values that contradict each other: all of them at once, each with the path of the value
to change in the error's context (`found`), so that `mlplatform.spec` can name its line.
"""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from mlplatform.contracts.base import Contract
from mlplatform.contracts.usecase.contradictions import contradictions
from mlplatform.contracts.usecase.data import DataRules, Split
from mlplatform.contracts.usecase.operation import Cost, Monitoring, RolloutPlan, Serving
from mlplatform.contracts.usecase.purpose import Entity, Goal, Label
from mlplatform.contracts.usecase.training import Gate, Slices, Training


class UseCase(Contract):
    """The parsed spec of one use case."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{2,40}$", description="Also its folder's name.")
    feature_service: str = Field(
        pattern=r"^[a-z][a-z0-9_]*_v[0-9]+$", description="Versioned; one for each model."
    )
    goal: Goal
    label: Label
    entities: tuple[Entity, ...] = Field(min_length=1, description="What features are about.")
    data: DataRules
    split: Split
    training: Training
    gates: tuple[Gate, ...] = Field(
        min_length=1, description="What must hold before a candidate is registered."
    )
    slices: Slices
    serving: Serving
    rollout: RolloutPlan
    monitoring: Monitoring
    cost: Cost

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        if found := tuple(contradictions(sections)):
            text = "; ".join(f"{'.'.join(map(str, path))}: {message}" for path, message in found)
            raise PydanticCustomError("contradiction", "{text}", {"text": text, "found": found})
        return self
