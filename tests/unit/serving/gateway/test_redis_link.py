"""One connection that all share: pipelining, deadlines of callers, and every way it can break."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.clients.redis_link import RedisLink
from mlplatform.clients.redis_protocol import encode
from mlplatform.errors import ServiceError
from tests.unit.serving.gateway.conftest import RedisProcess


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def linked(url: str, limit: int = 10_000) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, name="test", limit=limit)
    await link.start()
    try:
        await until(lambda: link.connected)
        yield link
    finally:
        await link.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(work)


async def ask(link: RedisLink, *parts: bytes | str | float) -> Any:
    return (await link.send(encode(*parts), 1))[0]


def test_commands_come_back_in_order_and_with_their_own_types(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:
            payload = b"".join(
                [
                    encode("SET", "a", b"\x00\xff\r\n"),
                    encode("GET", "a"),
                    encode("GET", "missing"),
                    encode("INCRBY", "n", 7),
                    encode("MGET", "a", "missing"),
                ]
            )
            replies = await link.send(payload, 5)

            assert [b"OK", b"\x00\xff\r\n", None, 7, [b"\x00\xff\r\n", None]] == replies

    run(work())


def test_replies_of_many_concurrent_callers_never_cross(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:

            async def caller(number: int) -> None:
                for turn in range(20):
                    value = f"{number}:{turn}:" + "x" * (number * 37 % 5000)
                    payload = encode("SET", f"k{number}", value) + encode("GET", f"k{number}")
                    assert [b"OK", value.encode()] == await link.send(payload, 2)

            await asyncio.gather(*(caller(number) for number in range(100)))

            assert link.outstanding == 0
            assert b"connected_clients:1" in await ask(link, "INFO", "clients")

    run(work())


def test_a_refused_command_is_a_service_error_among_the_replies(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:
            payload = encode("SET", "a", "1") + encode("LPUSH", "a", "x") + encode("GET", "a")
            first, refused, last = await link.send(payload, 3)

            assert (b"OK", b"1") == (first, last)
            assert isinstance(refused, ServiceError)
            assert "WRONGTYPE" in str(refused)

    run(work())


def test_a_caller_that_gave_up_does_not_disturb_the_next(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:
            redis.command("CLIENT", "PAUSE", "300")
            started = time.monotonic()
            late = link.send(encode("ECHO", "late"), 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await late
            waited = time.monotonic() - started

            assert waited < 0.25
            assert b"next" == await ask(link, "ECHO", "next")
            assert link.connected

    run(work())


def test_it_refuses_more_outstanding_replies_than_its_limit(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url, limit=3) as link:
            redis.command("CLIENT", "PAUSE", "300")
            sent = [link.send(encode("ECHO", str(i)), 1) for i in range(3)]
            with pytest.raises(ServiceError, match="at most 3 may be outstanding"):
                link.send(encode("ECHO", "4"), 1)
            sent[1].cancel()  # its reply is still to come

            assert 3 == link.outstanding
            assert [b"0"] == await sent[0]
            assert [b"2"] == await sent[2]
            assert b"5" == await ask(link, "ECHO", "5")

    run(work())


def test_a_killed_server_fails_what_is_open_and_refuses_at_once_until_it_is_back(
    redis: RedisProcess,
) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:
            await ask(link, "SET", "kept", "1")
            redis.signal(signal.SIGSTOP)
            open_ones = [link.send(encode("GET", "kept"), 1) for _ in range(10)]
            redis.kill()
            failed = await asyncio.gather(*open_ones, return_exceptions=True)

            assert {ServiceError} == {type(error) for error in failed}
            await until(lambda: not link.connected)
            started = time.perf_counter()
            for _ in range(100):
                with pytest.raises(ServiceError, match="tried again by itself"):
                    link.send(encode("PING"), 1)
            assert time.perf_counter() - started < 0.1

            await asyncio.to_thread(redis.start)
            await until(lambda: link.connected)
            assert b"1" == await ask(link, "GET", "kept")  # from its append-only file

    run(work())


def test_it_survives_a_server_that_is_killed_again_and_again(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:
            for turn in range(3):
                redis.kill()
                await until(lambda: not link.connected)
                await asyncio.to_thread(redis.start)
                await until(lambda: link.connected)
                assert str(turn).encode() == await ask(link, "ECHO", str(turn))

    run(work())


def test_it_starts_before_its_server_does(redis: RedisProcess) -> None:
    async def work() -> None:
        redis.kill()
        link = RedisLink(redis.url, name="early")
        with pytest.raises(ServiceError, match="not started"):
            link.send(encode("PING"), 1)
        await link.start()
        await link.start()  # a second start changes nothing
        with pytest.raises(ServiceError, match="early"):
            link.send(encode("PING"), 1)
        await asyncio.to_thread(redis.start)
        await until(lambda: link.connected)

        assert b"PONG" == await ask(link, "PING")
        await link.close()
        await link.close()
        with pytest.raises(ServiceError, match="closed"):
            link.send(encode("PING"), 1)

    run(work())


def test_closing_fails_what_is_outstanding(redis: RedisProcess) -> None:
    async def work() -> None:
        async with linked(redis.url) as link:
            redis.command("CLIENT", "PAUSE", "300")
            future = link.send(encode("PING"), 1)
            await link.close()

            with pytest.raises(ServiceError, match="closed here"):
                await future

    run(work())


@pytest.mark.parametrize(
    "user",
    [pytest.param("", id="password only"), pytest.param("gateway", id="user and password")],
)
def test_it_authenticates_with_what_the_url_says(
    make_redis: Callable[..., RedisProcess], user: str
) -> None:
    redis = make_redis(
        "--requirepass", "p@ss:word", "--user", "gateway", "on", ">p@ss:word", "~*", "+@all"
    )

    async def work() -> None:
        async with linked(f"redis://{user}:p%40ss%3Aword@127.0.0.1:{redis.port}/3") as link:
            shown = await ask(link, "CLIENT", "LIST")

            assert b"name=test" in shown
            assert b"db=3" in shown
            assert f"user={user or 'default'}".encode() in shown

    run(work())


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:secret@"])
def test_wrong_credentials_never_connect_and_are_not_shown(
    make_redis: Callable[..., RedisProcess], credentials: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis = make_redis("--requirepass", "right")

    async def work() -> None:
        link = RedisLink(f"redis://{credentials}127.0.0.1:{redis.port}/0", name="test")
        await link.start()
        await until(lambda: "no connection" in caplog.text)
        with pytest.raises(ServiceError, match=r"NOAUTH|WRONGPASS") as refused:
            link.send(encode("PING"), 1)
        await link.close()

        assert not link.connected
        for secret in ("wrong", "secret"):
            assert secret not in str(refused.value) + caplog.text

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"-LOADING Redis is loading the dataset in memory\r\n", id="loading"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(b"", id="closed at once"),
    ],
)
def test_a_server_that_does_not_greet_as_redis_is_not_a_connection(answer: bytes) -> None:
    async def work() -> None:
        met = 0

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal met
            met += 1
            await reader.read(1000)
            writer.write(answer * 3)
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            link = RedisLink(f"redis://127.0.0.1:{_port(server)}/0", name="test")
            await link.start()
            await until(lambda: met > 2)  # it goes on trying

            assert not link.connected
            await link.close()

    run(work())


def test_a_connection_that_breaks_the_protocol_is_given_up() -> None:
    async def work() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(b"+OK\r\n+PONG\r\n")
            await reader.read(1000)
            writer.write(b"+fine\r\n+more than was asked\r\n")
            await reader.read(1000)
            writer.close()

        async with (
            await asyncio.start_server(babble, "127.0.0.1", 0) as server,
            linked(f"redis://127.0.0.1:{_port(server)}") as link,
        ):
            assert b"fine" == await ask(link, "ECHO", "fine")
            with pytest.raises(ServiceError):
                await ask(link, "ECHO", "again")

    run(work())


def test_closing_while_it_connects_leaves_no_connection() -> None:
    async def work() -> None:
        met, gone = asyncio.Event(), asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.set()
            with contextlib.suppress(ConnectionResetError):
                await reader.read()  # until the client's end
            gone.set()
            writer.close()

        async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
            link = RedisLink(f"redis://127.0.0.1:{_port(server)}", name="test")
            await link.start()
            await met.wait()
            await link.close()
            async with asyncio.timeout(5):
                await gone.wait()

    run(work())


def test_an_error_that_nobody_expected_is_said_and_does_not_end_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        name = "x" * 64  # no label of a host's name may be so long: neither OSError nor ours
        link = RedisLink(f"redis://{name}.invalid:6379", name="test")
        await link.start()
        await until(lambda: "no connection" in caplog.text)
        with pytest.raises(ServiceError, match="tried again by itself"):
            link.send(encode("PING"), 1)
        await link.close()

        assert "Traceback" in caplog.text

    run(work())


def test_pauses_between_attempts_grow() -> None:
    async def work() -> None:
        times: list[float] = []

        async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            times.append(time.monotonic())
            writer.close()

        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            link = RedisLink(f"redis://127.0.0.1:{_port(server)}", name="test")
            await link.start()
            await until(lambda: len(times) > 5)
            await link.close()

        # Sleeps are never shorter than asked: 20, 40, 80, 160 and 320 ms lie between six attempts.
        assert times[5] - times[0] > 0.6

    run(work())


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.one_of(st.binary(), st.text(), st.integers()), min_size=1))
def test_a_command_is_encoded_as_the_protocol_says(parts: list[bytes | str | int]) -> None:
    expected = b"*%d\r\n" % len(parts)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        expected += b"$%d\r\n%s\r\n" % (len(data), data)

    assert expected == encode(*parts)


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
