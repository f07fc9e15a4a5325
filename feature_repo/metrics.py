"""Metrics of binary classification with bootstrap intervals, for many resamples at once.

One sort per model, then cumulative sums of resampling weights: a metric on 500 resamples of
25,000 rows takes a third of a second; scikit-learn's functions are called once per resample.

Rows of one day share weather and congestion and are not independent, so whole UTC days are
resampled (the cluster bootstrap): resampling rows would give intervals that are too narrow. Field
and Welsh (2007), "Bootstrapping clustered data", JRSS B 69(3); Cameron, Gelbach and Miller
(2008), Review of Economics and Statistics 90(3). Percentile intervals: Efron and Tibshirani
(1993), chapter 13. With about 30 days they cover slightly less than their level.

Models are compared on the same resamples, so what moves all of them on a day cancels.

Evaluation measures a test window with these functions, monitoring what was served: the two can be
compared because there is one of each. It imports no machine learning library.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.contracts import HIGHER_IS_BETTER, CurvePoint, Interval, Metric
from mlplatform.errors import DataError

Labels = npt.NDArray[np.int8]
"""0 or 1, [N]."""

Floats = npt.NDArray[np.float64]

METRICS: Final[tuple[Metric, ...]] = ("pr_auc", "roc_auc", "log_loss", "calibration_error")

RESAMPLES: Final = 500
"""With 200, chance alone moves an end by a tenth of the half-width (one standard error)."""
LEVEL: Final = 0.95

MIN_DAYS: Final = 5
"""Fewer days give intervals that say nothing: with one day, of width zero."""

_MAX_UNDEFINED: Final = 0.1
"""Share of resamples that may lack a class before an interval is not given."""

_BINS: Final = 10
_CLIP: Final = float(np.finfo(np.float32).eps)
"""A served probability is float32: nearer to 0 or 1 it cannot be told from certainty."""

_BLOCK: Final = 2**21
"""Weights held at once, resamples times rows: some tens of MB of temporaries."""

Weights = npt.NDArray[Any]
"""[R, N]: how often each row counts in each resample."""


@dataclass(frozen=True)
class Resamples:
    """Days drawn with replacement, the same for every model that is measured with them."""

    day: npt.NDArray[np.intp]
    """Index of each row's day, [N]."""
    counts: npt.NDArray[np.float32]
    """How often each day was drawn, [R, D]."""

    @property
    def days(self) -> int:
        """Days that have rows."""
        return len(np.unique(self.day))

    def of(self, rows: npt.NDArray[np.intp]) -> "Resamples":
        """Return the same draws for some of the rows."""
        return Resamples(self.day[rows], self.counts)

    def blocks(self) -> Iterator[Weights]:
        """Yield weights [r, N] in blocks of resamples that fit in memory."""
        size = max(1, _BLOCK // max(1, len(self.day)))
        for start in range(0, len(self.counts), size):
            yield self.counts[start : start + size, self.day]


def by_day(times: pl.Series, seed: int, count: int = RESAMPLES) -> Resamples:
    """Draw `count` resamples of the UTC days in `times`.

    Raises:
        DataError: There are fewer than five days.
    """
    days, index = np.unique(times.dt.epoch("d").to_numpy(), return_inverse=True)
    if len(days) < MIN_DAYS:
        raise DataError(
            f"the test window has rows on {len(days)} days; intervals need {MIN_DAYS} or more: "
            "set split.test_days higher"
        )
    drawn = np.random.default_rng(seed).multinomial(
        len(days), np.full(len(days), 1 / len(days)), size=count
    )
    return Resamples(index.astype(np.intp), drawn.astype(np.float32))


def weighted(
    labels: Labels, scores: Floats, weights: Iterable[Weights], metrics: Sequence[Metric] = METRICS
) -> dict[Metric, Floats]:
    """Return each metric under each set of row weights, [R]; NaN where it is undefined.

    - `pr_auc`: average precision, Σ (R_k - R_{k-1}) P_k over distinct scores, as scikit-learn's.
    - `roc_auc`: trapezes over distinct scores.
    - `log_loss`: in nats; probabilities are clipped at float32's resolution.
    - `calibration_error`: Σ share · |mean probability - observed rate| over ten bins with equal
      counts, fixed by the unweighted scores; equal scores share a bin. Its plug-in estimate is
      biased upwards, most where a bin has few rows.

    Args:
        labels: 0 or 1, [N].
        scores: Probabilities, [N].
        weights: Blocks [r, N].
        metrics: Which.
    """
    wanted = set(metrics)
    ranking = _Ranking(labels, scores) if wanted & {"pr_auc", "roc_auc"} else None
    columns = _columns(labels, scores)
    parts: dict[Metric, list[Floats]] = {metric: [] for metric in metrics}
    for block in weights:
        if ranking is not None:
            ranked = ranking.areas(block)
            for metric in wanted & set(ranked):
                parts[metric].append(ranked[metric])
        if wanted & {"log_loss", "calibration_error"}:
            sums = block.astype(np.float64) @ columns
            total = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
            if "log_loss" in wanted:
                parts["log_loss"].append(sums[:, 1] / total)
            if "calibration_error" in wanted:
                parts["calibration_error"].append(np.abs(sums[:, 2:]).sum(axis=1) / total)
    return {metric: np.concatenate(values) for metric, values in parts.items()}


class _Ranking:
    """Rows from the highest score to the lowest, with the last row of each distinct score."""

    def __init__(self, labels: Labels, scores: Floats) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._positive = labels[self._order] == 1
        last = np.append(ordered[1:] != ordered[:-1], True)
        self._ends = np.flatnonzero(last)

    def areas(self, weights: Weights) -> dict[Metric, Floats]:
        ordered = weights[:, self._order]
        everything = np.cumsum(ordered, axis=1)[:, self._ends]
        hits = np.cumsum(ordered * self._positive, axis=1)[:, self._ends]
        steps = np.diff(hits, axis=1, prepend=0)
        # float32 sums of counts are exact below 2^24; what follows is summed in double.
        precision = hits / np.where(everything > 0, everything, 1)
        positives = hits[:, -1].astype(np.float64)
        negatives = everything[:, -1].astype(np.float64) - positives
        misses = np.diff(everything, axis=1, prepend=0) - steps
        height = hits - steps / 2
        with np.errstate(divide="ignore", invalid="ignore"):  # one class only: undefined
            pr_auc = np.einsum("rn,rn->r", steps, precision, dtype=np.float64) / positives
            area = np.einsum("rn,rn->r", misses, height, dtype=np.float64)
            roc_auc = area / (positives * negatives)
        defined = (positives > 0) & (negatives > 0)
        return {
            "pr_auc": np.where(defined, pr_auc, np.nan),
            "roc_auc": np.where(defined, roc_auc, np.nan),
        }


def _columns(labels: Labels, scores: Floats) -> Floats:
    """Return what is summed by row: 1, the loss, and probability minus label in its bin."""
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    loss = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    columns = np.zeros((len(scores), 2 + _BINS))
    columns[:, 0], columns[:, 1] = 1.0, loss
    columns[np.arange(len(scores)), 2 + bins(scores)] = scores - labels
    return columns


def bins(scores: Floats) -> npt.NDArray[np.intp]:
    """Return each score's bin, 0 to 9, [N]: equal counts as far as ties allow."""
    edges = np.quantile(scores, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.searchsorted(edges, scores, side="right")


def estimates(
    labels: Labels, scores: Floats, metrics: Sequence[Metric] = METRICS
) -> dict[Metric, float]:
    """Return each metric on all rows; NaN where it is undefined (one class only)."""
    once = np.ones((1, len(labels)))
    return {
        metric: float(value[0])
        for metric, value in weighted(labels, scores, [once], metrics).items()
    }


@dataclass(frozen=True)
class Measured:
    """One metric of one model: on all rows, and on each resample, [R]."""

    metric: Metric
    estimate: float
    resampled: Floats

    def interval(self) -> Interval | None:
        """Return the estimate with its interval; None when too many resamples lack a class."""
        return _interval(self.estimate, self.resampled)

    def gain_over(self, other: "Measured") -> Interval | None:
        """Return by how much this is better, positive for better, on the same resamples."""
        sign = 1.0 if HIGHER_IS_BETTER[self.metric] else -1.0
        return _interval(
            sign * (self.estimate - other.estimate), sign * (self.resampled - other.resampled)
        )


def measure(
    labels: Labels, scores: Floats, resamples: Resamples, metrics: Sequence[Metric] = METRICS
) -> dict[Metric, Measured]:
    """Measure one model on rows [N] and on all resamples of them."""
    on_all = estimates(labels, scores, metrics)
    resampled = weighted(labels, scores, resamples.blocks(), metrics)
    return {metric: Measured(metric, on_all[metric], resampled[metric]) for metric in metrics}


def _interval(estimate: float, resampled: Floats) -> Interval | None:
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(estimate) or len(defined) < (1 - _MAX_UNDEFINED) * len(resampled):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate=estimate, low=float(low), high=float(high), level=LEVEL)


def calibration_curve(labels: Labels, scores: Floats) -> tuple[CurvePoint, ...]:
    """Return mean probability (x) against observed rate (y) of each bin that has rows."""
    index = bins(scores)
    return tuple(
        CurvePoint(
            x=float(scores[index == number].mean()),
            y=float(labels[index == number].mean()),
            rows=int((index == number).sum()),
        )
        for number in np.unique(index)
    )


def precision_recall_curve(
    labels: Labels, scores: Floats, points: int = 100
) -> tuple[CurvePoint, ...]:
    """Return at most `points` of the curve, evenly spaced in recall (x), precision as y."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(labels[order] == 1)[ends]
    recall, precision = hits / hits[-1], hits / (ends + 1)
    wanted = np.searchsorted(recall, np.linspace(1 / points, 1, points))
    chosen = np.unique(np.minimum(wanted, len(recall) - 1))
    return tuple(CurvePoint(x=float(recall[i]), y=float(precision[i])) for i in chosen)
