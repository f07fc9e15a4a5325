"""A route in effect: its arms with their servers, and which rows fall on which."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlplatform.contracts import Route
from serving.gateway.assignment import Assignment, bound
from serving.gateway.server import ModelServer


@dataclass(frozen=True, slots=True)
class RoutedArm:
    """An arm and its server."""

    name: str
    server: ModelServer


class Routing:
    """One epoch of a route.

    Args:
        route: What the store says.
        servers: Its arms' servers, in the order of its arms.
        shadow: The server of its shadow, if it has one.
    """

    def __init__(
        self, route: Route, servers: Sequence[ModelServer], shadow: ModelServer | None
    ) -> None:
        self.route = route
        self.epoch = route.epoch
        self.arms = tuple(
            RoutedArm(arm.name, server) for arm, server in zip(route.arms, servers, strict=True)
        )
        self.shadow = shadow
        self._assignment = Assignment(route.salt)
        # An own salt: the shadow's sample says nothing about arms.
        self._sample = Assignment(f"shadow {route.salt}")
        self._share = bound(route.shadow.share) if route.shadow else 0
        arms = {arm.name: arm for arm in self.arms}
        self._challenger = arms.get("challenger", self.arms[0])
        self._champion = arms.get("champion", self.arms[0])
        weights = {arm.name: arm.weight for arm in route.arms}
        self._bound = bound(weights.get("challenger", 0.0))

    @property
    def servers(self) -> tuple[ModelServer, ...]:
        """All servers that the route needs."""
        arms = tuple(arm.server for arm in self.arms)
        return arms if self.shadow is None else (*arms, self.shadow)

    def arm_of(self, entity: str) -> RoutedArm:
        """Return the arm that an entity falls on."""
        if len(self.arms) == 1:
            return self.arms[0]
        return self._challenger if self._assignment.of(entity) < self._bound else self._champion

    def split(self, entities: Sequence[str]) -> list[tuple[RoutedArm, list[int]]]:
        """Return each arm that has rows, with the numbers of its rows."""
        if len(self.arms) == 1:
            return [(self.arms[0], list(range(len(entities))))]
        rows: dict[str, list[int]] = {arm.name: [] for arm in self.arms}
        for row, entity in enumerate(entities):
            rows[self.arm_of(entity).name].append(row)
        return [(arm, rows[arm.name]) for arm in self.arms if rows[arm.name]]

    def shadows(self, request_id: str) -> bool:
        """Return whether a request is in the shadow's sample."""
        return self.shadow is not None and self._sample.of(request_id) < self._share
