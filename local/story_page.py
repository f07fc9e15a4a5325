"""The story of a version as one HTML file: what was decided, why, and the e-values over time."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from local.report import environment, html
from mlplatform.contracts.rollout import Reading
from serving.rollout.guardrails import percent
from serving.rollout.judge import e_value
from serving.rollout.story import Story, Trial, moment

_INK, _SOFT, _BAD, _GOOD = "#1b2430", "#9aa5b1", "#b3261e", "#1a7f4b"
_TOGETHER: Final = "all guardrails"
_COLOURS: Final = {
    "error_rate": "#d97706",
    "fallback_rate": "#7c3aed",
    "budget_overrun_rate": "#0891b2",
    "decision_rate": "#65a30d",
    "loss": "#2563eb",
    _TOGETHER: _INK,
}
_LEAST: Final = -2.0
"""Power of ten at the lower end of a plot: below, evidence is as absent as it can be."""
_ABOVE: Final = 3.0
"""Powers of ten that a plot shows above the limit; what is beyond changes no decision."""
_UNLIMITED: Final = 2.0
"""Power of ten that a plot reaches at least where the limit is not on record."""
_NARROW: Final = 0.02
"""Share of a plot's width below which a band has no room for its title."""


def write_story(path: Path, story: Story) -> None:
    """Write the page; text from data is escaped."""
    from plotly.offline import get_plotlyjs

    page = (
        environment()
        .get_template("story.html.j2")
        .render(
            story=story,
            moment=moment,
            rows=readings,
            figures={trial.number: _figure(trial) for trial in story.trials if trial.looks},
            plotly_js=get_plotlyjs(),
        )
    )
    path.write_text(page, encoding="utf-8")


def readings(found: Sequence[Reading]) -> Iterator[tuple[str, ...]]:
    """Yield guardrails as text: metric, both arms, margin, e-values of harm and of safety."""
    for reading in found:
        form = "{:.4f}".format if reading.metric == "loss" else percent
        arms = [
            "none" if mean is None else form(mean)
            for mean in (reading.champion, reading.challenger)
        ]
        yield (
            reading.metric.replace("_", " "),
            *arms,
            form(reading.margin),
            e_value(reading.log_harm),
            e_value(reading.log_safe),
        )


def limits(trial: Trial) -> tuple[float | None, float | None]:
    """Return ln of the e-values that roll back and that promote; None: not on record."""
    if trial.plan is None:
        return None, None
    return -math.log(trial.plan.rollback_alpha), -math.log(trial.plan.promotion_alpha)


def _figure(trial: Trial) -> str:
    """Draw the e-values of harm above those of safety, phases as bands, limits as lines."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.09,
        subplot_titles=("Against 'it does no harm'", "Against 'it is worse by the margin'"),
    )
    harmed, proven = limits(trial)
    together = [look.verdict.log_harm if look.verdict.readings else None for look in trial.looks]
    harm = _curves(trial, lambda reading: reading.log_harm) | {_TOGETHER: together}
    _panel(figure, 1, trial, harm, harmed, (f"roll back at {_plain(harmed)}", _BAD))
    safe = _curves(trial, lambda reading: reading.log_safe)
    _panel(figure, 2, trial, safe, proven, (f"promote at {_plain(proven)}", _GOOD))
    _bands(figure, trial)
    return html(figure, "", "", "e-value", 560)


def _curves(trial: Trial, of: Callable[[Reading], float]) -> dict[str, list[float | None]]:
    """Return ln e-values by metric; None where a look saw nothing, so that the line has a gap."""
    looks = [
        {reading.metric: of(reading) for reading in look.verdict.readings} for look in trial.looks
    ]
    names = dict.fromkeys(metric for look in looks for metric in look)
    return {name: [look.get(name) for look in looks] for name in names}


def _panel(
    figure: Any,
    row: int,
    trial: Trial,
    curves: Mapping[str, Sequence[float | None]],
    limit: float | None,
    mark: tuple[str, str],
) -> None:
    """Draw one test on a logarithmic axis, which plotly's own is not: e-values outgrow it.

    What is beyond the axis runs along its end.
    """
    top = _ABOVE + (_UNLIMITED if limit is None else limit / math.log(10))
    for name, logs in curves.items():
        powers = [None if log is None else log / math.log(10) for log in logs]
        figure.add_scatter(
            x=[look.at for look in trial.looks],
            y=[None if power is None else max(_LEAST, min(top, power)) for power in powers],
            customdata=["" if log is None else e_value(log) for log in logs],
            hovertemplate="%{x}: %{customdata}",
            name=name.replace("_", " "),
            legendgroup=name,
            showlegend=row == 1,
            mode="lines" if len(trial.looks) > 1 else "markers",
            line={"color": _COLOURS[name], "width": 3 if name == _TOGETHER else 1.5},
            row=row,
            col=1,
        )
    ticks = range(math.ceil(_LEAST), math.floor(top) + 1)
    figure.update_yaxes(
        range=[_LEAST, top],
        tickvals=list(ticks),
        ticktext=["1" if power == 0 else f"10<sup>{power}</sup>" for power in ticks],
        row=row,
        col=1,
    )
    if limit is not None:
        text, colour = mark
        line = {"dash": "dot", "color": colour}
        figure.add_hline(y=limit / math.log(10), row=row, col=1, line=line, annotation_text=text)


def _bands(figure: Any, trial: Trial) -> None:
    """Draw the phases behind both tests."""
    if not trial.bands:
        return
    whole = trial.bands[-1].end - trial.bands[0].start
    for index, band in enumerate(trial.bands):
        figure.add_vrect(
            x0=band.start,
            x1=band.end,
            fillcolor=_SOFT,
            opacity=0.16 if index % 2 else 0.06,
            line_width=0,
        )
        if band.end - band.start > _NARROW * whole:
            figure.add_annotation(
                x=band.start,
                xanchor="left",
                y=1.0,
                yref="paper",
                yanchor="top",
                text=band.title,
                textangle=-90,
                showarrow=False,
                font={"size": 10},
            )


def _plain(limit: float | None) -> str:
    return "" if limit is None else f"{math.exp(limit):,.0f}"
