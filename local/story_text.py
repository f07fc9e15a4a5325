"""The story of a version in a terminal: what was decided, why, and the e-values as small curves."""

import math
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from local.story_page import limits, readings
from serving.rollout.judge import e_value
from serving.rollout.passages import Passage
from serving.rollout.story import Story, Trial

_STEPS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 12
"""Characters of a curve; the page has the whole one."""
_STYLES: Final = {"promoted": "green", "harm": "bold red", "failed": "bold red"}


def told(story: Story) -> RenderableType:
    """Return the story, to be printed."""
    head = Text(f"{story.usecase} version {story.version}", style="bold")
    parts: list[RenderableType] = [head, Text(story.outcome), Text()]
    parts += map(_passage, story.passages)
    for trial in story.trials:
        parts += [Text(), Text(f"Rollout {trial.number}: the evidence over time", style="bold")]
        parts.append(_curves(trial))
    return Group(*parts)


def curve(logs: Sequence[float], limit: float) -> str:
    """Return ln e-values over time as bars, the tallest at the limit; each is the last of its time.

    Args:
        logs: Oldest first.
        limit: ln of the e-value that decides, above 0.
    """
    shown = [logs[(i + 1) * len(logs) // _WIDTH - 1] for i in range(_WIDTH)]
    if len(logs) < _WIDTH:
        shown = list(logs)
    top = len(_STEPS) - 1
    return "".join(_STEPS[max(0, min(top, int(log / limit * top)))] for log in shown)


def _passage(passage: Passage) -> RenderableType:
    head = Text(f"{passage.at:%Y-%m-%d %H:%M:%S}  ", style="dim")
    head.append(passage.title, style=_STYLES.get(passage.verdict, "cyan"))
    head.append(f"  {passage.actor}", style="dim")
    return Group(head, Padding(Text(passage.text), (0, 0, 0, 4)))


def _curves(trial: Trial) -> RenderableType:
    """Return a row for each guardrail; the numbers are those of the last look that saw anything."""
    looks = [look for look in trial.looks if look.verdict.readings]
    if not looks:
        return Text("Nothing was looked at: the version has answered no request.")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("guardrail", "champion", "version"):
        table.add_column(name, justify="left" if name == "guardrail" else "right")
    for word, limit in zip(("harm", "safe"), limits(trial), strict=True):
        table.add_column(word if limit is None else f"{word} / {math.exp(limit):,.0f}")
        table.add_column("e-value", justify="right")
    rollback, promotion = limits(trial)
    for reading in looks[-1].verdict.readings:
        own = [r for look in looks for r in look.verdict.readings if r.metric == reading.metric]
        *words, _, harm, safe = next(readings([reading]))
        harmed, proven = [r.log_harm for r in own], [r.log_safe for r in own]
        # One guardrail's harm alone decides nothing: their mean does.
        table.add_row(
            *words, _bars(harmed, rollback, "dim"), harm, _bars(proven, promotion, "green"), safe
        )
    together = [look.verdict.log_harm for look in looks]
    bars = _bars(together, rollback, "bold red")
    table.add_row("all together", "", "", bars, e_value(together[-1]), "", "")
    return table


def _bars(logs: Sequence[float], limit: float | None, reached: str) -> Text:
    if limit is None:
        return Text("")
    return Text(curve(logs, limit), style=reached if logs[-1] >= limit else "dim")
