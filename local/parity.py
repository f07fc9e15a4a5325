"""Whether serving saw what training would see: logged vectors against the point-in-time join.

Every archived request of the window is joined again, offline, at its own event time, through the
code that builds training sets, and compared bit by bit with the vector that the model was given.
It takes a data root of its own for that: the window's events are not in the platform's yet.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from feature_repo import ingest
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from feature_repo.inputs import with_inputs


@dataclass(frozen=True)
class Parity:
    """Equal rows of those compared, and which features differed."""

    rows: int
    equal: int
    differing: dict[str, int]
    """Feature → rows in which it differed."""


def parity(code: UseCaseCode, archived: pl.DataFrame, root: Path, end: datetime) -> Parity:
    """Compare the vectors of archived rows with the point-in-time join.

    Args:
        code: The use case.
        archived: Rows of the prediction log (`feature_repo.predictions`) that carry a vector.
        root: Folder for the offline features of the window; filled when empty.
        end: After the last event time of the rows.
    """
    joined = _joined(code, archived["request_id"], root, end)
    both = archived.select("request_id", "features").join(joined, on="request_id", how="inner")
    names = [name for group in code.groups.values() for name in group]
    offline = both.select(
        pl.col(name).cast(pl.Float32).fill_null(float("nan")) for name in names
    ).to_numpy()
    online = np.array(both["features"].to_list(), dtype=np.float32).reshape(-1, len(names))
    same = (online == offline) | (np.isnan(online) & np.isnan(offline))
    wrong = {
        name: int(count) for name, count in zip(names, (~same).sum(axis=0), strict=True) if count
    }
    return Parity(archived.height, int(same.all(axis=1).sum()), wrong)


def _joined(code: UseCaseCode, ids: pl.Series, root: Path, end: datetime) -> pl.DataFrame:
    """Return the model's inputs at the time of each request, by `request_id`."""
    name, until = code.spec.name, end + timedelta(days=1)
    ingest.land(name, str(root), until)
    raw = ingest.read_raw(name, str(root), until)
    store = stores.open_store(str(root))
    stores.apply(store)
    ingest.write_features(name, store, raw, until)
    labels = code.labels(raw).filter(pl.col("request_id").is_in(ids.implode()))
    service = code.spec.feature_service
    return with_inputs(
        labels,
        join=lambda rows: stores.join_features(store, service, rows),
        request=code.request,
        request_inputs=code.request_inputs,
    )
