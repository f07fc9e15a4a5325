"""The live view of a replay: rate, latency per hop against its budget, outcomes.

It shows what the replaying process says. Where the output is no terminal it prints a line now and
then instead.
"""

import time
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mlplatform.contracts.usecase.operation import LatencyBudget

_PLAIN_SECONDS: Final = 15.0
"""Pause between two lines where nobody looks at a terminal."""


class Screen:
    """Shows the lines of a replay, a stretch at a time.

    Args:
        console: Where.
        budget: Of the use case.
    """

    def __init__(self, console: Console, budget: LatencyBudget) -> None:
        self._console, self._budget = console, budget
        self._shown = 0.0

    def show(self, lines: Iterable[dict[str, Any]]) -> None:
        """Show the lines until they end."""
        if not self._console.is_terminal:
            for line in lines:
                if time.monotonic() - self._shown >= _PLAIN_SECONDS:
                    self._shown = time.monotonic()
                    _print(self._console, line)
            return
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            for line in lines:
                live.update(view(line, self._budget))


def view(line: dict[str, Any], budget: LatencyBudget) -> RenderableType:
    """Return one picture of the replay."""
    hops = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("hop", "p50 ms", "p99 ms", "budget ms", ""):
        hops.add_column(name, justify="left" if name in {"hop", ""} else "right")
    for name, limit in limits(budget).items():
        median, tail = line["p50"][name], line["p99"][name]
        bar = ProgressBar(total=limit, completed=min(tail or 0, limit), width=24)
        style = "bold red" if tail is not None and tail > limit else "green"
        hops.add_row(name, millis(median), Text(millis(tail), style=style), f"{limit:g}", bar)
    parts: list[RenderableType] = [Text(headline(line), style="bold"), hops, Text(outcomes(line))]
    if "rollout" in line:
        parts.append(Text(f"rollout of {line['rollout']}", style="cyan"))
    return Group(*parts)


def limits(budget: LatencyBudget) -> dict[str, float]:
    """Return the budget of each hop that is measured, in milliseconds."""
    return {
        "features": budget.features,
        "inference": budget.queue + budget.inference,
        "decision": budget.decision,
        "client": budget.total,
    }


def millis(value: float | None) -> str:
    """Return milliseconds as they are shown; None: nothing has been answered yet."""
    return "-" if value is None else f"{value:.1f}"


def headline(line: dict[str, Any]) -> str:
    """Return how far the replay is."""
    rate = line["sent"] / line["seconds"] if line["seconds"] else 0.0
    moment = str(line["event_time"])[:16].replace("T", " ")
    return f"{moment} UTC   {line['sent']:,} of {line['total']:,} requests   {rate:.0f}/s"


def outcomes(line: dict[str, Any]) -> str:
    """Return what came back."""
    return (
        f"answered {line['answered']:,}   warned {line['positive']:,}   "
        f"degraded {line['degraded']:,}   fallback {line['fallback']:,}   "
        f"refused {line['refused']:,}   lost {line['lost']:,}   "
        f"feature rows pushed {line['pushed']:,}"
    )


def _print(console: Console, line: dict[str, Any]) -> None:
    console.print(
        f"      {headline(line)}   p99 {millis(line['p99']['client'])} ms",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"      {outcomes(line)}", highlight=False, soft_wrap=True)
    if "rollout" in line:
        console.print(Text(f"      rollout of {line['rollout']}"), soft_wrap=True)
