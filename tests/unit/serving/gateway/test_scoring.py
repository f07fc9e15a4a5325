"""What a request is answered with while everything works, and what is logged of it."""

import asyncio
import dataclasses
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from feature_repo import catalog
from mlplatform.clients.redis_link import RedisLink
from mlplatform.contracts import Prediction
from serving.gateway.admission import units_of
from serving.gateway.answer import Scored
from serving.gateway.assignment import entity_name
from serving.gateway.features import FeatureStore
from serving.gateway.request import Requests
from serving.gateway.scoring import Scorer
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.planted_gateway import (
    BREAKS,
    DEFAULTS,
    MAX_ROWS,
    REQUEST_FAILS,
    RULES_FAIL,
)
from tests.unit.serving.gateway.stack import (
    AT_US,
    SCORE,
    USECASE,
    Gateway,
    Store,
    request,
    route,
    wait_for,
)
from tests.unit.serving.gateway.stand_in import StandIn
from tests.unit.serving.gateway.test_description import value
from usecases.flight_delay.features import FEATURES

MINUTE = 60_000_000


def logged(redis: RedisProcess, request_id: str, count: int = 1) -> list[Prediction]:
    """The rows of a request, once they are all there."""
    with closing(Store(redis.url)) as store:

        def found() -> list[Prediction]:
            rows = [row for row in store.rows() if row.request_id == request_id]
            return rows if len(rows) >= count else []

        return list(wait_for(found, what=f"{count} rows of {request_id}"))


def vector(row: Prediction) -> dict[str, float]:
    return dict(zip(FEATURES, np.frombuffer(row.features, "<f4").tolist(), strict=True))


def test_one_object_is_answered_with_one_object(gateway: Gateway) -> None:
    reply = gateway.score(request(request_id="mine"))

    assert (200, "application/json") == (reply.status, reply.headers["content-type"])
    answer = reply.json
    assert {
        "request_id": "mine",
        "model": USECASE,
        "version": 3,
        "arm": "champion",
        "epoch": 1,
        "degraded": False,
        "fallback": False,
        "reasons": [],
    } == {name: answer[name] for name in answer if name not in {"score", "decision", "latency"}}
    assert answer["decision"] == (answer["score"] >= 0.5)


def test_the_microseconds_of_the_hops_add_up_to_the_total(gateway: Gateway) -> None:
    latency = gateway.score(request()).json["latency"]
    hops = sum(latency[f"{hop}_us"] for hop in ("features", "inference", "decision"))

    assert 0 <= latency["total_us"] - hops <= 3  # each is rounded down
    assert latency["features_us"] > 0
    assert latency["inference_us"] > 0


def test_a_batch_is_answered_in_its_order(gateway: Gateway) -> None:
    ids = [f"row-{number}" for number in range(200)]
    rows = [request(request_id=name, distance=10 + n) for n, name in enumerate(ids)]
    reply = gateway.score(rows)

    assert 200 == reply.status
    assert ids == [answer["request_id"] for answer in reply.json]


def test_a_row_of_a_batch_gets_the_score_that_it_gets_alone(gateway: Gateway) -> None:
    rows = [request(distance=distance, carrier=c) for distance in (10, 900) for c in ("AA", "UA")]
    together = [answer["score"] for answer in gateway.score(rows).json]

    assert [gateway.score(row).json["score"] for row in rows] == together


def test_the_features_are_those_of_the_store_and_of_the_request(
    gateway: Gateway, session_redis: RedisProcess, champion: Model
) -> None:
    answer = gateway.score(request(request_id="vector")).json
    (row,) = logged(session_redis, "vector")
    features = vector(row)
    of_request = {
        "departure_hour": 10.0,  # 14:00 UTC in New York's summer
        "departure_weekday": 6.0,
        "departure_month": 6.0,
        "distance_miles": 2475.0,
        "scheduled_minutes": 360.0,
        "leg_gap_minutes": 1.0,  # the fields of the store are a minute old
        "leg_slack_minutes": 1.0,
    }

    assert {name: of_request.get(name, 1.0) for name in FEATURES} == features
    weights = np.linspace(0.01, 0.02, len(FEATURES), dtype=np.float32)
    logit = np.float32(np.array(list(features.values()), np.float32) @ weights)
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(answer["score"], abs=1e-6)
    assert (AT_US - MINUTE,) * len(champion.served.layout.views) == row.feature_times


def test_the_logged_row_says_what_the_answer_said(
    gateway: Gateway, session_redis: RedisProcess
) -> None:
    sent = request(request_id="logged")
    answer = gateway.score(sent).json
    (row,) = logged(session_redis, "logged")

    for name in ("version", "arm", "epoch", "score", "decision", "degraded", "fallback"):
        assert answer[name] == getattr(row, name), name
    assert answer["latency"] == {name: getattr(row, name) for name in answer["latency"]}
    assert (USECASE, "flight_delay_v1", AT_US) == (row.usecase, row.service, row.event_time)
    assert entity_name((sent["flight_key"],)) == row.entity
    expected: dict[str, Any] = {
        name: value for name, value in sent.items() if name not in {"request_id", "event_timestamp"}
    } | {"scheduled_arrival": AT_US + 360 * MINUTE}
    assert expected == row.request


def test_each_row_of_a_batch_is_logged_once(gateway: Gateway, session_redis: RedisProcess) -> None:
    gateway.score([request(request_id="batched", distance=100 + n) for n in range(50)])
    rows = logged(session_redis, "batched", 50)

    assert list(range(100, 150)) == [row.request["distance"] for row in rows]
    assert 50 == len({(row.gateway, row.sequence) for row in rows})


def test_an_unknown_aircraft_is_scored_with_null_and_is_not_degraded(
    gateway: Gateway, session_redis: RedisProcess
) -> None:
    answer = gateway.score(request(tailnum=None, request_id="unknown")).json
    (row,) = logged(session_redis, "unknown")
    features = vector(row)

    assert not answer["degraded"]
    assert np.isnan([features[name] for name in FEATURES if name.startswith(("prev", "leg"))]).all()
    assert 0 in row.feature_times


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        pytest.param({"carrier": "ZZ"}, ["stale:carrier_delay"], id="never seen"),
        pytest.param(
            {"event_timestamp": "2013-06-01T16:30:00Z"},
            ["stale:origin_congestion"],  # an hour to live
            id="one expired",
        ),
        pytest.param(
            {"event_timestamp": "2013-06-03T14:00:00Z"},
            ["stale:carrier_delay", "stale:origin_congestion", "stale:origin_weather"],
            id="all expired",
        ),
    ],
)
def test_a_required_view_without_a_fresh_row_degrades_the_answer(
    gateway: Gateway, changes: dict[str, Any], reasons: list[str]
) -> None:
    answer = gateway.score(request(**changes)).json

    assert (True, False, "champion") == tuple(answer[n] for n in ("degraded", "fallback", "arm"))
    assert reasons == answer["reasons"]


def test_in_a_batch_only_the_rows_without_features_are_degraded(gateway: Gateway) -> None:
    answers = gateway.score([request(), request(carrier="ZZ"), request()]).json

    assert [False, True, False] == [answer["degraded"] for answer in answers]


def test_a_view_that_is_not_required_may_be_missing(gateway: Gateway) -> None:
    assert not gateway.score(request(dest="XYZ")).json["degraded"]


def by_rules(rules: Any) -> Scored:
    """What comes of a request without a route, under other rules."""
    code = dataclasses.replace(catalog.load_serving(USECASE), rules=rules)
    requests = Requests(USECASE, code.spec.serving)

    async def score() -> list[Scored]:
        store = FeatureStore(RedisLink("redis://127.0.0.1:1/0", name="none"))
        batch = requests.parse(msgspec.json.encode([request(), request()]))
        return await Scorer(code, requests, store).score(None, batch, 0, 0)

    (scored,) = asyncio.run(score())
    return scored


@pytest.mark.parametrize("scores", [[0.25, 1.0], np.array([0.25, 1]), (0.25, True)])
def test_what_rules_answer_is_taken_as_float32(scores: Any) -> None:
    scored = by_rules(lambda _: scores)

    assert [0.25, 1.0] == scored.scores.tolist()
    assert [("no_route",)] * 2 == scored.reasons


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([0.5], id="too few"),
        pytest.param([0.5] * 3, id="too many"),
        pytest.param(0.5, id="one number"),
        pytest.param([[0.5, 0.5]], id="another shape"),
        pytest.param([0.5, np.nan], id="NaN"),
        pytest.param([0.5, 1.5], id="more than 1"),
        pytest.param([-0.1, 0.5], id="less than 0"),
        pytest.param([0.5, 1e300], id="beyond float32"),
        pytest.param(None, id="nothing"),
        pytest.param(["high", "low"], id="words"),
    ],
)
def test_rules_that_answer_no_scores_are_replaced_by_the_last_score(scores: Any) -> None:
    scored = by_rules(lambda _: scores)

    assert [0.0, 0.0] == scored.scores.tolist()
    assert [False, False] == scored.decisions.tolist()
    assert [("no_route", "rules_failed")] * 2 == scored.reasons
    assert scored.fallback


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture(scope="module")
def planted(
    module_redis: RedisProcess, module_path: Path, champion: Model, stand_in: StandIn
) -> Iterator[Gateway]:
    """A gateway whose use case fails where a request says so."""
    with closing(Store(module_redis.url)) as store:
        store.publish(route(("champion", 1.0, stand_in.url, champion.served)))
        store.features(champion.served, request(), AT_US)
    gateway = Gateway(
        module_path, module_redis.url, module="tests.unit.serving.gateway.planted_gateway"
    )
    gateway.start()
    yield gateway
    gateway.kill()


def ask(gateway: Gateway, **changes: Any) -> dict[str, Any]:
    reply = gateway.score(request(**changes))

    assert 200 == reply.status
    return dict(reply.json)


def works(answer: dict[str, Any]) -> bool:
    return not answer["reasons"]


def test_a_request_is_answered_where_the_model_and_the_rules_fail(
    planted: Gateway, stand_in: StandIn
) -> None:
    stand_in.mode = "refuse"
    answer = ask(planted, distance=RULES_FAIL, tailnum="N98765")
    stand_in.mode = "good"

    expected = (0.0, False, "rules", True, ["inference_down", "rules_failed"])
    names = ("score", "decision", "arm", "fallback", "reasons")
    assert expected == tuple(answer[name] for name in names)
    said = planted.log.read_text()
    assert "rules of flight_delay failed: KeyError in" in said
    assert "N98765" not in said  # the log is no place for what clients send


def test_request_features_that_fail_have_their_own_reason(planted: Gateway) -> None:
    answer = ask(planted, distance=REQUEST_FAILS, scheduled_arrival="2013-06-01T21:12:34Z")

    expected = (["request_features_failed"], True, False, "champion")
    assert expected == tuple(answer[n] for n in ("reasons", "degraded", "fallback", "arm"))
    said = planted.log.read_text()
    assert "request-time features of flight_delay failed: ValueError in" in said
    assert "21:12:34" not in said


def test_declared_defaults_stand_for_a_required_view_that_a_row_lacks(
    planted: Gateway, module_redis: RedisProcess
) -> None:
    rows = [request(), request(carrier="ZZ", dest="XYZ"), request()]
    sent = [row | {"request_id": f"lacks-{number}"} for number, row in enumerate(rows)]
    answers = planted.score(sent).json
    vectors = [vector(*logged(module_redis, f"lacks-{number}")) for number in range(3)]

    assert [[], ["stale:carrier_delay"], []] == [answer["reasons"] for answer in answers]
    assert [1.0, 0.25, 1.0] == [found["carrier_late_rate_7d"] for found in vectors]
    assert np.isnan(vectors[1]["carrier_late_rate_24h"])  # has no default
    assert np.isnan(vectors[1]["route_late_rate_30d"])  # its view is not required


def test_declared_defaults_stand_for_features_that_cannot_be_read(
    planted: Gateway, module_redis: RedisProcess
) -> None:
    module_redis.signal(signal.SIGSTOP)
    try:
        answer = ask(planted, request_id="unread")
    finally:
        module_redis.signal(signal.SIGCONT)
    found = vector(*logged(module_redis, "unread"))

    assert ["features_late"] == answer["reasons"]
    assert DEFAULTS == {name: found[name] for name in DEFAULTS}
    assert np.isnan(found["temp"])
    assert 2475.0 == found["distance_miles"]
    wait_for(lambda: works(ask(planted)))


def test_an_answer_that_cannot_be_made_is_counted_and_has_the_protocols_shape(
    planted: Gateway,
) -> None:
    inputs = [
        {
            "name": name,
            "datatype": "INT64" if name == "distance" else "BYTES",
            "shape": [1],
            "data": [content],
        }
        for name, content in request().items()
    ]
    body = msgspec.json.encode({"inputs": inputs, "id": BREAKS})
    before = value(planted, "requests_total", status="500")
    reply = planted.send("POST", f"/v2/models/{USECASE}/infer", body)

    assert (500, {"error": "the request could not be answered"}) == (reply.status, reply.json)
    assert before + 1 == value(planted, "requests_total", status="500")


def test_the_total_counts_from_before_the_body_is_read(gateway: Gateway) -> None:
    body = msgspec.json.encode(request())
    pause = 0.3
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=8) as connection:
        connection.sendall(_head(len(body)))
        time.sleep(pause)
        connection.sendall(body)
        received = connection.recv(65536)

    latency = msgspec.json.decode(received.partition(b"\r\n\r\n")[2])["latency"]
    assert latency["total_us"] > pause * 0.9e6


def test_a_busy_process_refuses_a_large_body_before_it_comes(
    planted: Gateway, stand_in: StandIn
) -> None:
    stand_in.mode = "hang"
    batch = threading.Thread(target=planted.score, args=([request()] * MAX_ROWS,))
    batch.start()
    try:
        wait_for(lambda: value(planted, "in_flight") == units_of(MAX_ROWS), seconds=1.5)
        started = time.monotonic()
        for length in (f"Content-Length: {500_000}", "Transfer-Encoding: chunked"):
            with socket.create_connection(("127.0.0.1", planted.port), timeout=8) as connection:
                connection.sendall(_head(length))
                received = connection.recv(65536).lower()

            assert received.startswith(b"http/1.1 429")
            assert b"connection: close" in received
            assert b"retry-after: 1" in received
        waited = time.monotonic() - started
        invalid = planted.send("POST", SCORE, b"nonsense", content_type="application/json")
    finally:
        stand_in.mode = "good"
        batch.join()

    assert waited < 1.5
    assert 429 == invalid.status  # it was not decoded
    wait_for(lambda: works(ask(planted)))


def _head(length: int | str) -> bytes:
    said = f"Content-Length: {length}" if isinstance(length, int) else length
    return (
        f"POST {SCORE} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"{said}\r\n\r\n"
    ).encode()
