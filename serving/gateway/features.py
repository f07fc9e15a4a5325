"""The features of a request from the online store, within their deadline.

It reads through the process's one connection to Redis and never waits for a reconnection. What it
cannot give in time it does not give: the caller goes on without. One breaker is shared by all use
cases, because they share the connection.
"""

import asyncio
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from feature_repo.online import Keys, OnlineReader, OnlineRows
from mlplatform.clients.redis_link import RedisLink
from mlplatform.errors import ServiceError
from serving.gateway.breaker import Breaker

LATE: Final = "features_late"
DOWN: Final = "features_down"

Missing = Literal["features_late", "features_down"]


class FeatureStore:
    """Redis, as the requests of one process see it."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self.breaker = Breaker()

    async def read(
        self,
        reader: OnlineReader,
        keys: Keys,
        at_us: npt.NDArray[np.int64],
        seconds: float,
    ) -> OnlineRows | Missing:
        """Return the features of some rows, or why there are none.

        Args:
            reader: Knows where they lie.
            keys: The join keys of each row.
            at_us: Time of each row, microseconds since 1970.
            seconds: Longest wait for the reply.

        Raises:
            DataError: The keys are not what the reader asks for.
        """
        rows = len(at_us)
        plan = reader.plan(keys, rows)
        if not self.breaker.allows():
            return DOWN
        try:
            future = self._link.send(plan.payload, 1)
            timer = self._loop.call_later(seconds, _expire, future)
            try:
                replies = await future
            finally:
                timer.cancel()
            found = reader.decode(replies, keys, rows, at_us, plan)
        except TimeoutError:
            self.breaker.failed()
            return LATE
        except ServiceError:
            self.breaker.failed()
            return DOWN
        self.breaker.succeeded()
        return found


def _expire(future: "asyncio.Future[list[object]]") -> None:
    """End the wait; the link reads and drops the replies when they come."""
    if not future.done():
        future.set_exception(TimeoutError())
