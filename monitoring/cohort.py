"""Which requests of a window a version is judged by, and what became of the others.

A request counts once, by the version's first answer to it. Rows that lacked features or were
answered by the rules say nothing of the model: they are left out and counted, so that a metric
never hides what it was not computed on.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from feature_repo.labels import matured
from mlplatform.contracts import UseCase, Window
from mlplatform.contracts.performance import Cohort
from mlplatform.errors import DataError

COLUMNS: Final = (
    "gateway", "sequence", "request_id", "event_time", "received_at", "entity", "arm", "version",
    "score", "degraded", "fallback",
)  # fmt: skip
"""Columns of the archive (`feature_repo.predictions`) that are read here."""

MIN_LABELLED: Final = 0.95
"""Share of the requests whose delay has passed that must have a label: below it the labels' source
is broken or late, and what did arrive is no fair sample."""

_REQUEST: Final = ("gateway", "received_at", "request_id", "entity")
"""What a row and its shadow share: a client may choose an id twice."""


def answers(
    rows: pl.DataFrame, version: int, window: Window, as_of: datetime
) -> tuple[Cohort, pl.DataFrame]:
    """Return a version's requests of a window, counted, and those with a whole answer.

    What the rules answered counts where the version has no row of its own for that request.
    """
    of_version = pl.col("version") == version
    mine = rows.filter(_inside(window), of_version | (pl.col("arm") == "rules"))
    first = _first(mine.with_columns(rules=~of_version), ("request_id",), ("rules",))
    return _counted(first, window, as_of)


def pairs(
    rows: pl.DataFrame, champion: int, challenger: int, window: Window, as_of: datetime
) -> tuple[Cohort, pl.DataFrame]:
    """Return the requests that both versions saw, counted, and those with two whole answers.

    The challenger's score is in the column `other`.
    """
    inside = rows.filter(_inside(window))
    ours, theirs = (
        _first(inside.filter(version=number), _REQUEST) for number in (champion, challenger)
    )
    both = ours.join(
        theirs.select(
            *_REQUEST, other="score", other_degraded="degraded", other_fallback="fallback"
        ),
        on=_REQUEST,
        maintain_order="left",
    ).with_columns(
        degraded=pl.col("degraded") | pl.col("other_degraded"),
        fallback=pl.col("fallback") | pl.col("other_fallback"),
        # One that is no probability leaves the pair out, whichever of the two it is.
        score=pl.when(_probability("other")).then("score"),
    )
    return _counted(both.unique("request_id", keep="first", maintain_order=True), window, as_of)


def with_labels(
    spec: UseCase,
    cohort: Cohort,
    scored: pl.DataFrame,
    labels: pl.DataFrame,
    as_of: datetime,
) -> tuple[Cohort, pl.DataFrame]:
    """Return the cohort with its labels counted, and the rows whose label counts."""
    name = spec.label.name
    ours = labels.select("request_id", "label_timestamp", name).join(
        scored.select("request_id"), on="request_id", how="semi"
    )
    twice = ours.filter(pl.col("request_id").is_duplicated())["request_id"]
    if len(twice):
        raise DataError(
            f"the labels of {spec.name} name {twice[0]!r} and {twice.n_unique() - 1} other "
            "requests more than once; mend their source: one row for each prediction"
        )
    joined = scored.rename({"event_time": "event_timestamp"}).join(
        ours, on="request_id", how="left", maintain_order="left"
    )
    known = matured(spec, joined, as_of)
    delay = timedelta(hours=spec.label.delay_hours)
    waiting = joined.filter(pl.col("event_timestamp") > as_of - delay).height
    rate = known[name].cast(pl.Float64).mean() if known.height else None
    counts = {
        "open": waiting,
        "measured": known.height,
        "unlabelled": scored.height - waiting - known.height,
        "positive_rate": rate,
    }
    return Cohort.model_validate({**dict(cohort), **counts}), known


def sentence(cohort: Cohort, *, estimated: bool = False) -> str:
    """Return how many requests count, and of how many."""
    count, done = (cohort.scored, "scored") if estimated else (cohort.measured, "measured")
    return f"{count:,} of {cohort.requests:,} requests {done}"


def doubt(cohort: Cohort) -> str:
    """Return why its labels are no fair sample of it; empty: they may be."""
    due = cohort.measured + cohort.unlabelled
    if not due or cohort.measured >= MIN_LABELLED * due:
        return ""
    return (
        f"{cohort.unlabelled:,} of {due:,} requests have no label although its delay has passed: "
        "what arrived is no fair sample; check the source of the labels"
    )


def _first(rows: pl.DataFrame, of: Sequence[str], before: Sequence[str] = ()) -> pl.DataFrame:
    """Return the first row of each request, in the order of arrival."""
    order = [*before, "received_at", "gateway", "sequence"]
    return rows.sort(order).unique(of, keep="first", maintain_order=True)


def _counted(first: pl.DataFrame, window: Window, as_of: datetime) -> tuple[Cohort, pl.DataFrame]:
    ours = ~pl.col("fallback") & ~pl.col("degraded")
    whole = first.filter(ours)
    scored = whole.filter(_probability("score"))
    fallback = first.filter(pl.col("fallback")).height
    return (
        Cohort(
            window=window,
            as_of=as_of,
            requests=first.height,
            fallback=fallback,
            degraded=first.height - whole.height - fallback,
            unscored=whole.height - scored.height,
            open=scored.height,
        ),
        scored,
    )


def _inside(window: Window) -> pl.Expr:
    return pl.col("event_time").is_between(window.start, window.end, closed="left")


def _probability(column: str) -> pl.Expr:
    return pl.col(column).is_between(0, 1).fill_null(value=False)
