"""Metrics of one model by slice, paired with the models that it must not fall behind."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_repo.metrics import MIN_DAYS, measure
from mlplatform.contracts import Metric, SliceMetric, UseCase
from mlplatform.errors import DataError
from pipelines.steps.scored import HeldOut, Scored, compare


def slices(
    spec: UseCase, rows: HeldOut, model: Scored, others: Sequence[Scored]
) -> tuple[SliceMetric, ...]:
    """Measure the north-star metric, and those of slice gates, on each slice of the spec.

    Left out are slices with fewer rows than `slices.min_rows`, with rows on fewer than five days,
    or with so few labels of one class that resamples lack it: their intervals say nothing.

    Raises:
        DataError: The rows lack a slice column.
    """
    gated = [gate.metric for gate in spec.gates if gate.kind == "slices"]
    metrics: list[Metric] = list(dict.fromkeys([spec.goal.north_star, *gated]))
    found: list[SliceMetric] = []
    for column in spec.slices.columns:
        if column not in rows.frame.columns:
            raise DataError(
                f"the training set has no column {column}, which slices.columns of {spec.name} "
                "names: return it from labels() in sources.py, or remove it there"
            )
        for value, index in _groups(rows.frame[column], spec.slices.min_rows):
            found += _measure(column, value, index, rows, model, others, metrics)
    return tuple(found)


def _groups(column: pl.Series, min_rows: int) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Yield each value, in order, with the positions of its rows; nulls are no slice."""
    for value in column.drop_nulls().unique().sort():
        index = (column == value).fill_null(value=False).arg_true().to_numpy().astype(np.intp)
        if len(index) >= min_rows:
            yield str(value), index


def _measure(
    column: str,
    value: str,
    index: npt.NDArray[np.intp],
    rows: HeldOut,
    model: Scored,
    others: Sequence[Scored],
    metrics: Sequence[Metric],
) -> Iterator[SliceMetric]:
    labels, resamples = rows.labels[index], rows.resamples.of(index)
    if resamples.days < MIN_DAYS:
        return
    ours = measure(labels, model.scores[index], resamples, metrics)
    theirs = [(other, measure(labels, other.scores[index], resamples, metrics)) for other in others]
    for metric in metrics:
        estimate = ours[metric].interval()
        if estimate is not None:
            yield SliceMetric(
                column=column,
                value=value,
                rows=len(index),
                metric=metric,
                estimate=estimate,
                comparisons=compare(ours, theirs, [metric]),
            )
