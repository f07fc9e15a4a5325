"""The training-set build beside its peers: `python -m bench.pit`, about four minutes.

Same data, same two cores, runs in turn, each in a process of its own; the outputs are compared row
by row before any time counts. Writes `build/bench/pit.json` and exits with 1 when outputs differ
or a goal is missed.

Peers: Feast's `duckdb` store, a hand-written DuckDB ASOF LEFT JOIN on the same Parquet, and Feast's
`dask` store at a size that it can finish, where the label rows that it loses are counted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from bench import report
from bench.pit import data
from bench.pit.contender import THREADS

ROOT: Final = Path(__file__).resolve().parents[2]
GOAL: Final = 5.0
"""Times faster than Feast's duckdb store, at 5M rows a view, 500k labels and 3 views."""

PEERS: Final = ("duckdb", "asof", "dask")
DASK_SHARE: Final = 25
"""Dask holds labels x history of a key in memory: it gets this fraction of the size."""

_TIMEOUT: Final = 900
"""Seconds for one measurement: a peer that needs more is reported as failed."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What one process took."""

    seconds: float
    mib: float
    rows: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    asked = _parser().parse_args(arguments)
    size = data.Size(asked.feature_rows, asked.labels, asked.views, asked.parts, asked.late)
    small = data.Size(
        max(1000, asked.feature_rows // DASK_SHARE),
        max(200, asked.labels // DASK_SHARE),
        asked.views,
        asked.parts,
        asked.late,
    )
    started = time.perf_counter()
    results: list[report.Comparison] = []
    wanted = [peer for peer in PEERS if peer in asked.peers]
    fast = [peer for peer in wanted if peer != "dask"]
    differ = _bench(size, fast, asked, results, goal=GOAL)
    if "dask" in wanted:
        _bench(small, ["dask"], asked, results, goal=None)
    report.write(asked.output, results)
    for one in results:
        _say(report.line(one))
    _say(f"wrote {asked.output} after {time.perf_counter() - started:.0f} s")
    return 1 if differ or any(one.met is False for one in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.pit", description=__doc__)
    parser.add_argument("--feature-rows", type=int, default=5_000_000, help="rows of each view")
    parser.add_argument("--labels", type=int, default=500_000, help="label rows")
    parser.add_argument("--views", type=int, default=3, help="feature views")
    parser.add_argument("--parts", type=int, default=1, help="files of each view")
    parser.add_argument("--late", type=float, default=0.0, help="share of rows that arrive late")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each contender")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="who takes part")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build/bench/pit.json", help="where results go"
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / "build/bench/data", help="where generated data is kept"
    )
    return parser


def _bench(
    size: data.Size,
    peers: Sequence[str],
    asked: argparse.Namespace,
    results: list[report.Comparison],
    goal: float | None,
) -> bool:
    """Compare outputs, then times, at one size; return whether an output that must agree does not.

    Dask's losses are its own: its remaining rows must agree.
    """
    _say(
        f"{size.feature_rows:,} rows in each of {size.views} views, {size.labels:,} labels: "
        f"{'found' if (asked.data / size.folder / 'size.json').exists() else 'generating'} data"
    )
    folder = data.ensure(size, asked.data)
    differ, lost = _outputs_differ(folder, peers, size)
    times: dict[str, list[Measure]] = {name: [] for name in ("ours", *peers, "floor")}
    for repeat in range(asked.repeats):
        for name, measures in times.items():
            measures.append(_measure(name, folder))
            _say(
                f"  repeat {repeat + 1} of {asked.repeats}: {name} "
                f"{measures[-1].seconds:.3f} s, {measures[-1].mib:.0f} MiB"
            )
    ours = times["ours"]
    at = f"{size.feature_rows} rows x {size.labels} labels x {size.views} views"
    seconds = [one.seconds for one in ours]
    for peer in peers:
        theirs = [one.seconds for one in times[peer]]
        wanted = goal if peer == "duckdb" else None
        results.append(report.compare(f"{peer}, {at}", seconds, theirs, "s", wanted))
        memory = [one.mib for one in ours]
        peers_memory = [one.mib for one in times[peer]]
        results.append(report.compare(f"{peer}, peak memory, {at}", memory, peers_memory, "MiB"))
        results.append(
            report.compare(f"{peer}, label rows lost, {at}", [0.0], [float(lost[peer])], "rows")
        )
    floor = [one.seconds for one in times["floor"]]
    results.append(report.compare(f"floor (reading the columns), {at}", seconds, floor, "s"))
    return differ


def _outputs_differ(
    folder: Path, peers: Sequence[str], size: data.Size
) -> tuple[bool, dict[str, int]]:
    """Compare each peer's rows with ours; return whether any differ, and the rows each lost."""
    differ = False
    lost: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        outputs = {}
        for name in ("ours", *peers):
            path = Path(scratch) / f"{name}.parquet"
            _measure(name, folder, output=path)
            outputs[name] = path
        ours = _comparable(outputs["ours"], size)
        found = [column for column in ours.columns if column != "label_id"]
        share = 1 - ours.select(found).null_count().sum_horizontal().item() / (
            max(1, ours.height) * len(found)
        )
        _say(f"  ours: {ours.height:,} rows, {share:.1%} of the values found")
        for peer in peers:
            theirs = _comparable(outputs[peer], size)
            lost[peer] = size.labels - theirs.height
            kept = ours.join(theirs.select("label_id"), on="label_id", how="semi")
            same = kept.equals(theirs, null_equal=True)
            # Dask drops one of two labels with the same key and time, and expired ones.
            differ |= not same or (peer != "dask" and lost[peer] != 0)
            verdict = "equal to ours" if same else "DIFFERENT from ours"
            _say(f"  {peer}: {theirs.height:,} rows ({lost[peer]:,} lost), {verdict}")
    return differ, lost


def _comparable(path: Path, size: data.Size) -> pl.DataFrame:
    """Return labels and features in one order and type; NaN and null both mean absent."""
    frame = pl.read_parquet(path)
    features = [name for number in range(size.views) for name in data.features(number)]
    values = [pl.col(name).cast(pl.Float64).fill_nan(None) for name in features]
    return frame.select(pl.col("label_id").cast(pl.Int64), *values).sort("label_id")


def _measure(name: str, folder: Path, output: Path | None = None) -> Measure:
    command = [sys.executable, "-m", "bench.pit.contender", name, str(folder)]
    if output is not None:
        command += ["--output", str(output)]
    threads = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS"), str(THREADS))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | threads,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} on {folder} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Measure(**found)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
