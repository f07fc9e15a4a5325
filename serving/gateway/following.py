"""Follows a use case's route in Redis and puts each new epoch into effect.

It asks ten times a second. A new route is followed when its servers have answered; until then, and
while Redis is away or the record is no route, the last good one stays in force. The first route is
followed at once: rules answer until its server does. It follows what the record says, also where
that is an older epoch: a Redis that lost its last seconds is put right by whoever publishes.

After the switch it says which epoch is in effect, once a second, under a key that expires.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from mlplatform.clients.redis_link import RedisLink
from mlplatform.clients.redis_protocol import encode
from mlplatform.contracts import Arm, Route, ServedModel, Shadow
from mlplatform.errors import PlatformError, ServiceError, shorten
from serving.gateway.routing import Routing
from serving.gateway.server import ModelServer
from serving.route import acknowledgement_key, parse, route_key

_POLL_SECONDS: Final = 0.1
_REPLY_SECONDS: Final = 1.0
"""Longest wait for a reply on the control connection; it takes a millisecond."""
_HEARTBEAT_SECONDS: Final = 1.0
_ALIVE_MS: Final = 5000
"""A gateway that has not said its epoch for this long counts as gone: four heartbeats may fail."""
_HEALTH_SECONDS: Final = 1.0

_log: Final = logging.getLogger(__name__)
_Server = tuple[str, ServedModel]


class RouteFollower:
    """The route of one use case, as this process follows it.

    Args:
        usecase: Whose route.
        gateway: Name of this process.
        link: To Redis; requests have another one.
        make: Makes the server of a model version; refuses one that cannot be fed.
    """

    def __init__(
        self,
        usecase: str,
        gateway: str,
        link: RedisLink,
        make: Callable[[str, ServedModel], ModelServer],
    ) -> None:
        self._usecase, self._link, self._make = usecase, link, make
        self._read = encode("GET", route_key(usecase))
        self._alive_key = acknowledgement_key(usecase, gateway)
        self._servers: dict[_Server, ModelServer] = {}
        self._content = b""
        """The record that is in effect."""
        self._refused = b""
        """The last record that was refused, so that it is said once."""
        self._acknowledged = 0.0
        self._trouble = ""
        self.routing: Routing | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a route and each of its arms has answered once.

        It stays true when a server dies: the rules answer then, which is better than no answer.
        """
        return self.routing is not None and all(arm.server.answered for arm in self.routing.arms)

    async def follow(self) -> None:
        """Follow the route until cancelled."""
        while True:
            try:
                await self._step()
            except (ServiceError, TimeoutError) as error:  # the last good route stays
                self._say(f"the route cannot be read: {shorten(error) or 'no answer in time'}")
            except Exception:  # noqa: BLE001  # a follower that ends would freeze the route
                _log.exception("the route of %s could not be followed", self._usecase)
            await asyncio.sleep(_POLL_SECONDS)

    async def watch_servers(self) -> None:
        """Ask the servers whether they are ready, once a second, until cancelled."""
        while True:
            if self.routing is not None:
                await asyncio.gather(*(server.check() for server in set(self.routing.servers)))
            await asyncio.sleep(_HEALTH_SECONDS)

    async def close(self) -> None:
        """Close the connections to all servers, and say that this gateway is gone."""
        for server in self._servers.values():
            await server.retire()
        self._servers = {}
        with contextlib.suppress(ServiceError, TimeoutError):  # it expires by itself
            await self._ask(encode("DEL", self._alive_key))

    async def _step(self) -> None:
        content = await self._ask(self._read)
        if isinstance(content, bytes) and content not in {self._content, self._refused}:
            await self._take_up(content)
        if self.routing is not None and time.monotonic() - self._acknowledged >= _HEARTBEAT_SECONDS:
            await self._ask(encode("SET", self._alive_key, self.routing.epoch, "PX", _ALIVE_MS))
            self._acknowledged = time.monotonic()

    async def _take_up(self, content: bytes) -> None:
        try:
            route = parse(self._usecase, content)
            opened = self._open(route)
        except PlatformError as error:
            self._refused = content
            self._say(f"a route is refused: {shorten(error)}")
            return
        servers = {key: self._servers.get(key) or opened[key] for key in _needed(route)}
        if not await self._may_take_traffic([servers[_key(arm)] for arm in route.arms]):
            for server in opened.values():
                await server.retire()
            self._say(f"epoch {route.epoch} waits until its model servers are ready")
            return
        before, self._servers = self._servers, servers
        self.routing = Routing(
            route,
            [servers[_key(arm)] for arm in route.arms],
            servers[_key(route.shadow)] if route.shadow else None,
        )
        self._content, self._refused, self._acknowledged = content, b"", 0.0
        self._trouble = ""
        _log.info("%s follows epoch %d", self._usecase, route.epoch)
        for key, server in before.items():
            if key not in servers:
                await server.retire()

    async def _may_take_traffic(self, servers: Sequence[ModelServer]) -> bool:
        """Return whether an epoch's arms may get traffic; those of the first one always.

        Those that have answered as arms of the route in effect are not asked again: one that has
        died since must not keep a route from being followed that moves traffic away from it. A
        shadow's server is asked, for nobody has waited for it.
        """
        if self.routing is None:
            return True
        proven = {arm.server for arm in self.routing.arms}
        new = [item for item in servers if item not in proven or not item.answered]
        return all(await asyncio.gather(*(item.check() for item in new)))

    def _open(self, route: Route) -> dict[_Server, ModelServer]:
        return {key: self._make(*key) for key in _needed(route) if key not in self._servers}

    def _say(self, trouble: str) -> None:
        """Log what keeps the route from being followed; the same thing once."""
        if trouble != self._trouble:
            _log.warning("%s: %s; the last good route stays", self._usecase, trouble)
        self._trouble = trouble

    async def _ask(self, command: bytes) -> object:
        async with asyncio.timeout(_REPLY_SECONDS):
            (reply,) = await self._link.send(command, 1)
        if isinstance(reply, ServiceError):
            raise reply
        return reply


def _needed(route: Route) -> list[_Server]:
    parts: list[Arm | Shadow] = [*route.arms, *([route.shadow] if route.shadow else [])]
    return list(dict.fromkeys(map(_key, parts)))


def _key(part: Arm | Shadow) -> _Server:
    return part.url, part.model
