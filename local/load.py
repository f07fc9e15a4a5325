"""Open-loop load over kept-alive HTTP: requests leave on a schedule, whatever the answers do.

A closed loop waits for an answer before the next request and so measures a slow server kindly
(coordinated omission). Here each request has the moment at which it should leave, and its latency
counts from there.

It refuses nothing that the server answers: a status is a result. A connection that breaks without
an answer is a lost request, counted as status 0.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self, cast
from urllib.parse import urlsplit

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_IDLE_SECONDS: Final = 2.0
"""A connection that nobody has used for so long is not used again: a server may close it (the
gateway after five seconds) at the very moment at which a request leaves, which nobody then gets."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request."""

    index: int
    status: int
    """0: the connection broke or the time was up."""
    body: bytes
    due: float
    """When it should have left, on the monotonic clock, in seconds."""
    sent: float
    done: float

    @property
    def seconds(self) -> float:
        """From the moment at which it should have left to the whole answer."""
        return self.done - self.due


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one open request."""

    def __init__(self) -> None:
        self.open = True
        self.used = time.monotonic()
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What asyncio gives a TCP protocol; uvloop's is none of its subclasses.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, payload: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self.answer = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self.open = False
            self.answer.set_result((0, b""))
        else:
            self._transport.write(payload)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(_END)
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end]).lower()
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        end = head_end + len(_END) + length
        if len(self._buffer) < end:
            return
        body = bytes(self._buffer[head_end + len(_END) : end])
        del self._buffer[:end]
        if b"connection: close" in head:
            self.close()
        self._finish(int(head[9:12]), body)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.open = False
        self._finish(0, b"")

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def _finish(self, status: int, body: bytes) -> None:
        answer, self.answer = self.answer, None
        if answer is not None and not answer.done():
            answer.set_result((status, body))


class Client:
    """Kept-alive connections to one server; as many as there are open requests."""

    def __init__(self, url: str, *, timeout_seconds: float = 10) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._timeout = timeout_seconds
        self._free: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._free:
            self._free.pop().close()

    def request(self, path: str, body: bytes) -> bytes:
        """Return a POST of a JSON body as it goes over the wire."""
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def exchange(self, payload: bytes) -> tuple[int, bytes]:
        """Send one request and return status and body; status 0 when there was no answer."""
        connection = None
        while self._free and connection is None:
            candidate = self._free.pop()
            if candidate.open and time.monotonic() - candidate.used < _IDLE_SECONDS:
                connection = candidate
            else:
                candidate.close()
        try:
            async with asyncio.timeout(self._timeout):
                if connection is None:
                    _, connection = await asyncio.get_running_loop().create_connection(
                        _Connection, self._host, self._port
                    )
                status, body = await connection.send(payload)
        except (OSError, TimeoutError):
            if connection is not None:
                connection.close()
            return 0, b""
        if connection.open:
            connection.used = time.monotonic()
            self._free.append(connection)
        return status, body


async def open_loop(
    client: Client,
    payloads: Iterable[bytes],
    per_second: float,
    *,
    before: Callable[[int], Awaitable[None]] | None = None,
    after: Callable[[Answer], None] | None = None,
) -> list[Answer]:
    """Send the payloads at an even pace and return their answers in the order of sending.

    Args:
        client: Where to.
        payloads: Whole HTTP requests.
        per_second: The pace.
        before: Awaited before each request leaves; what it takes counts as the request's latency.
        after: Called with each answer as it comes; what it raises ends the load.
    """
    answers: dict[int, Answer] = {}

    async def one(index: int, payload: bytes, due: float) -> None:
        sent = time.monotonic()
        status, body = await client.exchange(payload)
        answer = Answer(index, status, body, due, sent, time.monotonic())
        answers[index] = answer
        if after is not None:
            after(answer)

    start = time.monotonic() + 0.05
    async with asyncio.TaskGroup() as group:  # an error in one of them ends the load
        for index, payload in enumerate(payloads):
            due = start + index / per_second
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if before is not None:
                await before(index)
            group.create_task(one(index, payload, due))
    return [answers[index] for index in sorted(answers)]
