"""Drift on days without change and with planted shifts: `python -m bench.drift`, minutes.

Our calibrated thresholds, and Evidently's defaults beside them on the same windows and references:
how many days without a change alarm, how many planted shifts are found within three days, and
whether the cause that is named blames the column. Writes `build/bench/drift.json`; exits with 1
when something that was asked for is missed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bench.drift import defaults
from bench.drift.data import START, TIME, Days, drawn, flights
from bench.drift.shifts import Shift, shifts, unseen
from bench.drift.year import year_of_flights
from feature_repo.profile.calibration import calibrate
from mlplatform.contracts import Window
from mlplatform.contracts.drift import DriftCalibration, DriftReport
from mlplatform.contracts.watch import Wholeness
from monitoring import verdict
from monitoring.drift import detect

ROOT: Final = Path(__file__).resolve().parents[2]
RATE: Final = 0.01
"""False alarms per window over all columns, as in the spec of `flight_delay`."""
OF: Final = Window(start=START, end=START + timedelta(days=1))
_REFERENCE: Final = 10_000
"""Rows of the reference for Evidently's defaults, which do not depend on it above 1,000."""
_FOUND: Final = 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    asked = _parser().parse_args(arguments)
    rng = np.random.default_rng(asked.seed)
    sources: list[tuple[Days, ...]] = [(drawn(rng, windows=asked.windows),)]
    if not asked.only_drawn:
        rows = asked.rows or year_of_flights(ROOT / "build/bench/year")
        sources.append(flights(rows, rng))
    found = [_source(source, asked, rng) for source in sources]
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {asked.output}")
    return 0 if all(one["met"] for one in found) else 1


def _source(
    source: tuple[Days, ...], asked: argparse.Namespace, rng: np.random.Generator
) -> dict[str, Any]:
    started = time.perf_counter()
    alarms: list[str] = []
    theirs: list[int] = []
    judged = 0
    agree = True
    planted: list[dict[str, Any]] = []
    changed: list[str] = []
    blind: list[str] = []
    windows_of: list[int] = []
    for days in source:
        calibration = calibrate(days.reference, window_hours=24, false_alarm_rate=RATE)
        windows_of.append(calibration.windows)
        few = days.reference.sample(min(_REFERENCE, days.reference.height), seed=1)
        for number, window in enumerate(days.windows[: -(-asked.windows // len(source))]):
            report = detect(days.reference, window, calibration, OF)
            judged += 1
            if report.verdict == "drift":
                alarms.append(report.reason)
            if number < asked.evidently // len(source):
                theirs.append(len(defaults.drifted(few, window)))
            if number == 0:
                agree &= _same_with_evidently(days, window, calibration, report, few)
        for window in days.changed:
            report = detect(days.reference, window, calibration, OF)
            changed.append(f"{window[TIME][0]:%Y-%m-%d}: {report.verdict}: {report.reason}")
        blind.append(unseen(calibration))
        planted += [
            _planted(days, calibration, shift, asked.triples // len(source), rng)
            for shift in shifts(days, calibration)
        ]
    # A true rate of 1 % gives more alarms than this in one of 40 runs.
    most = _quantile(judged, RATE)
    merged = _merged(planted)
    missed = [
        f"{one['shift']}: {one['column']}"
        for one in merged
        if one["found_within_three"] < _FOUND or one["named"] < _FOUND
    ]
    result: dict[str, Any] = {
        "source": source[0].name,
        "columns": len(source[0].reference.columns) - 1,
        "no_shift_planted": blind,
        "calibration_windows": windows_of,
        "rate": RATE,
        "windows": judged,
        "alarms": len(alarms),
        "alarmed": alarms,
        "most_alarms": most,
        "days_of_change": changed,
        "evidently_windows": len(theirs),
        "evidently_any_column": sum(one > 0 for one in theirs),
        "evidently_half_of_columns": sum(
            2 * one >= len(source[0].reference.columns) - 1 for one in theirs
        ),
        "same_through_evidently": agree,
        "planted": merged,
        "shifts_missed": missed,
        "met": len(alarms) <= most and not missed and agree,
        "seconds": round(time.perf_counter() - started, 1),
    }
    _show(result)
    return result


def _same_with_evidently(
    days: Days,
    window: pl.DataFrame,
    calibration: DriftCalibration,
    report: DriftReport,
    few: pl.DataFrame,
) -> bool:
    """Return whether Evidently's page and its preset say the same of a window as what is used."""
    with tempfile.TemporaryDirectory() as directory:
        paged = detect(days.reference, window, calibration, OF, Path(directory) / "page.html")
    ours = paged.drifted == report.drifted
    return ours and defaults.through_the_preset(few, window) == defaults.drifted(few, window)


def _planted(
    days: Days,
    calibration: DriftCalibration,
    shift: Shift,
    triples: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return how many of some three days with a shift show it, and whether it is named."""
    alone = calibration.model_copy(
        update={"columns": tuple(c for c in calibration.columns if c.column == shift.column)}
    )
    reference = days.reference.select(TIME, shift.column)
    hits, signs = [], set()
    named = True
    for triple in range(triples):
        changed = [
            shift.plant(days.windows[at], days.reference, rng)
            for at in rng.choice(len(days.windows), 3, replace=False)
        ]
        reports = [detect(reference, one, alone, OF) for one in changed]
        shown = [report.verdict == "drift" for report in reports]
        hits.append(sum(shown))
        signs |= {sign for report in reports for column in report.columns for sign in column.signs}
        if triple == 0 and any(shown):
            named = _names(days, changed[shown.index(True)], calibration, shift.column)
    return {
        "shift": shift.name,
        "column": shift.column,
        "hits": hits,
        "signs": sorted(signs),
        "named": named,
    }


def _names(days: Days, window: pl.DataFrame, calibration: DriftCalibration, column: str) -> bool:
    """Return whether the cause of a whole window is its input, and the column is blamed."""
    report = detect(days.reference, window, calibration, OF)
    whole = Wholeness(
        window=OF, rows=window.height, verdict="whole", reason="planted in whole days"
    )
    finding = verdict.of_inputs("bench", OF, whole, None, report, OF.end)
    return finding.cause == "input_drift" and column in finding.blamed


def _merged(planted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line for each shift and column, over all halves."""
    together: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in planted:
        # What days show differs between halves, so the shift does; the line is the column's.
        shift = "mean + 1.5 x detectable" if _by_calibration(one["shift"]) else one["shift"]
        together.setdefault((shift, one["column"]), []).append(one)
    return [
        {
            "shift": shift,
            "planted": [one["shift"] for one in several],
            "column": column,
            "runs": sum(len(one["hits"]) for one in several),
            "found_within_three": float(
                np.mean([hit > 0 for one in several for hit in one["hits"]])
            ),
            "two_of_three": float(np.mean([hit > 1 for one in several for hit in one["hits"]])),
            "signs": sorted({sign for one in several for sign in one["signs"]}),
            "named": float(np.mean([one["named"] for one in several])),
        }
        for (shift, column), several in together.items()
    ]


def _by_calibration(shift: str) -> bool:
    return shift.startswith("mean") and "+ 0.2 " not in shift


def _quantile(windows: int, rate: float) -> int:
    from scipy.stats import binom

    return int(binom.ppf(0.975, windows, rate))


def _show(result: Mapping[str, Any]) -> None:
    print(
        f"{result['source']}: {result['columns']} columns, {result['windows']} days without a "
        f"change: {result['alarms']} alarms (asked for 1 %, at most {result['most_alarms']})"
    )
    for reason in result["alarmed"]:
        print(f"    {reason[:150]}")
    for told in result["days_of_change"]:
        print(f"  a day of change, {told[:140]}")
    print(
        f"  Evidently's defaults: {result['evidently_any_column']} of "
        f"{result['evidently_windows']} have a drifted column, "
        f"{result['evidently_half_of_columns']} drift as a whole"
    )
    for columns in result["no_shift_planted"]:
        print(f"  no shift planted, smallest visible in standard deviations: {columns}")
    same = "the same" if result["same_through_evidently"] else "NOT THE SAME"
    print(f"  {same} through Evidently's page and preset; {result['seconds']:.0f} s")
    print(f"  {len(result['shifts_missed'])} of {len(result['planted'])} planted shifts MISSED")
    for one in result["planted"]:
        shift = one["shift"]
        if "detectable" in shift:
            shift = " and ".join(
                text.split(" stand")[0].replace("mean ", "") for text in one["planted"]
            )
            shift = f"mean {shift} sd (1.5 x detectable)"
        print(
            f"  {shift:<45} {one['column']:<22} within three days "
            f"{one['found_within_three']:>4.0%}  two of three {one['two_of_three']:>4.0%}  "
            f"{'' if one['named'] == 1 else 'NOT NAMED '}{', '.join(one['signs'])}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--rows", type=Path, help="rows.parquet of another training set of flights")
    parser.add_argument("--only-drawn", action="store_true", help="no flights")
    parser.add_argument("--windows", type=int, default=300, help="days without a change")
    parser.add_argument("--evidently", type=int, default=300, help="of them given to its defaults")
    parser.add_argument("--triples", type=int, default=40, help="of days, for each planted shift")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench/drift.json", help="file")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
