"""Rows on their way online: checked against their view, and in both forms that are stored.

A row comes as a line of a data frame or as Feast's messages, and leaves as Feast's hash fields and
as packed sections; `feature_repo.online_writer` puts them into Redis. The few rows of a push are
the common case: they are taken as Python values, since polars' calls would cost more than all else.

It refuses columns and types other than the view declares, null keys and null times, and views
without a place in a packed string.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, compute_versioned_name
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from feature_repo import layout, packed
from feature_repo.translation import epoch
from mlplatform.contracts import OnlineType
from mlplatform.errors import DataError, SpecError, shorten

_MICROSECONDS: Final = 1_000_000

_PROTO: Final[Mapping[OnlineType, str]] = {
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int32_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "timestamp": "unix_timestamp_val",
}
"""Which member of Feast's value message holds a type."""

_POLARS: Final[Mapping[OnlineType, Any]] = {
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "bool": pl.Boolean(),
    "timestamp": pl.Datetime("us", "UTC"),
}
_KEYS: Final[Mapping[str, Any]] = {"String": pl.String(), "Int32": pl.Int32(), "Int64": pl.Int64()}
_KEY_PROTO: Final = {"String": "string_val", "Int32": "int32_val", "Int64": "int64_val"}

ProtoRow = tuple[Any, Mapping[str, Any], datetime, datetime | None]
"""A row as Feast hands it to an online store: key, values, event and creation time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, ready to be written."""

    entity: bytes
    hash_key: bytes
    fields: list[bytes]
    sections: tuple[bytes, ...]
    times: tuple[int, int]


@dataclass(frozen=True)
class Target:
    """Where and how a view's rows are written."""

    view: FeatureView
    placements: tuple[layout.Placement, ...]
    keys: tuple[str, ...]
    schema: pl.Schema
    event: str
    created: str | None
    columns: tuple[pl.Expr, ...]
    key_members: tuple[str, ...]
    hash_fields: tuple[bytes, ...]
    hash_time: bytes

    @classmethod
    def of(cls, view: FeatureView, *, versioned: bool = False) -> Self:
        """Return the target of a stamped view.

        Raises:
            SpecError: The view has no place in a packed string.
        """
        placements = layout.placements(view)
        if not placements:
            raise SpecError(
                f"feature view {view.name} has no place in the online store: no feature service "
                "that can be packed holds it, or its definitions were not applied"
            )
        name = compute_versioned_name(view, versioned)
        source = view.batch_source
        created = source.created_timestamp_column or None
        times = dict.fromkeys(filter(None, (source.timestamp_field, created)), _POLARS["timestamp"])
        kinds = {column.name: str(column.dtype) for column in view.entity_columns}
        keys = {name: _KEYS[kinds[name]] for name in sorted(kinds)}
        slots = placements[0].section.slots
        schema = pl.Schema({**keys, **{s.name: _POLARS[s.dtype] for s in slots}, **times})
        return cls(
            view=view,
            placements=placements,
            keys=tuple(keys),
            schema=schema,
            event=source.timestamp_field,
            created=created,
            columns=tuple(
                pl.col(name).to_physical() if kind == _POLARS["timestamp"] else pl.col(name)
                for name, kind in schema.items()
            ),
            key_members=tuple(_KEY_PROTO[kinds[name]] for name in keys),
            hash_fields=tuple(_mmh3(f"{name}:{slot.name}") for slot in slots),
            hash_time=f"_ts:{name}".encode(),
        )

    @property
    def slots(self) -> tuple[packed.Slot, ...]:
        """The view's fields."""
        return self.placements[0].section.slots


def from_frame(target: Target, project: str, rows: pl.DataFrame) -> list[Row]:
    """Return rows that `typed` returned in their stored forms."""
    held = dict(zip(target.schema, zip(*rows.rows(), strict=True), strict=True))
    event = held[target.event]
    created = held[target.created] if target.created else event
    sections = _sections(target, held, event, created)
    messages = [_messages(held[slot.name], slot.dtype) for slot in target.slots]
    keys = zip(*(held[key] for key in target.keys), strict=True)
    found = []
    for number, values in enumerate(keys):
        key = EntityKey(
            join_keys=target.keys,
            entity_values=[
                Value(**{member: value})
                for member, value in zip(target.key_members, values, strict=True)
            ],
        )
        times = event[number], created[number]
        held_messages = [column[number] for column in messages]
        places = tuple([place[number] for place in sections])
        found.append(_row(target, project, key, values, held_messages, places, times))
    return found


def from_protos(target: Target, project: str, data: Sequence[ProtoRow]) -> list[Row]:
    """Return rows of Feast's messages in their stored forms."""
    event = [_epoch(when) for _, _, when, _ in data]
    created = [_epoch(when if known is None else known) for _, _, when, known in data]
    columns = {
        slot.name: _from_messages([values.get(slot.name) for _, values, _, _ in data], slot)
        for slot in target.slots
    }
    sections = _sections(target, columns, event, created)
    found = []
    for number, (key, values, _, _) in enumerate(data):
        by_name = dict(zip(key.join_keys, key.entity_values, strict=True))
        held = [getattr(by_name[name], by_name[name].WhichOneof("val")) for name in target.keys]
        times = event[number], created[number]
        messages = [values[slot.name].SerializeToString() for slot in target.slots]
        places = tuple([place[number] for place in sections])
        found.append(_row(target, project, key, held, messages, places, times))
    return found


def _row(
    target: Target,
    project: str,
    key: Any,
    entity: Sequence[str | int | None],
    messages: Sequence[bytes],
    sections: tuple[bytes, ...],
    times: tuple[int, int],
) -> Row:
    fields = [target.hash_time, _timestamp(times[0])]
    for name, message in zip(target.hash_fields, messages, strict=True):
        fields += (name, message)
    serialized: bytes = serialize_entity_key(key, entity_key_serialization_version=3)
    return Row(
        entity=packed.entity(entity) or b"",
        hash_key=serialized + project.encode(),
        fields=fields,
        sections=sections,
        times=times,
    )


def _sections(
    target: Target,
    columns: Mapping[str, Sequence[Any]],
    event: Sequence[int],
    created: Sequence[int],
) -> list[list[bytes]]:
    arrays = {slot.name: _array(columns[slot.name], slot.dtype) for slot in target.slots}
    times = np.array(event, dtype=np.int64), np.array(created, dtype=np.int64)
    return [packed.encode(place.section, arrays, *times) for place in target.placements]


def typed(target: Target, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns in the target's order, times as microseconds.

    Raises:
        DataError: A column is missing, unknown, of another type, or a key or time is null.
    """
    view, schema = target.view.name, target.schema
    if dict(rows.schema) != dict(schema):
        rows = _cast(target, rows)
    rows = rows.select(target.columns)
    for name in (*target.keys, target.event, target.created):
        if name and (nulls := rows[name].null_count()):
            raise DataError(
                f"rows for feature view {view}: {name} has {nulls} nulls: a row without it can "
                "never be read"
            )
    return rows


def _cast(target: Target, rows: pl.DataFrame) -> pl.DataFrame:
    view, schema = target.view.name, target.schema
    missing = sorted(set(schema) - set(rows.columns))
    extra = sorted(set(rows.columns) - set(schema))
    if missing or extra:
        raise DataError(
            f"rows for feature view {view}: missing columns {missing}, unknown columns {extra}: "
            "write exactly the view's keys, features and times"
        )
    for name, wanted in schema.items():
        kind = rows.schema[name]
        if isinstance(wanted, pl.Datetime) and (
            kind != pl.Null and not (isinstance(kind, pl.Datetime) and kind.time_zone)
        ):
            raise DataError(
                f"rows for feature view {view}: {name} is {kind}: a time needs its zone"
            )
    try:
        return rows.select(list(schema)).cast(schema)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"rows for feature view {view} do not fit its declared types: {shorten(error)}"
        ) from error


def _array(
    values: Sequence[Any], dtype: OnlineType
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return values and where they are null."""
    kind = packed.TYPES[dtype]
    if None not in values:
        return np.array(values, dtype=kind), np.zeros(len(values), dtype=np.bool_)
    null = np.array([value is None for value in values], dtype=np.bool_)
    return np.array([0 if value is None else value for value in values], dtype=kind), null


def _messages(values: Sequence[Any], dtype: OnlineType) -> list[bytes]:
    """Return each value as Feast's message; empty for null and NaN, as Feast writes them."""
    member = _PROTO[dtype]
    if dtype == "timestamp":  # Feast's message holds whole seconds
        values = [None if value is None else value // _MICROSECONDS for value in values]
    return [
        b""
        if value is None or value != value  # noqa: PLR0124  # NaN, at a third of isnan's cost
        else Value(**{member: value}).SerializeToString()
        for value in values
    ]


def _from_messages(messages: Sequence[Any], slot: packed.Slot) -> list[Any]:
    member = _PROTO[slot.dtype]
    held = [
        getattr(message, member) if message is not None and message.HasField(member) else None
        for message in messages
    ]
    if slot.dtype == "timestamp":
        return [None if v is None or v == packed.NAT else v * _MICROSECONDS for v in held]
    return held


def _timestamp(us: int) -> bytes:
    seconds, rest = divmod(us, _MICROSECONDS)
    serialized: bytes = Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString()
    return serialized


def event_of(message: bytes | None) -> int | None:
    """Return the event time in a hash, microseconds since 1970; None where there is none."""
    if message is None:
        return None
    found = Timestamp.FromString(message)
    return int(found.seconds) * _MICROSECONDS + int(found.nanos) // 1000


def _epoch(when: datetime) -> int:
    """Return microseconds since 1970; a time without a zone is in UTC, as Feast says."""
    found = epoch(when if when.tzinfo else when.replace(tzinfo=UTC))
    return 0 if found is None else found
