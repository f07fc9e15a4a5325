"""Days of drawn traffic in the form of the archive, a reference of the same kind, and its labels.

Every feature is drawn alike, so a test that changes one knows what must be found. Labels are drawn
from the scores, so a model is as good as its scores say.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from feature_repo import catalog, layout, predictions
from feature_repo.profile import reference
from mlplatform.contracts import Evaluation, Interval, Manifest, Window
from monitoring.champion import Watched

CODE: Final = catalog.load("flight_delay")
LAYOUT: Final = layout.load("flight_delay")
FEATURES: Final = tuple(name for group in CODE.groups.values() for name in group)
FIRST: Final = datetime(2013, 5, 1, tzinfo=UTC)
"""Of the live days; the reference ends there."""
DAY: Final = timedelta(days=1)
ROWS: Final = 150
"""Of a day."""


def day(number: int) -> Window:
    return Window(start=FIRST + number * DAY, end=FIRST + (number + 1) * DAY)


def known(days: int = 60) -> Watched:
    """Return a version whose reference is so many days before the first live one."""
    rng = np.random.default_rng(1)
    count = days * ROWS
    times = [FIRST - days * DAY + DAY * n / ROWS for n in range(count)]
    rows = pl.DataFrame(
        {"event_timestamp": times, **dict(zip(FEATURES, _values(rng, count).T, strict=True))},
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    )
    scores = _scores(rng, count)
    manifest = Manifest(
        name=CODE.spec.name,
        version=1,
        run_id="r",
        model_digest="m",
        data_digest="d",
        git_commit="c",
        feature_service=CODE.spec.feature_service,
        features=FEATURES,
        created_at=FIRST,
    )
    built = reference.build(CODE.spec, rows, FEATURES, scores, seed=0)
    return Watched(1, manifest, built, _evaluation())


def traffic(number: int, *, version: int = 1, rows: int = ROWS, **changes: Any) -> pl.DataFrame:
    """Return a day's rows of the archive; `changes` replace columns."""
    return pl.DataFrame(
        {**_columns(number, version, rows), **changes}, schema=dict(predictions.SCHEMA)
    )


@cache
def _columns(number: int, version: int, rows: int) -> Mapping[str, Any]:
    rng = np.random.default_rng(100 + number)
    start = day(number).start
    times = pl.Series(
        [start + DAY * (n + 0.5) / rows for n in range(rows)], dtype=pl.Datetime("us", "UTC")
    )
    names = [f"{start:%Y-%m-%d}-AA-{n + 1}-JFK" for n in range(rows)]
    requests = [
        {
            "flight_key": name,
            "origin": "JFK",
            "dest": "LAX",
            "carrier": "AA",
            "tailnum": f"N{n:05}",
            "distance": 1000 + n,
            "scheduled_arrival": int((moment + 6 * timedelta(hours=1)).timestamp() * 1e6),
        }
        for n, (name, moment) in enumerate(zip(names, times, strict=True))
    ]
    scores = _scores(rng, rows)
    ages = [timedelta(minutes=10)] * len(LAYOUT.views)
    return {
        "gateway": ["g"] * rows,
        "sequence": [number * 10_000 + n for n in range(rows)],
        "request_id": names,
        "usecase": [CODE.spec.name] * rows,
        "event_time": times,
        "received_at": times,
        "arrived_at": times,
        "stream_id": [f"{number}-{n}" for n in range(rows)],
        "entity": names,
        "request": [json.dumps(item) for item in requests],
        "arm": ["champion"] * rows,
        "version": [version] * rows,
        "epoch": [1] * rows,
        "service": [LAYOUT.service] * rows,
        "features": _values(rng, rows).tolist(),
        "feature_times": [[moment - age for age in ages] for moment in times],
        "score": scores,
        "decision": scores >= 0.5,
        "degraded": [False] * rows,
        "fallback": [False] * rows,
        "reasons": [[] for _ in range(rows)],
        "total_us": [9000] * rows,
        "features_us": [2000] * rows,
        "inference_us": [4000] * rows,
        "decision_us": [3000] * rows,
    }


def moved(rows: pl.DataFrame, feature: str, by: float) -> pl.DataFrame:
    """Return the rows with a feature further up, in standard deviations."""
    values = np.array(rows["features"].to_list(), dtype=np.float32)
    values[:, FEATURES.index(feature)] += by
    return rows.with_columns(pl.Series("features", values.tolist(), dtype=pl.List(pl.Float32)))


def archive(root: Path, number: int, rows: pl.DataFrame) -> None:
    """Keep a day's rows as the archiver does, in place of those that were there."""
    start = day(number).start
    folder = root / CODE.spec.name / f"date={start:%Y-%m-%d}" / "hour=00"
    folder.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / predictions.part_name(number, number))


def labels(rows: pl.DataFrame) -> pl.DataFrame:
    """Return an outcome for each request, known two hours after it."""
    first = rows.unique("request_id", keep="first", maintain_order=True)
    rng = np.random.default_rng(9)
    return first.select(
        "request_id",
        label_timestamp=pl.col("event_time") + timedelta(hours=2),
        late=pl.Series((rng.random(first.height) < first["score"].to_numpy()).astype(np.int8)),
    )


def _values(rng: np.random.Generator, rows: int) -> Any:
    return rng.normal(size=(rows, len(FEATURES))).astype(np.float32)


def _scores(rng: np.random.Generator, rows: int) -> Any:
    return rng.beta(1.0, 2.0, rows)


def _evaluation() -> Evaluation:
    """Return what such a model is worth: the average precision of Beta(1, 2) scores is 0.65."""
    return Evaluation(
        candidate="drawn",
        role="candidate",
        window=Window(start=FIRST - 30 * DAY, end=FIRST),
        rows=30 * ROWS,
        positive_rate=1 / 3,
        metrics={"pr_auc": Interval(estimate=0.65, low=0.64, high=0.66)},
    )
