"""Fifty features over five views of one entity, in a real Redis: written once, read by everybody.

Our writer fills Feast's hashes and the packed strings in one transaction, so all contenders read
the same values. The first entities also get Feast's precomputed vectors, by Feast's own function.
"""

import contextlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

VIEWS: Final = 5
FIELDS: Final = 10
"""Of each view."""

PRECOMPUTED: Final = 5_000
"""Entities with Feast's precomputed vector: Feast writes them one by one."""

SERVICE: Final = "wide_v1"
PRECOMPUTED_SERVICE: Final = "wide_precomputed_v1"

_WRITE_ROWS: Final = 20_000
_FIELDS: Final = [[f"f{view}_{number}" for number in range(FIELDS)] for view in range(VIEWS)]

FEATURES: Final = [name for fields in _FIELDS for name in fields]


@dataclass(frozen=True)
class World:
    """A filled store."""

    store: Any
    layout: Any
    url: str
    entities: int
    written: datetime


def build(root: Path, url: str, entities: int) -> World:
    """Declare the views, write `entities` rows of each, and precompute the first ones."""
    from feature_repo import layout
    from feature_repo.materialize import writer_of
    from feature_repo.store import PROJECT, open_store

    store = open_store(str(root), url)
    stamped = layout.stamp(_declared())
    store.apply(list(stamped.values()))
    views = {f"view_{number}": stamped[f"view_{number}"] for number in range(VIEWS)}
    found = layout.of_service(stamped[SERVICE], views, PROJECT)
    writer = writer_of(store)
    now = datetime.now(UTC)

    def write(first: int, last: int) -> None:
        for start in range(first, last, _WRITE_ROWS):
            stop = min(start + _WRITE_ROWS, last)
            for number in range(VIEWS):
                writer.write(views[f"view_{number}"], rows(number, start, stop, now))

    few = min(PRECOMPUTED, entities)
    write(0, few)
    with contextlib.redirect_stdout(io.StringIO()):
        store.precompute_feature_service(PRECOMPUTED_SERVICE)
    write(few, entities)
    return World(store, found, url, entities, now)


def rows(view: int, first: int, last: int, now: datetime) -> pl.DataFrame:
    """Return the rows of one view; one value in twenty is null."""
    draw = np.random.default_rng((view, first))
    count = last - first
    values = draw.random((FIELDS, count), dtype=np.float32)
    values[draw.random((FIELDS, count)) < 0.05] = np.nan
    moment = pl.Series([now - timedelta(minutes=view)], dtype=pl.Datetime("us", "UTC"))
    columns = {name: values[place] for place, name in enumerate(_FIELDS[view])}
    return (
        pl.DataFrame({"id": np.arange(first, last), **columns})
        .with_columns(pl.col(_FIELDS[view]).fill_nan(None))
        .with_columns(
            event_timestamp=moment.new_from_index(0, count),
            created_timestamp=moment.new_from_index(0, count),
        )
    )


def _declared() -> dict[str, Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32, Int64

    entity = Entity(name="id", value_type=ValueType.INT64)
    views = {
        f"view_{number}": FeatureView(
            name=f"view_{number}",
            entities=[entity],
            ttl=timedelta(days=1),
            schema=[
                Field(name="id", dtype=Int64),
                *(Field(name=name, dtype=Float32) for name in _FIELDS[number]),
            ],
            source=FileSource(
                name=f"source_{number}",
                path=f"wide/view_{number}",
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for number in range(VIEWS)
    }
    held = list(views.values())
    return {
        "id": entity,
        **views,
        SERVICE: FeatureService(name=SERVICE, features=held),
        PRECOMPUTED_SERVICE: FeatureService(
            name=PRECOMPUTED_SERVICE, features=held, precompute_online=True
        ),
    }
