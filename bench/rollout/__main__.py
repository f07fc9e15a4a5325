"""Rollouts that decide, simulated: `python -m bench.rollout` (`make bench-rollout`), minutes.

Ten classes of challengers, ten thousand rollouts each, at four base rates: the core as it serves,
and beside it on the same traces Argo Rollouts' and Flagger's documented rules and a z-test that is
looked at every minute. Writes `build/bench/rollout.json` and a page with plots beside it; exits
with 1 when something that was asked for is missed. The same seed gives the same rollouts, however
many processes run them.
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.rollout import tables
from bench.rollout.report import write_report
from bench.rollout.simulate import Outcome, plan, series
from bench.rollout.traffic import BASE_RATES, KINDS

ROOT: Final = Path(__file__).resolve().parents[2]
QUICK: Final = 200
_PART: Final = 50
"""Rollouts that a process takes at once."""
_PATHS: Final = 8
"""Rollouts of each class whose e-values are kept look by look."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    runs = QUICK if asked.quick else asked.runs
    if runs < 1:
        parser.error("--runs must be at least 1")
    started = time.perf_counter()
    outcomes = run(runs, asked.seed, asked.processes)
    seconds = time.perf_counter() - started
    rows = tables.rows(outcomes)
    requirements = list(tables.requirements(outcomes))
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    _write(asked.output, asked.seed, runs, rows, requirements)
    page = asked.output.with_suffix(".html")
    write_report(page, outcomes, rows, requirements)
    for line in tables.lines(rows, requirements):
        print(line)
    print(f"wrote {asked.output} and {page.name} after {seconds:.0f} s")
    return 1 if any(one.met is False for one in requirements) else 0


def run(runs: int, seed: int, processes: int) -> list[Outcome]:
    """Return the outcomes of all classes, in order of class and number."""
    parts = [
        (kind, start, min(start + _PART, runs))
        for start in range(0, runs, _PART)
        for kind in range(len(KINDS))
    ]
    found: dict[tuple[int, int, int], list[Outcome]] = {}
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(processes, mp_context=context) as pool:
        task = bar.add_task("rollouts", total=runs * len(KINDS))
        waiting = {pool.submit(series, *part, seed, _PATHS): part for part in parts}
        for done in as_completed(waiting):
            part = waiting.pop(done)
            found[part] = done.result()
            bar.advance(task, len(found[part]))
    return [one for part in sorted(found) for one in found[part]]


def _write(
    path: Path,
    seed: int,
    runs: int,
    rows: Sequence[tables.Row],
    requirements: Sequence[tables.Requirement],
) -> None:
    found = {
        "seed": seed,
        "runs": runs,
        "plan": plan(KINDS[0], BASE_RATES[2]).model_dump(mode="json"),
        "requirements": [
            asdict(one) | {"value": _finite(one.value), "high": _finite(one.high)}
            for one in requirements
        ],
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: float) -> float | None:
    """Return the value; null where it is infinite, which JSON cannot say."""
    return value if math.isfinite(value) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.rollout", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="rollouts of each class")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rollouts of each class")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="that run at once"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build/bench/rollout.json", help="where results go"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
