"""What is served: a model with the layout of its online features, and the route that traffic takes.

A `Route` is everything that a gateway needs to answer: it lies in Redis as one JSON value, and the
gateway keeps the last good one. Its epoch rises with every change and is echoed in every answer.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from mlplatform.contracts.base import Contract

OnlineType = Literal["float32", "float64", "int32", "int64", "bool", "timestamp"]
"""Types that a packed value can hold; a timestamp is int64 microseconds since 1970, UTC."""


class OnlineField(Contract):
    """One feature of a view."""

    name: str
    dtype: OnlineType


class OnlineView(Contract):
    """One feature view, as it lies in a packed value."""

    name: str
    ttl_seconds: float | None = Field(gt=0, description="By event time; None: never expires.")
    fields: tuple[OnlineField, ...] = Field(min_length=1, description="In the view's own order.")


class OnlineGroup(Contract):
    """The views that share their join keys: together they are one packed value per entity."""

    keys: tuple[str, ...] = Field(min_length=1, description="Join keys, sorted.")
    views: tuple[OnlineView, ...] = Field(min_length=1, description="Sorted by name.")


class OnlineLayout(Contract):
    """How the features of one service lie in the online store."""

    project: str = Field(min_length=1, description="Feast's project: the first part of each key.")
    service: str
    groups: tuple[OnlineGroup, ...] = Field(min_length=1)

    @property
    def views(self) -> tuple[OnlineView, ...]:
        """All views, in the order of their groups."""
        return tuple(view for group in self.groups for view in group.views)


class ServedModel(Contract):
    """One verified model version and what it must be fed."""

    name: str
    version: int = Field(ge=1)
    digest: str = Field(description="SHA-256 of the ONNX file.")
    features: tuple[str, ...] = Field(min_length=1, description="Model inputs, in order.")
    threshold: float = Field(gt=0, lt=1, description="Probability from which it is acted.")
    layout: OnlineLayout


class Arm(Contract):
    """A model version that takes part of the live traffic."""

    name: Literal["champion", "challenger"]
    weight: float = Field(ge=0, le=1, description="Share of entities.")
    url: str = Field(description="Its Triton server, http://host:port.")
    model: ServedModel


class Shadow(Contract):
    """A model version that sees a share of the traffic and whose answers nobody sees."""

    share: float = Field(gt=0, le=1, description="Share of requests.")
    url: str = Field(description="Its Triton server, http://host:port.")
    model: ServedModel


class Route(Contract):
    """Who answers which share of a use case's traffic."""

    usecase: str
    epoch: int = Field(ge=1, description="Rises with every change.")
    salt: str = Field(min_length=1, description="Mixed into the hash of the entity.")
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=2)
    shadow: Shadow | None = None

    @model_validator(mode="after")
    def _weights_add_up(self) -> Self:
        if not math.isclose(sum(arm.weight for arm in self.arms), 1.0, abs_tol=1e-9):
            raise ValueError("the weights of the arms must add up to 1")
        if len({arm.name for arm in self.arms}) < len(self.arms):
            raise ValueError("two arms have one name")
        return self
