"""The bytes of packed values: keys that cannot be confused, places, nulls, and what is no row."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import packed
from mlplatform.contracts import OnlineField, OnlineGroup, OnlineLayout, OnlineView
from mlplatform.errors import DataError

VIEW = OnlineView(
    name="ride",
    ttl_seconds=60,
    fields=(
        OnlineField(name="flag", dtype="bool"),
        OnlineField(name="speed", dtype="float32"),
        OnlineField(name="count", dtype="int64"),
    ),
)
GROUP = OnlineGroup(keys=("city", "zone"), views=(VIEW,))
LAYOUT = OnlineLayout(project="p", service="s", groups=(GROUP,))

Value = str | int


@settings(derandomize=True)
@given(
    st.lists(st.one_of(st.text(max_size=6), st.integers()), min_size=1, max_size=3),
    st.lists(st.one_of(st.text(max_size=6), st.integers()), min_size=1, max_size=3),
)
def test_two_entities_have_one_name_only_if_all_their_values_are_the_same(
    first: list[Value], second: list[Value]
) -> None:
    assert (first == second) == (packed.entity(first) == packed.entity(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(("1", "12"), ("11", "2"), id="moved border"),
        pytest.param(("1:1", ""), ("1", "1:"), id="separator in the value"),
        pytest.param(("1",), (1,), id="text and number"),
        pytest.param(("",), (None,), id="empty and null"),
        pytest.param(("é",), ("e",), id="accent"),
    ],
)
def test_entities_that_look_alike_differ(first: Any, second: Any) -> None:
    assert packed.entity(first) != packed.entity(second)


def test_a_null_in_a_key_belongs_to_no_entity() -> None:
    assert packed.group_key(LAYOUT, GROUP, ["EWR", None]) is None


def test_numpys_values_name_the_same_entity_as_pythons() -> None:
    assert packed.entity(["a", 7]) == packed.entity([np.str_("a"), np.int64(7)])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [1.0, True, b"x", np.True_], ids=repr)
def test_a_key_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="keys are text or integers"):
        packed.entity([value])


def test_too_few_key_values_are_refused() -> None:
    with pytest.raises(DataError, match="1 key values for the keys city, zone"):
        packed.group_key(LAYOUT, GROUP, ["EWR"])


def changed(**update: Any) -> OnlineGroup:
    return GROUP.model_copy(update={"views": (VIEW.model_copy(update=update),)})


def test_the_key_changes_with_names_types_and_order_and_not_with_the_time_to_live() -> None:
    retyped = (VIEW.fields[0], OnlineField(name="speed", dtype="float64"), VIEW.fields[2])
    others = [
        changed(name="rides"),
        changed(fields=VIEW.fields[::-1]),
        changed(fields=VIEW.fields[:2]),
        changed(fields=retyped),
        GROUP.model_copy(update={"keys": ("city",)}),
    ]

    assert len(others) + 1 == len({packed.fingerprint(group) for group in (GROUP, *others)})
    assert packed.fingerprint(GROUP) == packed.fingerprint(changed(ttl_seconds=None))


def test_the_format_is_pinned_by_its_bytes() -> None:
    """Strings that were written by an older release must read the same, or FORMAT must rise."""
    section = packed.section(VIEW)
    null = np.array([False])
    columns: dict[str, Any] = {
        "flag": (np.array([1], dtype=np.uint8), null),
        "speed": (np.array([0.5], dtype=np.float32), null),
        "count": (np.array([0]), np.array([True])),
    }

    (raw,) = packed.encode(section, columns, np.array([258]), np.array([-1]))

    assert b"packed:p:1a76074e6d68ee33:3:EWR1:B" == packed.group_key(LAYOUT, GROUP, ["EWR", "B"])
    assert (
        "33479b66" "04000000"  # fingerprint; the third field is null
        "0201000000000000" "ffffffffffffffff"  # event, creation
        "0000000000000000" "0000003f" "01" "000000"  # count, speed, flag, to a multiple of eight
    ) == raw.hex()  # fmt: skip
    assert (258, -1) == packed.times_of(section, raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(40), id="zeros"),
        pytest.param(b"\1\2\3\4" + bytes(36), id="another view's"),
        pytest.param(packed.section(VIEW).fingerprint.to_bytes(4, "little") + bytes(8), id="short"),
    ],
)
def test_what_is_no_row_has_no_times(raw: bytes) -> None:
    assert packed.times_of(packed.section(VIEW), raw) is None


def test_a_missing_column_is_refused_by_name() -> None:
    times = np.array([0])

    with pytest.raises(DataError, match="view ride lack the column flag"):
        packed.encode(packed.section(VIEW), {}, times, times)


@settings(derandomize=True)
@given(st.lists(st.sampled_from(["float32", "float64", "int32", "int64", "bool", "timestamp"]),
                min_size=1, max_size=20))  # fmt: skip
def test_every_value_lies_at_a_multiple_of_its_width_and_none_overlap(types: list[Any]) -> None:
    fields = tuple(OnlineField(name=f"f{n}", dtype=kind) for n, kind in enumerate(types))
    section = packed.section(OnlineView(name="v", ttl_seconds=None, fields=fields), 16)
    taken: set[int] = set(range(section.times + 16))
    for slot in section.slots:
        width = np.dtype(packed.TYPES[slot.dtype]).itemsize
        place = set(range(slot.offset, slot.offset + width))

        assert 0 == slot.offset % width
        assert not taken & place
        taken |= place
    assert max(taken) < section.size
    assert 0 == section.size % 8
