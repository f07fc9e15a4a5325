"""What a replay of live traffic showed: nothing lost, everything logged, in budget, no skew."""

from typing import Final

import polars as pl
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_repo.catalog import UseCaseCode
from local import live
from local.audited import Audited
from mlplatform.contracts import Contract, UtcDatetime, Window

OK: Final = 200
"""The status of a good answer."""


class Hop(Contract):
    """Milliseconds of one hop over all answers."""

    p50: float
    p99: float
    budget: float


class Replayed(Contract):
    """One replay."""

    usecase: str
    version: int = Field(description="Served when it began.")
    start: UtcDatetime
    end: UtcDatetime
    per_second: float = Field(description="Pace at which requests left.")
    sent: int
    answered: int = Field(description="Status 200.")
    refused: int = Field(description="Any other status.")
    lost: int = Field(description="No answer.")
    unlogged: int = Field(description="Answered, but not in the archive.")
    doubled: int = Field(description="More than once in the archive.")
    mislogged: int = Field(description="In the archive with another answer than was given.")
    degraded: int
    fallback: int
    positive: int
    p999_ms: float = Field(description="From the moment at which a request should have left.")
    hops: dict[str, Hop]
    compared: int = Field(description="Vectors compared with the point-in-time join.")
    equal: int
    differing: dict[str, int] = Field(description="Feature → rows in which it differed.")

    @property
    def good(self) -> bool:
        """Whether nothing was lost and serving saw what training would; says nothing of speed."""
        broken = self.lost + self.refused + self.unlogged + self.doubled + self.mislogged
        by_the_model = self.answered - self.fallback
        whole = self.equal == self.compared > 0 and by_the_model > self.answered / 2
        return not broken and whole


def outcome(
    code: UseCaseCode,
    version: int,
    window: Window,
    per_second: float,
    ledger: pl.DataFrame,
    archived: pl.DataFrame,
    compared: Audited,
) -> Replayed:
    """Compare what clients were told with what was logged.

    Args:
        code: The use case.
        version: That served when it began.
        window: Of the traffic.
        per_second: The pace.
        ledger: The client's own (`local.tally.ledger`).
        archived: This replay's rows of the archive, without the shadow's.
        compared: Logged vectors beside the offline join.
    """
    answered = ledger.filter(pl.col("status") == OK)
    logged = archived.group_by("request_id").len()
    given = ["score", "decision", "degraded", "fallback", "version", "arm"]
    both = answered.join(archived, on="request_id", suffix="_logged")
    mislogged = both.filter(
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_logged")) for name in given)
    ).height
    millis = {
        "features": answered["features_us"] / 1000,
        "inference": answered["inference_us"] / 1000,
        "decision": answered["decision_us"] / 1000,
        "client": answered["ms"],
    }
    budgets = live.limits(code.spec.serving.latency_ms)
    return Replayed(
        usecase=code.spec.name,
        version=version,
        start=window.start,
        end=window.end,
        per_second=per_second,
        sent=ledger.height,
        answered=answered.height,
        refused=ledger.filter((pl.col("status") != OK) & (pl.col("status") != 0)).height,
        lost=ledger.filter(pl.col("status") == 0).height,
        unlogged=answered.join(logged, on="request_id", how="anti").height,
        doubled=logged.filter(pl.col("len") > 1).height,
        mislogged=mislogged,
        degraded=int(answered["degraded"].sum()),
        fallback=int(answered["fallback"].sum()),
        positive=int(answered["decision"].sum()),
        p999_ms=_quantile(answered["ms"], 0.999),
        hops={
            name: Hop(p50=_quantile(values, 0.5), p99=_quantile(values, 0.99), budget=budgets[name])
            for name, values in millis.items()
        },
        compared=compared.rows,
        equal=compared.equal,
        differing=compared.differing,
    )


def _quantile(values: pl.Series, share: float) -> float:
    found = values.quantile(share)
    return 0.0 if found is None else round(found, 3)


def tell(console: Console, found: Replayed) -> None:
    """Print the outcome of a replay."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    good, bad = "bold green", "bold red"
    unlogged = found.unlogged + found.doubled + found.mislogged
    nothing_lost = not (found.lost or found.refused or unlogged)
    table.add_row(
        "live traffic",
        Text(
            f"{found.answered:,} of {found.sent:,} answered, {found.lost} lost, "
            f"{found.refused} refused, {unlogged} not logged once as answered",
            style=good if nothing_lost else bad,
        ),
    )
    table.add_row("", f"{found.degraded:,} degraded, {found.fallback:,} by the rules")
    for name, hop in found.hops.items():
        style = good if hop.p99 <= hop.budget else bad
        text = f"p50 {hop.p50:.1f} ms, p99 {hop.p99:.1f} ms of {hop.budget:g} ms"
        table.add_row(f"{name} latency", Text(text, style=style if name == "client" else ""))
    same = found.equal == found.compared
    table.add_row(
        "skew",
        Text(
            f"{found.equal:,} of {found.compared:,} vectors equal the point-in-time join",
            style=good if same else bad,
        ),
    )
    console.print(table)
