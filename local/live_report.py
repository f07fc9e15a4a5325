"""The report of a replay: latency against the budget and what was answered, in one HTML file."""

from pathlib import Path
from typing import Any, Final

import polars as pl

from local.replayed import Replayed
from local.report import environment, html

_ACCENT, _SOFT, _BAD = "#2563eb", "#9aa5b1", "#b3261e"
_SHARES: Final = (0.5, 0.9, 0.99, 0.999)
_BINS: Final = 50


def write_live_report(path: Path, found: Replayed, answers: pl.DataFrame) -> None:
    """Write the page.

    Args:
        path: HTML file.
        found: The outcome.
        answers: The client's ledger (`local.tally.ledger`).
    """
    from plotly.offline import get_plotlyjs

    good = answers.filter(pl.col("status") == 200)  # noqa: PLR2004 (HTTP's own)
    page = (
        environment()
        .get_template("live.html.j2")
        .render(
            found=found,
            figures={
                "hops": _hops(good, found),
                "days": _days(good),
                "latency": _latency(good, found),
                "scores": _scores(good),
            },
            plotly_js=get_plotlyjs(),
        )
    )
    path.write_text(page, encoding="utf-8")


def _hops(good: pl.DataFrame, found: Replayed) -> str:
    """Draw percentiles of each hop beside its budget, on a logarithmic axis."""
    import plotly.graph_objects as go

    columns = {
        name: good["ms"] if name == "client" else good[f"{name}_us"] / 1000 for name in found.hops
    }
    figure = go.Figure()
    for share in _SHARES:
        figure.add_scatter(
            x=[values.quantile(share) for values in columns.values()],
            y=list(columns),
            name=f"p{share * 100:g}",
            mode="markers",
            marker={"size": 11},
        )
    figure.add_scatter(
        x=[hop.budget for hop in found.hops.values()],
        y=list(found.hops),
        name="budget",
        mode="markers",
        marker={"symbol": "line-ns", "size": 26, "line": {"width": 3, "color": _BAD}},
    )
    figure.update_xaxes(type="log", dtick=1)
    return html(figure, "Hops against their budgets", "milliseconds", "", 320)


def _latency(good: pl.DataFrame, found: Replayed) -> str:
    """Draw the p99 of whole requests by the hour of event time."""
    import plotly.graph_objects as go

    hours = _by(good, "1h").agg(pl.col("ms").quantile(0.99))
    figure = go.Figure()
    figure.add_scatter(x=hours["event_timestamp"], y=hours["ms"], line={"color": _ACCENT})
    figure.add_hline(y=found.hops["client"].budget, line={"dash": "dot", "color": _BAD})
    return html(figure, "p99 of whole requests, by the hour of the data", "", "milliseconds", 320)


def _days(good: pl.DataFrame) -> str:
    """Draw requests and the share that was acted upon, by day of event time."""
    import plotly.graph_objects as go

    days = _by(good, "1d").agg(
        requests=pl.len(), acted=pl.col("decision").mean(), score=pl.col("score").mean()
    )
    figure = go.Figure()
    for name, title in (("score", "mean score"), ("acted", "share acted upon")):
        figure.add_scatter(x=days["event_timestamp"], y=days[name], name=title)
    return html(figure, "Answers by day", "", "share", 320)


def _scores(good: pl.DataFrame) -> str:
    import plotly.graph_objects as go

    figure = go.Figure(go.Histogram(x=good["score"], nbinsx=_BINS, marker_color=_ACCENT))
    return html(figure, "Scores", "probability", "requests", 320)


def _by(good: pl.DataFrame, every: str) -> Any:
    return good.sort("event_timestamp").group_by_dynamic("event_timestamp", every=every)
