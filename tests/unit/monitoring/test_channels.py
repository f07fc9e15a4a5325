"""Alerts reach a real HTTP server, and a server that misbehaves costs seconds and no secret."""

import http.server
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest
from pydantic import SecretStr

from local.processes import free_port
from mlplatform.contracts.alert import Alert
from mlplatform.errors import ServiceError, SettingsError
from monitoring.channels import Console, Webhook, text
from tests.unit.monitoring.signals import USECASE, at

SECRET, TOKEN = "hooks-T0-xyzzy", "token-abc"
SECONDS = 1.0
ALERT = Alert(
    usecase=USECASE,
    name="DataFault",
    severity="page",
    state="firing",
    subject="temp, humid",
    summary="temp is null in 97 % of 480 rows",
    at=at(0),
)


class Receiver:
    """A webhook's server: answers these statuses in turn, the last one for good.

    A status may be `lost` (taken, then the connection ends), `slow` (no answer) or `drip` (one
    byte of it every tenth of a second).
    """

    def __init__(self) -> None:
        self.answers: list[int | str] = [200]
        self.bodies: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.over = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

            def do_POST(self) -> None:
                receiver.answer(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.bodies.append(json.loads(body))
        self.tokens.append(handler.headers["authorization"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            handler.send_response(answer)
            handler.send_header("Location", "/elsewhere")
            handler.end_headers()
        elif answer == "slow":
            self.over.wait(30)
        elif answer == "drip":
            for _ in range(300):
                if self.over.wait(0.1):
                    break
                handler.wfile.write(b"H")
        handler.close_connection = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def webhook(url: str) -> Webhook:
    return Webhook(SecretStr(url), SecretStr(TOKEN), timeout_seconds=SECONDS)


def test_an_alert_arrives_as_text_and_as_values(receiver: Receiver) -> None:
    webhook(receiver.url).send(ALERT)

    (body,) = receiver.bodies
    assert text(ALERT) == body["text"]
    assert ALERT == Alert.model_validate(
        {name: value for name, value in body["alert"].items() if name not in {"key", "runbook"}}
    )
    assert ("flight_delay/DataFault", "docs/operations.md#datafault") == (
        body["alert"]["key"],
        body["alert"]["runbook"],
    )
    assert [f"Bearer {TOKEN}"] == receiver.tokens


def test_the_text_says_what_where_and_what_to_read() -> None:
    assert (
        "FIRING page flight_delay DataFault (temp, humid): temp is null in 97 % of 480 rows\n"
        "Runbook: docs/operations.md#datafault" == text(ALERT)
    )


@pytest.mark.parametrize(
    "answers", [[500, 200], [429, 503, 204]], ids=["one error", "busy, then down"]
)
def test_a_server_that_comes_back_in_time_gets_it(
    receiver: Receiver, answers: list[int | str]
) -> None:
    receiver.answers = list(answers)
    webhook(receiver.url).send(ALERT)

    assert len(answers) == len(receiver.bodies)


def test_a_lost_answer_is_repeated_with_the_same_key(receiver: Receiver) -> None:
    receiver.answers = ["lost", 200]
    webhook(receiver.url).send(ALERT)

    first, second = receiver.bodies
    assert first == second


@pytest.mark.parametrize("answer", [500, 404, 302, "lost", "slow", "drip"])
def test_a_server_that_does_not_take_it_costs_no_more_than_the_timeout(
    receiver: Receiver, answer: int | str
) -> None:
    receiver.answers = [answer]
    began = time.monotonic()

    with pytest.raises(ServiceError, match=r"the webhook at http://127\.0\.0\.1 ") as raised:
        webhook(receiver.url).send(ALERT)

    assert time.monotonic() - began < 2 * SECONDS
    assert answer not in {404, 302} or len(receiver.bodies) == 1  # no use in trying again
    assert SECRET not in str(raised.value)


def test_nobody_there_is_an_error_in_time() -> None:
    began = time.monotonic()

    with pytest.raises(ServiceError, match="cannot be reached"):
        webhook(f"http://127.0.0.1:{free_port()}/").send(ALERT)

    assert time.monotonic() - began < 2 * SECONDS


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com/x",
        "ftp://host/x",
        "https://user:hunter2@host/x",
        "http://host:port/x",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="https://host") as raised:
        webhook(url)

    assert "hunter2" not in str(raised.value)
    assert "port/x" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "token"), [("/a b", TOKEN), ("/a", "two\nlines")], ids=["path", "token"]
)
def test_what_cannot_be_sent_is_not_shown_either(path: str, token: str) -> None:
    hook = Webhook(SecretStr(f"http://127.0.0.1:1{path}"), SecretStr(token), timeout_seconds=1)

    with pytest.raises(ServiceError, match="not understood") as raised:
        hook.send(ALERT)

    assert "a b" not in str(raised.value)
    assert "two" not in str(raised.value)


def test_secrets_reach_no_log(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers = [404]
    with caplog.at_level(logging.DEBUG), pytest.raises(ServiceError):
        webhook(receiver.url).send(ALERT)

    assert SECRET not in caplog.text
    assert TOKEN not in caplog.text


def test_the_console_shows_the_moment_and_the_text() -> None:
    stream = io.StringIO()
    Console(stream).send(ALERT)

    assert f"2013-07-01 00:00Z {text(ALERT)}\n" == stream.getvalue()


def test_a_console_that_is_closed_keeps_the_alert_for_later() -> None:
    stream = io.StringIO()
    stream.close()

    with pytest.raises(ServiceError, match="console"):
        Console(stream).send(ALERT)
