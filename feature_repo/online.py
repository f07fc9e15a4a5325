"""The reader of online features: one command for all rows and views, decoded into a matrix.

It exists because the request path cannot pay for Feast's: a message for each value, a Python object
for each message. The reader does no I/O: `command` gives the bytes to send, `decode` takes the
replies, so the gateway sends them over its shared connection and a benchmark over a plain socket.

It enforces what Feast does not online: a value whose event is older than its view's time to live,
at the row's time, is missing. It refuses a model input whose place is not unique or whose type is
no number; inputs that no view has are computed from the request and stay NaN here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo import packed
from mlplatform.contracts import OnlineLayout, OnlineView
from mlplatform.errors import DataError, PlatformError, ServiceError, SpecError, shorten

Keys = Mapping[str, Sequence[str | int | None]]
"""Join key → its value in each row."""

_PLAIN: Final = frozenset({str, int, type(None)})
"""Types of nearly all keys; others are looked at one by one."""
_FOREVER: Final = np.iinfo(np.int64).max
_NOBODY: Final = b"packed:nobody"
"""Asked for when all keys are null, so that each command has one reply; never written."""


@dataclass(frozen=True, slots=True)
class OnlineRows:
    """What was known of N rows.

    Attributes:
        matrix: float32 [N, features], C order; NaN: null, missing, expired or request-time.
        inputs: Field → its values [N]: datetime64[us] with NaT, float32, or float64 with NaN.
        event_us: int64 [N, views], microseconds since 1970 of each view's row; 0: there is none.
        stale: bool [N, views]; there is no row, or it is expired. Views are in the layout's order.
    """

    matrix: npt.NDArray[np.float32]
    inputs: dict[str, npt.NDArray[Any]]
    event_us: npt.NDArray[np.int64]
    stale: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each row's strings are in the reply: for each group, an index or -1 by row."""

    payload: bytes
    order: tuple[list[int], ...]


@dataclass(frozen=True, slots=True)
class _Taken:
    """Values of one type: their places in a group's string, and their columns in the matrix."""

    dtype: str
    source: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp] | slice
    null_byte: npt.NDArray[np.intp] | None
    null_bit: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class _Group:
    keys: tuple[str, ...]
    prefix: bytes
    size: int
    empty: bytes
    views: slice
    fingerprints: npt.NDArray[np.uint32]
    marks: npt.NDArray[np.intp]
    events: npt.NDArray[np.intp]
    taken: tuple[_Taken, ...]
    inputs: tuple[tuple[str, int, packed.Slot, int], ...]
    """Name, view, slot and the place of its section in the string."""


class OnlineReader:
    """Asks for the rows of one service and turns the answer into a model's inputs.

    Args:
        layout: How the service lies in the online store.
        features: The model's inputs, in order.
        inputs: Fields that the request-time features read.

    Raises:
        SpecError: Two views have a field of one name, or a model input is a timestamp.
    """

    def __init__(
        self, layout: OnlineLayout, features: Sequence[str], inputs: Sequence[str]
    ) -> None:
        self._views = layout.views
        self._count = len(features)
        places = _places(layout)
        self._ttl = np.array([_ttl_us(view) for view in self._views], dtype=np.int64)
        # Inputs that no view has point at one view more, which is always stale.
        self._view_of = np.array(
            [places[name][0] if name in places else len(self._views) for name in features],
            dtype=np.intp,
        )
        self._complete = all(name in places for name in features)
        for name in features:
            if name in places and places[name][1].dtype == "timestamp":
                raise SpecError(
                    f"feature service {layout.service}: model input {name} is a timestamp: "
                    "compute a duration from it in request()"
                )
        self._groups = _groups(layout, places, features, inputs)

    def plan(self, keys: Keys, rows: int) -> Plan:
        """Return what to ask for; pass it on to `decode` to save its second making.

        Raises:
            DataError: A join key is missing, or a value is neither text nor an integer.
        """
        asked: list[bytes] = []
        order = tuple([_order(group, keys, rows, asked) for group in self._groups])
        if not asked:
            asked.append(_bulk(_NOBODY))
        payload = b"*%d\r\n$4\r\nMGET\r\n%b" % (len(asked) + 1, b"".join(asked))
        return Plan(payload, order)

    def command(self, keys: Keys, rows: int) -> tuple[bytes, int]:
        """Return the encoded command for these rows and its number of replies, which is 1.

        An entity that several rows share is asked for once.

        Args:
            keys: The value of each join key in each row; None where it is unknown.
            rows: How many rows.

        Raises:
            DataError: A join key is missing, or a value is neither text nor an integer.
        """
        return self.plan(keys, rows).payload, 1

    def decode(
        self,
        replies: Sequence[Any],
        keys: Keys,
        rows: int,
        at_us: npt.NDArray[np.int64],
        plan: Plan | None = None,
    ) -> OnlineRows:
        """Return the rows that the replies hold.

        Args:
            replies: Of `command`, with the same keys.
            keys: As for `command`.
            rows: As for `command`.
            at_us: Time of each row, microseconds since 1970: ages are measured at it.
            plan: From `plan`, if the caller has it.

        Raises:
            ServiceError: The store refused the command or answered something else.
        """
        plan = self.plan(keys, rows) if plan is None else plan
        values = _values(replies, plan)
        matrix = np.empty((rows, self._count), dtype=np.float32)
        views = len(self._views)
        event = np.empty((rows, views), dtype=np.int64)
        there = np.empty((rows, views), dtype=np.bool_)
        buffers = []
        for group, order in zip(self._groups, plan.order, strict=True):
            raw = _records(group, order, values)
            buffers.append(raw)
            there[:, group.views] = _viewed(raw, "<u4", group).take(group.marks, axis=1) == (
                group.fingerprints
            )
            event[:, group.views] = _viewed(raw, "<i8", group).take(group.events, axis=1)
            for taken in group.taken:
                _take(matrix, raw, group, taken)
        stale = at_us[:, None] - event > self._ttl
        stale |= ~there
        if not self._complete or stale.any():
            if not there.all():
                event[~there] = 0
            gone = np.ones((rows, views + 1), dtype=np.bool_)
            gone[:, :views] = stale
            matrix[gone.take(self._view_of, axis=1)] = np.nan
        found = {
            name: _input(raw, group, slot, start, stale[:, view])
            for group, raw in zip(self._groups, buffers, strict=True)
            for name, view, slot, start in group.inputs
        }
        return OnlineRows(matrix, found, event, stale)


def _places(layout: OnlineLayout) -> dict[str, tuple[int, packed.Slot]]:
    """Return field → number of its view and its slot."""
    places: dict[str, tuple[int, packed.Slot]] = {}
    number = 0
    for group in layout.groups:
        for section in packed.sections(group):
            for slot in section.slots:
                if slot.name in places:
                    raise SpecError(
                        f"feature service {layout.service}: field {slot.name} is in two views: "
                        "rename one"
                    )
                places[slot.name] = (number, slot)
            number += 1
    return places


def _groups(
    layout: OnlineLayout,
    places: Mapping[str, tuple[int, packed.Slot]],
    features: Sequence[str],
    inputs: Sequence[str],
) -> tuple[_Group, ...]:
    groups = []
    first = 0
    for group in layout.groups:
        sections = packed.sections(group)
        start_of = {first + n: section.offset for n, section in enumerate(sections)}
        held = [
            (column, places[name][1], start_of[places[name][0]])
            for column, name in enumerate(features)
            if name in places and places[name][0] in start_of
        ]
        size = packed.record_size(group)
        groups.append(
            _Group(
                keys=group.keys,
                prefix=packed.prefix(layout.project, packed.fingerprint(group)),
                size=size,
                empty=bytes(size),
                views=slice(first, first + len(sections)),
                fingerprints=np.array([s.fingerprint for s in sections], dtype=np.uint32),
                marks=np.array([s.offset // 4 for s in sections], dtype=np.intp),
                events=np.array([(s.offset + s.times) // 8 for s in sections], dtype=np.intp),
                taken=_taken(held),
                inputs=tuple(
                    (name, places[name][0], places[name][1], start_of[places[name][0]])
                    for name in dict.fromkeys(inputs)
                    if name in places and places[name][0] in start_of
                ),
            )
        )
        first += len(sections)
    return tuple(groups)


def _taken(held: Sequence[tuple[int, packed.Slot, int]]) -> tuple[_Taken, ...]:
    """Return the values of a group by type: one numpy call each."""
    found = []
    for dtype in dict.fromkeys(packed.TYPES[slot.dtype] for _, slot, _ in held):
        same = [(c, slot, start) for c, slot, start in held if packed.TYPES[slot.dtype] == dtype]
        width = np.dtype(dtype).itemsize
        columns = [column for column, _, _ in same]
        run = columns == list(range(columns[0], columns[0] + len(columns)))
        nulls = [packed.null_place(slot) for _, slot, _ in same]
        floats = dtype in {"<f4", "<f8"}  # their nulls are NaN in their places
        found.append(
            _Taken(
                dtype=dtype,
                source=np.array([(s + slot.offset) // width for _, slot, s in same], dtype=np.intp),
                columns=slice(columns[0], columns[-1] + 1) if run else np.array(columns),
                null_byte=None
                if floats
                else np.array(
                    [s + byte for (_, _, s), (byte, _) in zip(same, nulls, strict=True)],
                    dtype=np.intp,
                ),
                null_bit=None if floats else np.array([bit for _, bit in nulls], dtype=np.uint8),
            )
        )
    return tuple(found)


def _order(group: _Group, keys: Keys, rows: int, asked: list[bytes]) -> list[int]:
    """Return the place of each row's string among the keys asked for, adding new ones."""
    columns = []
    for key in group.keys:
        if key not in keys or len(keys[key]) != rows:
            raise DataError(f"online features need the key {key} of each of {rows} rows")
        column = keys[key]
        if not _PLAIN.issuperset(map(type, column)):
            for value in column:  # True equals 1 and would be taken for it below
                packed.entity((value,))
        columns.append(column)
    prefix, entity = group.prefix, packed.entity
    places: dict[tuple[str | int | None, ...], int] = {}
    order = []
    for values in zip(*columns, strict=True):
        place = places.get(values)
        if place is None:
            name = entity(values)
            place = places[values] = -1 if name is None else len(asked)
            if name is not None:
                asked.append(_bulk(prefix + name))
        order.append(place)
    return order


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _values(replies: Sequence[Any], plan: Plan) -> Sequence[bytes | None]:
    found = replies[0] if len(replies) == 1 else None
    if isinstance(found, PlatformError):
        raise found
    expected = 1 + max((max(order, default=-1) for order in plan.order), default=-1)
    if not isinstance(found, list) or len(found) < expected:
        raise ServiceError(
            f"the online store answered a read of features with {shorten(repr(found))}: check "
            "that it is a Redis and that the user may read packed:*"
        )
    return found


def _records(group: _Group, order: list[int], values: Sequence[bytes | None]) -> bytes:
    """Return the rows' strings one after the other, each of the group's size."""
    size, empty = group.size, group.empty
    parts = []
    for place in order:
        value = values[place] if place >= 0 else None
        if value is None:
            value = empty
        elif len(value) != size:  # its last views were never written, or it is not ours
            value = value[:size].ljust(size, b"\0")
        parts.append(value)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _viewed(raw: bytes, dtype: str, group: _Group) -> npt.NDArray[Any]:
    return np.frombuffer(raw, dtype).reshape(-1, group.size // np.dtype(dtype).itemsize)


def _take(matrix: npt.NDArray[np.float32], raw: bytes, group: _Group, taken: _Taken) -> None:
    values = _viewed(raw, taken.dtype, group).take(taken.source, axis=1)
    if taken.null_byte is not None:
        bits = _viewed(raw, "<u1", group).take(taken.null_byte, axis=1) & taken.null_bit
        if bits.any():
            values = np.where(bits, np.float64(np.nan), values)
    if taken.dtype == "<f8":
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 it is infinite
            matrix[:, taken.columns] = values
    else:
        matrix[:, taken.columns] = values


def _input(
    raw: bytes, group: _Group, slot: packed.Slot, start: int, stale: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    dtype = packed.TYPES[slot.dtype]
    place = (start + slot.offset) // np.dtype(dtype).itemsize
    values = _viewed(raw, dtype, group)[:, place]
    byte, bit = packed.null_place(slot)
    gone = stale | (_viewed(raw, "<u1", group)[:, start + byte] & bit).astype(np.bool_)
    if slot.dtype == "timestamp":
        return np.where(gone, packed.NAT, values).view("datetime64[us]")
    if slot.dtype == "float32":
        return np.where(gone, np.float32(np.nan), values)
    return np.where(gone, np.nan, values.astype(np.float64))


def _ttl_us(view: OnlineView) -> int:
    return _FOREVER if view.ttl_seconds is None else round(view.ttl_seconds * 1_000_000)
