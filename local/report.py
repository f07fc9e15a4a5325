"""The report of a run: one HTML file that a person opens, complete without a network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local.summary import OVERHEAD, Summary
from mlplatform.contracts import Evaluation

_INK, _SOFT, _ACCENT, _BAD = "#1b2430", "#9aa5b1", "#2563eb", "#b3261e"
_CONFIG = {"displayModeBar": False, "responsive": True}


def write_report(
    path: Path, summary: Summary, evaluations: tuple[Evaluation, ...], goal: str
) -> None:
    """Write the report of one run; text from data is escaped."""
    from plotly.offline import get_plotlyjs

    winner = evaluations[0] if evaluations else None
    validation = summary.validation
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            goal=goal,
            cards=list(_cards(summary, winner)),
            rules=sorted(validation.results, key=lambda item: item.passed) if validation else [],
            evaluations=evaluations,
            winner=winner,
            metric_names=list(winner.metrics) if winner else [],
            figures=_figures(summary, evaluations),
            plotly_js=get_plotlyjs(),
        )
    )
    path.write_text(page, encoding="utf-8")


def environment() -> Any:
    """Return the templates' environment: text from data is escaped, a missing name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )


def _cards(summary: Summary, winner: Evaluation | None) -> Iterable[tuple[str, str]]:
    for table, rows in summary.raw_rows.items():
        yield f"{rows:,}", f"raw {table}"
    if summary.training_set:
        yield f"{summary.training_set.rows:,}", "training rows"
        yield f"{100 * summary.training_set.positive_rate:.1f} %", "positive"
        yield f"{len(summary.training_set.features)}", "features"
    if winner:
        yield f"{winner.metrics['pr_auc'].estimate:.3f}", f"PR-AUC of {winner.candidate}"
    if summary.model:
        yield f"v{summary.model.version}", "in the registry"
    yield f"{summary.total_seconds:.0f} s", "in all"


def _figures(summary: Summary, evaluations: tuple[Evaluation, ...]) -> dict[str, str]:
    figures = {"timeline": _timeline(summary)}
    if not evaluations:
        return figures
    winner = evaluations[0]
    loss = {item.group: item.difference.estimate for item in winner.ablations}
    figures["importance"] = _bars(
        dict(sorted(winner.importance.items(), key=lambda item: -item[1])[:15]),
        "Permuted feature",
        "PR-AUC lost",
    )
    figures["ablation"] = _bars(loss, "Feature group set to missing", "PR-AUC lost")
    figures["calibration"] = _lines(
        evaluations, "calibration", "Calibration", "mean predicted probability", "observed rate"
    )
    figures["precision_recall"] = _lines(
        evaluations, "precision_recall", "Precision and recall", "recall", "precision"
    )
    figures["slices"] = _slices(winner)
    return figures


def _timeline(summary: Summary) -> str:
    """Draw each step from its start to its end; the gaps are processes that start and end."""
    import plotly.graph_objects as go

    before = [name for name in summary.seconds if name not in summary.started]
    before = before[: before.index(OVERHEAD)] if OVERHEAD in before else before
    bases, clock = {}, 0.0
    for name in before:
        bases[name] = clock
        clock += summary.seconds[name]
    first = min(summary.started.values(), default=None)
    for name, moment in summary.started.items():
        bases[name] = clock + (moment - first).total_seconds() if first else clock
    names = list(bases)[::-1]
    bar = go.Bar(
        x=[summary.seconds[name] for name in names],
        base=[bases[name] for name in names],
        y=[name.replace("_", " ") for name in names],
        orientation="h",
        marker_color=_ACCENT,
        text=[f"{summary.seconds[name]:.1f} s" for name in names],
        textposition="outside",
        cliponaxis=False,
    )
    return html(go.Figure(bar), "", "seconds since the start", "", 80 + 28 * len(names))


def _bars(values: dict[str, float], title: str, unit: str, height: int = 420) -> str:
    import plotly.graph_objects as go

    names = list(values)[::-1]
    bar = go.Bar(x=[values[name] for name in names], y=names, orientation="h", marker_color=_ACCENT)
    return html(go.Figure(bar), title, unit, "", height)


def _lines(evaluations: tuple[Evaluation, ...], name: str, title: str, x: str, y: str) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, item in enumerate(evaluations):
        points = getattr(item, name)
        figure.add_scatter(
            x=[point.x for point in points],
            y=[point.y for point in points],
            name=item.candidate,
            mode="lines+markers" if name == "calibration" else "lines",
            line={"width": 3 if index == 0 else 1.5},
        )
    if name == "calibration":
        top = max((max(p.x, p.y) for item in evaluations for p in item.calibration), default=1.0)
        figure.add_scatter(
            x=[0, top], y=[0, top], name="perfect", line={"dash": "dot", "color": _SOFT}
        )
    return html(figure, title, x, y, 420)


def _slices(winner: Evaluation) -> str:
    import plotly.graph_objects as go

    items = winner.slices
    names = [f"{item.column} {item.value}" for item in items]
    estimates = [item.estimate.estimate for item in items]
    figure = go.Figure()
    figure.add_bar(
        x=names,
        y=estimates,
        marker_color=_ACCENT,
        customdata=[item.rows for item in items],
        hovertemplate="%{x}: %{y:.3f}, %{customdata:,} rows<extra></extra>",
        error_y={
            "type": "data",
            "array": [item.estimate.high - item.estimate.estimate for item in items],
            "arrayminus": [item.estimate.estimate - item.estimate.low for item in items],
            "color": _INK,
            "thickness": 1,
        },
    )
    return html(figure, "", "", items[0].metric if items else "", 380)


def html(figure: Any, title: str, x: str, y: str, height: int) -> str:
    """Return a figure in the house's looks, as a part of a page."""
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        height=height,
        margin={"l": 10, "r": 10, "t": 40 if title else 10, "b": 40},
        plot_bgcolor="white",
        font={"family": "system-ui, sans-serif", "color": _INK, "size": 12},
        legend={"orientation": "h", "y": -0.18},
    )
    figure.update_xaxes(title=x, gridcolor="#eef1f4", automargin=True)
    figure.update_yaxes(title=y, gridcolor="#eef1f4", automargin=True)
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG)
    return text
