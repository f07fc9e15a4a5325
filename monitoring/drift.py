"""Whether the inputs and scores of a window have moved away from those of the training set.

Evidently compares each column by the method and threshold of a calibration and draws the page; what
it reports back is checked against both and against our own distance, so that another release of
it cannot change a verdict silently. What it drops (nulls, categories never seen) is judged beside
it. A window that cannot be compared is `inconclusive` by type. It asks for nothing and decides
nothing: which cause a drift has, and whether retraining helps, is said elsewhere.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from mlplatform.contracts import Window
from mlplatform.contracts.drift import (
    ColumnDrift,
    ColumnThreshold,
    DriftCalibration,
    DriftReport,
    DriftSign,
    DriftVerdict,
)
from mlplatform.errors import DataError, PlatformError
from monitoring.distances import clean, count, distance, distinct

_SAME: Final = 1e-6
"""Relative difference of two computations of one distance that is rounding."""


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
        page: HTML file to write, beside it the report as JSON; None: neither. There is no page
            when no column can be compared.

    Raises:
        PlatformError: Evidently used another method, threshold or formula than was calibrated.
    """
    if window.height < calibration.min_rows:
        report = DriftReport(
            window=of,
            rows=window.height,
            verdict="inconclusive",
            reason=f"{window.height:,} rows; thresholds hold from {calibration.min_rows:,} rows on",
        )
    else:
        report = _compare(reference, window, calibration, of, page)
    if page is not None:
        page.with_suffix(".json").write_text(report.model_dump_json(indent=2), encoding="utf-8")
    return report


def persistent(reports: Sequence[DriftReport], k: int, n: int) -> tuple[str, ...]:
    """Return the columns that drifted in at least `k` of the last `n` windows.

    Args:
        reports: Of consecutive windows, oldest first; fewer than `n` are enough. A window without
            a verdict does not agree.
        k: Windows that must agree.
        n: Windows looked at.
    """
    votes = Counter(column for report in reports[-n:] for column in report.drifted)
    return tuple(column for column, found in votes.items() if found >= k)


def _compare(
    reference: pl.DataFrame,
    window: pl.DataFrame,
    calibration: DriftCalibration,
    of: Window,
    page: Path | None,
) -> DriftReport:
    compared: dict[str, tuple[ColumnThreshold, pl.Series, pl.Series]] = {}
    columns: dict[str, ColumnDrift] = {}
    for one in calibration.columns:
        known = clean(reference[one.column], one.method)
        found, trouble = _readable(window, one, known)
        if trouble:
            columns[one.column] = _judged(one, known, found, None, trouble)
        else:
            compared[one.column] = (one, known, found)
    values = _evidently(compared, page) if compared else {}
    for name, (one, known, found) in compared.items():
        columns[name] = _judged(one, known, found, values[name], "")
    verdict, reason = _overall(list(columns.values()))
    return DriftReport(
        window=of,
        rows=window.height,
        verdict=verdict,
        reason=reason,
        columns=tuple(columns[one.column] for one in calibration.columns),
    )


def _readable(
    window: pl.DataFrame, one: ColumnThreshold, known: pl.Series
) -> tuple[pl.Series, str]:
    """Return the window's column, and why it cannot be compared (empty: it can)."""
    nothing = pl.Series(one.column, [None] * window.height, dtype=known.dtype)
    if one.column not in window.columns:
        return nothing, "the window has no such column"
    try:
        found = clean(window[one.column], one.method)
    except DataError as error:
        return nothing, str(error)
    if found.null_count() == len(found):
        return found, "all rows are null"
    if known.null_count() == len(known):
        return found, "all rows of the reference are null"
    if one.method == "jensenshannon" and not found.is_in(known.unique().implode()).any():
        seen = ", ".join(found.drop_nulls().unique().sort().head(3).to_list())
        return found, f"no row holds a category that the reference knows ({seen}…)"
    return found, ""


def _judged(
    one: ColumnThreshold, known: pl.Series, found: pl.Series, value: float | None, trouble: str
) -> ColumnDrift:
    nulls, before = found.null_count() / len(found), known.null_count() / len(known)
    held = found.drop_nulls()
    new = 0.0
    if one.method == "jensenshannon" and len(held):
        new = 1 - float(held.is_in(known.unique().implode()).sum()) / len(held)
    signs: dict[DriftSign, str] = {}
    if value is not None and value > one.distance:
        signs["distribution"] = f"{one.method} {value:.3g} is above {one.distance:.3g}"
    if abs(nulls - before) > one.nulls:
        signs["nulls"] = f"{nulls:.1%} of rows are null, {before:.1%} of the reference"
    if new > one.new_categories:
        signs["new_categories"] = f"{new:.1%} of values are categories that the reference lacks"
    calm = "" if value is None else f"{one.method} {value:.3g}, at most {one.distance:.3g}"
    return ColumnDrift(
        column=one.column,
        method=one.method,
        verdict="inconclusive" if trouble else "drift" if signs else "no_drift",
        reason="; ".join(filter(None, [trouble, *signs.values()])) or calm,
        signs=tuple(signs),
        distance=value,
        threshold=one.distance,
        rows=len(held),
        null_share=nulls,
        reference_null_share=before,
        null_threshold=one.nulls,
        new_share=new,
        new_threshold=one.new_categories,
    )


def _overall(columns: Sequence[ColumnDrift]) -> tuple[DriftVerdict, str]:
    drifted = [one for one in columns if one.verdict == "drift"]
    silent = [one for one in columns if one.verdict == "inconclusive"]
    if drifted:
        told = "; ".join(f"{one.column}: {one.reason}" for one in drifted[:3])
        return "drift", f"{len(drifted)} of {len(columns)} columns drifted: {told}"
    if silent:
        told = "; ".join(f"{one.column}: {one.reason}" for one in silent[:3])
        return "inconclusive", f"{len(silent)} of {len(columns)} cannot be compared: {told}"
    return "no_drift", f"none of {len(columns)} columns is beyond its threshold"


def _evidently(
    compared: dict[str, tuple[ColumnThreshold, pl.Series, pl.Series]], page: Path | None
) -> dict[str, float]:
    """Return Evidently's distance of each column; write its page."""
    evidently, value_drift = _library()
    numbers = [name for name, (one, *_) in compared.items() if one.method != "jensenshannon"]
    definition = evidently.DataDefinition(
        numerical_columns=numbers,
        categorical_columns=[name for name in compared if name not in numbers],
    )
    known, found = (
        evidently.Dataset.from_pandas(
            pl.DataFrame([pair[place] for pair in compared.values()]).to_pandas(),
            data_definition=definition,
        )
        for place in (1, 2)
    )
    metrics = [
        value_drift(column=name, method=one.method, threshold=one.distance)
        for name, (one, *_) in compared.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, inside Evidently
        run = evidently.Report(metrics, include_tests=True).run(found, known)
        if page is not None:
            run.save_html(str(page))
    values = dict(_read_back(run.dict()["metrics"]))
    for name, (one, *_) in compared.items():
        _same_as_calibrated(one, values.get(name), *compared[name][1:])
    return {name: value for name, (_, _, value) in values.items()}


def _read_back(metrics: Sequence[dict[str, Any]]) -> Iterator[tuple[str, tuple[str, float, float]]]:
    """Yield column, method, threshold and value as a run tells them."""
    for metric in metrics:
        config = metric["config"]
        yield config["column"], (config["method"], config["threshold"], float(metric["value"]))


def _same_as_calibrated(
    one: ColumnThreshold, told: tuple[str, float, float] | None, known: pl.Series, found: pl.Series
) -> None:
    values = distinct(pl.concat([known, found]))
    ours = distance(one.method, values, count(known, values), count(found, values))
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
