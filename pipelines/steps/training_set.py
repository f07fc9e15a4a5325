"""Step: the training set, one row for each matured label, as serving would have seen it.

Features come through Feast's point-in-time join in event time and knowledge time; request-time
features come from the same function that serving calls. Labels that had not matured at the time of
the build are left out and counted, and so are those of requests whose live answer was not sound
(`feature_repo.feedback`). Where the source has no label, a person's counts.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from feature_repo import feedback
from feature_repo.feedback import Feedback
from feature_repo.inputs import Array, Join, with_inputs
from feature_repo.labels import ORIGIN, agreement, matured, with_reviews
from mlplatform.contracts import TrainingSet, UseCase, Window
from mlplatform.errors import DataError, LeakError

_log = logging.getLogger("mlplatform.training_set")


def build_training_set(
    spec: UseCase,
    labels: pl.DataFrame,
    *,
    join: Join,
    request: Callable[[Mapping[str, Array]], dict[str, Array]],
    request_inputs: Sequence[str],
    groups: Mapping[str, tuple[str, ...]],
    as_of: datetime,
    out: Path,
    live: Feedback = feedback.NONE,
) -> TrainingSet:
    """Write `<out>/rows.parquet` and return what it holds.

    Args:
        spec: The use case.
        labels: One row for each prediction; see `usecases/<name>/sources.py`.
        join: The point-in-time join of the use case's feature service.
        request: Request-time features from arrays of length N.
        request_inputs: The columns that `request` reads, of the labels or of the join.
        groups: The model's inputs in order, by feature group.
        as_of: The time of the build; labels that have not matured by then are left out.
        out: An existing folder.
        live: What people and live traffic say of the labels.

    Raises:
        DataError: no label has matured, more than `data.max_degraded_rate` of them belong to
            answers that were not sound, or the join does not return the label rows.
        LeakError: a feature has no value in any row although it has a history: its values became
            known only after the predictions.
    """
    started = time.perf_counter()
    name = spec.label.name
    known = matured(spec, with_reviews(labels, live.reviewed, name, as_of), as_of)
    if known.is_empty():
        raise DataError(
            f"no label of {spec.name} had matured at {as_of:%Y-%m-%d %H:%M} UTC: "
            f"{labels.height:,} predictions are still open; run at a later time"
        )
    learnable = _without_degraded(spec, known, live)
    features = [feature for group in groups.values() for feature in group]
    rows = with_inputs(learnable, join=join, request=request, request_inputs=request_inputs)
    rows = rows.with_columns(pl.col(features).cast(pl.Float32))
    _refuse_empty(rows, features)
    keep = list(dict.fromkeys([*_own_columns(spec), *features]))
    rows = rows.select(keep)
    path = out / "rows.parquet"
    rows.write_parquet(path)
    start, newest = rows["event_timestamp"].min(), rows["event_timestamp"].max()
    assert isinstance(start, datetime)  # noqa: S101  # the column is a timestamp and not empty
    assert isinstance(newest, datetime)  # noqa: S101  # as above
    rate = rows[name].mean()
    people = agreement(labels, live.reviewed, name, as_of)
    result = TrainingSet(
        path=path,
        rows=rows.height,
        window=Window(start=start, end=newest + timedelta(microseconds=1)),
        feature_service=spec.feature_service,
        features=tuple(features),
        groups=dict(groups),
        request_inputs=tuple(request_inputs),
        digest=content_digest(rows),
        data_age_hours=(as_of - newest) / timedelta(hours=1),
        positive_rate=float(rate),  # type: ignore[arg-type]  # a mean of integers
        immature_rows=labels.height - known.height,
        degraded_rows=known.height - learnable.height,
        reviewed_rows=rows.filter(pl.col(ORIGIN) == "review").height,
        reviews_compared=people.compared,
        reviews_disagreed=people.disagreed,
    )
    _log.info(
        "%s rows by %d features, %.1f %% positive, %s labels not matured left out, %.1f s",
        f"{result.rows:,}",
        len(features),
        100 * result.positive_rate,
        f"{result.immature_rows:,}",
        time.perf_counter() - started,
    )
    if live.reviewed:
        _log.info(
            "%s rows with a label that a person gave; %s of %s that the source knows as well "
            "disagree with it",
            f"{result.reviewed_rows:,}",
            f"{result.reviews_disagreed:,}",
            f"{result.reviews_compared:,}",
        )
    return result


def content_digest(rows: pl.DataFrame) -> str:
    """Return the SHA-256 of the values, column by column in order; nulls count, storage does not.

    Two frames that are equal give the same digest, whatever their chunks or the bytes that lie
    under a null.
    """
    digest = hashlib.sha256()
    for column in rows.rechunk().iter_columns():
        digest.update(f"{column.name}:{column.dtype}:{len(column)}".encode())
        digest.update(column.is_null().to_numpy().tobytes())
        if column.dtype == pl.String:
            digest.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
            digest.update("".join(column.fill_null("").to_list()).encode())
        else:
            digest.update(column.to_physical().fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()


def _without_degraded(spec: UseCase, known: pl.DataFrame, live: Feedback) -> pl.DataFrame:
    """Leave out requests whose live answer was not sound, if they are few.

    Failures do not fall evenly: they come in the busy hours, or on the days of one feed. A set
    that lacks many of their rows says less of the world than of the failure.
    """
    left_out = live.degraded.join(known, on="request_id", how="semi")
    if left_out.is_empty():
        return known
    share, allowed = left_out.height / known.height, spec.data.max_degraded_rate
    counted = (
        f"{left_out.height:,} of {known.height:,} matured labels of {spec.name} ({share:.1%}) "
        f"belong to requests that were answered without sound features or by the rules "
        f"({feedback.told(left_out)})"
    )
    if share > allowed:
        raise DataError(
            f"{counted}: more than the {allowed:.0%} that may be left out of a training set, so "
            "the rest is no fair picture. Mend what degrades the answers and train when enough "
            "sound ones have come; if you know the rest to be fair, raise data.max_degraded_rate "
            "in usecase.yaml"
        )
    _log.info("left out: %s", counted)
    return known.join(left_out, on="request_id", how="anti", maintain_order="left")


def _own_columns(spec: UseCase) -> list[str]:
    keys = [key for entity in spec.entities for key in entity.keys]
    times = ["event_timestamp", "label_timestamp"]
    label = [spec.label.name, ORIGIN]
    return list(dict.fromkeys(["request_id", *keys, *times, *label, *spec.slices.columns]))


def _refuse_empty(rows: pl.DataFrame, features: Sequence[str]) -> None:
    nulls = rows.select(pl.col(list(features)).null_count()).row(0, named=True)
    empty = [name for name, count in nulls.items() if count == rows.height]
    if empty:
        raise LeakError(
            f"{', '.join(empty)}: no value was known at any of {rows.height:,} predictions. "
            "Either the view has no history, or its rows are recorded (created_timestamp) only "
            "after the moment that they describe is predicted: a label leak, which the join by "
            "knowledge time has kept out. Remove the feature or use what is known in time"
        )
