"""Drift on days without change and with planted shifts: `python -m bench.drift`, minutes.

Our calibrated thresholds, and Evidently's defaults beside them on the same windows and references:
how many days without a change alarm, and how many planted shifts are found within three days.
Ours are computed by `monitoring.distances`, the first of them by Evidently as well. Writes
`build/bench/drift.json`; exits with 1 when something that was asked for is missed.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bench.drift.data import PLANTS, START, TIME, WHERE, Days, drawn, flights
from mlplatform.contracts import Window
from mlplatform.contracts.drift import ColumnThreshold, DriftCalibration, DriftMethod
from monitoring.calibration import calibrate
from monitoring.distances import Counts, Values, clean, count, distance, distinct
from monitoring.drift import _library, detect

ROOT: Final = Path(__file__).resolve().parents[2]
RATE: Final = 0.01
"""False alarms per window over all columns, as in the spec of `flight_delay`."""
_REFERENCE: Final = 10_000
"""Rows of the reference for Evidently's defaults, which do not depend on it above 1,000."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    asked = _parser().parse_args(arguments)
    rng = np.random.default_rng(asked.seed)
    rows = asked.rows or max(
        (ROOT / "build/demo/artifacts").glob("*/*/training_set/rows.parquet"), default=None
    )
    sources: list[tuple[Days, ...]] = [(drawn(rng, windows=asked.windows),)]
    if rows:
        sources.append(flights(Path(rows), rng))
    else:
        print("no training set of flights: name one with --rows, or run the demo first")
    found = [
        _source(source, asked.windows, asked.evidently, asked.triples, rng) for source in sources
    ]
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {asked.output}")
    return 0 if all(one["met"] for one in found) else 1


def _source(
    source: tuple[Days, ...], windows: int, evidently: int, triples: int, rng: np.random.Generator
) -> dict[str, Any]:
    ours: list[bool] = []
    theirs: list[tuple[int, int]] = []
    agree = 0
    planted: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    started = time.perf_counter()
    for days in source:
        calibration = calibrate(days.reference, window_hours=24, false_alarm_rate=RATE)
        few = days.reference.sample(_REFERENCE, seed=1)
        share = -(-windows // len(source))
        for number, window in enumerate(days.windows[:share]):
            signs = _signs(days.reference, window, calibration)
            ours.append(any(map(bool, signs.values())))
            if number < evidently // len(source):
                theirs.append(_defaults(few, window))
            if number < 2:
                said = detect(days.reference, window, calibration, Window(start=START, end=START))
                agree += set(said.drifted) == {name for name, found in signs.items() if found}
        for plant, columns in WHERE[days.name].items():
            for column in columns:
                planted.setdefault((plant, column), []).extend(
                    _found(days, calibration, plant, column, triples // len(source), rng)
                )
    result: dict[str, Any] = {
        "source": source[0].name,
        "columns": len(source[0].reference.columns) - 1,
        "calibration_windows": [
            calibrate(days.reference, window_hours=24, false_alarm_rate=RATE).windows
            for days in source
        ],
        "rate": RATE,
        "windows": len(ours),
        "alarms": sum(ours),
        "evidently_windows": len(theirs),
        "evidently_any_column": sum(columns > 0 for columns, _ in theirs),
        "evidently_half_of_columns": sum(2 * columns >= of for columns, of in theirs),
        "same_as_through_evidently": f"{agree} of {2 * len(source)}",
        "planted": [
            {
                "shift": plant,
                "column": column,
                "runs": len(hits),
                "found_within_three": float(np.mean([any_ for any_, _ in hits])),
                "two_of_three": float(np.mean([two for _, two in hits])),
            }
            for (plant, column), hits in planted.items()
        ],
        "seconds": round(time.perf_counter() - started, 1),
    }
    # A true rate of 1 % gives more alarms than this in one of 40 runs.
    most = _quantile(len(ours), RATE)
    result["most_alarms"] = most
    result["shifts_missed"] = _missed(result["planted"])
    result["met"] = sum(ours) <= most and not result["shifts_missed"]
    _show(result)
    return result


def _signs(
    reference: pl.DataFrame, window: pl.DataFrame, calibration: DriftCalibration
) -> Mapping[str, list[str]]:
    """Return what is beyond its threshold, by column."""
    return {
        one.column: _column(reference, window, calibration, one.column)
        for one in calibration.columns
    }


def _column(
    reference: pl.DataFrame, window: pl.DataFrame, calibration: DriftCalibration, name: str
) -> list[str]:
    (one,) = (found for found in calibration.columns if found.column == name)
    found = clean(window[name], one.method)
    values, before, null_share = _known(reference, one)
    signs = []
    if abs(found.null_count() / len(found) - null_share) > one.nulls:
        signs.append("nulls")
    if found.null_count() == len(found):
        return signs
    both = np.union1d(values, distinct(found))
    known = np.zeros(len(both), dtype=np.int64)
    known[np.searchsorted(both, values)] = before
    now = count(found, both)
    if distance(one.method, both, known, now) > one.distance:
        signs.append("distribution")
    if one.method == "jensenshannon" and now[known == 0].sum() > one.new_categories * now.sum():
        signs.append("new_categories")
    return signs


_KNOWN: Final[dict[tuple[int, str], tuple[Values, Counts, float]]] = {}
"""Distinct values, their counts and the share of nulls by reference (its id) and column."""


def _known(reference: pl.DataFrame, one: ColumnThreshold) -> tuple[Values, Counts, float]:
    key = id(reference), one.column
    if key not in _KNOWN:
        known = clean(reference[one.column], one.method)
        values = distinct(known)
        _KNOWN[key] = values, count(known, values), known.null_count() / len(known)
    return _KNOWN[key]


def _found(
    days: Days,
    calibration: DriftCalibration,
    plant: str,
    column: str,
    triples: int,
    rng: np.random.Generator,
) -> list[tuple[bool, bool]]:
    """Return for each three days with a planted shift whether one, and two of them showed it."""
    hits = []
    for _ in range(triples):
        three = rng.choice(len(days.windows), 3, replace=False)
        shown = [
            bool(
                _column(
                    days.reference,
                    PLANTS[plant](days.windows[at], column, days.reference, rng),
                    calibration,
                    column,
                )
            )
            for at in three
        ]
        hits.append((any(shown), sum(shown) > 1))
    return hits


def _defaults(reference: pl.DataFrame, window: pl.DataFrame) -> tuple[int, int]:
    """Return how many columns Evidently's preset calls drifted, and of how many."""
    import warnings

    evidently, _ = _library()
    from evidently.presets import DataDriftPreset

    # It raises where a window has no value: such columns (no gust on that day) are left out.
    some = [
        name
        for name in window.columns
        if name != TIME and clean(window[name], _method(window[name])).count()
    ]
    known, found = (frame.select(some).to_pandas() for frame in (reference, window))
    texts = [name for name in known if known[name].dtype.kind in "Ob"]
    definition = evidently.DataDefinition(
        numerical_columns=[name for name in known if name not in texts], categorical_columns=texts
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = evidently.Report([DataDriftPreset()], include_tests=True).run(
            *(
                evidently.Dataset.from_pandas(one, data_definition=definition)
                for one in (found, known)
            )
        )
    tests = [one for one in run.dict()["tests"] if one["name"].startswith("Value Drift")]
    return sum(one["status"] == "FAIL" for one in tests), len(tests)


def _method(column: pl.Series) -> DriftMethod:
    return "wasserstein" if column.dtype.is_numeric() else "jensenshannon"


def _missed(planted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the shifts that more than one of twenty runs did not show within three days."""
    return [
        f"{one['shift']}: {one['column']}" for one in planted if one["found_within_three"] < 0.95
    ]


def _quantile(windows: int, rate: float) -> int:
    from scipy.stats import binom

    return int(binom.ppf(0.975, windows, rate))


def _show(result: Mapping[str, Any]) -> None:
    print(
        f"{result['source']}: {result['columns']} columns, {result['windows']} days without a "
        f"change: {result['alarms']} alarm (asked for 1 %, at most {result['most_alarms']})"
    )
    print(
        f"  Evidently's defaults: {result['evidently_any_column']} of "
        f"{result['evidently_windows']} have a drifted column, "
        f"{result['evidently_half_of_columns']} drift as a whole"
    )
    print(
        f"  {result['same_as_through_evidently']} windows judged the same through Evidently; "
        f"{result['seconds']:.0f} s"
    )
    print(f"  {len(result['shifts_missed'])} of {len(result['planted'])} planted shifts MISSED")
    for one in result["planted"]:
        print(
            f"  {one['shift']:<40} {one['column']:<20} within three days "
            f"{one['found_within_three']:>5.0%}  two of three {one['two_of_three']:>5.0%}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--rows", type=Path, help="rows.parquet of a training set of flights")
    parser.add_argument("--windows", type=int, default=300, help="days without a change")
    parser.add_argument("--evidently", type=int, default=300, help="of them given to its defaults")
    parser.add_argument("--triples", type=int, default=40, help="of days, for each planted shift")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench/drift.json", help="file")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
