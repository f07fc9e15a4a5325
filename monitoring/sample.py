"""Rows with weights, the metrics on them, and what these lost against the registered ones.

Measured and estimated metrics come from the same code: measured rows have one label and weigh 1,
estimated ones are there twice, once for either label, with its probability as the weight
(`monitoring.estimate`).

Whole days are resampled, as in evaluation, so intervals need rows on five dates: look back over
several of the spec's windows. With so few days percentile intervals are somewhat too narrow
(Cameron, Gelbach and Miller 2008, Review of Economics and Statistics 90(3)).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Final

import numpy as np
import polars as pl

from feature_repo.metrics import (
    MIN_DAYS,
    Floats,
    Labels,
    Measured,
    Resamples,
    Weights,
    by_day,
    weighted,
)
from mlplatform.contracts import HIGHER_IS_BETTER, Evaluation, Interval, Metric, UseCase
from mlplatform.contracts.performance import Measurement, MetricLoss, PerformanceVerdict

MIN_PER_CLASS: Final = 30
"""Rows with each label, below which no interval is given: a percentile bootstrap of fewer says
little (a judgement, not a theorem)."""


@dataclass(frozen=True)
class Sample:
    """Rows that metrics are computed on, [N].

    Attributes:
        labels: 0 or 1.
        scores: Probabilities.
        times: Event times; their UTC days are resampled.
        weights: Of each row; an estimate has each row twice, once for either label.
    """

    labels: Labels
    scores: Floats
    times: pl.Series
    weights: Floats

    @property
    def positive_rate(self) -> float:
        """Weighted share of positive rows."""
        return float(self.weights[self.labels == 1].sum() / self.weights.sum())

    def resamples(self, seed: int) -> Resamples | None:
        """Return resampled days; None where they would say nothing."""
        positives = self.weights[self.labels == 1].sum()
        if min(positives, self.weights.sum() - positives) < MIN_PER_CLASS:
            return None
        dates = self.times.dt.epoch("d").n_unique()
        return None if dates < MIN_DAYS else by_day(self.times, seed)

    def measure(
        self, metrics: Sequence[Metric], resamples: Resamples | None, rate: float | None = None
    ) -> dict[Metric, Measured]:
        """Return the metrics, of the rows as they are or as if `rate` of them were positive."""
        once = self._at_rate([self.weights[None, :]], rate)
        on_all = weighted(self.labels, self.scores, once, metrics)
        resampled = dict.fromkeys(metrics, np.empty(0))
        if resamples is not None:
            blocks = self._at_rate((block * self.weights for block in resamples.blocks()), rate)
            resampled = weighted(self.labels, self.scores, blocks, metrics)
        return {m: Measured(m, float(on_all[m][0]), resampled[m]) for m in metrics}

    def _at_rate(self, blocks: Iterable[Weights], rate: float | None) -> Iterator[Weights]:
        """Yield weights under which `rate` of each resample is positive; None: as they are.

        Precision depends on the share of positives, so average precision rises and falls with it
        while the model ranks as before. Weighing the positives gives the value at one fixed share:
        Siblini et al. (2020), "Master your metrics with calibration", IDA 2020, equation 4.
        """
        positive = self.labels == 1
        for block in blocks:
            if rate is None:
                yield block
                continue
            wide = block.astype(np.float64)
            up, down = wide[:, positive].sum(axis=1), wide[:, ~positive].sum(axis=1)
            odds = rate / (1 - rate) * down / np.where(up > 0, up, np.nan)
            yield np.where(positive, wide * np.nan_to_num(odds, nan=1.0)[:, None], wide)


def measurements(measured: Mapping[Metric, Measured]) -> tuple[Measurement, ...]:
    """Return the metrics that are defined, with their intervals."""
    return tuple(
        Measurement(
            metric=metric,
            value=item.estimate,
            interval=item.interval() if len(item.resampled) else None,
        )
        for metric, item in measured.items()
        if np.isfinite(item.estimate)
    )


def gain(ours: Measured, theirs: Measured) -> Measurement | None:
    """Return by how much `ours` is better on the same resamples; None where it is undefined."""
    sign = 1.0 if HIGHER_IS_BETTER[ours.metric] else -1.0
    value = sign * (ours.estimate - theirs.estimate)
    interval = ours.gain_over(theirs) if len(ours.resampled) else None
    if not np.isfinite(value):
        return None
    return Measurement(metric=ours.metric, value=value, interval=interval)


def against(
    spec: UseCase, registered: Evaluation, sample: Sample, resamples: Resamples | None
) -> tuple[MetricLoss, ...]:
    """Compare the guarded metrics with the registered ones.

    Registered and live rows are different ones, so the interval of the loss adds the squared
    distances of both intervals: Zou and Donner (2008), "Construction of confidence limits about
    effect measures", Statistics in Medicine 27(10), equation 2.
    """
    found = []
    for metric, accepted in spec.monitoring.max_metric_loss.items():
        before = registered.metrics.get(metric)
        rate = registered.positive_rate if metric == "pr_auc" else None
        if before is None or rate in {0.0, 1.0}:
            continue
        (live,) = measurements(sample.measure([metric], resamples, rate)) or (None,)
        if live is None:
            continue
        loss = None if live.interval is None else _worse_by(before, live.interval, metric)
        found.append(
            MetricLoss(
                metric=metric,
                accepted=accepted,
                registered=before,
                live=live,
                loss=loss,
                verdict=_verdict(loss, accepted),
            )
        )
    return tuple(found)


def figures(
    spec: UseCase,
    registered: Evaluation | None,
    sample: Sample,
    metrics: Sequence[Metric],
    seed: int,
) -> tuple[tuple[Measurement, ...], tuple[MetricLoss, ...]]:
    """Return the metrics on a sample, and what the guarded ones lost, if there is a measure."""
    resamples = sample.resamples(seed)
    found = measurements(sample.measure(metrics, resamples))
    return found, () if registered is None else against(spec, registered, sample, resamples)


def judge(spec: UseCase, losses: Sequence[MetricLoss], said: str) -> tuple[PerformanceVerdict, str]:
    """Return the verdict over all guarded metrics and why; one loss is a loss.

    Args:
        spec: Names the guarded metrics: without all of them there is no "no loss".
        losses: From `against`.
        said: How many requests it rests on.
    """
    kinds = {item.verdict for item in losses}
    missing = sorted(set(spec.monitoring.max_metric_loss) - {item.metric for item in losses})
    told = [_told(item) for item in losses]
    if missing:
        told.append(f"{', '.join(missing)} cannot be compared with a registered value")
    verdict: PerformanceVerdict = "inconclusive"
    if "loss" in kinds:
        verdict = "loss"
    elif kinds == {"no_loss"} and not missing:
        verdict = "no_loss"
    return verdict, f"{said}: {'; '.join(told) or 'the spec guards no metric'}"


def _worse_by(before: Interval, now: Interval, metric: Metric) -> Interval:
    high, low = (before, now) if HIGHER_IS_BETTER[metric] else (now, before)
    difference = high.estimate - low.estimate
    return Interval(
        estimate=difference,
        low=difference - hypot(high.estimate - high.low, low.high - low.estimate),
        high=difference + hypot(high.high - high.estimate, low.estimate - low.low),
        level=before.level,
    )


def _verdict(loss: Interval | None, accepted: float) -> PerformanceVerdict:
    if loss is not None and loss.low > accepted:
        return "loss"
    return "no_loss" if loss is not None and loss.high < accepted else "inconclusive"


def _told(item: MetricLoss) -> str:
    text = (
        f"{item.metric} {item.live.value:.3f} against {item.registered.estimate:.3f} registered, "
        f"a loss of {item.accepted:g} is accepted"
    )
    if item.loss is None:
        return (
            f"{text}; no interval: that takes {MIN_DAYS} days and {MIN_PER_CLASS} rows of each "
            "label"
        )
    return f"{text}; worse by {item.loss.low:+.3f} to {item.loss.high:+.3f}"
