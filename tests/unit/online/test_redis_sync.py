"""The blocking connection against a real server: replies, refusals, and broken connections."""

import socket
import threading
from contextlib import closing

import pytest

from feature_repo.online_store import connection_string, url
from local.processes import free_port
from mlplatform.clients.redis_protocol import Address, encode
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.errors import ServiceError, SettingsError


def test_replies_come_back_as_bytes_integers_none_and_lists(redis: RedisSync) -> None:
    assert b"OK" == redis.execute("SET", "a", "1")
    assert 3 == redis.execute("INCRBY", b"a", 2)
    assert [b"3", None] == redis.execute("MGET", "a", "b")


def test_a_pipeline_answers_in_order_and_an_empty_one_with_nothing(redis: RedisSync) -> None:
    commands = [("INCR", "n")] * 3000

    assert list(range(1, 3001)) == redis.pipeline(commands)
    assert [] == redis.pipeline([])


def test_a_large_value_comes_back_whole(redis: RedisSync) -> None:
    value = bytes(range(256)) * 20_000
    redis.execute("SET", "large", value)

    assert value == redis.execute("GET", "large")


def test_a_refused_command_is_a_service_error_and_the_connection_goes_on(redis: RedisSync) -> None:
    redis.execute("SET", "text", "x")

    with pytest.raises(ServiceError, match="refused a command: ERR value is not an integer"):
        redis.execute("INCR", "text")
    with pytest.raises(ServiceError, match="refused a command: WRONGTYPE"):
        redis.pipeline([("GET", "text"), ("LPUSH", "text", "y")])
    assert b"x" == redis.execute("GET", "text")


def test_raw_replies_hold_a_refusal_in_its_place(redis: RedisSync) -> None:
    payload = encode("SET", "a", "x") + encode("INCR", "a") + encode("GET", "a")

    first, second, third = redis.exchange(payload, 3)

    assert (b"OK", b"x") == (first, third)
    assert isinstance(second, ServiceError)


def test_nobody_listening_is_a_service_error_that_says_where() -> None:
    port = free_port()

    with pytest.raises(ServiceError, match=f"Redis at 127.0.0.1:{port}/0: .*check that it runs"):
        connect(f"redis://127.0.0.1:{port}/0").execute("PING")


def test_a_connection_that_the_server_ended_fails_once_and_is_made_again(
    redis: RedisSync, redis_url: str
) -> None:
    with connect(redis_url) as other:
        other.execute("CLIENT", "KILL", "ID", redis.execute("CLIENT", "ID"))

    with pytest.raises(ServiceError, match="check that it runs"):
        redis.execute("PING")
    assert b"PONG" == redis.execute("PING")


def test_a_server_that_does_not_answer_is_given_up_after_the_timeout() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]

        with pytest.raises(ServiceError, match="timed out"):
            connect(f"redis://127.0.0.1:{port}/0", timeout_seconds=0.2).execute("PING")


def test_a_server_that_speaks_something_else_is_a_service_error() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as web:

        def answer() -> None:
            connection, _ = web.accept()
            with closing(connection):
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServiceError, match=r"Protocol error.*check that it runs"):
            connect(f"redis://127.0.0.1:{web.getsockname()[1]}/0").execute("PING")
        thread.join()


def test_the_url_chooses_the_database(redis: RedisSync, redis_url: str) -> None:
    with connect(redis_url.removesuffix("0") + "3") as third:
        third.execute("SET", "only", "here")

    assert redis.execute("GET", "only") is None


def test_a_wrong_password_is_refused_and_not_shown(redis_url: str) -> None:
    with_password = redis_url.replace("redis://", "redis://user:s3cret%40@")

    with pytest.raises(ServiceError) as caught:
        connect(with_password).execute("PING")
    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"
    assert "s3cret" not in repr(Address.of(with_password))


@pytest.mark.parametrize(
    "text", ["localhost:6379", "http://h:1/0", "redis://", "redis://h:x/0", "redis://:s3@h:1/db"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ServiceError, match=r"write redis://") as caught:
        connect(text)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "redis://127.0.0.1:6379/0",
        "redis://:secret@h:1/2",
        "rediss://me:a%2Cb%3D%22%C3%A9%2F@h:1/0",
        "redis://u:123@h:1/0",
        "redis://u:true@h:1/0",
    ],
)
def test_an_address_survives_feasts_form_of_it(text: str) -> None:
    assert Address.of(text) == Address.of(url(connection_string(text)))


@pytest.mark.parametrize(
    "text", ["a:1,b:2,db=0", "a:1,ssl_ca_certs=x"], ids=["two servers", "unknown option"]
)
def test_feasts_form_with_what_the_writer_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="connection_string has"):
        url(text)
