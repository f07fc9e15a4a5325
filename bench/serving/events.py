"""The requests of the comparison: the same events, as each contender wants to be asked.

Ours, the chain and the floor take the event; MLflow's server takes the finished feature vector,
which is computed here by the code that the gateway uses. One moment for all, so that each feature
is what the online store holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bench.serving.floor import floor_key
from feature_repo.catalog import UseCaseCode
from feature_repo.online import OnlineReader
from local.traffic import Traffic, rfc3339, traffic
from mlplatform.clients.redis_sync import connect
from mlplatform.contracts import ServedModel

HOURS = 3
"""Of events after the moment that are asked for; about a hundred flights."""


@dataclass(frozen=True)
class Requests:
    """N different requests and the vectors that they lead to."""

    events: tuple[dict[str, Any], ...]
    vectors: npt.NDArray[np.float32]
    features: tuple[str, ...]

    def take(self, rows: Sequence[int]) -> "Requests":
        """Return some of them."""
        return Requests(
            tuple(self.events[row] for row in rows), self.vectors[list(rows)], self.features
        )

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the events and the finished vectors, one JSON body a line."""
        events, vectors = folder / "events.jsonl", folder / "vectors.jsonl"
        events.write_bytes(b"\n".join(map(msgspec.json.encode, self.events)))
        vectors.write_bytes(b"\n".join(map(msgspec.json.encode, map(self._inputs, self.vectors))))
        return events, vectors

    def _inputs(self, vector: npt.NDArray[np.float32]) -> dict[str, Any]:
        # `inputs` took 4.1 ms a request, `dataframe_split` 8.2 (MLflow 3.17.2, 30 features).
        known = [None if np.isnan(value) else float(value) for value in vector]
        return {"inputs": {name: [value] for name, value in zip(self.features, known, strict=True)}}


def requests(
    code: UseCaseCode, model: ServedModel, moment: datetime, redis_url: str, limit: int
) -> Requests:
    """Return events after a moment, asked a minute after it, with their vectors.

    Args:
        code: The use case.
        model: What the vectors are for.
        moment: What was known by then is in the online store.
        redis_url: The online store.
        limit: How many at most.
    """
    rows = traffic(code, moment, moment + timedelta(hours=HOURS)).rows.head(limit)
    asked = moment.astimezone(UTC) + timedelta(minutes=1)
    at = rfc3339(asked)
    events = list(Traffic(rows).events())
    for event in events:
        del event["request_id"]  # the gateway gives each request its own
        event["event_timestamp"] = at
    naive = np.datetime64(asked.replace(tzinfo=None), "us")
    columns = {
        name: rows[name].dt.replace_time_zone(None).to_numpy()
        if rows[name].dtype.is_temporal()
        else rows[name].to_numpy()
        for name in rows.columns
    } | {"event_timestamp": np.full(len(events), naive)}
    return Requests(tuple(events), vectors(code, model, columns, events, redis_url), model.features)


def vectors(
    code: UseCaseCode,
    model: ServedModel,
    columns: Mapping[str, npt.NDArray[Any]],
    events: Sequence[Mapping[str, Any]],
    redis_url: str,
) -> npt.NDArray[np.float32]:
    """Return the model's inputs [N, features], as the gateway makes them."""
    reader = OnlineReader(model.layout, model.features, code.request_inputs)
    keys = {
        key: [event.get(key) for event in events]
        for group in model.layout.groups
        for key in group.keys
    }
    payload, replies = reader.command(keys, len(events))
    at = columns["event_timestamp"].astype("datetime64[us]").astype(np.int64)
    with connect(redis_url) as redis:
        found = reader.decode(redis.exchange(payload, replies), keys, len(events), at)
    matrix = found.matrix
    for name, values in code.request({**columns, **found.inputs}).items():
        matrix[:, model.features.index(name)] = values
    return matrix


def fill_floor(wanted: Requests, redis_url: str) -> None:
    """Put each finished vector where the floor reads it."""
    with connect(redis_url) as redis:
        redis.pipeline(
            [
                ("SET", floor_key(event["flight_key"]), vector.tobytes())
                for event, vector in zip(wanted.events, wanted.vectors, strict=True)
            ]
        )
