"""What models did once their labels had come: drawn over time, and side by side in words."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, get_args

from local import told_looks as looks
from local.report import html
from local.told import Day
from mlplatform.contracts.model import HIGHER_IS_BETTER, Metric
from mlplatform.contracts.performance import (
    Estimate,
    Hindsight,
    Measurement,
    PairedPerformance,
    Performance,
)
from monitoring.estimate import track_record

NAMES: Final[dict[Metric, str]] = {
    "pr_auc": "PR-AUC",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
_UNITS: Final[dict[Metric, str]] = {
    "pr_auc": "0 to 1",
    "roc_auc": "0 to 1",
    "log_loss": "nats",
    "calibration_error": "probability",
}
_HALF_DAY: Final = timedelta(hours=12)
_LANE: Final = 210
"""Height of one metric's lane, in pixels."""


class Compared(NamedTuple):
    """One metric of two versions on the same rows, as text."""

    metric: str
    champion: str
    challenger: str
    difference: str


def matured(days: Sequence[Day]) -> list[Performance]:
    """Return what was measured of each version and stretch of evidence, as it was seen last."""
    found = [day.report.performance for day in days if day.report.performance is not None]
    return list({(one.version, one.cohort.window): one for one in found if one.metrics}.values())


def estimated(days: Sequence[Day]) -> list[Estimate]:
    """Return what was promised of each version and window before its labels came."""
    found = [day.report.estimate for day in days if day.report.estimate is not None]
    return list({(one.version, one.cohort.window): one for one in found if one.metrics}.values())


def figure(days: Sequence[Day]) -> str:
    """Draw each metric over time, by version; empty: no label has matured."""
    from plotly.subplots import make_subplots

    found, promised = matured(days), estimated(days)
    metrics = [m for m in get_args(Metric) if any(_of(one, m) for one in found)]
    if not metrics:
        return ""
    drawn = make_subplots(
        rows=len(metrics),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.24 / len(metrics),
        subplot_titles=[_title(metric) for metric in metrics],
    )
    drawn.update_annotations(x=0, xanchor="left", font={"size": 12, "color": looks.INK})
    for row, metric in enumerate(metrics, 1):
        for version in sorted({one.version for one in found}):
            own = [one for one in found if one.version == version]
            early = [one for one in promised if one.version == version]
            _points(drawn, row, version, _ends(own, metric))
            _promises(drawn, row, version, _ends(early, metric))
            _registered(drawn, row, version, metric, own)
    title = {"x": 0, "y": 1, "yanchor": "top", "pad": {"t": 2}}
    drawn.update_layout(showlegend=False, title=title)
    drawn.update_xaxes(**looks.DATES)
    return html(
        drawn, "Performance, by the end of its evidence (UTC)", "", "", 90 + _LANE * len(metrics)
    )


def compared(pair: PairedPerformance) -> list[Compared]:
    """Return both versions' metrics with their difference; positive: the challenger is better."""
    champion = {one.metric: one for one in pair.champion_metrics}
    challenger = {one.metric: one for one in pair.challenger_metrics}
    return [
        Compared(
            NAMES[gain.metric],
            _plain(champion.get(gain.metric)),
            _plain(challenger.get(gain.metric)),
            _plain(gain, "{:+.4f}"),
        )
        for gain in pair.gains
    ]


def sentences(pair: PairedPerformance) -> Iterator[str]:
    """Yield in words which version was better, by how much, on how many requests."""
    rows = f"on {pair.cohort.measured:,} matured requests"
    for gain in pair.gains:
        name, span = NAMES[gain.metric], gain.interval
        if span is None:
            yield (
                f"In {name} nothing can be told {rows}: {gain.value:+.3f} for version "
                f"{pair.challenger}, without an interval"
            )
        elif span.low <= 0 <= span.high:
            yield (
                f"In {name} neither is better {rows}: {gain.value:+.3f} "
                f"[{span.low:+.3f}, {span.high:+.3f}] for version {pair.challenger}"
            )
        else:
            better, worse = pair.challenger, pair.champion
            low, high = span.low, span.high
            if gain.value < 0:
                better, worse, low, high = worse, better, -high, -low
            yield (
                f"Version {better} is better than version {worse} by {abs(gain.value):.3f} "
                f"[{low:.3f}, {high:.3f}] in {name} {rows}"
            )


def promises(days: Sequence[Day]) -> Iterator[str]:
    """Yield in words how well the estimates before labels did, by metric."""
    found: dict[Any, Hindsight] = {}
    for day in days:
        if (past := day.report.hindsight) is not None:
            found[past.estimate.version, past.estimate.cohort.window] = past
    for record in track_record(found.values()):
        plural = "s" if record.windows > 1 else ""
        yield (
            f"{NAMES[record.metric]}, estimated before the labels of {record.windows} "
            f"window{plural} came, was off by {record.mean_absolute_error:.3f} in the mean "
            f"(bias {record.bias:+.3f}, at most {record.largest:.3f})"
        )


def _of(found: Performance | Estimate, metric: Metric) -> Measurement | None:
    return next((one for one in found.metrics if one.metric == metric), None)


def _ends(
    found: Sequence[Performance | Estimate], metric: Metric
) -> list[tuple[datetime, Measurement]]:
    pairs = [(one.cohort.window.end, value) for one in found if (value := _of(one, metric))]
    return sorted(pairs, key=lambda pair: pair[0])


def _points(drawn: Any, row: int, version: int, points: list[tuple[datetime, Measurement]]) -> None:
    look = looks.of_version(version)
    spans = [
        (one.interval.low, one.interval.high) if one.interval else (one.value, one.value)
        for _, one in points
    ]
    values = [one.value for _, one in points]
    drawn.add_scatter(
        x=[at for at, _ in points],
        y=values,
        error_y={
            "type": "data",
            "array": [high - value for (_, high), value in zip(spans, values, strict=True)],
            "arrayminus": [value - low for (low, _), value in zip(spans, values, strict=True)],
            "thickness": 1,
        },
        mode="lines+markers",
        line={"color": look.colour},
        hovertemplate="%{x|%b %d %H:%M}, " + look.words + ": %{y:.4f}<extra></extra>",
        row=row,
        col=1,
    )


def _promises(
    drawn: Any, row: int, version: int, points: list[tuple[datetime, Measurement]]
) -> None:
    look = looks.of_version(version)
    drawn.add_scatter(
        x=[at for at, _ in points],
        y=[one.value for _, one in points],
        mode="markers",
        marker={"symbol": "diamond-open", "color": look.colour, "size": 9},
        hovertemplate="%{x|%b %d %H:%M}, " + look.words + " estimated: %{y:.4f}<extra></extra>",
        row=row,
        col=1,
    )


def _registered(
    drawn: Any, row: int, version: int, metric: Metric, own: Sequence[Performance]
) -> None:
    """Draw what was registered for the version as a line over its own time."""
    known = [loss.registered for one in own for loss in one.losses if loss.metric == metric]
    if not known:
        return
    ends = [one.cohort.window.end for one in own]
    drawn.add_scatter(
        x=[min(ends) - _HALF_DAY, max(ends) + _HALF_DAY],
        y=[known[-1].estimate] * 2,
        mode="lines",
        line={"color": looks.of_version(version).colour, "dash": "dot"},
        hovertemplate=f"registered for version {version}: " + "%{y:.4f}<extra></extra>",
        row=row,
        col=1,
    )


def _title(metric: Metric) -> str:
    better = "higher" if HIGHER_IS_BETTER[metric] else "lower"
    return f"{NAMES[metric]} ({_UNITS[metric]}; {better} is better)"


def _plain(found: Measurement | None, form: str = "{:.4f}") -> str:
    if found is None:
        return "none"
    value, span = form.format(found.value), found.interval
    return value if span is None else f"{value} [{form.format(span.low)}, {form.format(span.high)}]"
