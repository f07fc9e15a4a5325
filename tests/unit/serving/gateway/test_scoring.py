"""What a request is answered with while everything works, and what is logged of it."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from mlplatform.contracts import Prediction
from serving.gateway.assignment import entity_name
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.stack import (
    AT_US,
    USECASE,
    Gateway,
    Store,
    request,
    wait_for,
)
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
