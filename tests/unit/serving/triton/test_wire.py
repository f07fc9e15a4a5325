"""Answers are put together from any split and refused when they could be read in two ways."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.clients.triton.wire import Answer, Reader, Wire
from mlplatform.errors import DataError, ServiceError

URL = "http://127.0.0.1:8000"


def wire() -> Wire:
    return Wire(URL, "flight_delay", 3)


def answer(values: list[float], **changes: Any) -> Answer:
    """Triton's answer with these probabilities; `changes` spoil its header."""
    rows = len(values)
    tensor = {
        "name": "probability",
        "datatype": "FP32",
        "shape": [rows, 1],
        "parameters": {"binary_data_size": 4 * rows},
    }
    tensor |= {key: value for key, value in changes.items() if key in tensor}
    header = {"model_name": "flight_delay", "model_version": "3", "outputs": [tensor]}
    header |= {key: value for key, value in changes.items() if key in header}
    text = json.dumps(header, separators=(",", ":")).encode()
    return Answer(200, True, len(text), text + np.array(values, "<f4").tobytes())


def http(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@given(
    st.lists(
        st.tuples(st.binary(max_size=300), st.integers(0, 300), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_answers_are_the_same_however_their_bytes_are_split(
    sent: list[tuple[bytes, int, bool]], data: st.DataObject
) -> None:
    reader, got = Reader("triton"), []
    expected = [Answer(200, not close, min(start, len(body)), body) for body, start, close in sent]
    for body, start, close in sent:
        raw = http(
            body,
            f"Inference-Header-Content-Length: {min(start, len(body))}",
            f"Connection: {'close' if close else 'keep-alive'}",
        )
        while raw:
            cut = data.draw(st.integers(1, len(raw)))
            found = reader.feed(raw[:cut])
            raw = raw[cut:]
            assert (found is None) == bool(raw)
        assert not reader.begun
        got.append(found)

    assert expected == got


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK", id="no length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", id="chunked"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
            id="chunked with a length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip", id="compressed"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4", id="two lengths"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\ncontent-length: 5", id="unequal lengths"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -4", id="negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +4", id="signed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0x4", id="hexadecimal length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 4_0", id="underscored length"),
        pytest.param("HTTP/1.1 200 OK\r\nContent-Length: ٤".encode(), id="other digits"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: ", id="empty length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999", id="length beyond the limit"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nInference-Header-Content-Length: 5",
            id="header longer than the body",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 4", id="space before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n folded", id="folded"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 4\nX: y", id="bare newline"),
        pytest.param(b"HTTP/1.1 100 Continue\r\nContent-Length: 0", id="not an answer yet"),
        pytest.param(b"HTTP/1.1 999 Odd\r\nContent-Length: 0", id="no such status"),
        pytest.param(b"HTTP/2 200\r\nContent-Length: 0", id="another protocol"),
        pytest.param(b"+PONG", id="Redis"),
        pytest.param(b"\x00\x00\x06\x04", id="binary"),
    ],
)
def test_a_head_that_is_not_tritons_is_refused(head: bytes) -> None:
    with pytest.raises(ServiceError, match="refused"):
        Reader("triton").feed(head + b"\r\n\r\n")


def test_a_head_without_an_end_is_refused() -> None:
    reader = Reader("triton")

    assert reader.feed(b"X-Padding: " + bytes(8000)) is None
    with pytest.raises(ServiceError, match="beyond 8192 bytes"):
        reader.feed(bytes(1000))


def test_bytes_behind_an_answer_are_refused() -> None:
    with pytest.raises(ServiceError, match="more bytes than it announced"):
        Reader("triton").feed(http(b"ok") + b"HTTP/1.1 200 OK")


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_in_another_way(data: bytes) -> None:
    try:
        found = Reader("triton").feed(data + b"\r\n\r\n")
    except ServiceError:
        return
    assert found is None or 200 <= found.status < 600


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_only_http_1_1_keeps_the_connection(version: str) -> None:
    found = Reader("triton").feed(f"HTTP/{version} 200 OK\r\nContent-Length: 0\r\n\r\n".encode())

    assert found is not None
    assert (version == "1.1") == found.keep


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40))
def test_probabilities_come_out_as_they_were_sent(values: list[float]) -> None:
    reading = wire()
    for _ in range(2):  # the second time the header is known
        assert values == reading.probabilities(answer(values), len(values)).tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_name": "other"},
        {"model_version": "4"},
        {"name": "label"},
        {"datatype": "FP64"},
        {"shape": [2]},
        {"shape": [1, 2]},
        {"shape": [3, 1]},
        {"parameters": {}},
        {"parameters": {"binary_data_size": 4}},
        {"outputs": []},
    ],
    ids=str,
)
def test_the_answer_of_another_model_or_request_is_refused(changes: dict[str, Any]) -> None:
    reading = wire()
    reading.probabilities(answer([0.5, 0.5]), 2)

    with pytest.raises(ServiceError, match=r"another model or request|cannot be read"):
        reading.probabilities(answer([0.5, 0.5], **changes), 2)


@pytest.mark.parametrize("missing", [-4, -1, 1, 4])
def test_a_tensor_of_another_length_is_refused(missing: int) -> None:
    status, keep, start, body = answer([0.5, 0.5])
    changed = body + bytes(missing) if missing > 0 else body[:missing]

    with pytest.raises(ServiceError, match="not the 8 of 2 rows"):
        wire().probabilities(Answer(status, keep, start, changed), 2)


def test_an_answer_without_a_binary_tensor_is_refused() -> None:
    with pytest.raises(ServiceError, match="cannot be read"):
        wire().probabilities(Answer(200, True, None, b'{"outputs": []}'), 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.1, 1.1])
@pytest.mark.parametrize("row", [0, 1])
def test_values_that_are_no_probabilities_are_refused(value: float, row: int) -> None:
    values = [0.5, 0.5]
    values[row] = value

    with pytest.raises(ServiceError, match="no probabilities"):
        wire().probabilities(answer(values), 2)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            b'{"error":"Request for unknown model"}', "Request for unknown model", id="its own"
        ),
        pytest.param(b"<html>Bad gateway</html>", "<html>Bad gateway</html>", id="a proxy's"),
        pytest.param(b"", "", id="none"),
        pytest.param(b'{"error":"' + b"x" * 5000 + b'"}', "x" * 499 + "…", id="long"),
    ],
)
def test_a_refusal_carries_the_reason_shortened(body: bytes, reason: str) -> None:
    with pytest.raises(ServiceError) as caught:
        wire().probabilities(Answer(400, True, None, body), 1)

    assert f"Triton refused flight_delay version 3 at 127.0.0.1:8000 (400): {reason}" == str(
        caught.value
    )


def test_a_request_is_json_and_the_raw_features() -> None:
    features = np.array([[1, np.nan], [-0.5, 3]], np.float32)
    head, _, body = wire().infer_request(features).partition(b"\r\n\r\n")
    fields = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    start = int(fields["Inference-Header-Content-Length"])

    assert head.startswith(b"POST /v2/models/flight_delay/versions/3/infer HTTP/1.1\r\n")
    assert len(body) == int(fields["Content-Length"])
    assert features.tobytes() == body[start:]
    assert {
        "name": "features",
        "datatype": "FP32",
        "shape": [2, 2],
        "parameters": {"binary_data_size": 16},
    } == msgspec.json.decode(body[:start])["inputs"][0]


def test_the_features_of_any_memory_layout_are_sent_row_by_row() -> None:
    features = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = wire().infer_request(features)

    assert expected == wire().infer_request(np.asfortranarray(features))
    assert expected == wire().infer_request(np.repeat(features, 2, axis=0)[::2])


def test_more_row_counts_than_are_kept_are_sent_all_the_same() -> None:
    sending = wire()
    first = sending.infer_request(np.zeros((1, 1), np.float32))
    for rows in range(2, 600):
        sending.infer_request(np.zeros((rows, 1), np.float32))

    assert first == sending.infer_request(np.zeros((1, 1), np.float32))


@pytest.mark.parametrize(
    "features",
    [
        pytest.param(np.zeros((2, 3)), id="doubles"),
        pytest.param(np.zeros(3, np.float32), id="one row without its axis"),
        pytest.param(np.zeros((0, 3), np.float32), id="no rows"),
        pytest.param(np.zeros((2, 0), np.float32), id="no features"),
        pytest.param(np.zeros((1, 2, 3), np.float32), id="three axes"),
        pytest.param(np.array([["1"]]), id="text"),
    ],
)
def test_features_that_are_no_table_of_float32_are_refused(features: Any) -> None:
    with pytest.raises(DataError, match=r"float32 \[N, F\]"):
        wire().infer_request(features)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:8000",
        "127.0.0.1:8000",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:8000/v2",
        "http://user@127.0.0.1:8000",
        "http://127.0.0.1:8000\r\nX: y",
        "http://[::1:8000",
        "",
    ],
)
def test_an_address_that_is_no_triton_server_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="not the address of a Triton server"):
        Wire(url, "flight_delay", 3)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a\r\nX: y", "ü", "a" * 101, "%2e"])
def test_a_name_that_would_change_the_path_is_refused(name: str) -> None:
    with pytest.raises(ServiceError, match="not the name of a model"):
        Wire(URL, name, 3)
