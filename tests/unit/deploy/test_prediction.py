"""The request that a deployment ends with."""

import http.server
import json
import shlex
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.prediction import moved, predict
from mlplatform.errors import ServiceError

NOW = datetime(2013, 4, 2, 15, 30, 1, 500, tzinfo=UTC)
EXAMPLE = {
    "flight_key": "2013-T",
    "scheduled_arrival": "2024-06-01T15:30:00Z",
    "event_timestamp": "2024-06-01T12:00:00Z",
    "distance": 100,
}


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[Any]]]:
    """A server that describes itself as the gateway does, and what it was asked."""
    asked: list[Any] = []
    content = {"application/json": {"examples": {"one": {"value": EXAMPLE}}}}
    paths = {"/v1/flight_delay/score": {"post": {"requestBody": {"content": content}}}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"paths": paths})

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer({"score": 0.2, "fallback": False})

        def _answer(self, body: Any) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_example_is_moved_to_the_platforms_time_as_a_whole() -> None:
    body = moved(EXAMPLE, NOW)

    assert ("2013-04-02T15:30:01Z", "2013-04-02T19:00:01Z") == (
        body["event_timestamp"],
        body["scheduled_arrival"],
    )
    assert ("2013-T", 100) == (body["flight_key"], body["distance"])


def test_the_gateway_is_asked_for_its_own_example(gateway: tuple[str, list[Any]]) -> None:
    url, asked = gateway

    answered = predict(url, "flight_delay", NOW)

    assert 0.2 == answered.answer["score"]
    (body,) = asked
    assert moved(EXAMPLE, NOW) == {key: body[key] for key in EXAMPLE}


def test_each_request_has_a_name_of_its_own(gateway: tuple[str, list[Any]]) -> None:
    url, asked = gateway

    for _ in range(2):
        predict(url, "flight_delay", NOW)

    assert 2 == len({body["request_id"] for body in asked})


def test_the_line_for_a_shell_asks_the_same(gateway: tuple[str, list[Any]]) -> None:
    answered = predict(gateway[0], "flight_delay", NOW)

    words = shlex.split(answered.curl("http://127.0.0.1:8080"))

    assert "http://127.0.0.1:8080/v1/flight_delay/score" in words
    assert answered.body == words[-1]


def test_a_use_case_that_is_not_served_is_named(gateway: tuple[str, list[Any]]) -> None:
    with pytest.raises(ServiceError, match="is fraud among its use cases"):
        predict(gateway[0], "fraud", NOW)


def test_a_gateway_that_is_away_is_said() -> None:
    with pytest.raises(ServiceError, match="the gateway does not answer"):
        predict("http://127.0.0.1:1", "flight_delay", NOW)
