"""The Open Inference Protocol, spoken by the client that the model server's makers ship."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as client  # type: ignore[import-untyped]  # ships no types
from tritonclient.utils import (  # type: ignore[import-untyped]  # as above
    InferenceServerException,
)

from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.stack import AT_US, USECASE, Gateway, request
from tests.unit.serving.gateway.test_scoring import logged

OUTPUTS = ("score", "decision", "version", "degraded", "fallback", "epoch", "arm")
TEXTS = {"arm"}


@pytest.fixture(scope="module")
def triton_client(gateway: Gateway) -> Iterator[Any]:
    found = client.InferenceServerClient(f"127.0.0.1:{gateway.port}")
    yield found
    found.close()


def inputs(rows: list[dict[str, Any]], *, binary: bool, moments: bool = False) -> list[Any]:
    """Requests as the tensors of a client."""
    found = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "distance":
            array = np.array(values, np.int64)
        elif moments and name in {"event_timestamp", "scheduled_arrival"}:
            array = np.array([value.removesuffix("Z") for value in values], "datetime64[us]")
            array = array.astype(np.int64)
        else:
            array = np.array(["" if value is None else value for value in values], np.object_)
        kind = "BYTES" if array.dtype == np.object_ else "INT64"
        tensor = client.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array, binary_data=binary)
        found.append(tensor)
    return found


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("asked", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("moments", [True, False], ids=["microseconds", "text"])
def test_an_existing_client_gets_what_the_other_path_answers(
    gateway: Gateway, triton_client: Any, binary: bool, asked: bool, moments: bool
) -> None:
    rows = [request(distance=100), request(distance=2000, tailnum=None), request(carrier="ZZ")]
    expected = gateway.score(rows).json
    outputs = [client.InferRequestedOutput(name, binary_data=asked) for name in OUTPUTS]
    found = triton_client.infer(
        USECASE, inputs(rows, binary=binary, moments=moments), request_id="mine", outputs=outputs
    )

    for name in OUTPUTS:
        values = found.as_numpy(name)
        assert (3,) == values.shape, name
        if name in TEXTS:
            values = np.char.decode(values.astype(np.bytes_))
        assert [answer[name] for answer in expected] == pytest.approx(values.tolist())
    assert [False, False, True] == found.as_numpy("degraded").tolist()
    head = found.get_response()
    assert ("mine", USECASE, "3") == (head["id"], head["model_name"], head["model_version"])
    types = {output["name"]: output["datatype"] for output in head["outputs"]}
    expected_types = ["FP32", "BOOL", "INT64", "BOOL", "BOOL", "INT64", "BYTES"]
    assert expected_types == [types[name] for name in OUTPUTS]


def test_the_id_of_a_request_names_its_rows_in_the_log(
    triton_client: Any, session_redis: RedisProcess
) -> None:
    triton_client.infer(USECASE, inputs([request()], binary=True), request_id="alone")
    triton_client.infer(USECASE, inputs([request()] * 2, binary=True), request_id="pair")

    assert AT_US == logged(session_redis, "alone")[0].event_time
    assert logged(session_redis, "pair/0")
    assert logged(session_redis, "pair/1")


def test_without_outputs_all_come(triton_client: Any) -> None:
    found = triton_client.infer(USECASE, inputs([request()], binary=True)).get_response()

    assert list(OUTPUTS) == [output["name"] for output in found["outputs"]]


def test_the_server_and_the_model_describe_themselves(triton_client: Any, champion: Model) -> None:
    version = str(champion.served.version)

    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready(USECASE)
    assert triton_client.is_model_ready(USECASE, version)
    assert ["binary_tensor_data"] == triton_client.get_server_metadata()["extensions"]
    for model in (
        triton_client.get_model_metadata(USECASE),
        triton_client.get_model_metadata(USECASE, version),
    ):
        assert (USECASE, [version]) == (model["name"], model["versions"])
        fields = {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]}
        assert "INT64" == fields["distance"]
        assert {*request(), "request_id"} == set(fields)


def test_what_is_not_there_is_said(triton_client: Any) -> None:
    for ask in (
        lambda: triton_client.get_model_metadata("nobody"),
        lambda: triton_client.get_model_metadata(USECASE, "99"),
        triton_client.get_model_repository_index,
        lambda: triton_client.unload_model(USECASE),
        triton_client.get_inference_statistics,
        lambda: triton_client.infer(USECASE, inputs([request()], binary=True), "3"),
    ):
        with pytest.raises(InferenceServerException):
            ask()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"origin": "BOS"}, "one of EWR, JFK, LGA", id="not a value"),
        pytest.param({"origin": None}, "one of", id="an empty string for a required field"),
        pytest.param({"distance": 5}, "from 10 to 5500", id="too small"),
        pytest.param({"scheduled_arrival": "soon"}, "RFC 3339", id="no time"),
        pytest.param({"colour": "red"}, "no input colour", id="an unknown input"),
        pytest.param({"dest": ...}, "dest: missing", id="a missing input"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(
    triton_client: Any, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InferenceServerException, match=said):
        triton_client.infer(USECASE, inputs([request(**changes)], binary=True))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("int32", "INT32"), ("float32", "FP32"), ("float64", "FP64")]
)
def test_numbers_may_come_in_other_types(
    gateway: Gateway, triton_client: Any, dtype: str, kind: str
) -> None:
    tensors = [t for t in inputs([request()], binary=True) if t.name() != "distance"]
    other = client.InferInput("distance", (1,), kind)
    other.set_data_from_numpy(np.array([2475], dtype))
    found = triton_client.infer(USECASE, [*tensors, other]).as_numpy("score")

    assert gateway.score(request()).json["score"] == pytest.approx(float(found[0]))
    half = client.InferInput("distance", (1,), "FP32")
    for wrong in (2475.5, np.nan, np.inf, 1e30):
        half.set_data_from_numpy(np.array([wrong], np.float32))
        with pytest.raises(InferenceServerException, match="distance"):
            triton_client.infer(USECASE, [*tensors, half])


@pytest.mark.parametrize("moment", [2**62, -(2**62), 0, np.iinfo(np.int64).min])
def test_microseconds_that_are_no_time_are_refused(triton_client: Any, moment: int) -> None:
    tensors = [t for t in inputs([request()], binary=True) if t.name() != "scheduled_arrival"]
    other = client.InferInput("scheduled_arrival", (1,), "INT64")
    other.set_data_from_numpy(np.array([moment], np.int64))

    with pytest.raises(InferenceServerException, match="scheduled_arrival"):
        triton_client.infer(USECASE, [*tensors, other])


@pytest.mark.parametrize("kind", ["INT64", "FP64"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**4000], ids=["big", "small", "bigger"])
@pytest.mark.parametrize("name", ["distance", "scheduled_arrival"])
def test_numbers_beyond_every_type_are_refused_with_their_row(
    gateway: Gateway, name: str, value: int, kind: str
) -> None:
    rows = [request(), request()]
    found = [
        {
            "name": field,
            "datatype": "INT64" if field == "distance" else "BYTES",
            "shape": [2],
            "data": [row[field] for row in rows],
        }
        for field in rows[0]
    ]
    for tensor in found:
        if tensor["name"] == name:
            first = 2475 if name == "distance" else AT_US
            tensor |= {"datatype": kind, "data": [first, value]}
    reply = gateway.send(
        "POST", f"/v2/models/{USECASE}/infer", json.dumps({"inputs": found}).encode()
    )

    if (name, kind) == ("scheduled_arrival", "FP64"):
        assert (400, ["error"]) == (reply.status, list(reply.json))
    else:
        assert 422 == reply.status
        assert reply.json["error"].startswith("row 1: ")
        assert name in reply.json["error"]


def test_a_refusal_says_the_row(triton_client: Any) -> None:
    rows = [request(), request(), request(origin="BOS")]
    with pytest.raises(InferenceServerException, match="row 2: origin"):
        triton_client.infer(USECASE, inputs(rows, binary=True))
    numbers = client.InferInput("distance", (2,), "FP32")
    numbers.set_data_from_numpy(np.array([100, np.nan], np.float32))
    others = [t for t in inputs([request()] * 2, binary=True) if t.name() != "distance"]
    with pytest.raises(InferenceServerException, match="row 1: input distance"):
        triton_client.infer(USECASE, [*others, numbers])
