"""Trailing windows on a fixed grid: how often, and how much, in the hours before a moment.

This module exists because three feature views ask the same question: at snapshot *s*, what had
become known during `(s - window, s]`? It answers from running totals, so that the cost is one
sort and two ASOF joins however long the window is, and the totals are whole numbers, so that
the answer does not depend on the order of the rows. It refuses nothing: it knows keys, times
and numbers, no flights.
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl


def grid(
    facts: pl.DataFrame, keys: Sequence[str], every: timedelta, run_on: timedelta
) -> pl.DataFrame:
    """Return the snapshots of each key: each `every`, from its first fact to after the last of all.

    A key has no snapshot before its own first fact: nobody knew of it. So facts that come later
    never add a snapshot to the past.

    Args:
        facts: The keys and `known_at`.
        keys: Columns of the key.
        every: Distance between snapshots; they lie at its multiples since 1970, UTC.
        run_on: How long snapshots go on after the last fact of all keys.

    Returns:
        The keys and `snapshot`, sorted by `snapshot`, then key.
    """
    last = pl.lit(facts["known_at"].max(), dtype=facts.schema["known_at"])
    first = facts.group_by(keys).agg(first=pl.col("known_at").min())
    start = pl.col("first").dt.truncate(every)
    return (
        first.select(*keys, "first", snapshot=pl.datetime_ranges(start, last + run_on, every))
        .explode("snapshot")
        .filter(pl.col("snapshot") >= pl.col("first"))
        .drop("first")
        .sort("snapshot", *keys)
    )


def trailing(
    snapshots: pl.DataFrame,
    facts: pl.DataFrame,
    keys: Sequence[str],
    sums: Sequence[str],
    window: timedelta | None = None,
) -> pl.DataFrame:
    """Add up what became known in `(snapshot - window, snapshot]`, for each snapshot.

    Args:
        snapshots: The keys and `snapshot`, sorted by `snapshot`.
        facts: The keys, `known_at` and the columns of `sums` (integers without nulls).
        keys: Columns of the key.
        sums: Columns to add up.
        window: Length; None: everything known so far.

    Returns:
        The sums, one row for each snapshot in order; 0 where nothing became known.
    """
    totals = (
        facts.group_by(*keys, "known_at")
        .agg(pl.col(sums).sum())
        .sort("known_at")
        .with_columns(pl.col(sums).cast(pl.Int64).cum_sum().over(keys))
    )
    until = _totals_at(snapshots, totals, keys, sums)
    if window is None:
        return until
    before = _totals_at(snapshots.with_columns(pl.col("snapshot") - window), totals, keys, sums)
    return until.select(pl.col(name) - before[name] for name in sums)


def _totals_at(
    moments: pl.DataFrame, totals: pl.DataFrame, keys: Sequence[str], sums: Sequence[str]
) -> pl.DataFrame:
    """Return the totals known at each moment: those of the last fact at or before it."""
    return moments.join_asof(
        totals,
        left_on="snapshot",
        right_on="known_at",
        by=list(keys),
        strategy="backward",
        check_sortedness=False,  # both sides are sorted above; polars cannot check it by group
    ).select(pl.col(sums).fill_null(0))
