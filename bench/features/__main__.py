"""Online feature reads beside Feast's: `python -m bench.features`, about two minutes.

Fifty features over five views of one entity, batches of 1, 10 and 100 random entities, the same
Redis, one process, contenders in turn; their values are compared before any time counts. Writes
`build/bench/features.json` and exits with 1 when values differ or a goal is missed.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import report
from bench.features import contenders, data

ROOT: Final = Path(__file__).resolve().parents[2]

ENTITIES: Final = 100_000
"""A million take ten times the writing: `--entities 1000000`."""

REPEATS: Final = 7
CALLS: Final = {1: 1000, 10: 1000, 100: 1000}
"""Timed calls of each contender in one repeat, by batch."""

SLOW_SHARE: Final = {1: 1, 10: 4, 100: 10}
"""Feast's calls take 2 ms at batch 10 and 10 ms at 100: it gets this fraction of the calls."""

GOALS: Final = {("feast", 1): 3.0, ("feast", 100): 20.0, ("bare", 1): 2 / 3, ("bare", 100): 2 / 3}
"""Peer's time over ours, for p50 and p99: a third, a twentieth, and 1.5 times the bare read."""

PEERS: Final = {
    "feast": "Feast get_online_features",
    "precomputed": "Feast precomputed vectors",
    "bare": "bare GET/MGET",
}


class DifferError(RuntimeError):
    """Two contenders read different values."""


def measure(
    entities: int = ENTITIES, repeats: int = REPEATS, calls: dict[int, int] | None = None
) -> list[report.Comparison]:
    """Fill a Redis of its own, compare the values, and time the contenders in turn.

    Args:
        entities: Entities written.
        repeats: Rounds in which each contender has its turn.
        calls: Timed calls of a turn, by batch.

    Raises:
        DifferError: Contenders read different values.
    """
    from local.redis_server import redis_server
    from mlplatform.clients.redis_sync import connect

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        with redis_server(root / "redis", guarded=False) as server:
            with connect(server.url) as redis:
                redis.execute("CONFIG", "SET", "maxmemory", 0)
            started = time.perf_counter()
            world = data.build(root / "data", server.url, entities)
            seconds = time.perf_counter() - started
            _say(f"wrote {entities:,} entities of {data.VIEWS} views in {seconds:.0f} s")
            reads = {name: make(world) for name, make in contenders.ALL.items()}
            _check(world, reads)
            results = []
            for batch, count in (calls or CALLS).items():
                results += _compare(world, reads, batch, count, repeats)
            return results


def _check(world: data.World, reads: dict[str, contenders.Read]) -> None:
    """Compare what all contenders read of the same entities, in batches of 1 and 100."""
    draw = np.random.default_rng(1)
    limit = min(data.PRECOMPUTED, world.entities)
    for batch in (1, 100):
        for _ in range(10):
            ids = draw.integers(limit, size=batch).tolist()
            expected = reads["ours"](ids)
            others = {
                "feast": contenders.of_feast(reads["feast"](ids), prefix=False),
                "precomputed": contenders.of_feast(reads["precomputed"](ids), prefix=True),
                "bare": contenders.of_strings(world, reads["bare"](ids)),
            }
            for name, values in others.items():
                if not np.array_equal(expected, values, equal_nan=True):
                    raise DifferError(f"{PEERS[name]} reads other values than ours of {ids[:5]}")
    _say(f"values are equal; {np.isnan(expected).mean():.1%} of them are null")


def _compare(
    world: data.World, reads: dict[str, contenders.Read], batch: int, count: int, repeats: int
) -> list[report.Comparison]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in reads}
    for repeat in range(-1, repeats):  # the first round warms up
        for name, read in reads.items():
            share = SLOW_SHARE[batch] if name in {"feast", "precomputed"} else 1
            found = _turn(world, name, read, batch, max(1, count // share), repeat)
            if repeat >= 0:
                times[name].append(found)
    results = []
    for place, quantile in enumerate(("p50", "p99")):
        mine = [found[place] for found in times["ours"]]
        for name, peer in PEERS.items():
            theirs = [found[place] for found in times[name]]
            title = f"features, batch {batch}, {quantile}, {peer}"
            results.append(report.compare(title, mine, theirs, "ms", GOALS.get((name, batch))))
    return results


def _turn(
    world: data.World, name: str, read: contenders.Read, batch: int, count: int, repeat: int
) -> tuple[float, float]:
    """Return the median and the 99th percentile of `count` reads, milliseconds."""
    limit = min(data.PRECOMPUTED, world.entities) if name == "precomputed" else world.entities
    draw = np.random.default_rng(100 * batch + repeat + 1)
    asked: list[Any] = [row.tolist() for row in draw.integers(limit, size=(count, batch))]
    taken = []
    gc.collect()  # nobody pays for what another contender left behind
    for ids in asked:
        started = time.perf_counter_ns()
        read(ids)
        taken.append(time.perf_counter_ns() - started)
    middle, high = np.percentile(taken, [50, 99])
    return float(middle) / 1e6, float(high) / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.features", description=__doc__)
    parser.add_argument("--entities", type=int, default=ENTITIES, help="entities in Redis")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="turns of each contender")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build/bench/features.json", help="where results go"
    )
    asked = parser.parse_args(arguments)
    try:
        results = measure(asked.entities, asked.repeats)
    except DifferError as error:
        _say(f"VALUES DIFFER: {error}")
        return 1
    report.write(asked.output, results)
    for one in results:
        _say(report.line(one))
    return 1 if any(one.met is False for one in results) else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
