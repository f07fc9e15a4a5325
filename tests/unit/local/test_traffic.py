"""Past events as live requests: what a client knew, in the order of event time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from feature_repo import catalog
from local.traffic import traffic
from mlplatform.errors import DataError

START = datetime(2013, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def code() -> catalog.UseCaseCode:
    return catalog.load("flight_delay")


@pytest.fixture(scope="module")
def bodies(code: catalog.UseCaseCode) -> list[dict[str, Any]]:
    found = traffic(code, START, START + timedelta(hours=6))
    return [msgspec.json.decode(body) for body in found.bodies()]


def test_each_event_of_the_window_is_one_request(
    code: catalog.UseCaseCode, bodies: list[dict[str, Any]]
) -> None:
    flights = code.read(START, START + timedelta(hours=6))["flights"]

    assert set(flights["flight_key"]) == {body["request_id"] for body in bodies}
    assert flights.height == len(bodies)


def test_requests_come_in_the_order_of_event_time(bodies: list[dict[str, Any]]) -> None:
    times = [body["event_timestamp"] for body in bodies]

    assert sorted(times) == times
    assert times[0] >= "2013-03-01T12:00:00Z"
    assert times[-1] < "2013-03-01T18:00:00Z"


def test_a_request_holds_the_declared_fields_and_nothing_known_later(
    code: catalog.UseCaseCode, bodies: list[dict[str, Any]]
) -> None:
    declared = {"request_id", "event_timestamp", *code.spec.serving.request}

    assert all(declared == body.keys() for body in bodies)
    assert not declared & {"late", "label_timestamp", "landed_at", "arr_delay", "cancelled"}


def test_a_window_without_events_is_refused(code: catalog.UseCaseCode) -> None:
    with pytest.raises(DataError, match="no events from 2020-01-01"):
        traffic(code, datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))


def test_labels_that_lack_a_declared_field_are_refused(code: catalog.UseCaseCode) -> None:
    def labels(raw: Any) -> pl.DataFrame:
        return code.labels(raw).drop("distance")

    with pytest.raises(DataError, match="does not give distance"):
        traffic(replace(code, labels=labels), START, START + timedelta(hours=1))
