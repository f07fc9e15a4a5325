"""The pool keeps good connections, drops doubtful ones, and never mixes up two answers."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from mlplatform.clients.triton import TritonLink
from mlplatform.errors import ServiceError
from tests.unit.serving.triton.test_wire import answer, http

SECONDS = 5.0  # deadline of what should take milliseconds

Behaviour = Callable[["Server", bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A small real server; `behaviour` answers each request that it has read completely."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.requests: list[bytes] = []
        self.url = ""
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the connections or requests."""
        while not condition():
            await self._changed.wait()

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        self._note()
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields.get(b"Content-Length", 0)))
                self.requests.append(head)
                self._note()
                await self._behaviour(self, body, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            self._note()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    behaviour: Behaviour, connections: int = 8
) -> AsyncIterator[tuple[Server, TritonLink]]:
    server = Server(behaviour)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    link = TritonLink(server.url, "flight_delay", 3, connections=connections)
    try:
        async with asyncio.timeout(SECONDS):
            yield server, link
    finally:
        await link.close()
        listening.close()
        for writer in tuple(server.open):
            writer.close()
        async with asyncio.timeout(SECONDS):
            await server.until(lambda: not server.open)  # none outlives its test


def echoed(body: bytes) -> bytes:
    """Triton's answer whose probabilities are the features [N, 1] that it was sent."""
    start = body.index(b"}}]}") + 4
    values = np.frombuffer(body[start:], "<f4").tolist()
    _, _, length, content = answer(values)
    return http(content, f"Inference-Header-Content-Length: {length}")


async def echo(_: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(echoed(body))


def ask(value: float = 0.5) -> Any:
    return np.array([[value]], np.float32)


def test_requests_after_each_other_use_one_connection() -> None:
    async def scenario() -> None:
        async with serving(echo) as (server, link):
            answers = [float((await link.infer(ask(index / 64)))[0]) for index in range(64)]

            assert [index / 64 for index in range(64)] == answers
            assert 1 == server.connections

    asyncio.run(scenario())


def test_many_callers_get_their_own_answers_over_few_connections() -> None:
    async def slow(_: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(random.random() / 500)  # noqa: S311 (mixes the order up)
        writer.write(echoed(body))

    async def scenario() -> None:
        async with serving(slow, connections=3) as (server, link):
            found = await asyncio.gather(*(link.infer(ask(index / 256)) for index in range(256)))

            assert [index / 256 for index in range(256)] == [float(one[0]) for one in found]
            assert 3 == server.connections

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(8))
def test_an_answer_in_random_pieces_is_the_same_answer(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret)

    async def pieces(_: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        raw = echoed(body)
        while raw:
            cut = chance.randint(1, max(1, len(raw) // 3))
            writer.write(raw[:cut])
            raw = raw[cut:]
            await writer.drain()
            await asyncio.sleep(0.0005)  # so that the pieces are read one by one

    async def scenario() -> None:
        async with serving(pieces) as (server, link):
            for value in (0.25, 0.5):
                assert [value] == (await link.infer(ask(value))).tolist()
            assert 1 == server.connections

    asyncio.run(scenario())


def test_a_connection_that_the_server_closed_in_between_is_replaced() -> None:
    async def scenario() -> None:
        async with serving(echo) as (server, link):
            await link.infer(ask())
            for writer in tuple(server.open):
                writer.close()
            answers = [(await link.infer(ask(value))).tolist() for value in (0.25, 0.75)]

            assert [[0.25], [0.75]] == answers
            assert 2 == server.connections

    asyncio.run(scenario())


def test_a_request_that_crosses_the_servers_goodbye_is_sent_once_more() -> None:
    async def second_is_dropped(server: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 2:
            writer.transport.abort()
        else:
            writer.write(echoed(body))

    async def scenario() -> None:
        async with serving(second_is_dropped) as (server, link):
            await link.infer(ask())
            assert [0.25] == (await link.infer(ask(0.25))).tolist()

            assert (3, 2) == (len(server.requests), server.connections)

    asyncio.run(scenario())


def test_a_server_that_always_drops_is_asked_no_third_time() -> None:
    async def later_ones_are_dropped(
        server: Server, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if len(server.requests) > 1:
            writer.transport.abort()
        else:
            writer.write(echoed(body))

    async def scenario() -> None:
        async with serving(later_ones_are_dropped) as (server, link):
            await link.infer(ask())
            with pytest.raises(ServiceError, match="hung up before it had answered"):
                await link.infer(ask())

            assert 3 == len(server.requests)

    asyncio.run(scenario())


def test_a_request_on_a_new_connection_is_not_sent_again() -> None:
    async def dropped(_: Server, __: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def scenario() -> None:
        async with serving(dropped) as (server, link):
            with pytest.raises(ServiceError, match="hung up before it had answered"):
                await link.infer(ask())

            assert 1 == len(server.requests)

    asyncio.run(scenario())


def test_half_an_answer_fails_and_is_not_asked_for_again() -> None:
    async def second_is_cut(server: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        raw = echoed(body)
        if len(server.requests) == 2:
            writer.write(raw[: len(raw) // 2])
            writer.close()
        else:
            writer.write(raw)

    async def scenario() -> None:
        async with serving(second_is_cut) as (server, link):
            await link.infer(ask())
            with pytest.raises(ServiceError, match="hung up before it had answered"):
                await link.infer(ask())
            assert [0.5] == (await link.infer(ask())).tolist()

            assert 3 == len(server.requests)

    asyncio.run(scenario())


def test_a_cancelled_request_never_gives_its_answer_to_the_next_one() -> None:
    release = asyncio.Event()

    async def first_is_late(server: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            await release.wait()
        writer.write(echoed(body))

    async def scenario() -> None:
        async with serving(first_is_late, connections=1) as (server, link):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(link.infer(ask(0.125)), 0.05)
            release.set()

            assert [0.75] == (await link.infer(ask(0.75))).tolist()
            assert 2 == server.connections

    asyncio.run(scenario())


def test_a_caller_that_waits_for_its_turn_can_give_up() -> None:
    release = asyncio.Event()

    async def held(_: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(echoed(body))

    async def scenario() -> None:
        async with serving(held, connections=1) as (server, link):
            first = asyncio.create_task(link.infer(ask(0.25)))
            await server.until(lambda: bool(server.requests))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(link.infer(ask(0.5)), 0.05)
            release.set()

            assert [0.25] == (await first).tolist()
            assert [0.75] == (await link.infer(ask(0.75))).tolist()
            assert 1 == server.connections

    asyncio.run(scenario())


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    taken = asyncio.Event()

    async def and_more(server: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(echoed(body))
        if len(server.requests) == 1:
            await writer.drain()
            await taken.wait()
            writer.write(http(b"stray"))

    async def scenario() -> None:
        async with serving(and_more) as (server, link):
            await link.infer(ask(0.25))
            taken.set()
            await server.until(lambda: not server.open)  # the link hangs up
            assert [0.75] == (await link.infer(ask(0.75))).tolist()

            assert 2 == server.connections

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked"
        ),
        pytest.param(http(b"ok") + b"HTTP/1.1 200 OK\r\n", id="two answers"),
        pytest.param(b"-ERR unknown command\r\n\r\n", id="another protocol"),
    ],
)
def test_an_answer_that_cannot_be_trusted_ends_the_connection(raw: bytes) -> None:
    async def odd(server: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw if len(server.requests) == 1 else echoed(body))

    async def scenario() -> None:
        async with serving(odd) as (server, link):
            with pytest.raises(ServiceError, match="refused"):
                await link.infer(ask())
            assert [0.75] == (await link.infer(ask(0.75))).tolist()

            assert 2 == server.connections

    asyncio.run(scenario())


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 No", "503 Later"])
def test_a_refusal_carries_tritons_reason_and_keeps_the_connection(status: str) -> None:
    async def refuse(server: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        refusal = http(b'{"error":"unexpected shape"}', status=status)
        writer.write(refusal if len(server.requests) == 1 else echoed(body))

    async def scenario() -> None:
        async with serving(refuse) as (server, link):
            with pytest.raises(ServiceError, match=rf"\({status[:3]}\): unexpected shape$"):
                await link.infer(ask())
            await link.infer(ask())

            assert 1 == server.connections

    asyncio.run(scenario())


def test_a_connection_that_the_server_will_close_is_not_used_again() -> None:
    async def closing(_: Server, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(echoed(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    async def scenario() -> None:
        async with serving(closing) as (server, link):
            await link.infer(ask())
            await link.infer(ask())

            assert 2 == server.connections

    asyncio.run(scenario())


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    async def scenario() -> None:
        async with serving(echo) as (server, _):
            url = server.url
        link = TritonLink(url, "flight_delay", 3)
        with pytest.raises(ServiceError, match="cannot be reached"):
            await link.infer(ask())

        assert not await link.ready()
        await link.close()

    asyncio.run(scenario())


def test_a_server_that_comes_back_is_used_again() -> None:
    async def scenario() -> None:
        async with serving(echo) as (server, link):
            await link.infer(ask())
            port = int(server.url.rpartition(":")[2])
        link = TritonLink(server.url, "flight_delay", 3)
        with pytest.raises(ServiceError, match="cannot be reached"):
            await link.infer(ask())
        again = Server(echo)
        async with await asyncio.start_server(again.handle, "127.0.0.1", port):
            assert [0.25] == (await link.infer(ask(0.25))).tolist()
            await link.close()
            await again.until(lambda: not again.open)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "expected"), [("200 OK", True), ("400 Bad Request", False), ("503 Later", False)]
)
def test_readiness_is_what_the_server_says_of_this_version(status: str, expected: bool) -> None:
    async def say(_: Server, __: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"", status=status))

    async def scenario() -> None:
        async with serving(say) as (server, link):
            assert expected == await link.ready()
            assert server.requests[0].startswith(b"GET /v2/models/flight_delay/versions/3/ready ")

    asyncio.run(scenario())


def test_closing_fails_the_requests_under_way_and_the_later_ones() -> None:
    async def silent(_: Server, __: bytes, ___: asyncio.StreamWriter) -> None:
        return

    async def scenario() -> None:
        async with serving(silent, connections=2) as (server, link):
            waiting = [asyncio.create_task(link.infer(ask())) for _ in range(3)]
            await server.until(lambda: len(server.requests) == 2)
            await link.close()
            failures = await asyncio.gather(*waiting, return_exceptions=True)

            assert 3 * [ServiceError] == [
                ServiceError if isinstance(failure, ServiceError) else failure
                for failure in failures
            ]
            with pytest.raises(ServiceError, match="is closed"):
                await link.infer(ask())
            assert 2 == server.connections

    asyncio.run(scenario())
