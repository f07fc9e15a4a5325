"""The page of simulated rollouts: what was asked, how every policy ended, how ours got there."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.rollout.simulate import POLICIES, Outcome
from bench.rollout.tables import ALPHA, WALD, Requirement, Row
from bench.rollout.traffic import BASE_RATES, KINDS, LOSS_MARGIN
from local.report import html

_GOOD, _BAD, _SOFT, _ACCENT = "#1a7f4b", "#b3261e", "#9aa5b1", "#2563eb"
_COLOURS: Final = {"promoted": _GOOD, "rolled back": _BAD, "held": _SOFT}
_RATES: Final = ("#93c5fd", "#2563eb", "#7c3aed", "#0f172a")
"""Colours of the base rates, from the lowest."""
_PATH_KINDS: Final = ("equal", "threefold errors, no shadow", "bad on late labels")


def write_report(
    path: Path,
    outcomes: Sequence[Outcome],
    rows: Sequence[Row],
    requirements: Sequence[Requirement],
) -> None:
    """Write the page; it needs no network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        runs=max(row.runs for row in rows),
        rates=", ".join(f"{100 * rate:g} %" for rate in BASE_RATES),
        margin=LOSS_MARGIN,
        requirements=requirements,
        figures=[_outcomes(rows), *_paths(outcomes), _detection(outcomes), _minutes(outcomes)],
        columns=("Promoted", "Rolled back", "Held", *(f"at {100 * r:g} %" for r in BASE_RATES)),
        rows=list(_cells(rows)),
        plotly_js=get_plotlyjs(),
    )
    path.write_text(page, encoding="utf-8")


def _cells(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    by_base = {(row.kind, row.policy, row.base): row for row in rows}
    for row in rows:
        if row.base is not None:
            continue
        at = [by_base.get((row.kind, row.policy, base)) for base in BASE_RATES]
        yield {
            "kind": row.kind,
            "policy": row.policy,
            "first": row.policy == POLICIES[0],
            "cells": (
                *(_percent(n / row.runs) for n in (row.promoted, row.rolled_back, row.held)),
                *("" if one is None else _percent(one.promoted / one.runs) for one in at),
                "" if row.minutes is None else f"{row.minutes:g}",
                f"{round(100 * row.spoiled, 2) + 0.0:.2f} %",
            ),
        }


def _outcomes(rows: Sequence[Row]) -> str:
    """Draw how each class ended under each policy, as shares of its runs."""
    import plotly.graph_objects as go

    whole = [row for row in rows if row.base is None][::-1]
    names = [[row.kind for row in whole], [row.policy for row in whole]]
    figure = go.Figure()
    for result, counts in {
        "promoted": [row.promoted / row.runs for row in whole],
        "rolled back": [row.rolled_back / row.runs for row in whole],
        "held": [row.held / row.runs for row in whole],
    }.items():
        figure.add_bar(
            y=names, x=counts, name=result, orientation="h", marker_color=_COLOURS[result]
        )
    figure.update_layout(barmode="stack", bargap=0.15)
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    return html(figure, "How rollouts ended", "", "", 130 + 19 * len(whole))


def _paths(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Draw the e-value of harm look by look, for a few runs of three classes."""
    import plotly.graph_objects as go

    for kind in _PATH_KINDS:
        figure = go.Figure()
        for one in outcomes:
            if one.kind == kind and one.path:
                figure.add_scatter(
                    y=one.path,
                    mode="lines",
                    line={"width": 1.5, "color": _RATES[BASE_RATES.index(one.base)]},
                    name=f"{100 * one.base:g} %, {one.endings[0].result}",
                )
        limit = math.log(1 / ALPHA)
        figure.add_hline(y=limit, line={"dash": "dot", "color": _BAD})
        yield html(
            figure, f"Harm, look by look: {kind} (dotted: rolled back)", "look", "ln e-value", 320
        )


def _detection(outcomes: Sequence[Outcome]) -> str:
    """Draw how many errors a threefold rate took, over Wald's bound."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for base in BASE_RATES:
        chosen = [
            one.wald for one in outcomes if one.kind.startswith("threefold") and one.base == base
        ]
        figure.add_histogram(x=chosen, name=f"{100 * base:g} %", opacity=0.55, xbins={"size": 0.1})
    figure.update_layout(barmode="stack")
    figure.add_vline(x=WALD, line={"dash": "dot", "color": _BAD})
    title = "A threefold error rate: errors until the verdict, over Wald's bound"
    return html(figure, title, "times the bound (dotted: the most that the median may be)", "", 320)


def _minutes(outcomes: Sequence[Outcome]) -> str:
    """Draw minutes until our rollback, by class."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for kind in reversed([kind.name for kind in KINDS if kind.good is False]):
        minutes = [
            one.endings[0].batches
            for one in outcomes
            if one.kind == kind and one.endings[0].result == "rolled back"
        ]
        figure.add_box(x=minutes, name=kind, marker_color=_ACCENT, boxpoints=False)
    figure.update_layout(showlegend=False)
    return html(figure, "Minutes until ours was rolled back", "minutes since the start", "", 400)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
