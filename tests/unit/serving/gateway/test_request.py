"""What is accepted as a request, and how the message says what is not."""

from typing import Any

import msgspec
import numpy as np
import pytest

from feature_repo import catalog
from mlplatform.contracts.usecase.operation import RequestField, Serving
from mlplatform.errors import SpecError
from serving.gateway.example import example
from serving.gateway.refusal import RefusedError
from serving.gateway.request import Requests, pattern
from tests.unit.serving.gateway.stack import AT_US, USECASE, request

SERVING = catalog.spec(USECASE).serving
REQUESTS = Requests(USECASE, SERVING)


def requests_of(**fields: RequestField) -> Requests:
    return Requests("planted", SERVING.model_copy(update={"request": fields}))


def parse(body: Any, requests: Requests = REQUESTS) -> Any:
    return requests.parse(msgspec.json.encode(body))


def refusal(body: bytes, requests: Requests = REQUESTS) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        requests.parse(body)
    return refused.value


def test_times_become_microseconds_whatever_their_offset() -> None:
    batch = parse(request(event_timestamp="2013-06-01T10:00:00.000001-04:00"))

    assert [AT_US + 1] == batch.event_us
    assert batch.single


def test_a_request_without_time_or_id_gets_both() -> None:
    first = parse(request(event_timestamp=...))
    second = parse(request(event_timestamp=None, request_id=None))

    assert first.event_us[0] > AT_US
    assert first.request_ids != second.request_ids


def test_columns_have_the_types_that_features_and_rules_read() -> None:
    batch = parse([request(), request(tailnum=None)])
    columns = REQUESTS.columns(batch)

    assert ["N12345", None] == list(columns["tailnum"])
    assert np.dtype("int64") == columns["distance"].dtype
    assert np.dtype("datetime64[us]") == columns["scheduled_arrival"].dtype
    assert AT_US == columns["event_timestamp"].astype("int64")[0]


def test_null_numbers_and_times_are_nan_and_nat() -> None:
    requests = requests_of(
        wait=RequestField(type="float", optional=True),
        count=RequestField(type="integer", optional=True),
        seen=RequestField(type="timestamp", optional=True),
    )
    columns = requests.columns(parse([{}, {"wait": 1, "count": 2}], requests))

    assert [True, False] == np.isnan(columns["wait"]).tolist()
    assert [True, False] == np.isnan(columns["count"]).tolist()
    assert np.isnat(columns["seen"]).all()


INVALID = [
    pytest.param({"origin": "BOS"}, "origin", "one of EWR, JFK, LGA", id="not a value"),
    pytest.param({"origin": 1}, "origin", "one of", id="a number for a string"),
    pytest.param({"origin": None}, "origin", "one of", id="null where it must be"),
    pytest.param({"dest": ...}, "dest", "missing", id="missing"),
    pytest.param({"dest": "lax"}, "dest", "[A-Z]{3}", id="another pattern"),
    pytest.param({"dest": "LAXX"}, "dest", "[A-Z]{3}", id="more than the pattern"),
    pytest.param({"dest": "LAX\n"}, "dest", "[A-Z]{3}", id="a line feed after the pattern"),
    pytest.param(
        {"flight_key": "\u0662013-06-01-AA-100-JFK"}, "flight_key", "like", id="a foreign digit"
    ),
    pytest.param({"distance": 9}, "distance", "from 10 to 5500", id="too small"),
    pytest.param({"distance": 5501}, "distance", "from 10 to 5500", id="too large"),
    pytest.param({"distance": 100.5}, "distance", "an integer", id="a fraction"),
    pytest.param({"distance": True}, "distance", "an integer", id="a boolean"),
    pytest.param({"distance": "100"}, "distance", "an integer", id="a number as text"),
    pytest.param({"distance": 10**30}, "distance", "an integer", id="a huge integer"),
    pytest.param({"scheduled_arrival": "soon"}, "scheduled_arrival", "RFC 3339", id="no time"),
    pytest.param(
        {"scheduled_arrival": "2013-06-01T20:00:00"}, "scheduled_arrival", "zone", id="no zone"
    ),
    pytest.param(
        {"scheduled_arrival": 1370116800}, "scheduled_arrival", "RFC 3339", id="a time as number"
    ),
    pytest.param(
        {"scheduled_arrival": "1970-01-01T00:00:01Z"},
        "scheduled_arrival",
        "2000 to 2099",
        id="seconds taken for milliseconds",
    ),
    pytest.param(
        {"event_timestamp": "9999-12-31T23:59:59Z"}, "event_timestamp", "2000 to 2099", id="never"
    ),
    pytest.param({"request_id": ""}, "request_id", "1 to 128", id="an empty id"),
    pytest.param({"request_id": "x" * 129}, "request_id", "1 to 128", id="a long id"),
    pytest.param({"colour": "red"}, "colour", "unknown field", id="an unknown field"),
    pytest.param({"__class__": {}}, "__class__", "unknown field", id="a Python name"),
    *(
        pytest.param({name: 1}, name, "unknown field", id=f"a name like {name}")
        for name in (
            "x - at `$.distance",
            "x` - at `$[0]",
            "x` - at `$[0].distance",
            "Object missing required field `dest",
        )
    ),
    pytest.param({"origin": "x' - at `$.distance`"}, "origin", "one of", id="a value like a path"),
]


@pytest.mark.parametrize(("changes", "field", "said"), INVALID)
def test_an_invalid_field_is_named_with_what_was_expected(
    changes: dict[str, Any], field: str, said: str
) -> None:
    error = refusal(msgspec.json.encode(request(**changes)))

    assert (422, field, None) == (error.status, error.field, error.row)
    assert said in str(error)
    assert field in str(error)


@pytest.mark.parametrize(("changes", "field", "said"), INVALID)
def test_in_a_batch_the_row_is_named_too(changes: dict[str, Any], field: str, said: str) -> None:
    rows = [request(), request(), request(**changes), request()]
    error = refusal(msgspec.json.encode(rows))

    assert (422, field, 2) == (error.status, error.field, error.row)
    assert said in str(error)


def test_a_refusal_repeats_little_of_what_came() -> None:
    long = "x" * 500_000
    unknown = refusal(msgspec.json.encode(request(**{long: 1})))
    value = refusal(msgspec.json.encode(request(origin=long)))

    assert long[:256] == unknown.field
    assert len(str(unknown)) <= 500
    assert "one of EWR, JFK, LGA" in str(value)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"{}x", id="more after it"),
        pytest.param(b'{"distance": 1, "x": [', id="wrong before it is cut off"),
        pytest.param(b"[" * 100_000, id="deep and cut off"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b'{"dest": "\xff"}', id="a string that is not UTF-8"),
        pytest.param(b'{"dest": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"distance": NaN}', id="NaN"),
        pytest.param(b'{"distance": Infinity}', id="Infinity"),
        pytest.param(b"{'dest': 'LAX'}", id="single quotes"),
        pytest.param(b"\x00", id="a null byte"),
    ],
)
def test_what_is_not_json_is_said_to_be_none(body: bytes) -> None:
    assert 400 == refusal(body).status


@pytest.mark.parametrize("body", [b"null", b"1", b'"x"', b"[]", b"[1]", b"[[]]"])
def test_json_of_another_shape_is_invalid(body: bytes) -> None:
    assert 422 == refusal(body).status


def test_a_batch_beyond_the_limit_is_refused_with_the_limit() -> None:
    error = refusal(msgspec.json.encode([request()] * (SERVING.max_rows + 1)))

    assert 422 == error.status
    assert "256 rows" in str(error)


@pytest.mark.parametrize("name", ["request_id", "event_timestamp"])
def test_a_spec_cannot_declare_what_each_request_has(name: str) -> None:
    with pytest.raises(SpecError, match=name):
        requests_of(**{name: RequestField(type="string")})


def test_a_pattern_that_cannot_be_read_is_refused_with_the_use_case() -> None:
    with pytest.raises(SpecError, match="planted"):
        requests_of(key=RequestField(type="string", pattern="("))


@pytest.mark.parametrize(
    ("written", "checked"),
    [
        (r"\d{2}", "^(?:[0-9]{2})$"),
        (r"[\dA-F]+", "^(?:[0-9A-F]+)$"),
        (r"\\d", r"^(?:\\d)$"),
        (r"a\.b|\w", r"^(?:a\.b|[0-9A-Za-z_])$"),
        (r"[\]\d]", r"^(?:[\]0-9])$"),
    ],
)
def test_classes_mean_ascii_in_python_and_in_the_schema(written: str, checked: str) -> None:
    assert checked == pattern(RequestField(type="string", pattern=written))


@pytest.mark.parametrize(
    "field",
    [
        *(pytest.param(field, id=name) for name, field in SERVING.request.items()),
        pytest.param(RequestField(type="string"), id="any string"),
        pytest.param(RequestField(type="string", pattern=r"[^a-z ]x?(foo|bar)*.\w+"), id="pattern"),
        pytest.param(RequestField(type="float", min=-2, max=-1), id="below zero"),
        pytest.param(RequestField(type="float"), id="any number"),
        pytest.param(RequestField(type="integer", max=3), id="small"),
    ],
)
def test_the_example_of_a_field_is_accepted(field: RequestField) -> None:
    value = example(field)

    assert value is not None
    assert [value] == [parse({"x": value}, requests_of(x=field)).values["x"][0]] or (
        field.type == "timestamp"
    )


def test_what_has_no_simple_example_has_none() -> None:
    assert example(RequestField(type="string", pattern=r"(?=a)\w")) is None


def test_serving_of_the_reference_use_case_takes_256_rows() -> None:
    assert isinstance(SERVING, Serving)
    assert 256 == parse([request()] * 256).rows
