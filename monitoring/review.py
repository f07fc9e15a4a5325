"""Which decisions of a window people should look at.

Two kinds, for two questions. Drawn ones answer how good the decisions are: each entity's first
answer has the same chance, whatever its score, so they are a fair sample of all. Uncertain ones
teach the most: the model could as well have decided otherwise. They are chosen by their score, so
no rate may be computed on them.

It refuses answers that say nothing of the model: those of shadows and of the rules, and those that
lacked features.
"""

import hashlib
from typing import Final

import polars as pl

from feature_repo import predictions
from mlplatform.contracts import UseCase, Window
from mlplatform.contracts.review import ReviewItem, ReviewReason

COLUMNS: Final = (
    "gateway", "sequence", "request_id", "event_time", "received_at", "entity", "request", "arm",
    "version", "score", "decision", "degraded", "fallback",
)  # fmt: skip
"""Columns of the archive (`feature_repo.predictions`) that are read here."""


def select(spec: UseCase, rows: pl.DataFrame, window: Window) -> tuple[ReviewItem, ...]:
    """Return the decisions of a window to be queued, the drawn ones first, each entity once.

    The same rows give the same decisions at each look. Rows that reach the archive after a look
    may add decisions to the queue at the next one, and take none away.

    Args:
        spec: Says how many, and the decision threshold.
        rows: `COLUMNS` of the prediction log.
        window: Of event time.
    """
    whole = _whole(rows, window)
    wanted = spec.monitoring.review
    salt = f"{spec.name}\n{window.start.isoformat()}\n"
    of_entity = whole.unique("entity", keep="first", maintain_order=True)
    lots = [_lot(salt, request) for request in of_entity["request_id"]]
    drawn = of_entity.with_columns(lot=pl.Series(lots, dtype=pl.String)).sort("lot")
    drawn = drawn.head(wanted.sampled).drop("lot")
    others = whole.join(drawn, on="entity", how="anti", maintain_order="left")
    distance = (pl.col("score") - spec.serving.decision_threshold).abs()
    nearest = others.sort(distance, "request_id").unique(
        "entity", keep="first", maintain_order=True
    )
    return _items(spec, drawn, "sampled", window) + _items(
        spec, nearest.head(wanted.uncertain), "uncertain", window
    )


def _whole(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Return the requests that the model answered, by their first live answer, as they came."""
    inside = pl.col("event_time").is_between(window.start, window.end, closed="left")
    first = predictions.first_answers(rows.filter(inside))
    sound = ~pl.col("degraded") & ~pl.col("fallback") & (pl.col("version") > 0)
    return first.filter(sound & pl.col("score").is_between(0, 1).fill_null(value=False))


def _lot(salt: str, request: str) -> str:
    return hashlib.blake2b(f"{salt}{request}".encode(), digest_size=16).hexdigest()


def _items(
    spec: UseCase, rows: pl.DataFrame, reason: ReviewReason, window: Window
) -> tuple[ReviewItem, ...]:
    return tuple(
        ReviewItem(
            usecase=spec.name,
            request_id=row["request_id"],
            event_time=row["event_time"],
            entity=row["entity"],
            request=row["request"],
            version=row["version"],
            score=row["score"],
            decision=row["decision"],
            reason=reason,
            queued_at=window.end,
        )
        for row in rows.iter_rows(named=True)
    )
