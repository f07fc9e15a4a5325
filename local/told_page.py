"""The page of a demonstration: what was claimed, what happened when, and every decision.

One HTML file, complete without a network. A newcomer reads its head and the timeline; who doubts
finds below the numbers, with links to the pages that hold the rest.
"""

import textwrap
from collections.abc import Sequence
from os.path import relpath
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import polars as pl

from local import told_answered, told_figures, told_performance
from local import told_looks as looks
from local.report import environment
from local.told import Day, Line, Told
from mlplatform.contracts.retrain import Finding

_TEXT: Final = 240
"""Characters of a reason in the table of days; the ledger's table has all of it."""

_DRAWN: Final = (
    looks.Look(looks.SOFT, "as registered", glyph="┅"),
    looks.Look(looks.SOFT, "estimated before labels", glyph="◇"),
)


class Found(NamedTuple):
    """A finding, as the table of days lists it."""

    look: looks.Look
    of: str
    blamed: str
    why: str


class Row(NamedTuple):
    """A day, as the table lists it."""

    day: Day
    versions: str
    found: tuple[Found, ...]
    trigger: tuple[Line, ...]
    trouble: tuple[str, ...]
    page: str


def write_page(path: Path, told: Told, answers: pl.DataFrame) -> None:
    """Write the page; text from data is escaped.

    Args:
        path: HTML file; pages that it links to are named relative to its folder.
        told: The story.
        answers: The client's ledger (`local.tally.ledger`).
    """
    from plotly.offline import get_plotlyjs

    page = (
        environment()
        .get_template("told.html.j2")
        .render(
            told=told,
            cards=cards(told),
            acts=looks.acts(told.days),
            stopped=looks.stopped(told.days),
            timeline=told_figures.timeline(told, answers) if told.days else "",
            beyond=looks.beyond(told.days),
            answerers=told_answered.answerers(answers),
            causes=_seen(told.days),
            decisions=list(looks.DECISIONS.values()),
            performance=told_performance.figure(told.days),
            measured=_measured(told.days),
            promises=list(told_performance.promises(told.days)),
            pair=told.replaced,
            compared=told_performance.compared(told.replaced) if told.replaced else [],
            sentences=list(told_performance.sentences(told.replaced)) if told.replaced else [],
            rows=[row(day, answers, path.parent) for day in told.days],
            plotly_js=get_plotlyjs(),
        )
    )
    path.write_text(page, encoding="utf-8")


def cards(told: Told) -> list[tuple[str, str]]:
    """Return the numbers of the head with their names."""
    asked = sum(line.kind == "retrain" and line.verdict == "requested" for line in told.decisions)
    return [
        (f"{sum(claim.held for claim in told.claims)} of {len(told.claims)}", "claims held"),
        (f"{told.traffic.answered:,}", "requests answered"),
        (f"{len(told.days)}", "windows judged"),
        (f"{asked}", "retrainings asked for"),
        (f"{len(told.rollouts)}", "rollouts"),
        (f"{told.seconds / 60:.1f} min", "in all"),
    ]


def row(day: Day, answers: pl.DataFrame, folder: Path) -> Row:
    """Return a day, as the table lists it.

    Args:
        day: The day.
        answers: The client's ledger.
        folder: Of the page, from which links lead.
    """
    report = day.report
    within = pl.col("event_timestamp").is_between(day.window.start, day.window.end, closed="left")
    answered = answers.filter(within)["version"].drop_nulls().unique().sort().to_list()
    if not answered and report.version is not None:
        answered = [report.version]
    return Row(
        day=day,
        versions=", ".join(map(str, answered)),
        found=tuple(_found(finding, day) for finding in report.findings),
        trigger=tuple(line for line in day.decisions if line.kind == "retrain"),
        trouble=tuple(
            f"{layer.layer}: {vital.why or vital.name}"
            for layer in report.layers
            for vital in layer.vitals
            if not vital.ok
        ),
        page=link(report.page, folder),
    )


def link(page: str, folder: Path) -> str:
    """Return a page's address relative to a folder; empty: there is no such page (any more)."""
    found = Path(page)
    return quote(relpath(found, folder)) if page and found.is_file() else ""


def _found(finding: Finding, day: Day) -> Found:
    of = "" if finding.window == day.window else f" of {finding.window.start:%b %d}"
    watched = "labels" if finding.watch == "performance" else "inputs"
    # Of a healthy window there is nothing to explain.
    why = "" if finding.cause == "healthy" else textwrap.shorten(finding.why, _TEXT)
    look = looks.CAUSES[finding.cause]
    return Found(look, watched + of, looks.listed(finding.blamed), why)


def _seen(days: Sequence[Day]) -> list[looks.Look]:
    """Return the causes that the timeline shows, in the order of the contract."""
    seen = {finding.cause for finding in looks.newest(days)}
    return [look for cause, look in looks.CAUSES.items() if cause in seen]


def _measured(days: Sequence[Day]) -> list[looks.Look]:
    versions = sorted({one.version for one in told_performance.matured(days)})
    return [*map(looks.of_version, versions), *_DRAWN]
