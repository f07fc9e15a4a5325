"""What all contracts promise: frozen, closed, times in UTC, the same after a trip through JSON.

Values are drawn from each contract's own fields and bounds, so that a new contract is covered.
"""

import functools
import math
import types
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import BaseMetadata, Ge, Le, MinLen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlplatform import contracts as package
from mlplatform import spec
from mlplatform.contracts import Arm, Contract, Decision, Route, UseCase

EXPORTED = [getattr(package, name) for name in package.__all__]
CONTRACTS = [
    kind
    for kind in EXPORTED
    if isinstance(kind, type) and issubclass(kind, Contract) and kind not in {Contract, UseCase}
]
"""All but the use case, whose sections must agree: the reference use case stands for it."""

TIMED = [
    (kind, name)
    for kind in CONTRACTS
    for name, field in kind.model_fields.items()
    if field.annotation is datetime
]

LARGEST = 2**53
"""Whole numbers above this are not exact in every JSON reader."""

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=9))])
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    type(None): st.none(),
    Path: st.sampled_from(["a", "/a/b.onnx", "ä ö"]).map(Path),
    datetime: st.builds(
        datetime.fromtimestamp,
        st.integers(0, 4_102_444_800).map(lambda second: second + 0.123456),  # to the year 2100
        ZONES,
    ),
}

JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-LARGEST, LARGEST),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def strategy(annotation: Any, bounds: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Return values of a field's type within its bounds."""
    origin, parts = get_origin(annotation), get_args(annotation)
    least = max((item.min_length for item in bounds if isinstance(item, MinLen)), default=0)
    if origin is Annotated:
        found = strategy(parts[0], (*parts[1:], *bounds))
    elif origin is Literal:
        found = st.sampled_from(parts)
    elif origin in {Union, types.UnionType}:
        found = st.one_of([strategy(part, bounds) for part in parts])
    elif origin is tuple:
        found = st.lists(strategy(parts[0]), min_size=least, max_size=3).map(tuple)
    elif origin is dict:
        found = st.dictionaries(strategy(parts[0]), strategy(parts[1]), max_size=3)
    elif isinstance(annotation, type) and issubclass(annotation, Contract):
        found = contracts(annotation)
    elif annotation in {int, float, str}:
        found = _bounded(annotation, bounds)
    else:
        found = LEAVES.get(annotation, JSON)
    return found


@functools.cache
def contracts(kind: type[Contract]) -> st.SearchStrategy[Contract]:
    """Return values of a contract."""
    fields = {
        name: strategy(field.annotation, tuple(field.metadata))
        for name, field in kind.model_fields.items()
    }
    if kind is Route:  # its weights add up: one arm that takes all, or two that share
        fields["arms"] = st.tuples(contracts(Arm), contracts(Arm), st.floats(0, 1)).map(_shares)
    return st.fixed_dictionaries(fields).map(kind.model_validate)


def _shares(drawn: tuple[Any, Any, float]) -> tuple[Contract, ...]:
    first, second, weight = drawn
    return (
        first.model_copy(update={"name": "champion", "weight": 1 - weight}),
        second.model_copy(update={"name": "challenger", "weight": weight}),
    )


def _bounded(kind: Any, bounds: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    known = [item for item in bounds if isinstance(item, BaseMetadata)]
    if kind is int:
        known += [Ge(-LARGEST), Le(LARGEST)]
    within: Any = Annotated[(kind, *known)] if known else kind
    values: st.SearchStrategy[Any] = st.from_type(within)
    return values.filter(math.isfinite) if kind is float else values


each_contract = pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
few = settings(
    max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def all_subclasses(kind: type[Contract]) -> set[type[Contract]]:
    """Return the contracts that derive from `kind`, parts of the use case included."""
    below = set(kind.__subclasses__())
    return below.union(*(all_subclasses(other) for other in below))


def test_no_contract_loosens_what_the_base_promises() -> None:
    for kind in all_subclasses(Contract):
        assert kind.model_config["frozen"], kind
        assert kind.model_config["extra"] == "forbid", kind
        assert not kind.model_config["allow_inf_nan"], kind


@each_contract
@few
@given(data=st.data())
def test_a_contract_is_the_same_after_a_trip_through_json(
    kind: type[Contract], data: st.DataObject
) -> None:
    value = data.draw(contracts(kind))

    assert value == kind.model_validate_json(value.model_dump_json())
    assert value == kind.model_validate(value.model_dump(mode="json"))


@each_contract
@settings(parent=few, max_examples=1)
@given(data=st.data())
def test_a_contract_refuses_change_and_unknown_fields(
    kind: type[Contract], data: st.DataObject
) -> None:
    value = data.draw(contracts(kind))
    field = next(iter(kind.model_fields))

    with pytest.raises(ValidationError, match="Instance is frozen"):
        setattr(value, field, getattr(value, field))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        kind.model_validate(value.model_dump() | {"unheard_of": 1})


@pytest.mark.parametrize(
    ("kind", "name"), TIMED, ids=[f"{kind.__name__}.{name}" for kind, name in TIMED]
)
@settings(parent=few, max_examples=3)
@given(data=st.data())
def test_a_time_without_a_zone_is_refused_and_any_zone_becomes_utc(
    kind: type[Contract], name: str, data: st.DataObject
) -> None:
    values = data.draw(contracts(kind)).model_dump()

    with pytest.raises(ValidationError, match="a time without a zone is ambiguous"):
        kind.model_validate(values | {name: "2013-07-01T12:00:00"})
    moved = getattr(kind.model_validate(values | {name: "2013-07-01T08:00:00-04:00"}), name)
    assert datetime(2013, 7, 1, 12, tzinfo=UTC) == moved
    assert moved.tzinfo == UTC


def test_the_reference_use_case_is_the_same_after_a_trip_through_json(root: Path) -> None:
    usecase = spec.load(root / "usecases" / "flight_delay" / "usecase.yaml")

    assert usecase == UseCase.model_validate_json(usecase.model_dump_json())
    with pytest.raises(ValidationError, match="Instance is frozen"):
        usecase.name = "other"  # type: ignore[misc]  # the refusal is what is tested


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_evidence_that_json_cannot_say_is_refused(value: object) -> None:
    row = {
        "key": "a", "usecase": "u", "kind": "run", "subject": "s", "verdict": "v", "reason": "r",
        "actor": "a", "at": "2013-07-01T12:00:00Z",
    }  # fmt: skip
    assert Decision.model_validate(row).evidence == {}

    with pytest.raises(ValidationError, match="finite number"):
        Decision.model_validate(row | {"evidence": {"x": value}})
