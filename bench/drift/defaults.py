"""What Evidently calls drift when nothing is set: its methods, its thresholds.

A whole report takes a second for thirty columns, and nearly all of it draws pictures. Its tests are
called without them; the first window of each source goes through the preset, too, which must agree.
"""

import warnings
from typing import Any

import polars as pl

from bench.drift.data import TIME
from monitoring.drift import _library


def drifted(reference: pl.DataFrame, window: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns that Evidently's own tests call drifted."""
    _library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations.stattests import get_stattest
        from evidently.legacy.core import ColumnType

        found = []
        for name in _comparable(window):
            old, new = (frame[name].to_pandas().dropna() for frame in (reference, window))
            kind = ColumnType.Categorical if _text(window, name) else ColumnType.Numerical
            test = get_stattest(old, new, kind, None)
            if test(old, new, kind, None).drifted:
                found.append(name)
    return tuple(found)


def through_the_preset(reference: pl.DataFrame, window: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns that `DataDriftPreset` calls drifted."""
    evidently, _ = _library()
    from evidently.presets import DataDriftPreset

    names = _comparable(window)
    definition = evidently.DataDefinition(
        numerical_columns=[name for name in names if not _text(window, name)],
        categorical_columns=[name for name in names if _text(window, name)],
    )
    old, new = (
        evidently.Dataset.from_pandas(frame.select(names).to_pandas(), data_definition=definition)
        for frame in (reference, window)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run: dict[str, Any] = (
            evidently.Report([DataDriftPreset()], include_tests=True).run(new, old).dict()
        )
    failed = {one["name"] for one in run["tests"] if one["status"] == "FAIL"}
    return tuple(name for name in names if f"Value Drift for column {name}" in failed)


def _comparable(window: pl.DataFrame) -> list[str]:
    """Return the columns with a value: it raises where a window has none (no gust on that day)."""
    return [name for name in window.columns if name != TIME and _count(window[name])]


def _count(column: pl.Series) -> int:
    return (column.fill_nan(None) if column.dtype.is_float() else column).count()


def _text(window: pl.DataFrame, name: str) -> bool:
    return window[name].dtype in {pl.String, pl.Boolean}
