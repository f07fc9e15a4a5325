"""Which labels may be learnt from, or judged by: those whose whole cohort is known.

What becomes known early is not a fair sample: a cancellation is known at departure, a late
arrival hours later. So a prediction counts only when the label's delay has passed since it was
made, and its own label was known by then. It refuses nothing; what is left out is counted.
"""

from datetime import datetime, timedelta

import polars as pl

from mlplatform.contracts import UseCase


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
