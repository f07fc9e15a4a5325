"""What monitoring calls broken feeds, moved inputs and usual days: `python -m bench.feeds`.

Real days of flights go through the very parts that judge a window: the profile of a registered
model, `whole.check`, `drift.detect`, `verdict.of_inputs`, `trigger.decide`. Each fault of a feed
lasts three days between sound ones, and must not lead to a retraining; each true shift must be
called input drift of its column; days without a change must not be called faults. Writes
`build/bench/feeds.json`; exits with 1 when something that was asked for is missed. Minutes.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bench.drift.data import Days
from bench.drift.shifts import shifts, unseen
from bench.drift.year import year_of_flights
from bench.feeds.data import logged, vectors
from bench.feeds.plants import faults, midnight, replaced
from feature_repo import catalog
from feature_repo.layout import load
from feature_repo.profile.calibration import TIME
from feature_repo.profile.reference import Reference, build
from mlplatform.contracts import Window
from mlplatform.contracts.drift import DriftCalibration
from mlplatform.contracts.retrain import Finding, Fire, History
from monitoring.drift import detect
from monitoring.trigger import decide, observe
from monitoring.verdict import of_inputs
from monitoring.whole import check

ROOT: Final = Path(__file__).resolve().parents[2]
USECASE: Final = "flight_delay"
FAULTS_PER_DAY: Final = 0.01
"""Of days without a change, that may be called broken."""
_DAY: Final = timedelta(days=1)
_WARM_UP: Final = 31
"""Days until the longest trailing window of a feature is full."""
_FAULTY: Final = slice(1, 4)
"""Of the days of a stretch: one sound day before, two after."""
_STRETCH: Final = 6


@dataclass(frozen=True)
class Source:
    """A year of one use case: rows of its training set, and the same as rows of the log, by day."""

    rows: list[pl.DataFrame]
    log: list[pl.DataFrame]

    def reference(self, days: Sequence[int]) -> Reference:
        """Return what a model that was trained on these days would be registered with."""
        rows = pl.concat(self.rows[day] for day in days)
        return build(SPEC, rows, NAMES, np.full(rows.height, np.nan), seed=7)


CODE: Final = catalog.load(USECASE)
SPEC: Final = CODE.spec
NAMES: Final = tuple(name for group in CODE.groups.values() for name in group)
LAYOUT: Final = load(USECASE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.feeds", description=__doc__)
    parser.add_argument("--rows", type=Path, help="rows.parquet of a training set of a year")
    parser.add_argument("--days", type=int, default=300, help="without a change")
    parser.add_argument("--stretches", type=int, default=4, help="of six days, for each fault")
    parser.add_argument("--shifts", type=int, default=4, help="stretches, for each true shift")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench/feeds.json")
    asked = parser.parse_args(arguments)
    rng = np.random.default_rng(asked.seed)
    source = _source(asked.rows or year_of_flights(ROOT / "build/bench/year"))
    began = time.perf_counter()
    result = {
        "unchanged": _unchanged(source, asked.days, rng),
        **_planted(source, asked.stretches, asked.shifts, rng),
    }
    result["seconds"] = round(time.perf_counter() - began)
    missed = list(_missed(result))
    result["missed"] = missed
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(*(f"missed: {one}" for one in missed), f"wrote {asked.output}", sep="\n")
    return 1 if missed else 0


def _source(path: Path) -> Source:
    rows = pl.read_parquet(path).sort(TIME)
    days = rows.with_columns(day=pl.col(TIME).dt.date()).partition_by("day", maintain_order=True)
    parts = [part.drop("day") for part in days[_WARM_UP:-1]]
    return Source(parts, [logged(part, LAYOUT, NAMES) for part in parts])


def _window(day: pl.DataFrame) -> Window:
    start = midnight(day)
    return Window(start=start, end=start + _DAY)


def _judged(
    reference: Reference, day: pl.DataFrame, before: pl.DataFrame | None, window: Window
) -> Finding:
    whole = check(SPEC, LAYOUT, reference, day, window, before)
    drift = detect(reference.rows, _seen(day), _calibration(reference), window)
    return of_inputs(USECASE, window, whole, None, drift, window.end)


def _calibration(reference: Reference) -> DriftCalibration:
    found = reference.profile.calibration
    if found is None:
        raise SystemExit(f"the days are too few: {reference.profile.uncalibrated}")
    return found


def _seen(day: pl.DataFrame) -> pl.DataFrame:
    return vectors(day, NAMES).with_columns(score=pl.lit(None, pl.Float32))


def _unchanged(source: Source, days: int, rng: np.random.Generator) -> dict[str, Any]:
    """Judge each half of the year's days beside a reference of the other half."""
    order = rng.permutation(np.arange(1, len(source.log)))
    causes: Counter[str] = Counter()
    odd: list[str] = []
    for half in (0, 1):
        reference = source.reference(sorted(order[1 - half :: 2].tolist()))
        for at in sorted(order[half::2][: -(-days // 2)].tolist()):
            found = _judged(reference, source.log[at], source.log[at - 1], _window(source.log[at]))
            causes[found.cause] += 1
            if found.cause != "healthy":
                odd.append(f"{found.window.start:%Y-%m-%d} {found.cause}: {found.why}")
    print(f"{sum(causes.values())} days without a change: {dict(causes)}", *odd, sep="\n  ")
    return {"days": sum(causes.values()), "causes": dict(causes), "odd": odd}


def _planted(
    source: Source, stretches: int, fewer: int, rng: np.random.Generator
) -> dict[str, Any]:
    starts = np.linspace(1, len(source.log) - _STRETCH - 1, stretches).astype(int).tolist()
    held = {start + day for start in starts for day in range(_STRETCH)}
    reference = source.reference([day for day in range(len(source.log)) if day not in held])
    drawn = [source.log[start : start + _STRETCH] for start in starts]
    # Where true days fire by themselves, a retraining says nothing of the fault.
    sound = [days for days in drawn if not _retrainings(list(_week(reference, days, days)))]
    print(f"{len(sound)} of {len(drawn)} stretches without a fault lead to no retraining: these")
    broken = [
        _fault(
            reference, fault.kind, fault.name, sound, [fault.plant(days[_FAULTY]) for days in sound]
        )
        for fault in faults(LAYOUT, NAMES, reference.rows)
    ]
    return {"faults": broken, "shifts": list(_shifts(reference, sound[:fewer], rng))}


def _fault(
    reference: Reference,
    kind: str,
    name: str,
    sound: list[list[pl.DataFrame]],
    planted: list[list[pl.DataFrame]],
) -> dict[str, Any]:
    causes: Counter[str] = Counter()
    right = retrainings = 0
    for days, bad in zip(sound, planted, strict=True):
        findings = list(_week(reference, [days[0], *bad, *days[4:]], days))
        causes.update(one.cause for one in findings[_FAULTY])
        right += sum(kind in one.why for one in findings[_FAULTY] if one.cause == "data_fault")
        retrainings += _retrainings(findings)
    told = {"kind": kind, "name": name, "causes": dict(causes), "named": right}
    print(f"{kind:11} {name:38} {dict(causes)}, as {kind}: {right}; retrainings: {retrainings}")
    return {**told, "retrainings": retrainings}


def _week(
    reference: Reference, days: Sequence[pl.DataFrame], sound: Sequence[pl.DataFrame]
) -> Iterator[Finding]:
    before = None
    for day, same in zip(days, sound, strict=True):
        yield _judged(reference, day, before, _window(same))
        before = day


def _retrainings(findings: Sequence[Finding]) -> int:
    """Return how often the trigger would have fired, had it been asked after each day."""
    plan = SPEC.monitoring.model_copy(update={"schedule_days": None})
    history = History(usecase=USECASE, began=datetime(2013, 1, 1, tzinfo=UTC))
    fired = 0
    for one in findings:
        history = observe(history, one, plan, one.judged_at)
        fired += isinstance(decide(history, plan, one.judged_at), Fire)
    return fired


def _shifts(
    reference: Reference, sound: list[list[pl.DataFrame]], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    known, calibration = Days("flights", reference.rows, ()), _calibration(reference)
    print(f"no shift planted, smallest visible in standard deviations: {unseen(calibration)}")
    for shift in shifts(known, calibration):
        if shift.column not in NAMES:
            continue
        found = broken = 0
        for days in sound:
            findings = []
            for day, before in zip(days[_FAULTY], days, strict=False):
                values = shift.plant(_seen(day), reference.rows, rng).select(NAMES)
                moved = replaced(day, values.fill_null(float("nan")).to_numpy().astype(np.float32))
                findings.append(_judged(reference, moved, before, _window(day)))
            broken += sum(one.cause == "data_fault" for one in findings)
            blamed = [shift.column in one.blamed for one in findings if one.cause == "input_drift"]
            found += any(blamed)
        print(
            f"{shift.column:24} {shift.name:40} found in {found} of {len(sound)}; "
            f"days called broken: {broken}"
        )
        yield {
            "shift": shift.name, "column": shift.column, "stretches": len(sound), "found": found,
            "called_broken": broken,
        }  # fmt: skip


def _missed(result: dict[str, Any]) -> Iterator[str]:
    unchanged = result["unchanged"]
    if unchanged["causes"].get("data_fault", 0) > FAULTS_PER_DAY * unchanged["days"]:
        yield f"{unchanged['causes']} of {unchanged['days']} days without a change"
    for one in result["faults"]:
        if one["retrainings"]:
            yield f"{one['kind']} {one['name']}: {one['retrainings']} retrainings"
    for one in result["shifts"]:
        if one["called_broken"]:
            yield f"{one['shift']} of {one['column']}: {one['called_broken']} days called broken"
        if one["found"] < one["stretches"]:
            yield f"{one['shift']} of {one['column']}: {one['found']} of {one['stretches']} found"


if __name__ == "__main__":
    raise SystemExit(main())
