"""One asyncio connection to Redis that all concurrent callers of a process share.

It exists for the request path: a command costs one write and one wake-up, replies are parsed by
hiredis in C, and commands of concurrent requests travel together because nobody waits for another's
reply. The connection is kept in the background; while it is away `send` refuses at once, so that a
request never waits for a reconnection.

It refuses to know deadlines: a caller that stops waiting cancels its future, and the replies that
belong to it are read and dropped. It refuses to repeat a command: after a broken connection only
the caller knows whether the command may run twice. It follows no redirection of a Redis Cluster.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from typing import Any, Final, cast

import hiredis

from mlplatform.clients.redis_protocol import NOTHING, Address, encode
from mlplatform.errors import ServiceError, shorten

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 1.0
"""Between two attempts to connect, doubled each time: a restarted server is found within a second,
and a dead one costs one attempt a second."""
_CONNECT_SECONDS: Final = 2.0
"""For the connection with its AUTH; loopback takes 1 ms, TLS in another zone some tens."""
_IDLE_SECONDS: Final = 5
_UNACKNOWLEDGED_MS: Final = 10_000
"""Silence after which the kernel probes the peer, and unacknowledged bytes that end a connection:
a peer that vanished without a word (a lost machine) is noticed in about ten seconds."""

_log: Final = logging.getLogger(__name__)


def _refusal(text: str) -> ServiceError:
    return ServiceError(f"Redis refused a command: {shorten(text)}")


class RedisLink:
    """A connection to one Redis server, made again whenever it breaks.

    Args:
        url: redis://[user:password@]host:port[/db], or rediss:// for TLS.
        name: What the server shows for this connection in CLIENT LIST; also names it in messages.
        limit: Replies that may be outstanding; beyond it `send` refuses.

    Raises:
        ServiceError: The URL is not understood.
    """

    def __init__(self, url: str, *, name: str, limit: int = 10_000) -> None:
        address = Address.of(url)
        self._host, self._port = address.host, address.port
        self._tls = ssl.create_default_context() if address.tls else None
        self._name, self._limit = name, limit
        self._greeting = [
            *address.greeting(),
            encode("CLIENT", "SETNAME", name),
            encode("PING"),  # refused while the server loads its file
        ]
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = "it was not started"

    @property
    def connected(self) -> bool:
        """Whether a command would be sent now."""
        return self._wire is not None

    @property
    def outstanding(self) -> int:
        """Replies that have not come yet, those that nobody waits for included."""
        return self._wire.outstanding if self._wire is not None else 0

    async def start(self) -> None:
        """Begin to connect in the background; never raises."""
        if self._keeper is None:
            self._trouble = "it has not connected yet"
            self._keeper = asyncio.create_task(self._keep(), name=f"redis {self._name}")

    def send(self, payload: bytes, replies: int) -> asyncio.Future[list[Any]]:
        """Send encoded commands and return the future of their replies, in order.

        A reply is bytes, int, None, a list of replies, or a `ServiceError` where the server refused
        that one command. The future fails with ServiceError when the connection breaks first;
        whether the commands ran is then unknown.

        Args:
            payload: One or more encoded commands.
            replies: How many replies they have, at least one.

        Raises:
            ServiceError: There is no connection, or too many replies are outstanding.
        """
        wire = self._wire
        if wire is None:
            raise ServiceError(
                f"no connection to Redis at {self._host}:{self._port} ({self._name}): "
                f"{self._trouble}; it is tried again by itself"
            )
        if wire.outstanding + replies > self._limit:
            raise ServiceError(
                f"Redis at {self._host}:{self._port} ({self._name}) owes {wire.outstanding} "
                f"replies, at most {self._limit} may be outstanding: it hangs or is overloaded"
            )
        return wire.send(payload, replies)

    async def close(self) -> None:
        """Close the connection for good; what is outstanding fails."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._trouble = "it was closed"

    async def _keep(self) -> None:
        pause, reported = _FIRST_PAUSE_SECONDS, False
        while True:
            wire = _Wire(f"{self._host}:{self._port} ({self._name})")
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._connect(wire)
            except Exception as error:  # noqa: BLE001  # a keeper that ends would never connect again
                wire.abort()
                # TimeoutError is an OSError.
                unexpected = None if isinstance(error, (OSError, ServiceError)) else error
                self._trouble = shorten(error) or f"no answer within {_CONNECT_SECONDS:g} s"
                if not reported:  # once an outage, not once an attempt
                    _log.warning(
                        "no connection to Redis at %s:%d (%s): %s",
                        self._host, self._port, self._name, self._trouble, exc_info=unexpected,
                    )  # fmt: skip
                reported = True
            except asyncio.CancelledError:  # closed while it connects
                wire.abort()
                raise
            else:
                _log.info("connected to Redis at %s:%d (%s)", self._host, self._port, self._name)
                pause, reported = _FIRST_PAUSE_SECONDS, False
                self._wire = wire
                try:
                    await wire.lost.wait()
                finally:
                    self._wire = None
                    wire.abort()
                self._trouble = wire.reason
                _log.warning("lost Redis at %s:%d: %s", self._host, self._port, self._trouble)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _connect(self, wire: "_Wire") -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: wire, self._host, self._port, ssl=self._tls)
        replies = await wire.send(b"".join(self._greeting), len(self._greeting))
        for reply in replies:
            if isinstance(reply, ServiceError):
                raise reply


class _Wire(asyncio.Protocol):
    """One connection from its start to its end."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(
            protocolError=ServiceError, replyError=_refusal, notEnoughData=NOTHING
        )
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int]] = deque()
        self._partial: list[Any] = []
        self.outstanding = 0
        self.lost = asyncio.Event()
        self.reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)

    def send(self, payload: bytes, replies: int) -> asyncio.Future[list[Any]]:
        if self._transport is None or self.reason:
            raise ServiceError(f"Redis at {self._address}: {self.reason or 'not connected yet'}")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((future, replies))
        self.outstanding += replies
        self._transport.write(payload)
        return future

    def data_received(self, data: bytes) -> None:
        reader, partial = self._reader, self._partial
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not NOTHING:
                if not self._waiting:
                    self._end("it sent a reply that nobody asked for")
                    return
                partial.append(reply)
                self.outstanding -= 1
                future, replies = self._waiting[0]
                if len(partial) == replies:
                    self._waiting.popleft()
                    if not future.done():  # its caller may have given up
                        future.set_result(partial)
                    partial = self._partial = []
        except ServiceError as error:  # what follows on this connection cannot be understood
            self._end(f"it broke the protocol: {shorten(error)}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(shorten(exc) if exc else "it closed the connection")

    def abort(self) -> None:
        self._end("the connection was closed here")

    def _end(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self.reason:
            return
        self.reason = reason
        self.lost.set()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(ServiceError(f"Redis at {self._address}: {reason}"))
        self.outstanding = 0
