"""The asyncio side: a pool of kept-alive connections to one server, one request on each.

A caller sets its own deadline and cancels; its connection is then closed, because the late answer
would otherwise be taken for the next request's. It never waits for a server that refuses.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from mlplatform.clients.triton.wire import Answer, Floats, Reader, Wire
from mlplatform.errors import ServiceError, shorten

_OK: Final = 200


class TritonLink:
    """One model version on one Triton server.

    Args:
        url: `http://host:port`.
        model: Name of the model.
        version: Its version.
        connections: Requests under way at most; further ones wait their turn.

    Raises:
        ServiceError: The address or the name could not be put into a request.
    """

    def __init__(self, url: str, model: str, version: int, *, connections: int = 8) -> None:
        self._wire = Wire(url, model, version)
        self._turns = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._closed = False

    async def infer(self, features: Floats) -> Floats:
        """Return the probabilities [N] of rows float32 [N, F].

        Raises:
            DataError: The features are not float32 [N, F].
            ServiceError: Triton refused, cannot be reached, broke the connection, or gave
                something else than N probabilities of this model.
        """
        answer = await self._exchange(self._wire.infer_request(features))
        return self._wire.probabilities(answer, len(features))

    async def ready(self) -> bool:
        """Return whether the server says that this version is ready; False when it cannot."""
        try:
            answer = await self._exchange(self._wire.ready_request())
        except ServiceError:
            return False
        return answer.status == _OK

    async def close(self) -> None:
        """Close all connections; requests under way fail."""
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()

    async def _exchange(self, payload: bytes) -> Answer:
        async with self._turns:
            if self._closed:
                raise ServiceError(f"the link to {self._wire.name} is closed")
            if self._idle:
                # The last used one: the others may be closed by the server for idleness.
                try:
                    return await self._ask(self._idle.pop(), payload)
                except _HungUpError as gone:
                    # The server closed it while it was idle, which is no failure. An inference
                    # changes nothing, so asking again is safe; once, and on a new connection.
                    if gone.begun or self._closed:
                        raise
            return await self._ask(await self._connect(), payload)

    async def _ask(self, connection: "_Connection", payload: bytes) -> Answer:
        try:
            answer = await connection.ask(payload)
        except BaseException:  # a cancelled caller too: the answer may still come
            connection.abort()
            raise
        if connection.usable and not self._closed:
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    async def _connect(self) -> "_Connection":
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._wire.name, self._forget), self._wire.host, self._wire.port
            )
        except OSError as error:
            raise ServiceError(f"{self._wire.name} cannot be reached: {shorten(error)}") from error
        if self._closed:
            connection.abort()
            raise ServiceError(f"the link to {self._wire.name} is closed")
        self._open.add(connection)
        return connection

    def _forget(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class _HungUpError(ServiceError):
    """The connection ended before its answer was complete."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class _Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self, name: str, forget: Callable[["_Connection"], None]) -> None:
        self._name = name
        self._forget = forget
        self._reader = Reader(name)
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self.usable = False

    def ask(self, payload: bytes) -> "asyncio.Future[Answer]":
        """Send a request; the future has its answer or fails."""
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._transport is None or not self.usable:
            waiting.set_exception(_HungUpError(f"{self._name} hung up", begun=False))
            return waiting
        self._waiting = waiting
        self._transport.write(payload)
        return waiting

    def abort(self) -> None:
        """Close without waiting for anything."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What asyncio gives a TCP protocol; uvloop's is none of its subclasses.
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            self.abort()  # nobody asked: the next answer would be read from the wrong place
            return
        try:
            answer = self._reader.feed(data)
        except ServiceError as error:
            self._waiting = None
            waiting.set_exception(error)
            self.abort()
            return
        if answer is not None:
            self._waiting = None
            self.usable = self.usable and answer.keep
            waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            reason = "" if exc is None else f" ({shorten(exc)})"
            message = f"{self._name} hung up before it had answered{reason}"
            waiting.set_exception(_HungUpError(message, begun=self._reader.begun))
        self._forget(self)
