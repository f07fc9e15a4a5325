"""How served models did, on the requests whose labels have matured.

Labels are joined by request. A request counts when its label's delay has passed, whatever its
label: what becomes known early is no fair sample (`feature_repo.labels`). What is left out is
counted (`monitoring.cohort`), metrics and intervals are evaluation's (`monitoring.sample`).

It refuses to guess: with too few rows the verdict is `immature` or `inconclusive`, never "no loss".
"""

from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import polars as pl

from feature_repo.metrics import METRICS
from mlplatform.contracts import Evaluation, Interval, Metric, UseCase, Window
from mlplatform.contracts.performance import (
    Cohort,
    Measurement,
    MetricLoss,
    PairedPerformance,
    Performance,
)
from monitoring.cohort import answers, doubt, pairs, sentence, with_labels
from monitoring.sample import Sample, figures, gain, judge, measurements


def performance(
    spec: UseCase,
    rows: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    version: int,
    registered: Evaluation | None,
    window: Window,
    as_of: datetime,
    seed: int = 0,
) -> Performance:
    """Measure one version on the requests of a window that have matured.

    Args:
        spec: Names the label, its delay and the guarded metrics.
        rows: `monitoring.cohort.COLUMNS` of the prediction log, of any versions and times.
        labels: `request_id`, `label_timestamp` and the label, each request once.
        version: Whose rows count, as champion, challenger or shadow alike.
        registered: Its evaluation when it was registered; None: nothing to compare with.
        window: Of event time.
        as_of: The time of the look.
        seed: Of the resamples.

    Raises:
        DataError: The labels name a request twice.
    """
    counted, scored = answers(rows, version, window, as_of)
    cohort, measured = with_labels(spec, counted, scored, labels, as_of)
    metrics: tuple[Measurement, ...] = ()
    losses: tuple[MetricLoss, ...] = ()
    if cohort.measured:
        sample = _sample(spec, measured)
        metrics, losses = figures(spec, registered, sample, METRICS, seed)
    verdict, reason = judge(spec, losses, sentence(cohort))
    if unfair := doubt(cohort):
        verdict, reason = "inconclusive", unfair
    elif verdict == "inconclusive" and cohort.open and registered is not None:
        ends = window.end + timedelta(hours=spec.label.delay_hours)
        verdict = "immature"
        reason = f"{reason}; {cohort.open:,} labels are open until {ends:%Y-%m-%d %H:%M} UTC"
    return Performance(
        usecase=spec.name,
        version=version,
        cohort=cohort,
        metrics=metrics,
        losses=losses,
        verdict=verdict,
        reason=reason,
    )


def compare(
    spec: UseCase,
    rows: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    champion: int,
    challenger: int,
    window: Window,
    as_of: datetime,
    seed: int = 0,
) -> PairedPerformance:
    """Measure two versions on the requests that both saw, one of them as a shadow.

    A request counts when both answers are whole; arguments are those of `performance`.

    Raises:
        DataError: The labels name a request twice.
    """
    counted, scored = pairs(rows, champion, challenger, window, as_of)
    cohort, measured = with_labels(spec, counted, scored, labels, as_of)
    one: tuple[Measurement, ...] = ()
    two: tuple[Measurement, ...] = ()
    gains: tuple[Measurement, ...] = ()
    if cohort.measured:
        sample = _sample(spec, measured, "score")
        resamples = sample.resamples(seed)
        ours = sample.measure(METRICS, resamples)
        theirs = _sample(spec, measured, "other").measure(METRICS, resamples)
        found = [gain(theirs[metric], ours[metric]) for metric in METRICS]
        gains = tuple(item for item in found if item is not None)
        one, two = measurements(ours), measurements(theirs)
    star = spec.goal.north_star
    seen = next((item.interval for item in gains if item.metric == star), None)
    verdict, reason = _better(seen, star, cohort)
    return PairedPerformance(
        usecase=spec.name,
        champion=champion,
        challenger=challenger,
        cohort=cohort,
        champion_metrics=one,
        challenger_metrics=two,
        gains=gains,
        verdict=verdict,
        reason=reason,
    )


def _sample(spec: UseCase, rows: pl.DataFrame, score: str = "score") -> Sample:
    labels = rows[spec.label.name].cast(pl.Int8).to_numpy()
    return Sample(labels, rows[score].to_numpy(), rows["event_timestamp"], np.ones(rows.height))


def _better(
    seen: Interval | None, star: Metric, cohort: Cohort
) -> tuple[Literal["better", "worse", "immature", "inconclusive"], str]:
    if unfair := doubt(cohort):
        return "inconclusive", unfair
    told = "no interval" if seen is None else f"between {seen.low:+.4f} and {seen.high:+.4f}"
    reason = f"{sentence(cohort)}: gain in {star}: {told}"
    if seen is None or seen.low <= 0 <= seen.high:
        return ("immature" if cohort.open else "inconclusive"), reason
    return ("better" if seen.low > 0 else "worse"), reason
