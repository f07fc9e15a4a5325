"""The route record in Redis: who publishes it, who has taken it up.

`route:<usecase>` holds the route as JSON; a gateway that follows it says so in
`route:<usecase>:gateway:<id>`, which expires when the gateway stops saying it. A route is
replaced by compare-and-swap on its epoch, so that two publishers never overwrite each other
unseen. It refuses to interpret a route: what weights mean is the gateway's business, when they
change is the rollout's.
"""

from typing import Final

from pydantic import ValidationError

from mlplatform.clients.redis_protocol import encode
from mlplatform.clients.redis_sync import connect
from mlplatform.contracts import Route
from mlplatform.errors import DataError, ServiceError, shorten

_PAGE: Final = 100
"""Keys that one step of a scan looks at; the other keys of the server are passed over."""


def route_key(usecase: str) -> str:
    """Return the key of a use case's route."""
    return f"route:{usecase}"


def acknowledgement_key(usecase: str, gateway: str) -> str:
    """Return the key under which a gateway says which epoch it follows."""
    return f"route:{usecase}:gateway:{gateway}"


def parse(usecase: str, content: bytes) -> Route:
    """Return the route in a record.

    Raises:
        DataError: It is no route, or another use case's.
    """
    try:
        route = Route.model_validate_json(content)
    except ValidationError as error:
        raise DataError(
            f"{route_key(usecase)} holds no valid route: {shorten(error)}; publish it again"
        ) from error
    if route.usecase != usecase:
        raise DataError(
            f"{route_key(usecase)} holds the route of {route.usecase}: publish the right one"
        )
    return route


def _epoch(key: bytes, content: bytes) -> int:
    if not content.isdigit():
        raise DataError(
            f"{key.decode(errors='replace')} holds no epoch but {shorten(repr(content))}: remove "
            "it, and the gateway says it anew"
        )
    return int(content)


class RouteStore:
    """Routes of all use cases, for those who change them.

    Args:
        redis_url: redis://[user:password@]host:port[/db].

    Raises:
        ServiceError: The URL is not understood.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)

    def read(self, usecase: str) -> Route | None:
        """Return the route that gateways are to follow; None when there is none.

        Raises:
            DataError: The record is no route.
            ServiceError: Redis cannot be reached.
        """
        content = self._redis.execute("GET", route_key(usecase))
        return None if content is None else parse(usecase, content)

    def publish(self, route: Route) -> None:
        """Replace the route; its epoch must be a later one, or any if there is none.

        Publishing the same route again changes nothing, so a caller that got no reply may repeat.

        Raises:
            DataError: Another epoch is in force: someone else published meanwhile.
            ServiceError: Redis cannot be reached; whether the route was published is then unknown.
        """
        key = route_key(route.usecase)
        watched, content = self._redis.exchange(encode("WATCH", key) + encode("GET", key), 2)
        for reply in (watched, content):
            if isinstance(reply, ServiceError):
                raise reply
        try:
            known = None if content is None else parse(route.usecase, content)
        except DataError:
            known = None  # nobody can follow it: replaced by whatever is published now
        if known == route:
            self._redis.execute("UNWATCH")
            return
        if known is not None and route.epoch <= known.epoch:
            self._redis.execute("UNWATCH")
            raise DataError(
                f"the route of {route.usecase} is at epoch {known.epoch}, so epoch {route.epoch} "
                "cannot follow: read the route and decide again"
            )
        *_, done = self._redis.exchange(
            encode("MULTI") + encode("SET", key, route.model_dump_json()) + encode("EXEC"), 3
        )
        if isinstance(done, ServiceError):
            raise done
        if done is None:
            raise DataError(
                f"the route of {route.usecase} changed while epoch {route.epoch} was published: "
                "read the route and decide again"
            )

    def remove(self, usecase: str) -> None:
        """Take the route away: gateways that run keep the last one, new ones have none.

        Raises:
            ServiceError: Redis cannot be reached; whether it was removed is then unknown.
        """
        self._redis.execute("DEL", route_key(usecase))

    def acknowledgements(self, usecase: str) -> dict[str, int]:
        """Return the epoch that each living gateway follows, by gateway.

        Raises:
            DataError: One of them is no epoch.
            ServiceError: Redis cannot be reached.
        """
        prefix = acknowledgement_key(usecase, "")
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, keys = self._redis.execute(
                "SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _PAGE
            )
            found.update(keys)
            if cursor == b"0":
                break
        if not found:
            return {}
        names = sorted(found)
        epochs = self._redis.execute("MGET", *names)
        return {
            name.decode(errors="replace").removeprefix(prefix): _epoch(name, epoch)
            for name, epoch in zip(names, epochs, strict=True)
            if epoch is not None  # expired between the two commands
        }

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
