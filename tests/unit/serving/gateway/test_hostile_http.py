"""Requests that mean harm, over bare sockets: each is answered or hung up on, nothing breaks.

Whatever comes, the status is no 5xx, the answer tells nothing of the inside, and the process goes
on: after each case the same worker answers a good request.
"""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from tests.unit.serving.gateway.stack import SCORE, USECASE, Gateway, request, wait_for

GOOD = msgspec.json.encode(request())
INFER = f"/v2/models/{USECASE}/infer"
INSIDE = re.compile(rb"Traceback|File \"|/work|site-packages|0x[0-9a-f]{6}|msgspec|127\.0\.0\.1:")
"""What an answer never shows."""


@pytest.fixture(scope="module", autouse=True)
def _one_worker_survives(gateway: Gateway) -> Iterator[None]:
    before = gateway.workers()
    yield

    assert before == gateway.workers()
    assert "Traceback" not in gateway.log.read_text()


def exchange(gateway: Gateway, payload: bytes) -> bytes:
    """Send raw bytes; return everything that comes back until the server hangs up or is done."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=8) as connection:
        received = b""
        try:
            connection.sendall(payload)
            while chunk := connection.recv(65536):
                received += chunk
        except (ConnectionError, TimeoutError):
            pass  # hung up on while we were still sending
        return received


def statuses(received: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]


def head(
    method: str = "POST",
    path: str = SCORE,
    *headers: str,
    length: int | str | None = None,
    kind: str | None = "application/json",
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", *headers]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(body: bytes, path: str = SCORE, *headers: str) -> bytes:
    return head("POST", path, "Connection: close", *headers, length=len(body)) + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head("POST", SCORE, "Transfer-Encoding: chunked", "Connection: close") + body + end


def infer(header: bytes, raw: bytes = b"", length: str | None = None) -> bytes:
    said = str(len(header)) if length is None else length
    return post(header + raw, INFER, f"Inference-Header-Content-Length: {said}")


def tensor(**changes: object) -> bytes:
    """An inference request whose first input is changed."""
    values: dict[str, dict[str, object]] = {
        name: {"name": name, "datatype": "BYTES", "shape": [1], "data": [value]}
        for name, value in request(distance=...).items()
    }
    values["distance"] = {"name": "distance", "datatype": "INT64", "shape": [1], "data": [100]}
    values["origin"].update(changes)
    return msgspec.json.encode({"inputs": list(values.values())})


def changed(**fields: bytes) -> bytes:
    """The good request with raw JSON in place of a field's value."""
    values = {name: msgspec.json.encode(value) for name, value in request().items()} | fields
    return b"{" + b",".join(b'"%b":%b' % (n.encode(), v) for n, v in values.items()) + b"}"


MEGABYTE = 1_048_576
CASES = [
    # Bodies
    pytest.param(post(b""), {400}, id="empty body"),
    pytest.param(head("POST", SCORE, "Connection: close"), {400}, id="no body and no length"),
    pytest.param(post(b"[" * 200_000), {400}, id="200,000 open brackets"),
    pytest.param(post(b'{"a":' * 100_000), {400}, id="100,000 open objects"),
    pytest.param(
        post(b"[" * 100_000 + b"]" * 100_000), {400, 422}, id="100,000 nested arrays that close"
    ),
    pytest.param(post(changed(distance=b"NaN")), {400}, id="NaN"),
    pytest.param(post(changed(distance=b"-Infinity")), {400}, id="minus infinity"),
    pytest.param(post(changed(distance=b"1e400")), {400, 422}, id="1e400"),
    pytest.param(post(changed(distance=b"-" + b"9" * 5000)), {422}, id="5,000 digits"),
    pytest.param(post(changed(distance=b"1e999999999")), {400, 422}, id="a huge exponent"),
    pytest.param(post(changed(dest=b'"' + b"A" * 500_000 + b'"')), {422}, id="a huge string"),
    pytest.param(post(changed(request_id=b'"\\u0000\\u0000"')), {200}, id="null escapes"),
    pytest.param(post(changed(dest=b'"\\ud800"')), {400}, id="half a surrogate pair"),
    pytest.param(post(changed(dest=b'"\xc3\x28"')), {400}, id="bad UTF-8"),
    pytest.param(post(changed(dest=b'"\xed\xa0\x80"')), {400}, id="a surrogate in UTF-8"),
    pytest.param(post(b"\xef\xbb\xbf" + GOOD), {400}, id="a byte order mark"),
    pytest.param(post(GOOD.decode().encode("utf-16")), {400}, id="UTF-16"),
    pytest.param(post(GOOD[:-1] + b',"distance":100}'), {200}, id="a key twice"),
    pytest.param(
        post(GOOD[:-1] + b',"__proto__":{"x":1}}'), {422}, id="a prototype for a JavaScript server"
    ),
    pytest.param(
        post(b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}"),
        {422},
        id="50,000 keys",
    ),
    pytest.param(post(b"[" + b",".join([b"{}"] * 100_000) + b"]"), {422}, id="100,000 rows"),
    pytest.param(post(GOOD + GOOD), {400}, id="two objects"),
    pytest.param(post(GOOD + b"\x00"), {400}, id="a null byte after it"),
    pytest.param(
        post(changed(event_timestamp=b'"0001-01-01T00:00:00+23:59"')), {422}, id="the year one"
    ),
    pytest.param(
        post(changed(event_timestamp=b'"2013-06-01T14:00:00' + b"0" * 1000 + b'Z"')),
        {422},
        id="a time of a thousand digits",
    ),
    # Lengths and chunks
    pytest.param(
        head("POST", SCORE, "Connection: close", length=MEGABYTE + 1) + b"x",
        {413},
        id="a length beyond the limit",
    ),
    pytest.param(head(length=2**63) + b"x", {400, 413}, id="a length beyond 63 bits"),
    pytest.param(head(length="9" * 40) + b"x", {400, 413}, id="a length of 40 digits"),
    pytest.param(head(length=-1) + b"x", {400}, id="a negative length"),
    pytest.param(head(length="0x10") + b"x" * 16, {400}, id="a length in hexadecimal"),
    pytest.param(head(length="+5") + b"hello", {400, 422}, id="a length with a sign"),
    pytest.param(
        head("POST", SCORE, "Content-Length: 5", length=6) + b"hello!", {400}, id="two lengths"
    ),
    pytest.param(
        head("POST", SCORE, "Transfer-Encoding: chunked", length=5) + b"0\r\n\r\n",
        {400},
        id="a length and chunks (smuggling)",
    ),
    pytest.param(
        head("POST", SCORE, "Transfer-Encoding: gzip, chunked", "Connection: close") + b"0\r\n\r\n",
        {400, 415},
        id="another transfer encoding",
    ),
    pytest.param(
        head("POST", SCORE, "Transfer-Encoding: xchunked") + b"0\r\n\r\n",
        {400},
        id="an unknown transfer encoding",
    ),
    pytest.param(chunked(GOOD[:10], GOOD[10:]), {200}, id="good chunks"),
    pytest.param(chunked(*[b"[" * 1000] * 3000), {413}, id="3 MB in chunks"),
    pytest.param(chunked(end=b"zz\r\n\r\n"), {400} | set(), id="a chunk without a size"),
    pytest.param(chunked(end=b"f" * 17 + b"\r\n"), set(), id="a chunk of 17 digits"),
    pytest.param(chunked(end=b"5;" + b"x" * 100_000 + b"\r\n"), set(), id="a long chunk extension"),
    # Heads
    pytest.param(b"\x00" * 1000, {400}, id="null bytes"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}, id="TLS"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", set(), id="HTTP/2"),
    pytest.param(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", {400}, id="another version of HTTP"),
    pytest.param(b"GET /\r\n\r\n", {400}, id="HTTP/0.9"),
    pytest.param(
        head("GET", "/livez", *(f"X-{n}: y" for n in range(5000)), "Connection: close"),
        {400, 431},
        id="5,000 headers",
    ),
    pytest.param(
        head("GET", "/livez", "X: " + "y" * 1_000_000, "Connection: close"),
        {400, 431},
        id="a header of a megabyte",
    ),
    pytest.param(
        head("GET", "/" + "a" * 100_000, "Connection: close"), {400, 404, 414}, id="a long path"
    ),
    pytest.param(
        head("GET", "/livez", "X: a\r\n folded", "Connection: close"), {400}, id="a folded header"
    ),
    pytest.param(
        head("GET", "/livez", "Host : spaced", "Connection: close"), {400}, id="a space in a name"
    ),
    pytest.param(
        head("POST", SCORE, "Content-Encoding: gzip", "Connection: close", length=4)
        + b"\x1f\x8b00",
        {415},
        id="a compressed body",
    ),
    pytest.param(
        head("POST", SCORE, "Connection: close", length=4, kind="text/html") + b"null",
        {415},
        id="another media type",
    ),
    pytest.param(
        head("POST", SCORE, "Connection: close", length=4, kind="application/json; charset=utf-16")
        + b"null",
        {415},
        id="another charset",
    ),
    pytest.param(
        head("POST", SCORE, "Connection: close", length=4, kind=None) + b"null",
        {415},
        id="no media type",
    ),
    # Methods and paths
    *(
        pytest.param(
            head(method, SCORE, "Connection: close", length=0), {405}, id=f"{method} score"
        )
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW")
    ),
    pytest.param(
        head("CONNECT", "example.com:443", "Connection: close"),
        {400, 404, 405},
        id="a proxy request",
    ),
    pytest.param(
        head("GET", "http://169.254.169.254/latest", "Connection: close"),
        {400, 404},
        id="another host's address",
    ),
    *(
        pytest.param(head("GET", path, "Connection: close"), {400, 404}, id=path[:40])
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//livez",
            "/livez/",
            "/livez%00",
            "/v1/%66light_delay/scor%65/x",
            "/v1/../livez",
            "/v1/flight_delay%252fscore",
            "/v1/nobody/score",
            "/v1//score",
            "/v2/repository/index",
            "/v2/systemsharedmemory/status",
            "/v2/models/stats",
            "/v2/models/flight_delay/config",
            "/v2/models/flight_delay/versions/99999999999999999999/ready",
            "/v2/models/__class__",
            "/v2/",
        )
    ),
    pytest.param(
        head("POST", "/v2/repository/models/flight_delay/unload", "Connection: close", length=0),
        {404},
        id="unload the model",
    ),
    # Tensors
    pytest.param(infer(tensor()), {200}, id="good tensors"),
    pytest.param(infer(b"{}"), {400}, id="no inputs"),
    pytest.param(infer(b'{"inputs":[]}'), {400}, id="an empty list of inputs"),
    pytest.param(infer(tensor(), length="-1"), {400}, id="a negative header length"),
    pytest.param(infer(tensor(), length="999999999"), {400}, id="a header beyond the body"),
    pytest.param(infer(tensor(), length="9" * 30), {400}, id="a header length of 30 digits"),
    pytest.param(
        infer(tensor(), length="\xb2"), {200, 400}, id="a header length that is a superscript"
    ),
    pytest.param(infer(tensor(), length="1e3"), {400}, id="a header length with an exponent"),
    pytest.param(infer(tensor(), b"left over"), {400}, id="bytes that belong to nothing"),
    pytest.param(infer(tensor(shape=[-1])), {400}, id="a negative shape"),
    pytest.param(infer(tensor(shape=[0])), {400}, id="no rows"),
    pytest.param(infer(tensor(shape=[2**62, 4])), {400}, id="a shape that overflows"),
    pytest.param(infer(tensor(shape=[10**30])), {400}, id="a shape beyond 64 bits"),
    pytest.param(infer(tensor(shape=[1] * 10_000)), {400}, id="10,000 dimensions"),
    pytest.param(infer(tensor(shape=[])), {400}, id="no dimensions"),
    pytest.param(infer(tensor(shape=[2])), {400}, id="fewer data than the shape"),
    pytest.param(infer(tensor(shape=[257], data=["JFK"] * 257)), {400}, id="too many rows"),
    pytest.param(infer(tensor(data=None)), {400}, id="no data"),
    pytest.param(infer(tensor(data=[["JFK"]])), {400}, id="nested data"),
    pytest.param(infer(tensor(data=[{"a": 1}])), {400}, id="an object for a string"),
    pytest.param(infer(tensor(datatype="object")), {400}, id="an unknown datatype"),
    pytest.param(infer(tensor(datatype="FP32", data=[1.0])), {400}, id="another datatype"),
    pytest.param(infer(tensor(name="distance")), {400}, id="an input twice"),
    pytest.param(infer(tensor(name="\ud7ff")), {422}, id="an unknown input"),
    pytest.param(
        infer(tensor(data=None, parameters={"binary_data_size": 10**9})), {400}, id="a huge size"
    ),
    pytest.param(
        infer(tensor(data=None, parameters={"binary_data_size": -4})), {400}, id="a negative size"
    ),
    pytest.param(
        infer(tensor(data=None, parameters={"binary_data_size": True})), {400}, id="a size of true"
    ),
    pytest.param(
        infer(tensor(data=None, parameters={"binary_data_size": 4}), struct.pack("<I", 2**32 - 1)),
        {400},
        id="a string longer than its tensor",
    ),
    pytest.param(
        infer(
            tensor(data=None, parameters={"binary_data_size": 7}), b"\x03\x00\x00\x00\xff\xfe\xfd"
        ),
        {400},
        id="a string that is not UTF-8",
    ),
    pytest.param(
        infer(tensor(data=None, parameters={"binary_data_size": 3}), b"\x03\x00\x00"),
        {400},
        id="half a length",
    ),
    pytest.param(
        infer(
            tensor(data=None, parameters={"shared_memory_region": "x", "shared_memory_offset": 0})
        ),
        {400},
        id="shared memory",
    ),
]


@pytest.mark.parametrize(("payload", "expected"), CASES)
def test_a_hostile_request_is_answered_or_hung_up_on(
    gateway: Gateway, payload: bytes, expected: set[int]
) -> None:
    received = exchange(gateway, payload)
    found = statuses(received)

    if expected:
        assert found, "hung up without an answer"
    assert all(status < 500 for status in found)
    assert set(found[:1]) <= expected or not expected
    assert not INSIDE.search(received)
    assert 200 == gateway.score(request()).status


@pytest.mark.parametrize(
    "part",
    [" - at `$[", " - at `$.x", "Object contains unknown field `", "Expected `"],
    ids=["paths", "fields", "unknown fields", "types"],
)
@pytest.mark.parametrize("end", ["", "\n", "`"], ids=["", "and a line feed", "and a quote"])
def test_a_name_made_of_a_parsers_messages_does_not_hold_up_the_worker(
    gateway: Gateway, part: str, end: str
) -> None:
    name = part * (900_000 // len(part)) + end
    body = msgspec.json.encode(request(**{name: 1}))
    started = time.monotonic()
    found = [statuses(exchange(gateway, post(body))), statuses(exchange(gateway, infer(body)))]

    assert [[422], [400]] == found
    assert time.monotonic() - started < 3  # it takes some milliseconds; quadratic, minutes


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    bodies = [msgspec.json.encode(request(request_id=f"p{number}")) for number in range(20)]
    payload = b"".join(head(length=len(body)) + body for body in bodies[:-1])
    received = exchange(gateway, payload + post(bodies[-1]))

    assert [200] * 20 == statuses(received)
    assert [f"p{number}" for number in range(20)] == [
        name.decode() for name in re.findall(rb'"request_id":"(p\d+)"', received)
    ]


def test_a_body_that_ends_early_is_no_request(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=8) as connection:
        connection.sendall(head(length=len(GOOD)) + GOOD[:-5])
        connection.shutdown(socket.SHUT_WR)

        assert statuses(connection.recv(65536)) in ([], [400])


def test_a_smuggled_second_request_is_not_answered_as_one(gateway: Gateway) -> None:
    inner = head("GET", "/metrics", kind=None)
    payload = (
        head("POST", SCORE, "Transfer-Encoding: chunked", length=len(inner)) + b"0\r\n\r\n" + inner
    )

    assert 1 >= len(statuses(exchange(gateway, payload)))


def test_heads_and_bodies_that_come_too_slowly_are_given_up_and_hold_up_nobody(
    gateway: Gateway,
) -> None:
    heads = [socket.create_connection(("127.0.0.1", gateway.port), 15) for _ in range(200)]
    body = socket.create_connection(("127.0.0.1", gateway.port), 15)
    try:
        for connection in heads:
            connection.sendall(b"POST /v1/flight_delay/score HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        body.sendall(head(length=len(GOOD)) + GOOD[:10])
        started = time.monotonic()

        assert 200 == gateway.score(request()).status
        assert time.monotonic() - started < 2
        assert [408] == statuses(body.recv(65536))
        assert statuses(heads[0].recv(65536)) in ([], [408])
        assert 4 < time.monotonic() - started < 12
    finally:
        for connection in (*heads, body):
            connection.close()


def test_clients_that_leave_before_their_answer_harm_nobody(gateway: Gateway) -> None:
    def leave() -> None:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", gateway.port), 5) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(head(length=len(GOOD)) + GOOD)

    threads = [threading.Thread(target=leave) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wait_for(lambda: gateway.score(request()).status == 200)  # they may fill it for a moment


def test_a_refused_method_names_the_allowed_one(gateway: Gateway) -> None:
    assert "POST" == gateway.get(SCORE).headers["allow"]
    assert "GET" == gateway.send("POST", "/livez", b"").headers["allow"]


def test_there_are_more_than_forty_hostile_cases() -> None:
    assert len(CASES) > 100
