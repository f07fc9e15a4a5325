"""What labels say by now: of the newest window that has matured, and of what was estimated for it.

One window has too few rows for an interval, so performance is measured on the stretch that ends
with it (`monitoring.windows.evidence`); the estimate that was made of the window itself is judged
by that window alone. Labels that cannot be read make performance inconclusive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from mlplatform.contracts import Evaluation, UseCase, Window
from mlplatform.contracts.performance import (
    Cohort,
    Estimate,
    Hindsight,
    PairedPerformance,
    Performance,
)
from mlplatform.errors import DataError, shorten
from monitoring import estimate as estimates
from monitoring import served, windows
from monitoring.cohort import COLUMNS
from monitoring.performance import compare, performance

Rows = Callable[[Window, Sequence[str]], pl.DataFrame]
"""Columns of the archived log in a window of event time."""


@dataclass(frozen=True)
class Matured:
    """What scores promise of one window, and what labels say of another one.

    Its fields are those of `WindowReport` that have the same names.
    """

    estimate: Estimate | None = None
    performance: Performance | None = None
    """None: the version has not seen a request of the evidence."""
    pair: PairedPerformance | None = None
    hindsight: Hindsight | None = None


def labelled(
    spec: UseCase,
    *,
    predictions: Rows,
    labels: Callable[[datetime, datetime], pl.DataFrame],
    version: int,
    registered: Evaluation | None,
    window: Window,
    of: Window,
    said: Estimate | None,
    out: Path,
    now: datetime,
) -> Matured:
    """Return what is known of a version's quality, and keep what was estimated.

    Args:
        spec: The use case.
        predictions: Reads the log.
        labels: Reads the labels of predictions since a time, as they are known at another.
        version: The champion.
        registered: Its evaluation when it was registered; None: nothing to compare with.
        window: Whose quality is estimated.
        of: The newest window whose labels are due.
        said: What was estimated of `of` when it was new; None: nothing.
        out: Where estimates are kept.
        now: The time of the look.

    Raises:
        DataError: The log cannot be read.
    """
    stretch = windows.evidence(of)
    rows = predictions(Window(start=stretch.start, end=max(of.end, window.end)), COLUMNS)
    guess = estimates.estimate(
        spec, rows, version=version, registered=registered, window=window, as_of=now
    )
    promised = guess if guess.cohort.scored else None
    if promised is not None:
        _keep(out, promised)
    inside = pl.col("event_time").is_between(stretch.start, stretch.end, closed="left")
    past = rows.filter(inside)
    if past.filter(pl.col("version") == version).is_empty():
        return Matured(estimate=promised)
    try:
        known = labels(stretch.start, now)
        measured = performance(
            spec, past, known, version=version, registered=registered, window=stretch, as_of=now
        )
        pair = _pair(spec, past, known, version, stretch, now)
        looked = _hindsight(spec, past, known, said, registered, version, now)
    except (DataError, pl.exceptions.PolarsError) as error:
        return Matured(estimate=promised, performance=_untold(spec, version, stretch, now, error))
    if looked is not None:
        estimates.keep(out, looked)
    return Matured(promised, measured, pair, looked)


def _pair(
    spec: UseCase,
    rows: pl.DataFrame,
    labels: pl.DataFrame,
    version: int,
    stretch: Window,
    now: datetime,
) -> PairedPerformance | None:
    other = served.beside(rows, version)
    if other is None:
        return None
    return compare(
        spec, rows, labels, champion=version, challenger=other, window=stretch, as_of=now
    )


def _hindsight(
    spec: UseCase,
    rows: pl.DataFrame,
    labels: pl.DataFrame,
    said: Estimate | None,
    registered: Evaluation | None,
    version: int,
    now: datetime,
) -> Hindsight | None:
    if said is None:
        return None
    realised = performance(
        spec,
        rows,
        labels,
        version=said.version,
        registered=registered if said.version == version else None,
        window=said.cohort.window,
        as_of=now,
    )
    return estimates.hindsight(said, realised) if realised.cohort.measured else None


def _keep(out: Path, promised: Estimate) -> None:
    """Keep an estimate; what came true of the window stays beside it."""
    window = promised.cohort.window
    past = estimates.kept_of(out, promised.usecase, promised.version, window)
    realised = None if past is None else past.realised
    found = Hindsight(estimate=promised)
    estimates.keep(out, found if realised is None else estimates.hindsight(promised, realised))


def _untold(
    spec: UseCase, version: int, stretch: Window, now: datetime, error: Exception
) -> Performance:
    return Performance(
        usecase=spec.name,
        version=version,
        cohort=Cohort(window=stretch, as_of=now, requests=0),
        verdict="inconclusive",
        reason=f"the labels cannot be used: {shorten(error)}",
    )
