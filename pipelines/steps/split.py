"""The temporal split: train on the past, choose on what followed, measure on the newest rows.

A gap of at least the label's delay lies between the parts, as a label of the last training hour
was not yet known when the first validation row was scored. It refuses a part that cannot be
learnt from or measured on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from mlplatform.contracts import TrainingSet, Window
from mlplatform.contracts.usecase.data import Split
from mlplatform.errors import DataError
from pipelines.models.kind import Features, Labels, Rows


@dataclass(frozen=True)
class Part:
    """One part of the split: its window, half-open in event time, and its rows."""

    name: str
    window: Window
    frame: pl.DataFrame

    def rows(self, features: Sequence[str], label: str) -> Rows:
        """Return features as float32 [N, F] with NaN for missing, and labels [N].

        Raises:
            DataError: A column is absent or not a number, or a value is infinite in float32.
        """
        return Rows(matrix(self.frame, features), labels(self.frame, label))


@dataclass(frozen=True)
class Parts:
    """The three parts; rows inside the gaps are in none."""

    train: Part
    validation: Part
    test: Part


def read(training_set: TrainingSet) -> pl.DataFrame:
    """Read the rows of a training set.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return pl.read_parquet(training_set.path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"the training set {training_set.path} cannot be read: {error}; build it again"
        ) from error


def split(rule: Split, frame: pl.DataFrame, label: str) -> Parts:
    """Split rows by `event_timestamp`.

    The test part ends at the first whole hour after the newest row; validation and train lie
    before it, each a gap apart. Rows keep their order.

    Args:
        rule: Days of validation and test, hours of gap.
        frame: Rows with `event_timestamp` (UTC) and the label column.
        label: Name of the label column, 0 or 1.

    Raises:
        DataError: A part has no rows or only one class; names the part and its window.
    """
    if frame.is_empty():
        raise DataError("the training set has no rows, so there is nothing to split: build it")
    newest, oldest = frame["event_timestamp"].max(), frame["event_timestamp"].min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime):
        kind = frame.schema["event_timestamp"]
        raise DataError(f"event_timestamp of the training set holds {kind}, not moments in UTC")
    gap = timedelta(hours=rule.gap_hours)
    test_end = newest.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    test_start = test_end - timedelta(days=rule.test_days)
    validation_end = test_start - gap
    validation_start = validation_end - timedelta(days=rule.validation_days)
    train_end = validation_start - gap
    test = _part("test", test_start, test_end, frame, label)
    validation = _part("validation", validation_start, validation_end, frame, label)
    train = _part("train", min(oldest, train_end), train_end, frame, label)
    return Parts(train, validation, test)


def _part(name: str, start: datetime, end: datetime, frame: pl.DataFrame, label: str) -> Part:
    time = pl.col("event_timestamp")
    rows = frame.filter((time >= start) & (time < end))
    begin = "before" if start == end else f"{start:%Y-%m-%d %H:%M} to"
    where = f"the {name} part, {begin} {end:%Y-%m-%d %H:%M} UTC,"
    span = f"{frame['event_timestamp'].min()!s} to {frame['event_timestamp'].max()!s}"
    advice = (
        "give the training set a longer window, or shorten split.validation_days, "
        "split.test_days or split.gap_hours in usecase.yaml"
    )
    if rows.is_empty():
        raise DataError(f"{where} has no rows; the training set covers {span}: {advice}")
    positives = int(labels(rows, label).sum())
    if positives in {0, rows.height}:
        only = "positive" if positives else "negative"
        raise DataError(
            f"{where} has {rows.height:,} rows and all are {only}, so nothing can be learnt from "
            f"or measured on it: check the labels of that window, or {advice}"
        )
    return Part(name, Window(start=start, end=end), rows)


def labels(frame: pl.DataFrame, label: str) -> Labels:
    """Return the label column as 0 and 1, [N].

    Raises:
        DataError: The column is absent, has nulls or other values.
    """
    if label not in frame.columns:
        raise DataError(f"the training set has no label column {label}: build it again")
    column = frame[label]
    odd = column.filter(column.is_null() | ~column.cast(pl.Float64).is_in([0.0, 1.0]))
    if len(odd):
        raise DataError(
            f"label {label} has {len(odd):,} values that are neither 0 nor 1, like {odd[0]}: "
            "only matured labels belong in a training set"
        )
    return column.cast(pl.Int8).to_numpy()


def matrix(frame: pl.DataFrame, features: Sequence[str]) -> Features:
    """Return columns as float32, [N, F] row by row in memory; null becomes NaN.

    Raises:
        DataError: A column is absent, not numeric, or infinite in float32.
    """
    absent = [name for name in features if name not in frame.columns]
    if absent:
        raise DataError(f"the training set lacks the features {absent}: build it again")
    odd = [
        name
        for name in features
        if not (frame.schema[name].is_numeric() or frame.schema[name] == pl.Boolean)
    ]
    if odd:
        raise DataError(f"features {odd} are not numbers: encode them in features.py")
    values = np.ascontiguousarray(
        np.column_stack(
            [frame[name].cast(pl.Float32, strict=False).to_numpy() for name in features]
        ),
        dtype=np.float32,
    )
    infinite = np.flatnonzero(np.isinf(values).any(axis=0))
    if len(infinite):
        names = [features[int(position)] for position in infinite]
        raise DataError(
            f"features {names} hold infinite values (beyond 3.4e38): write missing as null"
        )
    return values
