"""How a demonstration's page shows what happened: colours, symbols, words, and where each belongs.

Pure: it reads a story and draws nothing.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from local.told import Day, Line, Told
from mlplatform.contracts import Window
from mlplatform.contracts.retrain import Cause, Finding

INK, SOFT, ACCENT, BAD = "#1b2430", "#9aa5b1", "#2563eb", "#b3261e"
GOOD, ORANGE, PURPLE = "#1a7f4b", "#d97706", "#7c3aed"
_VERSIONS: Final = ("#7ba4f4", "#1d4ed8", "#0891b2", "#db2777", "#65a30d", "#0b4f6c")
"""Colours of versions, in their order; those of the causes mean something else."""


class Look(NamedTuple):
    """How something is drawn, and what it is called."""

    colour: str
    words: str
    symbol: str = "square"
    glyph: str = "■"


CAUSES: Final[dict[Cause, Look]] = {
    "healthy": Look(GOOD, "healthy"),
    "inconclusive": Look(SOFT, "inconclusive"),
    "input_drift": Look(ORANGE, "drift of the inputs"),
    "output_drift": Look("#f2b25c", "drift of the score alone"),
    "performance_loss": Look(BAD, "loss of performance"),
    "data_fault": Look(PURPLE, "data fault: the feed is broken"),
    "skew": Look("#c4a7f5", "skew: serving computes other features"),
}
DECISIONS: Final = {
    "asked": Look(ACCENT, "retraining asked for, approved or begun", "diamond", "◆"),
    "good": Look(GOOD, "better, registered or promoted", "star", "★"),
    "bad": Look(BAD, "failed, rejected, rolled back or without gain", "x", "✖"),
    "refused": Look(PURPLE, "refused: retraining cannot help", "triangle-down", "▼"),
    "turn": Look(SOFT, "waiting, or another turn", "circle", "●"),
}
_STYLES: Final = {
    **dict.fromkeys(("requested", "submitted", "running", "approved"), "asked"),
    **dict.fromkeys(("better", "registered", "promoted"), "good"),
    **dict.fromkeys(("no_gain", "failed", "denied", "rejected", "harm", "rolled_back"), "bad"),
    "refused": "refused",
}
DATES: Final = {
    "nticks": 8,
    "tickformatstops": [
        {"dtickrange": [None, 86_399_999], "value": "%b %d %H:%M"},
        {"dtickrange": [86_399_999, None], "value": "%b %d"},
    ],
}
"""Of an axis of time: hours are written where ticks are closer than a day, in ms."""
_LANES: Final = {"retrain": "trigger", "rollout": "rollout", "route": "rollout"}
_PIPELINE: Final = frozenset({"validation", "gate", "registration", "run"})
_HOVER: Final = 60
"""Characters of a line of a hover text."""
_NAMES: Final = 6
"""Names that a list spells out."""


class Band(NamedTuple):
    """Days in a row that have something in common."""

    title: str
    window: Window


class Mark(NamedTuple):
    """A decision on the timeline."""

    lane: str
    style: str
    at: datetime
    line: Line


def of_version(version: int) -> Look:
    """Return how a version is drawn, everywhere on the page."""
    return Look(_VERSIONS[(version - 1) % len(_VERSIONS)], f"version {version}")


def acts(days: Sequence[Day]) -> list[Band]:
    """Return the acts in their order."""
    return _bands(days, attrgetter("act"))


def stopped(days: Sequence[Day]) -> list[Band]:
    """Return which feeds were stopped on purpose, and when."""
    return [band for band in _bands(days, lambda day: ", ".join(day.withheld)) if band.title]


def _bands(days: Sequence[Day], of: Callable[[Day], str]) -> list[Band]:
    groups = [(title, list(group)) for title, group in groupby(days, of)]
    return [
        Band(title, Window(start=group[0].window.start, end=group[-1].window.end))
        for title, group in groups
    ]


def newest(days: Sequence[Day]) -> list[Finding]:
    """Return what each watch found in each window, as it was judged last."""
    found = [finding for day in days for finding in day.report.findings]
    return list({(finding.watch, finding.window.start): finding for finding in found}.values())


def beyond(days: Sequence[Day]) -> dict[str, int]:
    """Return the columns that drifted, each with its number of windows, the most frequent first."""
    drifts = [day.report.drift for day in days if day.report.drift is not None]
    return dict(Counter(name for drift in drifts for name in drift.drifted).most_common())


def marks(told: Told) -> Iterator[Mark]:
    """Yield what was decided since the first window; of a run, what became of its model."""
    for line in told.decisions:
        at = moment(line, told)
        if at is None:
            continue
        style = _STYLES.get(line.verdict, "turn")
        if line.kind in _LANES:
            yield Mark(_LANES[line.kind], style, at, line)
        elif line.kind in _PIPELINE and (line.kind == "registration" or style == "bad"):
            yield Mark("pipeline", style, at, line)


def moment(line: Line, told: Told) -> datetime | None:
    """Return when something was decided, in the data's time; None: before the first window.

    A pipeline's own clock is not the data's: then it is the end of the window that brought it.
    """
    if told.start <= line.recorded_at <= told.end:
        return line.recorded_at
    return line.window


def label(line: Line) -> str:
    """Return the words beside a mark; only turning points have any, or they would hide others."""
    version = safe(line.subject.rpartition("/")[2])
    match line.verdict:
        case "requested":
            return "retrain"
        case "registered" | "promoted" | "held":
            return f"v{version} {line.verdict}"
        case "harm" | "rolled_back":
            return f"v{version} rolled back"
        case _:
            return ""


def listed(names: Sequence[str]) -> str:
    """Return names in a row; of many, the first."""
    rest = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + rest


def hover(at: Window | datetime, text: str) -> str:
    """Return a text with its time for a hover, in lines."""
    times = (at.start, at.end) if isinstance(at, Window) else (at,)
    head = " to ".join(f"{time:%b %d %H:%M}" for time in times)
    return "<br>".join([f"<b>{head}</b>", *map(safe, textwrap.wrap(text, _HOVER))])


def safe(text: str) -> str:
    """Return text without tags: plotly reads some of HTML's in its texts."""
    return escape(text, quote=False)
