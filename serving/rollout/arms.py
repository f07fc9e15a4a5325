"""The arms of a route: which servers can be in it, and the route that is made of them."""

from collections.abc import Mapping

from mlplatform.contracts import Arm, Route, ServedModel, Shadow
from mlplatform.contracts.rollout import Version
from serving.rollout.effects import PublishRoute
from serving.rollout.ports import Server

Part = tuple[str, ServedModel]
"""Address and model of a server."""


def parts(record: Route | None, servers: Mapping[Version, Server]) -> dict[Version, Part]:
    """Return the versions that can be in a route: ready ones, and those that traffic goes to.

    One of those may have died since, and must not keep traffic from leaving another one.

    Args:
        record: The route that is published.
        servers: Of the versions that are asked for.
    """
    found: dict[Version, Part] = {}
    present: list[Arm | Shadow] = []
    if record is not None:
        present = [*record.arms, *([record.shadow] if record.shadow else [])]
    for part in present:
        version = Version(version=part.model.version, digest=part.model.digest)
        found[version] = (part.url, part.model)
    for version, server in servers.items():
        if server.status.state == "ready" and server.served is not None:
            found[version] = (server.status.url, server.served)
    return found


def route(usecase: str, effect: PublishRoute, found: Mapping[Version, Part]) -> Route | None:
    """Return the route that is asked for; None while a version in it cannot be there."""
    challenger = effect.challenger
    if effect.champion not in found or (challenger is not None and challenger not in found):
        return None
    url, model = found[effect.champion]
    arms = [Arm(name="champion", weight=1 - effect.weight, url=url, model=model)]
    shadow = None
    if challenger is not None:
        url, model = found[challenger]
        if effect.weight > 0:
            arms.append(Arm(name="challenger", weight=effect.weight, url=url, model=model))
        if effect.shadow > 0:
            shadow = Shadow(share=effect.shadow, url=url, model=model)
    return Route(
        usecase=usecase, epoch=effect.epoch, salt=effect.salt, arms=tuple(arms), shadow=shadow
    )
