"""A training set of all flights of 2013, made once: the benches of monitoring draw days from it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from feature_repo import catalog, ingest
from feature_repo import store as stores
from pipelines.steps.training_set import build_training_set

_USECASE: Final = "flight_delay"
_AFTER: Final = datetime(2014, 1, 3, tzinfo=UTC)
"""The label of the last flight of the year is known by then."""


def year_of_flights(folder: Path) -> Path:
    """Return the `rows.parquet` of the year; built in `folder` if it is not there, in seconds."""
    out = folder / "set"
    path = out / "rows.parquet"
    if path.exists():
        return path
    out.mkdir(parents=True, exist_ok=True)
    root, code = str(folder / "data"), catalog.load(_USECASE)
    store = stores.open_store(root)
    stores.apply(store)
    raw = ingest.extend(_USECASE, store, root, _AFTER)
    build_training_set(
        code.spec,
        code.labels(raw),
        join=lambda rows: stores.join_features(store, code.spec.feature_service, rows),
        request=code.request,
        request_inputs=code.request_inputs,
        groups=code.groups,
        as_of=_AFTER,
        out=out,
    )
    return path
