"""The reader without a server: what it asks for, and what it makes of every kind of reply."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import packed
from feature_repo.online import OnlineReader
from mlplatform.contracts import OnlineField, OnlineGroup, OnlineLayout, OnlineType, OnlineView
from mlplatform.errors import DataError, ServiceError, SpecError

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


def view(name: str, ttl: float | None = 60, **fields: OnlineType) -> OnlineView:
    held = tuple(OnlineField(name=key, dtype=kind) for key, kind in fields.items())
    return OnlineView(name=name, ttl_seconds=ttl, fields=held)


RIDE = view("ride", f32="float32", i32="int32", when="timestamp", flag="bool")
WORTH = view("worth", ttl=None, f64="float64", i64="int64")
TRAFFIC = view("traffic", speed="float32")
RIDER = OnlineGroup(keys=("rider",), views=(RIDE, WORTH))
PLACE = OnlineGroup(keys=("city", "zone"), views=(TRAFFIC,))
LAYOUT = OnlineLayout(project="p", service="s", groups=(RIDER, PLACE))
FEATURES = ("f32", "i32", "flag", "f64", "i64", "speed", "from_request")


def reader(features: tuple[str, ...] = FEATURES) -> OnlineReader:
    return OnlineReader(LAYOUT, features, ("when", "i32", "distance"))


def section(of: packed.Section, event: int, **values: Any) -> bytes:
    columns = {}
    for slot in of.slots:
        value = values.get(slot.name)
        null = np.array([value is None])
        filled = np.array([0 if value is None else value], dtype=packed.TYPES[slot.dtype])
        columns[slot.name] = (filled, null)
    return packed.encode(of, columns, np.array([event]), np.array([event]))[0]


def rider(event: int = NOW, /, **values: Any) -> bytes:
    return b"".join(section(one, event, **values) for one in packed.sections(RIDER))


def ask(*riders: Any, city: Any = None) -> dict[str, list[Any]]:
    return {"rider": list(riders), "city": [city] * len(riders), "zone": ["A"] * len(riders)}


def decode(replies: list[Any], *riders: Any, at: int = NOW) -> Any:
    keys = ask(*riders)
    return reader().decode(replies, keys, len(riders), np.full(len(riders), at))


def test_one_command_asks_for_all_rows_and_groups_and_for_a_shared_entity_once() -> None:
    payload, replies = reader().command(ask(7, 8, 7, city="EWR"), 3)
    keys = [
        packed.group_key(LAYOUT, RIDER, [7]),
        packed.group_key(LAYOUT, RIDER, [8]),
        packed.group_key(LAYOUT, PLACE, ["EWR", "A"]),
    ]
    expected = b"*4\r\n$4\r\nMGET\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(k), k) for k in keys if k)

    assert (expected, 1) == (payload, replies)


@pytest.mark.parametrize("key", [True, False, 1.0, np.True_, np.float64(1)])
def test_a_key_that_equals_an_integer_is_not_taken_for_it(key: Any) -> None:
    for keys in ((1, key), (0, key), (None, key), (key,)):
        with pytest.raises(DataError, match="keys are text or integers"):
            reader().command(ask(*keys), len(keys))


def test_numpys_integers_and_texts_are_keys() -> None:
    assert reader().command(ask(7, "a"), 2) == reader().command(ask(np.int64(7), np.str_("a")), 2)


def test_rows_whose_keys_are_all_null_still_have_one_reply() -> None:
    payload, replies = reader().command(ask(None), 1)
    found = decode([[None]], None)

    assert b"*2\r\n$4\r\nMGET\r\n$13\r\npacked:nobody\r\n" == payload
    assert 1 == replies
    assert np.isnan(found.matrix).all()
    assert found.stale.all()


def test_values_land_in_the_models_order_and_request_features_stay_empty() -> None:
    values: dict[str, Any] = {
        "f32": 0.5,
        "i32": -3,
        "flag": True,
        "f64": 1e300,
        "i64": 12,
        "when": 5 * SECOND,
    }

    found = decode([[rider(**values)]], 7)

    assert [0.5, -3, 1, np.inf, 12] == found.matrix[0, :5].tolist()
    assert np.isnan(found.matrix[0, 5:]).all()
    assert [[False, False, True]] == found.stale.tolist()
    assert [[NOW, NOW, 0]] == found.event_us.tolist()
    assert np.float32 == found.matrix.dtype


def test_inputs_keep_their_types_and_those_of_the_request_are_left_out() -> None:
    found = decode([[rider(when=5 * SECOND, i32=4), rider()]], 7, 8)

    assert {"when", "i32"} == set(found.inputs)
    assert np.array_equal(
        np.array([5 * SECOND, packed.NAT]).view("datetime64[us]"),
        found.inputs["when"],
        equal_nan=True,
    )
    assert np.array_equal(np.array([4.0, np.nan]), found.inputs["i32"], equal_nan=True)


def test_a_null_integer_is_missing_in_its_row_only() -> None:
    found = decode([[rider(i32=1, i64=2, flag=False), rider(i32=None, i64=None)]], 7, 8)

    assert [1, 0, 2] == found.matrix[0, [1, 2, 4]].tolist()
    assert np.isnan(found.matrix[1, [1, 2, 4]]).all()
    assert not found.stale[1, :2].any()


@pytest.mark.parametrize(
    ("age", "expired"),
    [
        pytest.param(60 * SECOND, False, id="as old as allowed"),
        pytest.param(60 * SECOND + 1, True, id="a microsecond older"),
        pytest.param(-SECOND, False, id="after the request"),
    ],
)
def test_a_value_counts_up_to_its_time_to_live(age: int, expired: bool) -> None:
    found = decode([[rider(NOW - age, f32=1.0, f64=2.0, i32=3)]], 7)

    assert [expired, False, True] == found.stale[0].tolist()
    assert expired == bool(np.isnan(found.matrix[0, 0]))
    assert expired == bool(np.isnan(found.inputs["i32"][0]))
    assert 2.0 == found.matrix[0, 3]  # its view has no time to live
    assert NOW - age == found.event_us[0, 0]


def test_each_row_has_its_own_time() -> None:
    keys = ask(7, 7)
    at = np.array([NOW, NOW + 61 * SECOND])

    found = reader().decode([[rider(f32=1.0)]], keys, 2, at)

    assert [False, True] == found.stale[:, 0].tolist()


def test_a_string_that_ends_after_its_first_view_holds_that_view() -> None:
    first = packed.sections(RIDER)[0]

    found = decode([[section(first, NOW, f32=1.5)]], 7)

    assert [False, True, True] == found.stale[0].tolist()
    assert 1.5 == found.matrix[0, 0]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(None, id="no key"),
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="one byte"),
        pytest.param(b"\xff" * 500, id="noise"),
        pytest.param(bytes(500), id="zeros"),
        pytest.param(rider()[1:], id="shifted"),
    ],
)
def test_bytes_that_are_no_row_are_missing_and_harm_no_other_row(raw: bytes | None) -> None:
    found = decode([[raw, rider(f32=1.0, f64=2.0)]], 7, 8)

    assert [[True, True, True], [False, False, True]] == found.stale.tolist()
    assert [0, 0, 0] == found.event_us[0].tolist()
    assert np.isnan(found.matrix[0]).all()
    assert [1.0, 2.0] == found.matrix[1, [0, 3]].tolist()
    assert np.isnat(found.inputs["when"][0])


def test_a_view_whose_fields_changed_reads_as_missing() -> None:
    other = RIDE.model_copy(update={"fields": RIDE.fields[::-1]})
    raw = section(packed.section(other), NOW, f32=1.0) + rider()[packed.sections(RIDER)[0].size :]

    assert [True, False, True] == decode([[raw]], 7).stale[0].tolist()


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([], id="none"),
        pytest.param([b"OK"], id="not a list"),
        pytest.param([[]], id="too short"),
        pytest.param([ServiceError("Redis refused a command: LOADING")], id="refused"),
    ],
)
def test_a_reply_that_is_none_of_ours_is_a_service_error(replies: list[Any]) -> None:
    with pytest.raises(ServiceError, match=r"(online store answered|LOADING)"):
        decode(replies, 7)


def test_a_row_without_a_join_key_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="need the key zone of each of 1 rows"):
        reader().command({"rider": [1], "city": ["EWR"], "zone": []}, 1)
    with pytest.raises(DataError, match="need the key city"):
        reader().command({"rider": [1]}, 1)


def test_a_field_that_two_views_have_is_refused() -> None:
    twice = OnlineLayout(
        project="p",
        service="s",
        groups=(RIDER.model_copy(update={"views": (TRAFFIC,)}), PLACE),
    )

    with pytest.raises(SpecError, match="field speed is in two views"):
        OnlineReader(twice, (), ())


def test_a_timestamp_is_no_model_input() -> None:
    with pytest.raises(SpecError, match="model input when is a timestamp"):
        reader(("when",))


def test_no_rows_give_no_rows() -> None:
    found = decode([[None]])

    assert (0, len(FEATURES)) == found.matrix.shape
    assert (0, 3) == found.stale.shape


FLOATS = st.floats(width=32, allow_nan=True)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "f32": FLOATS,
        "i32": st.integers(-(2**31), 2**31 - 1),
        "flag": st.booleans(),
        "f64": st.floats(),
        "i64": st.integers(-(2**63), 2**63 - 1),
        "when": st.integers(-(2**62), 2**62),
    },
)


@settings(derandomize=True, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_every_value_comes_back_as_it_was_packed(rows: list[dict[str, Any]]) -> None:
    found = decode([[rider(**row) for row in rows]], *range(len(rows)))
    with np.errstate(over="ignore"):
        expected = [
            [np.float32(np.nan if row.get(name) is None else row[name]) for name in FEATURES[:5]]
            for row in rows
        ]
    when = [row.get("when", packed.NAT) for row in rows]

    assert np.array_equal(np.array(expected), found.matrix[:, :5], equal_nan=True)
    assert when == found.inputs["when"].view(np.int64).tolist()
