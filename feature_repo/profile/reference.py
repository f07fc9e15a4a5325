"""The reference of a version: rows of its training set with thresholds, kept with the model.

Rows come in whole windows of the length that monitoring judges, because thresholds are made from
windows: a sample of rows would make every window of the reference look calm or noisy. A training
set of a year is thinned to windows drawn evenly over it, one from each stretch of time, at random
within the stretch: every seventh day would be one day of the week. The oldest and the newest
window are left out, as the training set may begin or end within them.

Scores are kept only for windows that the model was neither fitted nor chosen on: on those that it
was, it is too sure of itself, and live scores would look shifted from the first day.

Files are the same, byte for byte, whenever they are made from the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError

from feature_repo.profile.calibration import MIN_WINDOWS, SCORE, TIME, calibrate
from mlplatform.contracts import UseCase, Window
from mlplatform.contracts.drift import DriftCalibration
from mlplatform.contracts.profile import Profile
from mlplatform.errors import DataError, ModelError, shorten
from mlplatform.signing import PROFILE, REFERENCE

__all__ = ["MOST", "ROWS", "SCORE", "WINDOWS", "Reference", "build", "read", "write"]

ROWS: Final = 30_000
"""Kept at most, where that leaves enough windows: a report of drift takes a second on so many."""
WINDOWS: Final = 90
"""Kept at least, where there are so many: thresholds rest on windows, not on rows."""
MOST: Final = 200_000
"""Rows kept at most of a busy use case: 5 MB of thirty features. Its windows are thinned then; of
thousands of rows each, they say as much."""

_ROW_GROUP: Final = 1 << 17
"""Fixed: Polars would choose by the number of threads, and with it the bytes."""

Marks = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """What live windows of one version are compared with."""

    profile: Profile
    rows: pl.DataFrame
    """By time: `event_timestamp`, a float32 column for each feature (null: no value), `score`."""


def build(
    spec: UseCase,
    rows: pl.DataFrame,
    features: Sequence[str],
    scores: npt.NDArray[np.float64],
    *,
    seed: int,
) -> Reference:
    """Return the reference of a training set.

    One that is too short for thresholds has a profile that says so: the model may still be good.

    Args:
        spec: The use case; says how long a window is and how rare a false alarm.
        rows: The training set: `event_timestamp` (UTC) and the features.
        features: The model's inputs, in order.
        scores: Probabilities, [N]; NaN in rows that the model was fitted or chosen on.
        seed: Of the choice of windows and rows, and of the calibration's draws.

    Raises:
        DataError: There are no rows, or a feature or the time is absent.
    """
    absent = [name for name in (TIME, *features) if name not in rows.columns]
    if absent or not rows.height:
        what = f"lacks {', '.join(absent)}" if absent else "has no rows"
        raise DataError(f"the training set of {spec.name} {what}: build it again")
    hours = spec.monitoring.window_hours
    time = pl.col(TIME).cast(pl.Datetime("us", "UTC"))
    whole = rows.select(
        time,
        *(pl.col(name).cast(pl.Float32).fill_nan(None) for name in features),
        pl.Series(SCORE, scores, dtype=pl.Float32).fill_nan(None),
        _of=time.dt.epoch("us") // round(hours * 3_600_000_000),
    ).sort(TIME, maintain_order=True)
    first, last = whole[TIME][0], whole[TIME][-1]
    _, index = np.unique(whole["_of"].to_numpy(), return_inverse=True)
    sizes = np.bincount(index)
    scored = np.bincount(index, weights=whole[SCORE].is_not_null().to_numpy()) == sizes
    rng = np.random.default_rng(seed)
    chosen = _choose(sizes, scored, rng)
    score = pl.when(pl.lit(pl.Series(scored[index]))).then(pl.col(SCORE)).alias(SCORE)
    share = min(1.0, MOST / max(1, sizes[chosen].sum()))
    drawn = chosen[index] & (rng.random(whole.height) < share)
    kept = whole.with_columns(score).filter(pl.Series(drawn)).drop("_of")
    calibration, why = _thresholds(spec, kept, seed)
    profile = Profile(
        usecase=spec.name,
        feature_service=spec.feature_service,
        features=tuple(features),
        window=Window(start=first, end=last + timedelta(microseconds=1)),
        training_rows=rows.height,
        window_hours=hours,
        windows=int(chosen.sum()),
        rows=kept.height,
        row_share=share,
        score_rows=kept.height - kept[SCORE].null_count(),
        calibration=calibration,
        uncalibrated=why,
    )
    return Reference(profile, kept)


def _thresholds(
    spec: UseCase, rows: pl.DataFrame, seed: int
) -> tuple[DriftCalibration | None, str]:
    """Return the thresholds, or why there are none."""
    watched = spec.monitoring
    try:
        return (
            calibrate(
                rows,
                window_hours=watched.window_hours,
                false_alarm_rate=watched.false_alarm_rate,
                seed=seed,
            ),
            "",
        )
    except DataError as error:
        return None, str(error)


def write(reference: Reference, directory: Path) -> None:
    """Write `profile.json` and `reference.parquet` into a model directory."""
    text = reference.profile.model_dump_json(indent=2) + "\n"
    (directory / PROFILE).write_text(text, encoding="utf-8")
    reference.rows.write_parquet(
        directory / REFERENCE, compression="zstd", statistics=False, row_group_size=_ROW_GROUP
    )


def read(directory: Path) -> Reference:
    """Return the reference of a model directory; whoever reads it has verified its signature.

    Raises:
        ModelError: A file is absent or damaged, or the two do not belong together.
    """
    advice = "download the version again, and register the model again if the registry holds it so"
    try:
        profile = Profile.model_validate_json((directory / PROFILE).read_bytes())
        rows = pl.read_parquet(directory / REFERENCE)
    except (OSError, ValidationError, pl.exceptions.PolarsError) as error:
        raise ModelError(
            f"the reference in {directory} cannot be read ({shorten(error)}): {advice}"
        ) from error
    if rows.height != profile.rows or rows.schema != _schema(profile.features):
        raise ModelError(
            f"{directory / REFERENCE} holds {rows.height:,} rows of {', '.join(rows.columns)}, not "
            f"the {profile.rows:,} rows and {len(profile.features)} features of its profile: "
            f"{advice}"
        )
    return Reference(profile, rows)


def _schema(features: Sequence[str]) -> pl.Schema:
    numbers = [(name, pl.Float32()) for name in (*features, SCORE)]
    return pl.Schema([(TIME, pl.Datetime("us", "UTC")), *numbers])


def _choose(sizes: Indices, scored: Marks, rng: np.random.Generator) -> Marks:
    """Return which windows are kept, [W]: those with scores are, if need be, over the budget.

    Args:
        sizes: Rows of each window, [W].
        scored: Which windows have scores, [W].
        rng: Draws them.
    """
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    inner = np.arange(1, len(sizes) - 1)
    if not len(inner):
        return chosen
    kept = max(WINDOWS, int(ROWS / np.median(sizes[inner])))
    chosen[_spread(inner, kept, rng)] = True
    if (chosen & scored).sum() < MIN_WINDOWS:
        chosen &= ~scored
        chosen[_spread(inner[scored[inner]], MIN_WINDOWS, rng)] = True
    return chosen


def _spread(places: Indices, most: int, rng: np.random.Generator) -> Indices:
    """Return at most so many of the places, one drawn from each of as many equal stretches."""
    parts = min(most, len(places))
    edges = np.arange(parts + 1) * len(places) // max(parts, 1)
    return places[rng.integers(edges[:-1], edges[1:])]
