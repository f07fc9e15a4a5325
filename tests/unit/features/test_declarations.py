"""What the use case declares to Feast agrees with its functions and with its spec."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from feast.types import Float32, Int32, String, UnixTimestamp

from mlplatform import spec
from mlplatform.contracts import UseCase
from usecases.flight_delay import features, sources

World = Callable[..., dict[str, pl.DataFrame]]
POLARS: dict[Any, Any] = {
    Float32: pl.Float32,
    Int32: pl.Int32,
    String: pl.String,
    UnixTimestamp: pl.Datetime("us", "UTC"),
}


@pytest.fixture(scope="module")
def declared() -> UseCase:
    return spec.load(Path(str(sources.__file__)).with_name("usecase.yaml"))


@pytest.mark.parametrize("view", features.VIEWS, ids=lambda view: str(view.name))
def test_a_views_function_returns_exactly_the_declared_columns_and_types(
    world: World, view: Any
) -> None:
    rows = features.BATCH[view.name](world(1))
    columns = {field.name: POLARS[field.dtype] for field in view.schema}
    times = dict.fromkeys(("event_timestamp", "created_timestamp"), pl.Datetime("us", "UTC"))

    assert columns | times == dict(rows.schema)


@pytest.mark.parametrize("view", features.VIEWS, ids=lambda view: str(view.name))
def test_a_view_says_where_its_rows_lie_how_long_they_count_and_who_owns_them(view: Any) -> None:
    source = view.batch_source

    assert f"flight_delay/{view.name}" == source.path
    assert ("event_timestamp", "created_timestamp") == (
        source.timestamp_field,
        source.created_timestamp_column,
    )
    assert timedelta(0) < view.ttl <= timedelta(days=2)
    assert {"owner", "freshness"} == set(view.tags)


def test_every_view_has_a_function_and_belongs_to_the_service_that_the_spec_names(
    declared: UseCase,
) -> None:
    names = [view.name for view in features.VIEWS]

    assert names == list(features.BATCH)
    assert names == [view.name for view in features.SERVICE.feature_view_projections]
    assert declared.feature_service == features.SERVICE.name


def test_feature_names_are_unique_and_each_comes_from_a_view_or_from_the_request() -> None:
    joined = [field.name for view in features.VIEWS for field in view.features]
    moment = np.array(["2013-07-01T12:00"], dtype="datetime64[us]")
    inputs = dict.fromkeys(features.REQUEST_INPUTS, moment) | {"distance": np.array([100])}
    computed = list(features.request(inputs))
    helpers = {"previous_scheduled_arrival", "previous_landed_at"}

    assert len(set(joined + computed)) == len(joined + computed)
    assert set(joined + computed) - helpers == set(features.FEATURES)
    assert len(set(features.FEATURES)) == len(features.FEATURES)


def test_every_key_of_the_spec_is_the_join_key_of_an_entity(declared: UseCase) -> None:
    keys = {key for entity in declared.entities for key in entity.keys}
    entities = (
        features.flight,
        features.origin,
        features.destination,
        features.carrier,
        features.aircraft,
    )

    assert keys == {entity.join_key for entity in entities}


def test_labels_bring_all_keys_slices_and_what_requests_need_beside_the_join(
    world: World, declared: UseCase
) -> None:
    labels = sources.labels(world(1))
    keys = {key for entity in declared.entities for key in entity.keys}
    joined = {field.name for view in features.VIEWS for field in view.features}
    own = {"request_id", "event_timestamp", "label_timestamp", declared.label.name}

    assert own | keys | set(declared.slices.columns) <= set(labels.columns)
    assert set(features.REQUEST_INPUTS) <= set(labels.columns) | joined
    assert set() == set(labels.columns) & set(features.FEATURES)
