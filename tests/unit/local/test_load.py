"""Open-loop load against a real server on the loopback address."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from local.load import Answer, Client, open_loop

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(answer: Callable[[int, bytes], Awaitable[bytes | None]]) -> AsyncIterator[str]:
    """Serve HTTP/1.1: `answer` gets the request's number and body; None breaks the connection."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        with (
            contextlib.closing(writer),
            contextlib.suppress(
                asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError
            ),
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body, number = await reader.readexactly(length), served
                served += 1
                content = await answer(number, body)
                if content is None:
                    break
                reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
                for cut in range(0, len(reply), 7):  # in small pieces, as a network may
                    writer.write(reply[cut : cut + 7])
                    await writer.drain()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def echo(_number: int, body: bytes) -> bytes:
    return body


def load(
    answer: Callable[[int, bytes], Awaitable[bytes | None]],
    count: int,
    per_second: float,
    before: Callable[[int], Awaitable[None]] | None = None,
    timeout_seconds: float = 5,
) -> list[Answer]:
    async def run() -> list[Answer]:
        async with server(answer) as url, Client(url, timeout_seconds=timeout_seconds) as client:
            payloads = [client.request("/score", b"%d" % number) for number in range(count)]
            return await open_loop(client, payloads, per_second, before=before)

    return asyncio.run(run())


def test_every_request_is_answered_in_the_order_of_sending() -> None:
    answers = load(echo, 50, 500)

    assert [b"%d" % number for number in range(50)] == [answer.body for answer in answers]
    assert {200} == {answer.status for answer in answers}


def test_a_slow_answer_delays_no_other_request() -> None:
    async def first_is_slow(number: int, body: bytes) -> bytes:
        await asyncio.sleep(0.5 if number == 0 else 0)
        return body

    answers = load(first_is_slow, 20, 200)

    assert answers[0].done > max(answer.sent for answer in answers)
    assert answers[0].seconds > 0.45


def test_latency_counts_from_when_a_request_should_have_left() -> None:
    async def stall(index: int) -> None:
        await asyncio.sleep(0.3 if index == 5 else 0)

    answers = load(echo, 10, 200, before=stall)

    assert answers[5].seconds > 0.25
    assert answers[6].seconds > 0.25  # it had to wait for the one before it
    assert answers[6].done - answers[6].sent < 0.25


def test_a_broken_connection_is_a_lost_request_and_the_next_ones_are_answered() -> None:
    async def breaks(number: int, body: bytes) -> bytes | None:
        return None if number == 3 else body

    answers = load(breaks, 10, 100)

    assert [3] == [answer.index for answer in answers if answer.status == 0]
    assert 9 == sum(answer.status == 200 for answer in answers)


def test_a_request_without_an_answer_is_lost_when_the_time_is_up() -> None:
    async def hangs(number: int, body: bytes) -> bytes:
        await asyncio.sleep(60 if number == 0 else 0)
        return body

    answers = load(hangs, 3, 100, timeout_seconds=0.3)

    assert [0, 200, 200] == [answer.status for answer in answers]


def test_a_server_that_is_away_loses_the_request() -> None:
    async def run() -> tuple[int, bytes]:
        async with Client("http://127.0.0.1:1") as client:
            return await client.exchange(client.request("/score", b"{}"))

    assert (0, b"") == asyncio.run(run())


@pytest.mark.parametrize("idle", [0.0, 60.0])
def test_a_connection_that_was_idle_for_long_is_not_used_again(
    idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.load._IDLE_SECONDS", idle)

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the first request, and close at the second."""
        with contextlib.closing(writer):
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await reader.read(1)

    async def run() -> list[int]:
        async with await asyncio.start_server(once, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            async with Client(url) as client:
                payload = client.request("/score", b"{}")
                return [(await client.exchange(payload))[0] for _ in range(2)]

    assert ([200, 200] if idle == 0 else [200, 0]) == asyncio.run(run())
