"""A model's inputs for rows of the past: the point-in-time join, then the request-time features.

Training sets, batch scores and the comparison of served vectors with the offline ones go through
here, so that there is one way from a label row to a vector. It refuses a join that does not return
each row once and in its order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from mlplatform.errors import DataError

Array = np.ndarray[Any, Any]
Join = Callable[[pl.DataFrame], pl.DataFrame]
"""Rows in, the same rows in the same order with the service's features out."""


def with_inputs(
    rows: pl.DataFrame,
    *,
    join: Join,
    request: Callable[[Mapping[str, Array]], dict[str, Array]],
    request_inputs: Sequence[str],
) -> pl.DataFrame:
    """Return the rows with the features of the join and of the request, the latter float32.

    Args:
        rows: One for each prediction, with its `request_id`; see `usecases/<name>/sources.py`.
        join: The point-in-time join of the use case's feature service.
        request: Request-time features from arrays of length N.
        request_inputs: The columns that `request` reads, of the rows or of the join.

    Raises:
        DataError: The join does not return the rows.
    """
    joined = join(rows)
    if not joined["request_id"].equals(rows["request_id"]):
        raise DataError(
            f"the join returned {joined.height:,} rows for {rows.height:,}, or in another order: "
            "each row must come out once; check the offline store"
        )
    computed = request({name: joined[name].to_numpy() for name in request_inputs})
    return joined.with_columns(
        pl.Series(name, values, dtype=pl.Float32, nan_to_null=True)
        for name, values in computed.items()
    )
