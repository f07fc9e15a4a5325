"""Step: scores for a window of predictions, computed as serving computes them.

The rows are those that a training set would be built from, whether their label is known or not:
features by the point-in-time join, request-time features from the function that serving calls, the
verified model, the spec's threshold. The file is named after its content, and the manifest that
names it replaces the one before in one step, so a reader of the manifest never sees half a result.
Scoring the same window again with the same model and data changes no byte.

It refuses an empty window and a model whose inputs the feature service does not give.
"""

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl
from pydantic import Field, ValidationError

from feature_repo.inputs import Array, Join, with_inputs
from mlplatform.contracts import Contract, Manifest, ModelRef, UseCase, UtcDatetime, Window
from mlplatform.errors import DataError
from pipelines.steps.onnx_scoring import Scorer
from pipelines.steps.split import matrix

_log: Final = logging.getLogger("mlplatform.batch_score")

_THREADS: Final = 1
"""Of onnxruntime: with more, sums over trees may differ in the last bit from run to run."""


class BatchScores(Contract):
    """What a file of scores holds and how it came to be."""

    file: str = Field(description="Parquet file beside this manifest.")
    sha256: str = Field(description="Of the file.")
    usecase: str
    window: Window = Field(description="Event times of the rows.")
    rows: int = Field(gt=0)
    acted: int = Field(ge=0, description="Rows at or above the threshold.")
    threshold: float = Field(description="Probability from which the use case acts.")
    model: str = Field(description="Registered name.")
    version: int
    digest: str = Field(description="SHA-256 of the ONNX file.")
    signature: str = Field(description="SHA-256 of the model's signature file.")
    feature_service: str
    git_commit: str = Field(description="Of the code that scored first.")
    created_at: UtcDatetime = Field(description="When it was scored first.")


def batch_score(
    spec: UseCase,
    labels: pl.DataFrame,
    *,
    window: Window,
    join: Join,
    request: Callable[[Mapping[str, Array]], dict[str, Array]],
    request_inputs: Sequence[str],
    model: Path,
    ref: ModelRef,
    manifest: Manifest,
    out: Path,
    git_commit: str,
    now: datetime,
) -> BatchScores:
    """Write `<out>/scores-<digest>.parquet` and `<out>/manifest.json`; return the manifest.

    The columns are `request_id`, the entity keys, `event_timestamp`, `score` (probability) and
    `decision`. Features are left out: the same join gives them again.

    Args:
        spec: The use case.
        labels: One row for each prediction, as for a training set; labels are not read.
        window: Rows with an event time in it are scored.
        join: The point-in-time join of the model's feature service.
        request: Request-time features from arrays of length N.
        request_inputs: The columns that `request` reads.
        model: The ONNX file of the verified model directory.
        ref: The registered version.
        manifest: What its signature covers.
        out: Folder for the two files; made when missing.
        git_commit: Commit of the code that scores.
        now: Time of the scoring.

    Raises:
        DataError: The window has no rows, or the join does not return them, or lacks a feature.
        ModelError: The file is no model of this platform or takes other features.
    """
    started = time.perf_counter()
    moment = pl.col("event_timestamp")
    wanted = labels.filter(moment.is_between(window.start, window.end, closed="left"))
    if wanted.is_empty():
        raise DataError(
            f"{spec.name} has no prediction to score from {window.start:%Y-%m-%d %H:%M} to "
            f"{window.end:%Y-%m-%d %H:%M} UTC: {_span(labels)}; choose another window"
        )
    rows = with_inputs(wanted, join=join, request=request, request_inputs=request_inputs)
    if absent := [name for name in manifest.features if name not in rows.columns]:
        raise DataError(
            f"{ref.name} version {ref.version} reads {', '.join(absent)}, which feature service "
            f"{manifest.feature_service} does not give any more: score with a model of today's "
            "service, or keep the feature"
        )
    scores = Scorer(model, _THREADS).probability(matrix(rows, manifest.features))
    threshold = spec.serving.decision_threshold
    keys = [key for entity in spec.entities for key in entity.keys]
    result = rows.select(
        *dict.fromkeys(["request_id", *keys, "event_timestamp"]),
        score=pl.Series(scores),
        decision=pl.Series(scores >= threshold),
    )
    content = _parquet(result)
    digest = hashlib.sha256(content).hexdigest()
    scored = BatchScores(
        file=f"scores-{digest[:16]}.parquet",
        sha256=digest,
        usecase=spec.name,
        window=window,
        rows=result.height,
        acted=int((scores >= threshold).sum()),
        threshold=threshold,
        model=ref.name,
        version=ref.version,
        digest=ref.digest,
        signature=ref.signature,
        feature_service=manifest.feature_service,
        git_commit=git_commit,
        created_at=now,
    )
    kept = _write(out, scored, content)
    _log.info(
        "%s rows scored by %s version %d, %s at or above %g, %.1f s",
        f"{kept.rows:,}",
        kept.model,
        kept.version,
        f"{kept.acted:,}",
        threshold,
        time.perf_counter() - started,
    )
    return kept


def _span(labels: pl.DataFrame) -> str:
    first, last = labels["event_timestamp"].min(), labels["event_timestamp"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return "there are none at all"
    return f"the data cover {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _parquet(rows: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    rows.write_parquet(sink)
    return sink.getvalue()


def _write(out: Path, scored: BatchScores, content: bytes) -> BatchScores:
    """Write what differs from what is there; return what is there now."""
    out.mkdir(parents=True, exist_ok=True)
    path, manifest = out / scored.file, out / "manifest.json"
    before = _before(manifest)
    if before is not None and path.is_file() and path.read_bytes() == content:
        same = {"git_commit": before.git_commit, "created_at": before.created_at}
        if before == scored.model_copy(update=same):
            return before
    _replace(path, content)
    _replace(manifest, scored.model_dump_json(indent=1).encode() + b"\n")
    if before is not None and before.file != scored.file:
        (out / before.file).unlink(missing_ok=True)
    return scored


def _before(manifest: Path) -> BatchScores | None:
    try:
        return BatchScores.model_validate_json(manifest.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DataError(
            f"{manifest} is no manifest of scores: choose another output folder, or remove it"
        ) from error


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
