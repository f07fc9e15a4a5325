"""The answers of a window as the parts that judge it want them: whose, which, as columns. Pure.

It decides nothing. Answers whose features were not read are left out of what is compared with the
reference: such a vector says how the online store does, not what the world is like.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl

from feature_repo.profile.calibration import SCORE

UNREAD: Final = ("features_late", "features_down", "request_features_failed")
"""Reasons of the gateway that say that a vector is not what the stores held."""


def says(reasons: Sequence[str]) -> pl.Expr:
    """Return which answers name one of these reasons."""
    named = pl.any_horizontal(pl.col("reasons").list.contains(reason) for reason in reasons)
    return named.fill_null(value=False)


def live(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that somebody was answered with: a shadow's are seen by nobody."""
    return rows.filter(pl.col("arm") != "shadow")


def champion(rows: pl.DataFrame) -> int | None:
    """Return the version that answered most rows as champion, the newer of two; None: none did."""
    counts = rows.filter(pl.col("arm") == "champion", pl.col("version") > 0)
    found = counts.group_by("version").len().sort("len", "version")
    return None if found.is_empty() else int(found["version"][-1])


def beside(rows: pl.DataFrame, version: int) -> int | None:
    """Return the version that saw most of one version's requests as well; None: none did.

    Args:
        rows: `monitoring.cohort.COLUMNS`; one of the two saw the requests as a shadow.
        version: Whose requests.
    """
    request = ("gateway", "received_at", "request_id", "entity")
    mine = rows.filter(pl.col("version") == version).select(request)
    others = rows.filter(pl.col("version") > 0, pl.col("version") != version)
    found = others.join(mine, on=request, how="semi").group_by("version").len()
    ranked = found.sort("len", "version")
    return None if ranked.is_empty() else int(ranked["version"][-1])


def vectors(
    rows: pl.DataFrame, features: Sequence[str], service: str, version: int
) -> pl.DataFrame:
    """Return the features that were read and the scores, in the form of the reference.

    Args:
        rows: Live rows of the archive.
        features: Inputs of the model, in the order of its vectors.
        service: Its feature service; vectors of another one, or of another length, are left out.
        version: Whose scores count.

    Returns:
        One column for each feature, float32, null where there was no value; and `score`, null
        where another version or the rules answered.
    """
    sound = rows.filter(
        pl.col("service") == service,
        pl.col("features").list.len() == len(features),
        ~says(UNREAD),
    )
    scored = (pl.col("version") == version) & ~pl.col("fallback")
    return sound.select(
        *(
            pl.col("features").list.get(place).fill_nan(None).alias(name)
            for place, name in enumerate(features)
        ),
        pl.when(scored & pl.col("score").is_between(0, 1)).then("score").alias(SCORE),
    )


def evenly(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return at most so many rows, evenly spread over their times; the same ones at each look."""
    if rows.height <= most:
        return rows
    ordered = rows.sort("event_time", "request_id", "gateway", "sequence")
    return ordered[[number * rows.height // most for number in range(most)]]
