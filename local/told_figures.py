"""The timeline of a demonstration: what answered, what moved, what was found, what was decided.

One figure over the data's time. Its colours and symbols are explained in words beside it, not by a
legend of plotly's: that takes half of a narrow screen.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl

from local import told_answered as answered
from local import told_looks as looks
from local.report import html
from local.told import Day, Told
from mlplatform.contracts import Window

_LEAST, _TOP = 1.2, 5.0
"""Ends of the axis of drift, in times the limit: at least, and what is beyond runs along it."""
_TEXT: Final = {"minsize": 8, "mode": "hide"}
"""Names that do not fit their bars in 8 points are left to the hover text."""
_LATE: Final = 0.75
"""Share of the axis after which a mark's words stand before it, not behind."""
_MARGIN: Final = 0.015
"""Of the axis beyond either end, so that a mark there is not cut."""
_SHADES: Final = (0.07, 0.2)
_STOPPED: Final = 0.18
_LANES: Final = (
    "Acts",
    f"Answers, by who gave them (% of {answered.HOURS} hours)",
    "Strongest drift of a window (times its limit)",
    "Cause named for a window",
    "Decisions",
)
_HEIGHTS: Final = (0.04, 0.23, 0.26, 0.16, 0.31)


def timeline(told: Told, answers: pl.DataFrame) -> str:
    """Draw the whole story, lane above lane."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=len(_LANES),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=list(_HEIGHTS),
        subplot_titles=_LANES,
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 12, "color": looks.INK})
    _acts(figure, told.days)
    _answers(figure, answers)
    _drift(figure, told.days)
    _causes(figure, told.days)
    _decisions(figure, told)
    _shade(figure, told.days)
    figure.update_layout(
        barmode="overlay", showlegend=False, hovermode="closest", uniformtext=_TEXT
    )
    figure.update_layout(title={"x": 0, "y": 1, "yanchor": "top", "pad": {"t": 2}})
    margin = _MARGIN * (told.end - told.start)
    ends = [told.start - margin, told.end + margin]
    figure.update_xaxes(range=ends, **looks.DATES)
    return html(figure, "The loop, over the time of the data (UTC)", "", "", 800)


def _answers(figure: Any, answers: pl.DataFrame) -> None:
    """Stack who gave the answers."""
    found = answered.answerers(answers)
    if not found:
        return
    shares = answered.shares(answers)
    for look in found:
        figure.add_scatter(
            x=shares["event_timestamp"],
            y=shares[look.words],
            name=look.words,
            stackgroup="answers",
            line={"width": 0, "shape": "hv"},
            fillcolor=look.colour,
            hovertemplate="%{x|%b %d %H:%M}: %{y:.0f} % by " + look.words + "<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_yaxes(range=[0, 100], ticksuffix=" %", nticks=4, row=2, col=1)


def _drift(figure: Any, days: Sequence[Day]) -> None:
    """Draw how far the strongest column of each window lies out; one beyond its limit is named."""
    windows, columns, texts = [], [], []
    for day in days:
        if (drift := day.report.drift) is None or not drift.columns:
            continue
        worst = max(drift.columns, key=lambda one: one.excess)
        others = [name for name in drift.drifted if name != worst.column]
        also = f"; also {looks.listed(others)}" if others else ""
        windows.append(day.window)
        columns.append(worst)
        texts.append(f"{worst.column}, {worst.excess:.1f} times its limit: {worst.reason}{also}")
    beyond = [column.verdict == "drift" for column in columns]
    heights = [min(_TOP, column.excess) for column in columns]
    names = [looks.safe(column.column) for column in columns]
    figure.add_bar(
        **_places(windows, 0.8),
        y=heights,
        marker_color=[looks.ORANGE if out else looks.SOFT for out in beyond],
        text=[name if out else "" for name, out in zip(names, beyond, strict=True)],
        textangle=-90,
        textfont={"color": looks.INK},
        hovertext=list(map(looks.hover, windows, texts)),
        hoverinfo="text",
        row=3,
        col=1,
    )
    figure.add_hline(y=1, line={"dash": "dot", "color": looks.BAD}, row=3, col=1)
    figure.update_yaxes(range=[0, max([_LEAST, *heights])], nticks=5, row=3, col=1)


def _causes(figure: Any, days: Sequence[Day]) -> None:
    """Draw a square for each window of both watches."""
    heights = {"performance": 0, "inputs": 1}
    found = looks.newest(days)
    windows = [finding.window for finding in found]
    texts = []
    for finding in found:
        blamed = f" ({looks.listed(finding.blamed)})" if finding.blamed else ""
        texts.append(f"{looks.CAUSES[finding.cause].words}{blamed}. {finding.why}")
    figure.add_bar(
        **_places(windows, 0.92),
        base=[heights[finding.watch] - 0.38 for finding in found],
        y=[0.76] * len(found),
        marker_color=[looks.CAUSES[finding.cause].colour for finding in found],
        hovertext=list(map(looks.hover, windows, texts)),
        hoverinfo="text",
        row=4,
        col=1,
    )
    ticks = {"tickvals": [0, 1], "ticktext": ["labels", "inputs"], "range": [-0.5, 1.5]}
    figure.update_yaxes(**ticks, showgrid=False, row=4, col=1)


def _decisions(figure: Any, told: Told) -> None:
    heights = {"rollout": 0, "pipeline": 1, "trigger": 2}
    # The grey turns lie below what they led to.
    found = sorted(looks.marks(told), key=lambda mark: mark.style != "turn")
    styles = [looks.DECISIONS[mark.style] for mark in found]
    texts = [looks.label(mark.line) for mark in found]
    figure.add_scatter(
        x=[mark.at for mark in found],
        y=[heights[mark.lane] for mark in found],
        mode="markers+text",
        marker={
            "symbol": [style.symbol for style in styles],
            "color": [style.colour for style in styles],
            "opacity": 1,
            "size": [8 if mark.style == "turn" else 12 for mark in found],
        },
        text=texts,
        textposition=_positions(found, texts, told.start + _LATE * (told.end - told.start)),
        textfont={"size": 11, "color": looks.INK},
        hovertext=[
            looks.hover(mark.at, f"{line.kind} {line.subject}: {line.verdict}. {line.reason}")
            for mark in found
            for line in (mark.line,)
        ],
        hoverinfo="text",
        cliponaxis=False,
        row=5,
        col=1,
    )
    ticks = {"tickvals": list(heights.values()), "ticktext": list(heights), "range": [-0.6, 2.6]}
    figure.update_yaxes(**ticks, row=5, col=1)


def _positions(found: Sequence[looks.Mark], texts: Sequence[str], late: datetime) -> list[str]:
    """Return where words stand: over and under the marks of a lane in turn, to keep apart."""
    places, turns = [], Counter[str]()
    for mark, text in zip(found, texts, strict=True):
        turns[mark.lane] += bool(text)
        height = "top" if turns[mark.lane] % 2 else "bottom"
        places.append(f"{height} {'left' if mark.at > late else 'right'}")
    return places


def _acts(figure: Any, days: Sequence[Day]) -> None:
    """Draw the acts as numbered stretches."""
    bands = looks.acts(days)
    figure.add_bar(
        **_places([band.window for band in bands], 1),
        y=[1] * len(bands),
        marker_color=looks.SOFT,
        marker_opacity=[4 * _SHADES[index % 2] for index in range(len(bands))],
        text=[f"<b>{number}</b>" for number in range(1, len(bands) + 1)],
        textangle=0,
        textfont={"color": looks.INK},
        hovertext=[looks.hover(band.window, band.title) for band in bands],
        hoverinfo="text",
        row=1,
        col=1,
    )
    figure.update_yaxes(visible=False, range=[0, 1], row=1, col=1)


def _shade(figure: Any, days: Sequence[Day]) -> None:
    """Shade acts and stopped feeds behind all lanes that hold something: plotly skips the rest."""
    shaded = [(b, looks.SOFT, _SHADES[i % 2]) for i, b in enumerate(looks.acts(days))]
    shaded += [(band, looks.PURPLE, _STOPPED) for band in looks.stopped(days)]
    for band, colour, opacity in shaded:
        figure.add_vrect(
            x0=band.window.start,
            x1=band.window.end,
            fillcolor=colour,
            opacity=opacity,
            layer="below",
            line_width=0,
        )


def _places(windows: Sequence[Window], share: float) -> dict[str, Any]:
    """Return where bars lie that fill a share of their windows' width."""
    lengths = [window.end - window.start for window in windows]
    return {
        "x": [w.start + length / 2 for w, length in zip(windows, lengths, strict=True)],
        "width": [1000 * share * length.total_seconds() for length in lengths],
    }
