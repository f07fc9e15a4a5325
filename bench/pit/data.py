"""A fraud-like data set: card payments to be labelled, and the histories that describe them.

Three kinds of entity (account, merchant, device) with views of equal size, about 50 rows for each
key. Times are distinct within a key, so that no engine has a tie to break in its own way. Generated
once for each size; the same seed gives the same files.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

DEPTH: Final = 50
"""Rows of history for each key, on average: performance.md, goal 1."""

KINDS: Final = ("account", "merchant", "device")
DAYS: Final = 90
_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_TIME: Final = pl.Datetime("us", "UTC")
_MICROSECONDS: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much data.

    Attributes:
        feature_rows: Rows of each view.
        labels: Label rows; 0.5 % of them share key and time with another.
        views: Number of feature views.
        parts: Files of each view, written one after the other.
        late: Share of feature rows that are known only up to a day after their event; the rest
            is known at once.
    """

    feature_rows: int
    labels: int
    views: int = 3
    parts: int = 1
    late: float = 0.0

    @property
    def folder(self) -> str:
        """Return the name of the data set's folder."""
        late = f"-late{self.late:g}" if self.late else ""
        return f"{self.feature_rows}x{self.labels}x{self.views}-parts{self.parts}{late}"


def view_name(number: int) -> str:
    """Return the name of a view."""
    return f"{KINDS[number % len(KINDS)]}_activity_{number}"


def features(number: int) -> list[str]:
    """Return a view's features: four floats and a count."""
    return [f"v{number}_f{place}" for place in range(4)] + [f"v{number}_count"]


def key(number: int) -> str:
    """Return a view's key column."""
    return f"{KINDS[number % len(KINDS)]}_id"


def ttl(number: int) -> timedelta:
    """Return a view's TTL: 14 days for every third, none for the others."""
    return timedelta(days=14) if number % 3 == 1 else timedelta(0)


def ensure(size: Size, root: Path) -> Path:
    """Return the folder with the data set, generated now if it is not there."""
    folder = root / size.folder
    done = folder / "size.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _generate(size, folder)
        done.write_text(json.dumps(asdict(size)))
    return folder


def load(folder: Path) -> tuple[Size, Any]:
    """Return the size of a data set and its labels as a pandas frame."""
    size = Size(**json.loads((folder / "size.json").read_text()))
    return size, pl.read_parquet(folder / "labels.parquet").to_pandas()


def _generate(size: Size, folder: Path) -> None:
    from bench.pit.stores import open_ours
    from feature_repo.offline_store import AsofOfflineStore

    random = np.random.default_rng(7)
    keys = max(1, size.feature_rows // DEPTH)
    label_time = _times(random, size.labels)
    labels: dict[str, Any] = {"label_id": np.arange(size.labels)}
    labels |= {f"{kind}_id": random.integers(0, keys, size.labels) for kind in KINDS}
    frame = pl.DataFrame(labels | {"event_timestamp": label_time})
    copies = max(1, size.labels // 200)
    twins = frame.head(copies).with_columns(label_id=pl.col("label_id") + size.labels - copies)
    frame = pl.concat([frame.head(size.labels - copies), twins])
    frame = _typed(frame.sample(fraction=1, shuffle=True, seed=7))
    frame.write_parquet(folder / "labels.parquet")
    store = open_ours(folder, size)
    for number in range(size.views):
        per_part = size.feature_rows // size.parts
        for part in range(size.parts):
            rows = per_part + (size.feature_rows % size.parts if part == 0 else 0)
            # A part is a period, as batches that arrive day by day.
            table = _history(random, number, rows, keys, (part / size.parts, 1 / size.parts))
            table = _delayed(random, table, size.late)
            view = store.get_feature_view(view_name(number))
            AsofOfflineStore.offline_write_batch(store.config, view, table.to_arrow(), None)


def _history(
    random: np.random.Generator, number: int, rows: int, keys: int, span: tuple[float, float]
) -> pl.DataFrame:
    columns: dict[str, Any] = {key(number): random.integers(0, keys, rows)}
    columns["event_timestamp"] = _times(random, rows, *span)
    for name in features(number)[:-1]:
        columns[name] = random.standard_normal(rows).astype(np.float32)
    columns[features(number)[-1]] = random.integers(0, 1000, rows)
    frame = pl.DataFrame(columns).unique([key(number), "event_timestamp"], maintain_order=True)
    return _typed(frame)


def _delayed(random: np.random.Generator, frame: pl.DataFrame, late: float) -> pl.DataFrame:
    delays = random.integers(0, _MICROSECONDS, frame.height) * (random.random(frame.height) < late)
    delay = pl.Series(delays, dtype=pl.Int64).cast(pl.Duration("us"))
    return frame.with_columns(created_timestamp=pl.col("event_timestamp") + delay)


def _times(
    random: np.random.Generator, rows: int, start: float = 0.0, length: float = 1.0
) -> pl.Series:
    whole = DAYS * _MICROSECONDS
    offsets = random.integers(int(whole * start), int(whole * (start + length)), rows)
    first = int(_START.timestamp()) * 1_000_000
    return pl.Series(offsets + first, dtype=pl.Int64).cast(_TIME)


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with device keys as text: not all keys are numbers."""
    if "device_id" not in frame.columns:
        return frame
    text = pl.format("device-{}", pl.col("device_id").cast(pl.String).str.zfill(9))
    return frame.with_columns(device_id=text)
