"""Who falls on which arm: the same every time, in the right shares, and moving one way only."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.assignment import Assignment, bound, entity_name

ENTITIES = [f"2013-06-{day:02}-AA-{number}-JFK" for day in range(1, 31) for number in range(700)]


@pytest.mark.parametrize("weight", [0.05, 0.2, 0.5])
def test_the_challenger_gets_its_share_of_entities(weight: float) -> None:
    assignment, limit = Assignment("salt"), bound(weight)
    hits = sum(assignment.of(entity) < limit for entity in ENTITIES)
    deviation = math.sqrt(len(ENTITIES) * weight * (1 - weight))

    assert abs(hits - len(ENTITIES) * weight) < 4 * deviation


@settings(derandomize=True, max_examples=100)
@given(st.text(min_size=1), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_weight_moves_entities_only_to_the_challenger(
    salt: str, entity: str, one: float, other: float
) -> None:
    value = Assignment(salt).of(entity)
    small, large = sorted((bound(one), bound(other)))

    assert value >= small or value < large


def test_the_extreme_weights_take_nobody_and_everybody() -> None:
    values = [Assignment("salt").of(entity) for entity in ENTITIES[:1000]]

    assert not any(value < bound(0.0) for value in values)
    assert all(value < bound(1.0) for value in values)


def test_an_entity_stays_where_it_is_in_every_process() -> None:
    # Fixed for ever: a gateway of another release must agree with this one.
    assert 13068234441079875751 == Assignment("salt").of("2013-06-01-AA-100-JFK")


def test_another_salt_is_another_split() -> None:
    limit = bound(0.5)
    first, second = Assignment("june"), Assignment("july")
    both = sum((first.of(e) < limit) == (second.of(e) < limit) for e in ENTITIES)

    assert abs(both / len(ENTITIES) - 0.5) < 0.02


@settings(derandomize=True, max_examples=300)
@given(
    st.tuples(st.text(), st.text(min_size=1)),
    st.tuples(st.text(), st.text(min_size=1)),
)
def test_salt_and_entity_are_kept_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    same = Assignment(one[1]).of(one[0]) == Assignment(other[1]).of(other[0])

    assert (one == other) == same


def test_keys_of_an_entity_are_never_confused() -> None:
    keys: list[tuple[str | int | None, ...]] = [
        ("1", "12"),
        ("11", "2"),
        ("1", None),
        ("1", "null"),
        (1, "12"),
        ("1,12",),
        (None,),
    ]
    names = [entity_name(key) for key in keys]

    assert all(one != other for one, other in itertools.combinations(names, 2))
    assert "JFK" == entity_name(("JFK",))
