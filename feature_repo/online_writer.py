"""Writing features online: Feast's hash and the packed string of an entity in one transaction.

All writes go through here, whether they come from Feast's own path, from materialization or from a
single pushed row, so there is one rule of what replaces what: a row replaces what is there unless
that is newer by (event time, creation time). Feast's own rule drops a correction of the same event
time. Of two rows with both times equal the later written stays, as in the offline store.

Reading what is there and writing are one optimistic transaction (WATCH ... EXEC): a concurrent
writer makes it start again, so neither's rows are lost. It refuses columns and types other than the
view declares, null keys and null times, and views without a place in a packed string.
"""

import threading
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
from mlplatform.clients.redis_sync import RedisSync, encode
from mlplatform.contracts import OnlineType
from mlplatform.errors import DataError, ServiceError, SpecError, shorten

_CHUNK: Final = 200
"""Rows of a transaction: Redis answers nobody else for the 1 to 2 ms that it takes."""

_TRIES: Final = 100
"""Starts of a transaction; each lost one means that somebody else's was committed."""

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
class _Row:
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


class OnlineWriter:
    """Writes rows of feature views; made for one project and one Redis.

    Args:
        redis: A connection that nobody else uses.
        project: Feast's project.
        key_ttl_seconds: Entities that nothing is written to for this long disappear; None: never.
        versioned: Whether Feast's names of views carry their version.
    """

    def __init__(
        self,
        redis: RedisSync,
        project: str,
        *,
        key_ttl_seconds: int | None = None,
        versioned: bool = False,
    ) -> None:
        self.redis = redis
        self.project = project
        self._expiry = key_ttl_seconds
        self._versioned = versioned
        self._targets: dict[tuple[str, str], Target] = {}
        self._turn = threading.Lock()

    def write(self, view: FeatureView, rows: pl.DataFrame) -> int:
        """Write rows and return how many entities they changed.

        Args:
            view: A stamped view, as declared or from the registry.
            rows: Its keys, features and times, exactly; columns in any order.

        Raises:
            DataError: A column is missing, unknown, of another type, or a key or time is null.
            SpecError: The view has no place in a packed string.
            ServiceError: Redis is out of reach or refused the rows.
        """
        target = self._target(view)
        rows = _typed(target, rows)
        written = 0
        for start in range(0, rows.height, _CHUNK):
            written += self._store(target, self._from_frame(target, rows[start : start + _CHUNK]))
        return written

    def write_protos(self, view: FeatureView, data: Sequence[ProtoRow]) -> int:
        """Write rows in Feast's own form and return how many entities they changed."""
        target = self._target(view)
        written = 0
        for start in range(0, len(data), _CHUNK):
            written += self._store(target, self._from_protos(target, data[start : start + _CHUNK]))
        return written

    def _target(self, view: FeatureView) -> Target:
        name = (view.name, view.tags.get(layout.TAG, ""))
        if name not in self._targets:
            self._targets[name] = Target.of(view, versioned=self._versioned)
        return self._targets[name]

    def _from_frame(self, target: Target, rows: pl.DataFrame) -> list[_Row]:
        """Take the rows as Python values: for the few rows of a push polars' calls cost more."""
        held = dict(zip(target.schema, zip(*rows.rows(), strict=True), strict=True))
        event = held[target.event]
        created = held[target.created] if target.created else event
        sections = self._sections(target, held, event, created)
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
            fields = [target.hash_time, _timestamp(event[number])]
            for name, column in zip(target.hash_fields, messages, strict=True):
                fields += (name, column[number])
            found.append(
                _Row(
                    entity=packed.entity(values) or b"",
                    hash_key=self._hash_key(key),
                    fields=fields,
                    sections=tuple([place[number] for place in sections]),
                    times=(event[number], created[number]),
                )
            )
        return found

    def _from_protos(self, target: Target, data: Sequence[ProtoRow]) -> list[_Row]:
        event = [_epoch(when) for _, _, when, _ in data]
        created = [_epoch(when if known is None else known) for _, _, when, known in data]
        columns = {
            slot.name: _from_messages([values.get(slot.name) for _, values, _, _ in data], slot)
            for slot in target.slots
        }
        sections = self._sections(target, columns, event, created)
        found = []
        for number, (key, values, _, _) in enumerate(data):
            by_name = dict(zip(key.join_keys, key.entity_values, strict=True))
            held = [getattr(by_name[name], by_name[name].WhichOneof("val")) for name in target.keys]
            fields = [target.hash_time, _timestamp(event[number])]
            for name, slot in zip(target.hash_fields, target.slots, strict=True):
                fields += (name, values[slot.name].SerializeToString())
            found.append(
                _Row(
                    entity=packed.entity(held) or b"",
                    hash_key=self._hash_key(key),
                    fields=fields,
                    sections=tuple([place[number] for place in sections]),
                    times=(event[number], created[number]),
                )
            )
        return found

    def _sections(
        self,
        target: Target,
        columns: Mapping[str, Sequence[Any]],
        event: Sequence[int],
        created: Sequence[int],
    ) -> list[list[bytes]]:
        arrays = {slot.name: _array(columns[slot.name], slot.dtype) for slot in target.slots}
        times = np.array(event, dtype=np.int64), np.array(created, dtype=np.int64)
        return [packed.encode(place.section, arrays, *times) for place in target.placements]

    def _hash_key(self, key: Any) -> bytes:
        serialized: bytes = serialize_entity_key(key, entity_key_serialization_version=3)
        return serialized + self.project.encode()

    def _store(self, target: Target, rows: list[_Row]) -> int:
        newest: dict[bytes, _Row] = {}
        for row in rows:
            if row.entity not in newest or newest[row.entity].times <= row.times:
                newest[row.entity] = row
        chosen = list(newest.values())
        with self._turn:
            for _ in range(_TRIES):
                written = self._try(target, chosen)
                if written is not None:
                    return written
        raise ServiceError(
            f"feature view {target.view.name}: {len(chosen)} rows lost {_TRIES} races against "
            "other writers: push or materialize a view from fewer processes"
        )

    def _try(self, target: Target, rows: Sequence[_Row]) -> int | None:
        """Write what is newer in one transaction; None when somebody else wrote meanwhile."""
        places = target.placements
        keys = [[place.key(self.project, row.entity) for place in places] for row in rows]
        watched = [row.hash_key for row in rows] + [key for strings in keys for key in strings]
        reads = [encode("WATCH", *watched)]
        for row, strings in zip(rows, keys, strict=True):
            reads.append(encode("HGET", row.hash_key, target.hash_time))
            for place, key in zip(places, strings, strict=True):
                start = place.section.offset
                reads.append(encode("GETRANGE", key, start, start + place.section.size - 1))
        replies = self._replies(reads)[1:]
        writes: list[bytes] = []
        written = 0
        step = 1 + len(places)
        for number, (row, strings) in enumerate(zip(rows, keys, strict=True)):
            there = replies[number * step : (number + 1) * step]
            wanted = self._wanted(target, row, strings, there)
            writes += wanted
            written += bool(wanted)
        if not writes:
            self._replies([encode("UNWATCH")])
            return 0
        done = self._replies([encode("MULTI"), *writes, encode("EXEC")])[-1]
        if done is None:
            return None
        for reply in done:
            if isinstance(reply, ServiceError):
                raise reply
        return written

    def _wanted(
        self, target: Target, row: _Row, strings: Sequence[bytes], there: Sequence[Any]
    ) -> list[bytes]:
        """Return the commands that write a row where it is not older than what is there."""
        commands = []
        known = None
        touched = []
        for place, key, raw, new in zip(
            target.placements, strings, there[1:], row.sections, strict=True
        ):
            times = packed.times_of(place.section, raw)
            known = times if known is None or (times is not None and times > known) else known
            if raw != new and (times is None or times <= row.times):
                commands.append(encode("SETRANGE", key, place.section.offset, new))
                touched.append(key)
        at, event = _event_of(there[0]), row.times[0]
        # The hash does not hold the creation time; the string that it was written with does.
        correction = at == event and commands and (known is None or known <= row.times)
        if at is None or at < event or correction:
            commands.append(encode("HSET", row.hash_key, *row.fields))
            touched.append(row.hash_key)
        if self._expiry:
            commands += [encode("EXPIRE", key, self._expiry) for key in touched]
        return commands

    def _replies(self, commands: Sequence[bytes]) -> list[Any]:
        replies = self.redis.exchange(b"".join(commands), len(commands))
        for reply in replies:
            if isinstance(reply, ServiceError):
                self.redis.close()  # the connection may still watch keys or collect commands
                raise reply
        return replies


def _typed(target: Target, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns in the target's order, times as microseconds."""
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


def _event_of(message: bytes | None) -> int | None:
    if message is None:
        return None
    found = Timestamp.FromString(message)
    return int(found.seconds) * _MICROSECONDS + int(found.nanos) // 1000


def _epoch(when: datetime) -> int:
    """Return microseconds since 1970; a time without a zone is in UTC, as Feast says."""
    found = epoch(when if when.tzinfo else when.replace(tzinfo=UTC))
    return 0 if found is None else found
