"""How features lie in the online store: one string for each entity, with all views of its keys.

Feast keeps each value as a protobuf message in a field of a hash, and makes a Python object of each
when it reads (`make bench-serving` measures it). Here the views that share their join keys are one
string of fixed places, so that a batch is read by one MGET and decoded by a few numpy calls. A view
is one section of that string, written whole by SETRANGE, so views are written at their own times.

A section is: fingerprint (uint32), null bits, event time, creation time (int64 microseconds since
1970), then the values, little-endian, the wide ones first and each at a multiple of its width. A
string that ends early, zeros, or another view's fingerprint read as "there is no row". Null floats
are NaN and null timestamps are NaT in their place as well, so only integers need the null bits.

This module is the pure codec: no Redis, no Feast. It refuses values and keys of other types.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlplatform.contracts import OnlineGroup, OnlineLayout, OnlineType, OnlineView
from mlplatform.errors import DataError

Array = npt.NDArray[Any]

FORMAT: Final = 1
"""Part of every fingerprint: to change what the bytes mean, raise it."""

TYPES: Final[Mapping[OnlineType, str]] = {
    "float32": "<f4",
    "float64": "<f8",
    "int32": "<i4",
    "int64": "<i8",
    "bool": "<u1",
    "timestamp": "<i8",
}
"""numpy's type of each value in its place."""

NAT: Final = np.iinfo(np.int64).min
"""A null timestamp; numpy's own NaT."""

_HEAD: Final = 4
"""Bytes before the null bits: the fingerprint."""
_ALIGNED: Final = 8
"""Sections and their times begin at multiples of it, so that a record can be viewed as int64."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One field's place.

    Attributes:
        name: Of the field.
        dtype: Of the value.
        offset: Of the value, in its section.
        bit: Number of its null bit.
    """

    name: str
    dtype: OnlineType
    offset: int
    bit: int


@dataclass(frozen=True, slots=True)
class Section:
    """One view's place in the string of its group.

    Attributes:
        view: The view.
        fingerprint: Of its name and fields; never 0.
        offset: Of the section, in the string.
        times: Offset of the event time in the section; the creation time follows it.
        size: Bytes of the section.
        slots: Places of its fields, in the view's order.
        record: The section as a structured type: `fingerprint`, `nulls`, `event`, `created` and
            the values by the number of their bit.
    """

    view: OnlineView
    fingerprint: int
    offset: int
    times: int
    size: int
    slots: tuple[Slot, ...]
    record: np.dtype[Any] = field(compare=False)


def section(view: OnlineView, offset: int = 0) -> Section:
    """Return a view's section when it begins at `offset` of its group's string."""
    times = _aligned(_HEAD + _null_bytes(view))
    place = times + 16
    places = {}
    for width in (8, 4, 1):
        for bit, held in enumerate(view.fields):
            if np.dtype(TYPES[held.dtype]).itemsize == width:
                places[bit] = place
                place += width
    slots = tuple(
        Slot(held.name, held.dtype, places[bit], bit) for bit, held in enumerate(view.fields)
    )
    size = _aligned(place)
    record = np.dtype(
        {
            "names": ["fingerprint", "nulls", "event", "created", *(str(s.bit) for s in slots)],
            "formats": [
                "<u4",
                f"({_null_bytes(view)},)u1",
                *("<i8", "<i8"),
                *(TYPES[slot.dtype] for slot in slots),
            ],
            "offsets": [0, _HEAD, times, times + 8, *(slot.offset for slot in slots)],
            "itemsize": size,
        }
    )
    return Section(view, _view_fingerprint(view), offset, times, size, slots, record)


@lru_cache(maxsize=256)
def sections(group: OnlineGroup) -> tuple[Section, ...]:
    """Return the sections of a group's string, in the order of its views."""
    found = []
    offset = 0
    for view in group.views:
        found.append(section(view, offset))
        offset += found[-1].size
    return tuple(found)


def record_size(group: OnlineGroup) -> int:
    """Return the bytes of a group's whole string."""
    last = sections(group)[-1]
    return last.offset + last.size


@lru_cache(maxsize=256)
def fingerprint(group: OnlineGroup) -> str:
    """Return 16 hexadecimal digits of a group's keys and places; time to live does not count."""
    content = [FORMAT, group.keys, [_described(view) for view in group.views]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def prefix(project: str, group: str) -> bytes:
    """Return what the Redis keys of the group with this fingerprint begin with."""
    return f"packed:{project}:{group}:".encode()


def entity(values: Sequence[str | int | None]) -> bytes | None:
    """Return the key values as one name, or None when one is null.

    Text has its length in front, so that ("1", "12") and ("11", "2") differ; so do 1 and "1".

    Raises:
        DataError: A value is neither text nor an integer.
    """
    parts = []
    for value in values:
        if type(value) is str:
            text = value.encode()
            parts.append(b"%d:%b" % (len(text), text))
        elif type(value) is int:
            parts.append(b"i%d;" % value)
        elif value is None:
            return None
        else:
            parts.append(_unusual(value))
    return b"".join(parts)


def group_key(
    layout: OnlineLayout, group: OnlineGroup, values: Sequence[str | int | None]
) -> bytes | None:
    """Return the Redis key of an entity's string, or None when a key value is null.

    Args:
        layout: Names the project.
        group: One of the layout's.
        values: One for each of the group's keys, in their order.

    Raises:
        DataError: A value is neither text nor an integer, or there are too many or too few.
    """
    if len(values) != len(group.keys):
        raise DataError(f"{len(values)} key values for the keys {', '.join(group.keys)}")
    name = entity(values)
    return None if name is None else prefix(layout.project, fingerprint(group)) + name


def encode(
    place: Section,
    columns: Mapping[str, tuple[Array, npt.NDArray[np.bool_]]],
    event_us: npt.NDArray[np.int64],
    created_us: npt.NDArray[np.int64],
) -> list[bytes]:
    """Return a section's bytes for each row.

    Args:
        place: The section.
        columns: Field → values and where they are null; what stands in a null's place is ignored.
        event_us: Event times.
        created_us: Creation times; the event time where the source has none.

    Raises:
        DataError: A column is missing.
    """
    rows = np.zeros(len(event_us), dtype=place.record)
    rows["fingerprint"] = place.fingerprint
    rows["event"] = event_us
    rows["created"] = created_us
    bits = np.zeros((len(rows), len(place.slots)), dtype=np.bool_)
    for slot in place.slots:
        if slot.name not in columns:
            raise DataError(f"rows of view {place.view.name} lack the column {slot.name}")
        values, null = columns[slot.name]
        if slot.dtype in {"float32", "float64"}:
            null = null | np.isnan(values)  # one meaning online, as in Feast
            empty: float = np.nan
        else:
            empty = NAT if slot.dtype == "timestamp" else 0
        bits[:, slot.bit] = null
        rows[str(slot.bit)] = np.where(null, np.asarray(empty, TYPES[slot.dtype]), values)
    rows["nulls"] = np.packbits(bits, axis=1, bitorder="little")
    raw = rows.tobytes()
    return [raw[start : start + place.size] for start in range(0, len(raw), place.size)]


def times_of(place: Section, raw: bytes) -> tuple[int, int] | None:
    """Return the event and creation time of a section's bytes; None when there is no row."""
    if len(raw) < place.size or int.from_bytes(raw[:_HEAD], "little") != place.fingerprint:
        return None
    event = raw[place.times : place.times + 8]
    created = raw[place.times + 8 : place.times + 16]
    return (
        int.from_bytes(event, "little", signed=True),
        int.from_bytes(created, "little", signed=True),
    )


def null_place(slot: Slot) -> tuple[int, int]:
    """Return the byte of a field's null bit in its section, and the bit's value in it."""
    return _HEAD + slot.bit // 8, 1 << slot.bit % 8


def _unusual(value: Any) -> bytes:
    """Return the name of a key value of a subclass or of numpy's types."""
    if isinstance(value, str):
        return entity([str(value)]) or b""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return b"i%d;" % int(value)
    raise DataError(f"key value {value!r} is {type(value).__name__}: keys are text or integers")


def _view_fingerprint(view: OnlineView) -> int:
    digest = hashlib.sha256(json.dumps([FORMAT, *_described(view)]).encode()).digest()
    return int.from_bytes(digest[:_HEAD], "little") or 1


def _described(view: OnlineView) -> list[Any]:
    return [view.name, [[held.name, held.dtype] for held in view.fields]]


def _null_bytes(view: OnlineView) -> int:
    return (len(view.fields) + 7) // 8


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
