"""Writing features online: Feast's hash and the packed string of an entity in one transaction.

All writes go through here, whether they come from Feast's own path, from materialization or from a
single pushed row, so there is one rule of what replaces what: a row replaces what is there unless
that is newer by (event time, creation time). Feast's own rule drops a correction of the same event
time. Of two rows with both times equal the later written stays, as in the offline store.

Reading what is there and writing are one optimistic transaction (WATCH ... EXEC): a concurrent
writer makes it start again, so neither's rows are lost. It refuses what `feature_repo.online_rows`
refuses: rows that are not what their view declares.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final

import polars as pl
from feast import FeatureView

from feature_repo import layout, packed
from feature_repo.online_rows import ProtoRow, Row, Target, event_of, from_frame, from_protos, typed
from mlplatform.clients.redis_protocol import encode
from mlplatform.clients.redis_sync import RedisSync
from mlplatform.errors import ServiceError

_CHUNK: Final = 100
"""Rows of a transaction: Redis answers nobody else while it runs, which takes about 0.8 ms."""

_TRIES: Final = 100
"""Starts of a transaction; each lost one means that somebody else's was committed."""


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
        rows = typed(target, rows)
        written = 0
        for start in range(0, rows.height, _CHUNK):
            written += self._store(
                target, from_frame(target, self.project, rows[start : start + _CHUNK])
            )
        return written

    def write_protos(self, view: FeatureView, data: Sequence[ProtoRow]) -> int:
        """Write rows in Feast's own form and return how many entities they changed."""
        target = self._target(view)
        written = 0
        for start in range(0, len(data), _CHUNK):
            written += self._store(
                target, from_protos(target, self.project, data[start : start + _CHUNK])
            )
        return written

    def _target(self, view: FeatureView) -> Target:
        name = (view.name, view.tags.get(layout.TAG, ""))
        if name not in self._targets:
            self._targets[name] = Target.of(view, versioned=self._versioned)
        return self._targets[name]

    def _store(self, target: Target, rows: list[Row]) -> int:
        newest: dict[bytes, Row] = {}
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

    def _try(self, target: Target, rows: Sequence[Row]) -> int | None:
        """Write what is newer in one transaction; None when somebody else wrote meanwhile."""
        places = target.placements
        keys = [[place.key(self.project, row.entity) for place in places] for row in rows]
        # The hash need not be watched: whoever writes this view's fields writes these strings.
        reads = [encode("WATCH", *(key for strings in keys for key in strings))]
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
        self, target: Target, row: Row, strings: Sequence[bytes], there: Sequence[Any]
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
        at, event = event_of(there[0]), row.times[0]
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
