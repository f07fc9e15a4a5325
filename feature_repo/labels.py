"""Which labels may be learnt from, or judged by: those whose whole cohort is known.

What becomes known early is not a fair sample: a cancellation is known at departure, a late
arrival hours later. So a prediction counts only when the label's delay has passed since it was
made, and its own label was known by then. Where the source knows no label, that of a person who
looked counts. It refuses nothing; what is left out is counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from feature_repo.catalog import UseCaseCode
from mlplatform.contracts import UseCase
from mlplatform.contracts.review import ReviewItem

ORIGIN: Final = "label_source"
"""Column that says where a label comes from: `source` or `review`; null: there is none."""


@dataclass(frozen=True)
class Agreement:
    """How people's labels compare with those of the source, where both are known.

    Attributes:
        compared: Requests with both.
        disagreed: Of these, with another label.
    """

    compared: int
    disagreed: int


def matured(spec: UseCase, labels: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Return the rows whose label counts at `as_of`, in their order.

    Args:
        spec: Names the label and its delay.
        labels: `event_timestamp`, `label_timestamp` and the label, among others.
        as_of: The time of the run, or of the look.
    """
    cohort = pl.col("event_timestamp") <= as_of - timedelta(hours=spec.label.delay_hours)
    known = pl.col("label_timestamp") <= as_of
    return labels.filter(cohort & known & pl.col(spec.label.name).is_not_null())


def labels_of(code: UseCaseCode) -> Callable[[datetime, datetime], pl.DataFrame]:
    """Return what reads the labels of predictions since a time, as they are known at another."""
    # An event may be filed before the window that its prediction falls into; never after.
    return lambda start, now: code.labels(code.read(start - timedelta(days=1), now))


def with_reviews(
    labels: pl.DataFrame, reviewed: Sequence[ReviewItem], name: str, as_of: datetime
) -> pl.DataFrame:
    """Return the labels in their order, with people's where the source knew none at `as_of`.

    A label of a person was known when it was given. Where the source's is known as well, the
    source's counts: people look because they cannot wait, not because they know better. A review
    of a request that the labels do not name is left out.

    Args:
        labels: `request_id`, `label_timestamp` and the label, among others.
        reviewed: Decisions with a label, each request once (`mlplatform.reviews`).
        name: Of the label's column.
        as_of: The time of the run, or of the look.

    Returns:
        The same rows with the column `ORIGIN`.
    """
    beside = _beside(labels, reviewed)
    missing = ~_known(name, as_of) & (pl.col("_reviewed_at") <= as_of)
    filled = beside.with_columns(
        pl.when(missing).then("_label").otherwise(name).cast(labels.schema[name]).alias(name),
        pl.when(missing).then("_reviewed_at").otherwise("label_timestamp").alias("label_timestamp"),
        pl.when(missing)
        .then(pl.lit("review"))
        .when(pl.col(name).is_not_null())
        .then(pl.lit("source"))
        .alias(ORIGIN),
    )
    return filled.drop("_label", "_reviewed_at")


def agreement(
    labels: pl.DataFrame, reviewed: Sequence[ReviewItem], name: str, as_of: datetime
) -> Agreement:
    """Compare people's labels with those that the source knew at `as_of`; see `with_reviews`."""
    given = pl.col("_reviewed_at") <= as_of
    both = _beside(labels, reviewed).filter(_known(name, as_of) & given)
    return Agreement(both.height, both.filter(pl.col(name) != pl.col("_label")).height)


def _beside(labels: pl.DataFrame, reviewed: Sequence[ReviewItem]) -> pl.DataFrame:
    given = pl.DataFrame(
        {
            "request_id": [item.request_id for item in reviewed],
            "_label": [item.label for item in reviewed],
            "_reviewed_at": [item.reviewed_at for item in reviewed],
        },
        schema={
            "request_id": pl.String(),
            "_label": pl.Int8(),
            "_reviewed_at": pl.Datetime("us", "UTC"),
        },
    ).drop_nulls()
    return labels.join(given, on="request_id", how="left", maintain_order="left", validate="m:1")


def _known(name: str, as_of: datetime) -> pl.Expr:
    by_then = (pl.col("label_timestamp") <= as_of).fill_null(value=False)
    return pl.col(name).is_not_null() & by_then
