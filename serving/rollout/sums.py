"""From rows of the prediction log to the sums over entities that the tests need.

The arm of a row is the one that the assignment intends (intention to treat): rows that the rules
answered count for the arm that failed them, and a row that another arm answered is misassigned.
All arms' sums are over the rollout's own canary and soak epochs, each row in the stage of the epoch
that it was answered under. The times are the requests' own, so in a replay they are the data's.

It refuses to judge: a NaN stays in the sums, and nothing is left out because it looks odd.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import (
    AT_REST,
    Counts,
    Moments,
    Pair,
    Routed,
    Share,
    Stage,
    Statistics,
)
from serving.gateway.assignment import bound

RATES: Final = ("error_rate", "fallback_rate", "budget_overrun_rate", "decision_rate")
"""Metrics that are a yes or no of a row: columns of the rows. A decision of the rules is null."""
LOSS: Final = "loss"
_PAIRED: Final = ("error_rate", "fallback_rate", "decision_rate")
"""Not the overruns: a shadow is asked when nobody waits, so its time is not that of an arm."""
_FAILURES: Final = ("error_rate", "fallback_rate")
"""Of those, events of a server, which come in bursts."""
_SECOND: Final = pl.col("received_at").dt.truncate("1s")
BASELINE: Final = 2.0
"""Times `stale_hours` before the rollout that the baseline reaches back: with twice as many rows
the comparison with the newest `stale_hours` has two thirds of the precision of endless ones."""
ORDER: Final = ("received_at", "gateway", "sequence")
"""Of requests: the columns that rows are sorted by."""
_REQUEST: Final = ("gateway", "received_at", "request_id", "unit")
"""What a row and its shadow share. A client may choose an id twice, so the id is not enough; and
of equal ids of one entity in one batch the first ones are taken."""

LABELS: Final = {
    "request_id": pl.String(),
    "label": pl.Float64(),
    "known": pl.Datetime("us", "UTC"),  # since when it counts
}


def oldest(rollout: Rollout) -> datetime:
    """Return the time before which no row counts, not even for the baseline."""
    return rollout.started_at - timedelta(hours=BASELINE * rollout.plan.stale_hours)


def statistics(
    rollout: Rollout,
    rows: pl.DataFrame,
    labels: pl.DataFrame | None,
    at: datetime,
    unread: str = "",
) -> Statistics:
    """Return what the rows have shown.

    Args:
        rollout: Whose epochs count, as they are by now.
        rows: As `EvidenceReader` prepares them, in `ORDER`: the columns of `ORDER` and `_REQUEST`,
            `event_time`, `arm`, `version`, `epoch`, `score`, a column for each of `RATES`, and
            `whole` (neither degraded nor a fallback). Rows of other epochs may be among them.
        labels: `LABELS`, of requests that have matured; None: there is no `loss`.
        at: The time of the look.
        unread: Why there are no labels although a guardrail needs them.
    """
    stages = _stages(rollout.routes)
    active = _active(rollout, stages, rows)
    shadow = active.filter(arm="shadow", version=rollout.challenger.version)
    live = active.filter(pl.col("arm") != "shadow")
    staged = live.filter(pl.col("stage").is_not_null())
    first = _with_loss(staged.unique("unit", keep="first", maintain_order=True), labels)
    pairs = _pairs(live.filter(~pl.col("challenger")), shadow, labels)
    metrics = RATES if labels is None else (*RATES, LOSS)
    baseline, recent = _common(rollout, stages, rows, live, at)
    return Statistics(
        usecase=rollout.usecase,
        number=rollout.number,
        version=rollout.challenger.version,
        digest=rollout.challenger.digest,
        at=at,
        newest=_newest(stages, staged.filter("challenger"), first, shadow, pairs, at),
        stages=_sums(stages, staged, first, metrics),
        paired={
            metric: _moments(pairs[metric])
            for metric in (_PAIRED if labels is None else (*_PAIRED, LOSS))
        },
        baseline=_shares(baseline),
        recent=_shares(recent),
        misassigned=_misassigned(rollout, live),
        unread=unread,
    )


def _stages(routes: Sequence[Routed]) -> list[tuple[Routed, list[int]]]:
    """Return the first route of each stage and the stage's epochs, oldest first."""
    stages: list[tuple[Routed, list[int]]] = []
    for route in routes:
        if not 0 < route.weight < 1:
            continue
        if stages and stages[-1][0].weight == route.weight:
            stages[-1][1].append(route.epoch)
        else:
            stages.append((route, [route.epoch]))
    return stages


def _active(
    rollout: Rollout, stages: Sequence[tuple[Routed, list[int]]], rows: pl.DataFrame
) -> pl.DataFrame:
    """Return the rows of the epochs in which both versions were at work, with stage and arm."""
    numbers = {epoch: number for number, (_, epochs) in enumerate(stages) for epoch in epochs}
    routes = [r for r in rollout.routes if r.phase not in AT_REST and r.weight < 1]
    known = pl.DataFrame(
        {
            "epoch": [route.epoch for route in routes],
            "stage": [numbers.get(route.epoch) for route in routes],
            "bound": [bound(route.weight) for route in routes],
        },
        schema={"epoch": pl.Int64(), "stage": pl.Int64(), "bound": pl.UInt64()},
    )
    return rows.join(known, on="epoch", maintain_order="left").with_columns(
        challenger=pl.col("unit") < pl.col("bound")
    )


def _misassigned(rollout: Rollout, live: pl.DataFrame) -> int:
    version = (
        pl.when("challenger")
        .then(pl.lit(rollout.challenger.version))
        .otherwise(pl.lit(rollout.champion.version))
    )
    other = ((pl.col("arm") == "challenger") != pl.col("challenger")) | (
        pl.col("version") != version
    )
    return live.filter((pl.col("arm") != "rules") & other).height


def _with_loss(rows: pl.DataFrame, labels: pl.DataFrame | None) -> pl.DataFrame:
    """Add the Brier score, null where it does not count, and since when its label counts."""
    if labels is None:
        return rows
    loss = pl.when("whole").then((pl.col("label") - pl.col("score")) ** 2)
    return rows.join(labels, on="request_id", how="left", maintain_order="left").with_columns(
        loss=loss
    )


def _pairs(
    champion: pl.DataFrame, shadow: pl.DataFrame, labels: pl.DataFrame | None
) -> pl.DataFrame:
    """Return the differences on each entity's first request that both versions have answered."""
    shadow = shadow.unique(_REQUEST, keep="first", maintain_order=True)
    shown = champion.join(shadow, on=_REQUEST, how="semi", maintain_order="left")
    first = _with_loss(shown.unique("unit", keep="first", maintain_order=True), labels)
    seen = _with_loss(shadow.join(first, on=_REQUEST, how="semi"), labels)
    both = first.join(seen, on=_REQUEST, suffix="_shadow", maintain_order="left")
    both = both.with_columns(
        (_number(f"{metric}_shadow") - _number(metric)).alias(metric)
        for metric in (*_PAIRED, *(() if labels is None else (LOSS,)))
    )
    return both.with_columns(_first_unequal(metric) for metric in _FAILURES)


def _first_unequal(metric: str) -> pl.Expr:
    """Return the differences; of a second only the first unequal one counts, as in `_apart`."""
    unequal = pl.col(metric) != 0
    again = unequal & (unequal.cum_sum().over(_SECOND) > 1)
    return pl.when(again).then(0.0).otherwise(metric).alias(metric)


def _sums(
    stages: Sequence[tuple[Routed, list[int]]],
    staged: pl.DataFrame,
    first: pl.DataFrame,
    metrics: Iterable[str],
) -> tuple[Stage, ...]:
    exposed = _counts(staged.unique(["unit", "stage"]))
    values = {metric: _by_arm(first, metric) for metric in metrics}
    events = {
        rate: _counts(_apart(staged.filter(rate).unique("unit", keep="first", maintain_order=True)))
        for rate in RATES
    }
    return tuple(
        Stage(
            epoch=route.epoch,
            weight=route.weight,
            exposed=exposed.get(number, Counts()),
            values={metric: found.get(number, Pair()) for metric, found in values.items()},
            events={rate: found.get(number, Counts()) for rate, found in events.items()},
        )
        for number, (route, _) in enumerate(stages)
    )


def _apart(events: pl.DataFrame) -> pl.DataFrame:
    """Return the first event of each second, whichever arm's it is.

    Events come in bursts: a server that stumbles fails whatever is open. Of independent events the
    first one of a second is as good a toss as any, and a burst then counts once a second.
    """
    return events.unique(_SECOND, keep="first", maintain_order=True)


def _counts(entities: pl.DataFrame) -> dict[int, Counts]:
    """Return how many there are of both arms, by stage."""
    challenger = pl.col("challenger")
    found = entities.group_by("stage").agg((~challenger).sum().alias("0"), challenger.sum())
    return {stage: Counts(*counts) for stage, *counts in found.iter_rows()}


def _by_arm(entities: pl.DataFrame, metric: str) -> dict[int, Pair]:
    """Return the sums of both arms' values, by stage."""
    found = entities.group_by("stage", "challenger").agg(*_aggregates(metric))
    arms = {(stage, arm): Moments(*sums) for stage, arm, *sums in found.iter_rows()}
    return {
        stage: Pair(arms.get((stage, False), Moments()), arms.get((stage, True), Moments()))
        for stage, _ in arms
    }


def _number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64)


def _aggregates(column: str) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    value = _number(column)
    return (
        value.count().alias("n"),
        value.sum().alias("total"),
        (value * value).sum().alias("squares"),
    )


def _moments(values: pl.Series) -> Moments:
    return Moments(*values.to_frame().select(*_aggregates(values.name)).row(0))


def _newest(
    stages: Sequence[tuple[Routed, list[int]]],
    challenger: pl.DataFrame,
    first: pl.DataFrame,
    shadow: pl.DataFrame,
    pairs: pl.DataFrame,
    at: datetime,
) -> dict[str, datetime]:
    """Return the time of the newest row by metric: of the arm once it has traffic, else shadows.

    A request whose own time is after the look says nothing about how fresh the rows are.
    """
    rows, labelled = (challenger, first.filter("challenger")) if stages else (shadow, pairs)
    newest = rows.filter(pl.col("event_time") <= at)["event_time"].max()
    found: dict[str, Any] = dict.fromkeys(RATES, newest)
    if LOSS in labelled.columns:
        found[LOSS] = labelled.filter(pl.col(LOSS).is_not_null())["known"].max()
    return {metric: time for metric, time in found.items() if time is not None}


def _common(
    rollout: Rollout,
    stages: Sequence[tuple[Routed, list[int]]],
    rows: pl.DataFrame,
    live: pl.DataFrame,
    at: datetime,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the champion's rows before and since traffic was split; they never overlap.

    Before the first canary step they are split where the rollout began, so that what hurts both
    versions is seen in the shadow phase as well. Of earlier epochs those count in which every
    model's answer was the champion's; then its fallbacks are in them too.
    """
    before = rows.filter(pl.col("epoch") < rollout.first_epoch, pl.col("arm") != "shadow")
    versions = before.filter(pl.col("arm") != "rules").group_by("epoch")
    alone = versions.agg((pl.col("version") == rollout.champion.version).all().alias("alone"))
    baseline = before.join(alone.filter("alone"), on="epoch", how="semi", maintain_order="left")
    champion = live.filter(~pl.col("challenger"))
    if stages:
        since = pl.col("epoch") >= stages[0][0].epoch
        baseline = pl.concat([baseline, champion.filter(~since).select(baseline.columns)])
        champion = champion.filter(since)
    start = at - timedelta(hours=rollout.plan.stale_hours)
    return baseline, champion.filter(pl.col("event_time").is_between(start, at, closed="right"))


def _shares(rows: pl.DataFrame) -> dict[str, Share]:
    """Return how many entities had an event at their first of these requests."""
    first = rows.unique("unit", keep="first", maintain_order=True)
    return {rate: Share(int(first[rate].sum()), first.height) for rate in RATES}
