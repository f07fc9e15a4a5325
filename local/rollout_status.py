"""How far a rollout is, for a person: its phase, its traffic, its evidence, what it waits for."""

from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from local.story_page import readings
from mlplatform.contracts import Rollout, Statistics, Verdict
from mlplatform.contracts.rollout import AT_REST, Routed, Stage
from serving.rollout import machine
from serving.rollout.guardrails import percent
from serving.rollout.judge import e_value

_STYLES: Final = {"promoted": "bold green", "rolled_back": "bold red", "held": "bold yellow"}


def shown(
    rollout: Rollout,
    statistics: Statistics | None,
    verdict: Verdict | None,
    now: datetime,
) -> RenderableType:
    """Return the rollout, to be printed.

    Args:
        rollout: The newest one.
        statistics: What it has shown; None: that could not be read, or there is nothing yet.
        verdict: What they say; None: nothing is judged in this phase.
        now: The time of the servers.
    """
    parts: list[RenderableType] = [_facts(rollout, statistics, now)]
    if verdict is not None:
        parts += [Text(), _evidence(rollout, verdict)]
        if verdict != rollout.story[-1].looked:  # the last turn says it already
            parts.append(Text(verdict.reason, style="dim"))
    return Group(*parts)


def _facts(rollout: Rollout, statistics: Statistics | None, now: datetime) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    challenger, champion = rollout.challenger, rollout.champion
    table.add_row("rollout", f"{rollout.id}: version {challenger.version} after {champion.version}")
    phase = Text(rollout.phase.replace("_", " "), style=_STYLES.get(rollout.phase, "bold"))
    if rollout.phase == "canary":
        phase.append(f", step {rollout.step + 1} of {len(rollout.plan.weights)}", style="")
    if rollout.paused:
        phase.append(", paused", style="bold yellow")
    table.add_row("phase", phase)
    last = rollout.story[-1]
    table.add_row("last turn", Text(f"{last.verdict}, by {last.actor}: {last.reason}"))
    table.add_row("serves", f"version {machine.serves(rollout).version}")
    routed = rollout.routes[-1]
    table.add_row("traffic", _traffic(routed))
    followed = rollout.committed >= routed.epoch
    in_force = "every gateway follows it" if followed else "not every gateway follows it yet"
    table.add_row("route", f"epoch {routed.epoch}, {in_force}")
    for stage in () if statistics is None else statistics.stages:
        table.add_row(f"seen at {percent(stage.weight)}", _seen(stage, rollout.plan.min_exposure))
    if rollout.waits_for:
        table.add_row("waits for", rollout.waits_for)
    if rollout.phase not in AT_REST:
        table.add_row("deadline", f"{_moment(rollout.deadline_at)}, {_ahead(rollout, now)}")
    return table


def _traffic(routed: Routed) -> str:
    weight = f"{percent(routed.weight)} of entities to the new version"
    return f"{weight}; it sees {percent(routed.shadow)} besides" if routed.shadow else weight


def _seen(stage: Stage, least: int) -> str:
    exposed = stage.exposed
    return (
        f"{exposed.champion:,} entities before, {exposed.challenger:,} new; {least:,} each needed"
    )


def _evidence(rollout: Rollout, verdict: Verdict) -> Table:
    harm, safe = (
        1 / alpha for alpha in (rollout.plan.rollback_alpha, rollout.plan.promotion_alpha)
    )
    title = f"evidence: {verdict.kind}, e-value of harm {e_value(verdict.log_harm)}"
    # Narrow enough for a terminal of 80 columns.
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("guardrail", no_wrap=True)
    for column in ("before", "new", "difference", "margin",
                   f"harm / {harm:,.0f}", f"safe / {safe:,.0f}"):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("fresh")
    for reading, row in zip(verdict.readings, readings(verdict.readings), strict=True):
        difference = "none" if reading.difference is None else f"{reading.difference:+.4f}"
        fresh = "yes" if reading.fresh else Text("no", style="yellow")
        table.add_row(*row[:3], difference, *row[3:], fresh)
    return table


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _ahead(rollout: Rollout, now: datetime) -> str:
    left = rollout.deadline_at - now
    return "which is past" if left < timedelta() else f"in {str(left).partition('.')[0]}"
