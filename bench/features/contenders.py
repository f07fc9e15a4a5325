"""The ways to read the same vectors: ours, Feast's two, and what no reader can be faster than."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.features import data

Read = Callable[[list[int]], Any]
"""Reads the vectors of some entities and returns what its library calls an answer."""

_EVENT: Final = "event_timestamp"


def ours(world: data.World) -> Read:
    """The reader over a plain socket: command, exchange, decode into the matrix."""
    from feature_repo.online import OnlineReader
    from mlplatform.clients.redis_sync import connect

    reader = OnlineReader(world.layout, data.FEATURES, ())
    redis = connect(world.url)

    def read(ids: list[int]) -> Any:
        keys = {"id": ids}
        rows = len(ids)
        plan = reader.plan(keys, rows)
        replies = redis.exchange(plan.payload, 1)
        at = np.full(rows, time.time_ns() // 1000)
        return reader.decode(replies, keys, rows, at, plan).matrix

    return read


def feast(world: data.World) -> Read:
    """Feast with what is fastest: the service's object, columns of keys, a cached registry."""
    service = world.store.get_feature_service(data.SERVICE)
    return lambda ids: world.store.get_online_features(service, {"id": ids})


def precomputed(world: data.World) -> Read:
    """Feast's precomputed vectors, of the first entities only."""
    service = world.store.get_feature_service(data.PRECOMPUTED_SERVICE)

    def read(ids: list[int]) -> Any:
        return world.store.get_online_features(service, {"id": ids}, full_feature_names=True)

    return read


def bare(world: data.World) -> Read:
    """redis-py with hiredis: GET or MGET of the packed vectors, not decoded."""
    import redis

    from feature_repo import packed

    client = redis.Redis.from_url(world.url)
    group = world.layout.groups[0]
    prefix = packed.prefix(world.layout.project, packed.fingerprint(group))
    names = [prefix + (packed.entity([number]) or b"") for number in range(world.entities)]

    def read(ids: list[int]) -> Any:
        if len(ids) == 1:
            return [client.get(names[ids[0]])]
        return client.mget([names[number] for number in ids])

    return read


ALL: Final[dict[str, Callable[[data.World], Read]]] = {
    "ours": ours,
    "feast": feast,
    "precomputed": precomputed,
    "bare": bare,
}


def of_feast(answer: Any, prefix: bool) -> npt.NDArray[np.float32]:  # noqa: FBT001
    """Return Feast's answer as our matrix."""
    found = answer.to_dict()
    names = [
        f"view_{name[1]}__{name}" if prefix else name for name in data.FEATURES
    ]  # fmt: skip
    columns = [[np.nan if value is None else value for value in found[name]] for name in names]
    return np.array(columns, dtype=np.float32).T


def of_strings(world: data.World, strings: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return the bare strings as our matrix, by the records' own description."""
    from feature_repo import packed

    columns = []
    for section in packed.sections(world.layout.groups[0]):
        raw = b"".join(one[section.offset : section.offset + section.size] for one in strings)
        record = np.frombuffer(raw, dtype=section.record)
        columns += [record[str(slot.bit)] for slot in section.slots]
    return np.array(columns, dtype=np.float32).T
