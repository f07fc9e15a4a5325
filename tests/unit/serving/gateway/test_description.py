"""The gateway tells what it offers, how it is, and what it measures."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
from prometheus_client.parser import text_string_to_metric_families

from feature_repo import catalog
from mlplatform.errors import SpecError
from serving.gateway.admission import Admission, limit_of, units_of
from serving.gateway.openapi import description
from tests.unit.serving.gateway.conftest import Model, RedisProcess
from tests.unit.serving.gateway.patient_gateway import patient
from tests.unit.serving.gateway.stack import (
    AT_US,
    ROOT,
    SCORE,
    USECASE,
    Gateway,
    Store,
    request,
    route,
    wait_for,
)

SPEC = catalog.spec(USECASE)


def described() -> dict[str, Any]:
    return description({USECASE: SPEC}, "test")


def schema(name: str) -> dict[str, Any]:
    """A schema with what it refers to."""
    return {"components": described()["components"], "$ref": f"#/components/schemas/{name}"}


def values(gateway: Gateway) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the metrics."""
    families = text_string_to_metric_families(gateway.get("/metrics").body.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(gateway: Gateway, name: str, **labels: str) -> float:
    wanted = frozenset({"usecase": USECASE, **labels}.items())
    return values(gateway).get((f"mlplatform_gateway_{name}", wanted), 0.0)


def test_the_description_is_served_and_its_examples_work(gateway: Gateway) -> None:
    served = gateway.get("/openapi.json").json
    (content,) = served["paths"][SCORE]["post"]["requestBody"]["content"].values()

    assert described()["paths"] == served["paths"]
    assert {"one", "batch"} == set(content["examples"])
    for example in content["examples"].values():
        assert 200 == gateway.score(example["value"]).status


def test_what_the_gateway_answers_is_what_it_describes(gateway: Gateway) -> None:
    answer = schema(f"{USECASE}.answer")
    for row in (request(), request(carrier="ZZ"), request(tailnum=None)):
        jsonschema.validate(gateway.score(row).json, answer)
    jsonschema.validate(gateway.score({}).json, schema("Error"))


def test_the_schema_accepts_what_the_gateway_accepts(gateway: Gateway) -> None:
    check = jsonschema.Draft202012Validator(schema(f"{USECASE}.request"))
    cases: list[dict[str, Any]] = [
        {},
        {"tailnum": None},
        {"tailnum": ...},
        {"origin": "BOS"},
        {"origin": None},
        {"distance": 9},
        {"distance": 5500},
        {"distance": 10.5},
        {"colour": "red"},
        {"dest": "LAX\n"},
        {"request_id": None},
        {"request_id": ""},
        {"event_timestamp": "1999-01-01T00:00:00Z"},
        {"event_timestamp": ...},
        {"flight_key": "x"},
    ]
    for changes in cases:
        row = request(**changes)
        accepted = gateway.score(row).status == 200
        # Python's `$` matches before a line feed at the end, where JSON Schema's does not.
        if changes != {"dest": "LAX\n"}:
            assert accepted == check.is_valid(row), changes


def test_schemas_are_closed() -> None:
    schemas = described()["components"]["schemas"]

    assert all(found["additionalProperties"] is False for found in schemas.values())


def test_it_says_that_it_lives_and_that_it_is_ready(gateway: Gateway) -> None:
    assert (200, {"alive": True}) == (gateway.get("/livez").status, gateway.get("/livez").json)
    state = gateway.get("/readyz").json
    found = state["usecases"][USECASE]
    arm = {"arm": "champion", "version": 3, "answered": True, "breaker": "closed"}

    assert state["ready"]
    assert (1, "closed", [arm]) == (found["epoch"], found["features"], found["arms"])
    assert "127.0.0.1" not in gateway.get("/readyz").body.decode()  # names no addresses
    assert [SCORE] == gateway.get("/").json["score"]


def test_requests_rows_and_hops_are_counted(gateway: Gateway) -> None:
    asked = {"arm": "champion", "version": "3"}
    before = [
        value(gateway, "requests_total", status="200"),
        value(gateway, "rows_total", **asked, outcome="scored"),
        value(gateway, "seconds_count", **asked, hop="total"),
        value(gateway, "seconds_count", **asked, hop="features"),
        value(gateway, "feature_age_seconds_count", view="carrier_delay"),
    ]
    gateway.score([request()] * 3)
    gateway.score(request())
    after = [
        value(gateway, "requests_total", status="200"),
        value(gateway, "rows_total", **asked, outcome="scored"),
        value(gateway, "seconds_count", **asked, hop="total"),
        value(gateway, "seconds_count", **asked, hop="features"),
        value(gateway, "feature_age_seconds_count", view="carrier_delay"),
    ]

    assert [2, 4, 2, 2, 2] == [late - early for early, late in zip(before, after, strict=True)]


def test_errors_and_reasons_are_counted(gateway: Gateway) -> None:
    asked = {"arm": "champion", "version": "3"}

    def counted() -> list[float]:
        return [
            value(gateway, "requests_total", status="422"),
            value(gateway, "requests_total", status="415"),
            value(gateway, "reasons_total", **asked, reason="stale:carrier_delay"),
            value(gateway, "rows_total", **asked, outcome="degraded"),
        ]

    before = counted()
    gateway.score({})
    gateway.send("POST", SCORE, b"{}")
    gateway.score(request(carrier="ZZ"))

    assert [1, 1, 1, 1] == [late - early for early, late in zip(before, counted(), strict=True)]


def test_the_state_is_measured(gateway: Gateway) -> None:
    assert 1 == value(gateway, "route_epoch")
    assert 0 == value(gateway, "breaker", dependency="features")
    assert 0 == value(gateway, "breaker", dependency="champion")
    assert 0 == value(gateway, "in_flight")
    wait_for(lambda: value(gateway, "log_rows_total", state="written") > 0)


def test_there_is_a_bucket_at_each_budget(gateway: Gateway) -> None:
    gateway.score(request())
    text = gateway.get("/metrics").body.decode()
    found = {float(bound) for bound in re.findall(r'seconds_bucket\{.*le="([0-9.]+)"', text)}
    budget = patient(SPEC).serving.latency_ms

    for milliseconds in (budget.features, budget.queue + budget.inference, budget.total):
        assert milliseconds / 1000 in found


def test_several_workers_share_the_port_and_their_metrics(
    make_gateway: Callable[..., Gateway], redis: RedisProcess, champion: Model
) -> None:
    store = Store(redis.url)
    store.publish(route(("champion", 1.0, champion.url, champion.served)))
    store.features(champion.served, request(), AT_US)
    gateway = make_gateway(redis.url, workers=2)
    assert 2 == len(gateway.workers())
    names = [f"request-{number}" for number in range(60)]
    for name in names:
        assert 200 == gateway.score(request(request_id=name)).status

    assert len(names) == value(gateway, "requests_total", status="200")
    assert 1 == value(gateway, "route_epoch")

    def rows() -> list[Any]:
        return [row for row in store.rows() if row.request_id in names]

    wait_for(lambda: len(rows()) == len(names), what="the log")
    assert len(names) == len({(row.gateway, row.sequence) for row in rows()})
    assert 2 == len({row.gateway for row in rows()})  # 60 connections, and the kernel shares them
    assert 0 == gateway.stop()
    store.close()


@pytest.mark.parametrize(("rows", "units"), [(1, 1), (32, 1), (33, 2), (256, 8)], ids=str)
def test_a_batch_counts_for_more_than_one_request(rows: int, units: int) -> None:
    assert units == units_of(rows)


def test_the_limit_is_what_is_open_at_the_peak_with_head_room() -> None:
    assert 200 * 0.05 * 8 == limit_of(SPEC.serving)
    assert 16 == limit_of(SPEC.serving.model_copy(update={"peak_qps": 1.0}))


def test_a_spec_whose_largest_batch_fills_a_process_is_refused() -> None:
    changes = {"peak_qps": 1.0, "max_rows": 512}
    fits = SPEC.serving.model_copy(update=changes)

    assert Admission.of(USECASE, fits).enter(units_of(512))
    with pytest.raises(SpecError, match=r"flight_delay: .* max_rows to at most 512"):
        Admission.of(USECASE, fits.model_copy(update={"max_rows": 513}))


def test_a_gateway_with_such_a_spec_does_not_start() -> None:
    code = """
import dataclasses, sys
from feature_repo import catalog
from serving.gateway.__main__ import main
code = catalog.load_serving("flight_delay")
serving = code.spec.serving.model_copy(update={"max_rows": 4096})
spec = code.spec.model_copy(update={"serving": serving})
catalog.load_serving = lambda name: dataclasses.replace(code, spec=spec)
sys.exit(main())
"""
    settings = {"MLPLATFORM_REDIS_URL": "redis://127.0.0.1:1/0"}
    run = [sys.executable, "-c", code]
    environment = os.environ | settings
    ended = subprocess.run(
        run, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=30
    )

    assert 2 == ended.returncode
    assert "max_rows 4096" in ended.stderr


def test_a_process_is_full_where_no_request_fits() -> None:
    admission = Admission(10)
    found = []
    for units in (9, 1):
        admission.enter(units)
        found.append(admission.full)
    admission.leave(1)

    assert [False, True, False] == [*found, admission.full]


def test_one_request_is_always_taken_and_shadows_go_first() -> None:
    admission = Admission(10)

    assert admission.enter(50)
    assert not admission.enter(1)
    admission.leave(50)
    assert admission.enter(5)
    assert admission.busy
    assert admission.enter(5)
    assert not admission.enter(1)
