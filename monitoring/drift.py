"""Whether the inputs and scores of a window have moved away from those of the training set.

Each column has several statistics with an interval each (`feature_repo.profile.calibration`). One
of them is a distance that Evidently computes and draws a page of, by the calibrated method and
threshold; what it reports back is checked against both and against our own distance, so that
another release of it cannot change a verdict silently. A window that cannot be compared is
`inconclusive` by type. It asks for nothing and decides nothing: which cause a drift has, and
whether retraining helps, is said elsewhere.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from feature_repo.profile.calibration import SCORE
from feature_repo.profile.distances import clean
from feature_repo.profile.statistics import MIN_VALUES, Known, known, measure, scaled
from mlplatform.contracts import Window
from mlplatform.contracts.drift import (
    ColumnDrift,
    ColumnThreshold,
    DriftCalibration,
    DriftInterval,
    DriftReport,
    DriftSign,
    DriftStatistic,
    DriftVerdict,
)
from mlplatform.errors import DataError, PlatformError

_SAME: Final = 1e-6
"""Relative difference of two computations of one distance that is rounding."""

_NAMES: Final[Mapping[DriftSign, str]] = {
    "mean": "mean",
    "spread": "standard deviation",
    "low_tail": "share of unusually low values",
    "high_tail": "share of unusually high values",
    "nulls": "share of nulls",
    "distribution": "distance",
    "new_categories": "share of new categories",
}


def detect(
    reference: pl.DataFrame,
    window: pl.DataFrame,
    calibration: DriftCalibration,
    of: Window,
    page: Path | None = None,
) -> DriftReport:
    """Return the drift of each calibrated column, and write Evidently's page of it.

    Args:
        reference: What the calibration was made from.
        window: Rows of the window, with the reference's columns; others are ignored.
        calibration: Thresholds.
        of: Which window it is.
        page: HTML file to write, with Evidently's distances, which are then checked; None: our own
            are taken and Evidently does not run. There is no page when no column can be compared.

    Raises:
        PlatformError: Evidently used another method, threshold or formula than was calibrated.
    """
    if window.height < calibration.min_rows:
        return DriftReport(
            window=of,
            rows=window.height,
            verdict="inconclusive",
            reason=f"{window.height:,} rows; thresholds hold from {calibration.min_rows:,} rows on",
        )
    compared: dict[str, _Compared] = {}
    columns: dict[str, ColumnDrift] = {}
    for threshold in calibration.columns:
        one = _read(reference, window, threshold)
        if one.trouble or one.held < MIN_VALUES:
            columns[threshold.column] = _judged(one, None)
        else:
            compared[threshold.column] = one
    distances = {name: one.known.distance(one.found) for name, one in compared.items()}
    if page is not None and compared:
        distances = _evidently(compared, distances, page)
    columns |= {name: _judged(one, distances[name]) for name, one in compared.items()}
    judged = tuple(columns[one.column] for one in calibration.columns)
    verdict, reason = _overall(judged)
    return DriftReport(
        window=of, rows=window.height, verdict=verdict, reason=reason, columns=judged
    )


@dataclass(frozen=True)
class _Compared:
    """One column of a window beside the reference's.

    Attributes:
        threshold: Of the column.
        known: The reference's values.
        found: The window's, as `clean` gives them.
        trouble: Why they cannot be compared; empty: they can.
    """

    threshold: ColumnThreshold
    known: Known
    found: pl.Series
    trouble: str

    @property
    def held(self) -> int:
        """Rows with a value."""
        return len(self.found) - self.found.null_count()

    @property
    def as_empty_as_usual(self) -> bool:
        """Whether so many nulls are no news."""
        share = self.found.null_count() / max(len(self.found), 1)
        return _usual_nulls(self.threshold, share)


def _read(reference: pl.DataFrame, window: pl.DataFrame, one: ColumnThreshold) -> _Compared:
    old = known(_counted(reference[one.column]), one.method)
    nothing = pl.Series(one.column, [None] * window.height, dtype=old.column.dtype)
    if one.column not in window.columns:
        return _Compared(one, old, nothing, "the window has no such column")
    try:
        found = clean(_counted(window[one.column]), one.method)
    except DataError as error:
        return _Compared(one, old, nothing, str(error))
    trouble = ""
    held = found.drop_nulls()
    if not len(held) and not _usual_nulls(one, 1.0):
        trouble = "all rows are null"
    elif one.method == "jensenshannon" and len(held) and not np.isin(held, old.values).any():
        seen = ", ".join(held.unique().sort().head(3).to_list())
        trouble = f"no row holds a category that the reference knows ({seen})"
    return _Compared(one, old, found, trouble)


def _counted(column: pl.Series) -> pl.Series:
    """Return the rows that count: a request without a score was answered by something else."""
    return column.drop_nulls() if column.name == SCORE else column


def _usual_nulls(one: ColumnThreshold, share: float) -> bool:
    """Return whether a share of nulls is one of the reference's days; without limits, any is."""
    for interval in one.intervals:
        if interval.sign == "nulls":
            return (
                (interval.low or 0.0) <= share <= (1.0 if interval.high is None else interval.high)
            )
    return one.column != SCORE


def _judged(one: _Compared, apart: float | None) -> ColumnDrift:
    values = measure(one.known, one.found) if len(one.found) else {}
    if apart is not None:
        values["distribution"] = apart
    statistics = sorted(
        (
            _beside(interval, values[interval.sign])
            for interval in one.threshold.intervals
            if interval.sign in values
        ),
        key=lambda statistic: -statistic.excess,
    )
    beyond = [statistic for statistic in statistics if statistic.excess > 1]
    trouble = one.trouble
    if not (trouble or beyond or apart is not None or one.as_empty_as_usual):
        trouble = f"{one.held} rows hold a value, and {MIN_VALUES} are needed"
    told = [_told(statistic) for statistic in beyond] or [
        f"{_told(statistic)}, the furthest of {len(statistics)}" for statistic in statistics[:1]
    ]
    told = told or [f"{one.held} rows hold a value, as on other days of the reference"]
    column = one.known.column
    return ColumnDrift(
        column=one.threshold.column,
        method=one.threshold.method,
        verdict="inconclusive" if trouble else "drift" if beyond else "no_drift",
        reason=trouble or "; ".join(told),
        signs=tuple(statistic.sign for statistic in beyond),
        statistics=tuple(statistics),
        distance=apart,
        threshold=one.threshold.distance,
        rows=one.held,
        null_share=one.found.null_count() / max(len(one.found), 1),
        reference_null_share=column.null_count() / max(len(column), 1),
    )


def _beside(interval: DriftInterval, value: float) -> DriftStatistic:
    """Return a statistic beside its interval; how far out it lies is told on its own scale."""
    sign = interval.sign
    middle, at = scaled(sign, interval.usual), scaled(sign, value)
    end = interval.high if at > middle else interval.low
    excess = 0.0
    if end is not None and at != middle:
        excess = (at - middle) / (scaled(sign, end) - middle)
    return DriftStatistic(
        sign=sign,
        value=value,
        usual=interval.usual,
        low=interval.low,
        high=interval.high,
        excess=excess,
    )


def _told(one: DriftStatistic) -> str:
    share = one.sign in {"nulls", "low_tail", "high_tail", "new_categories"}
    value, usual, *ends = (
        None if number is None else f"{number:.1%}" if share else f"{number:.3g}"
        for number in (one.value, one.usual, one.low, one.high)
    )
    low, high = ends
    limits = f"{low} to {high}" if low and high else f"at most {high}" if high else f"from {low} on"
    return f"{_NAMES[one.sign]} {value}, usually {usual}, expected {limits}"


def _overall(columns: Sequence[ColumnDrift]) -> tuple[DriftVerdict, str]:
    drifted = sorted(
        (one for one in columns if one.verdict == "drift"), key=lambda one: -one.excess
    )
    silent = [one for one in columns if one.verdict == "inconclusive"]
    if drifted:
        told = "; ".join(f"{one.column}: {one.reason}" for one in drifted[:3])
        return "drift", f"{len(drifted)} of {len(columns)} columns drifted: {told}"
    # A window that other versions answered has features and no scores, and is judged by those.
    judged = [one for one in columns if one.column != SCORE] or columns
    if silent and any(one in silent for one in judged):
        told = "; ".join(f"{one.column}: {one.reason}" for one in silent[:3])
        return "inconclusive", f"{len(silent)} of {len(columns)} cannot be compared: {told}"
    return "no_drift", f"none of {len(columns)} columns is beyond its thresholds"


def _evidently(
    compared: Mapping[str, _Compared], ours: Mapping[str, float], page: Path
) -> dict[str, float]:
    """Return Evidently's distance of each column; write its page."""
    evidently, value_drift = _library()
    definition = evidently.DataDefinition(
        numerical_columns=[name for name, one in compared.items() if one.known.numeric],
        categorical_columns=[name for name, one in compared.items() if not one.known.numeric],
    )
    old, new = (
        evidently.Dataset.from_pandas(frame.to_pandas(), data_definition=definition)
        for frame in (
            _side_by_side([one.known.column for one in compared.values()]),
            _side_by_side([one.found for one in compared.values()]),
        )
    )
    metrics = [
        value_drift(column=name, method=one.threshold.method, threshold=one.threshold.distance)
        for name, one in compared.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, inside Evidently
        run = evidently.Report(metrics, include_tests=True).run(new, old)
        run.save_html(str(page))
    values = dict(_read_back(run.dict()["metrics"]))
    for name, one in compared.items():
        _same_as_calibrated(one.threshold, values.get(name), ours[name])
    return {name: value for name, (_, _, value) in values.items()}


def _side_by_side(columns: Sequence[pl.Series]) -> pl.DataFrame:
    """Return one frame; Evidently drops the nulls that fill up the shorter columns."""
    rows = max(map(len, columns))
    return pl.DataFrame([one.extend_constant(None, rows - len(one)) for one in columns])


def _read_back(metrics: Sequence[dict[str, Any]]) -> Iterator[tuple[str, tuple[str, float, float]]]:
    """Yield column, method, threshold and value as a run tells them."""
    for metric in metrics:
        config = metric["config"]
        yield config["column"], (config["method"], config["threshold"], float(metric["value"]))


def _same_as_calibrated(
    one: ColumnThreshold, told: tuple[str, float, float] | None, ours: float
) -> None:
    pinned = (one.method, one.distance)
    if told is None or told[:2] != pinned or not np.isclose(told[2], ours, rtol=_SAME, atol=_SAME):
        raise PlatformError(
            f"Evidently judged the column {one.column} by {told} (method, threshold, distance), "
            f"and {(*pinned, ours)} was calibrated: install the release that pyproject.toml pins"
        )


def _library() -> tuple[Any, Any]:
    """Import Evidently, with its telemetry off.

    Only its user interface and its collector send events (to an address in `evidently.telemetry`),
    and neither is used; both, too, honour the variable.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports numpy's and litestar's old names
        import evidently
        from evidently.metrics import ValueDrift
    return evidently, ValueDrift
