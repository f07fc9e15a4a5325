"""One measurement in a process of its own: `python -m bench.pit.contender NAME FOLDER`.

Its last line is JSON: seconds of the build alone (imports, definitions and a run on ten labels
come before), peak resident memory in MiB of the whole process, and the rows that came out.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

THREADS: Final = 2
"""For all contenders alike; the process is bound to as many cores."""

Build = Callable[[Any], Any]


def main() -> None:
    """Build a training set and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(CONTENDERS))
    parser.add_argument("folder", type=Path, help="data set, from bench.pit.data")
    parser.add_argument("--output", type=Path, help="write the result there, as Parquet")
    asked = parser.parse_args()
    _bind()
    from bench.pit import data

    size, labels = data.load(asked.folder)
    build = CONTENDERS[asked.name](asked.folder, size)
    build(labels.head(10))
    started = time.perf_counter()
    table = build(labels)
    seconds = time.perf_counter() - started
    if asked.output:
        import pyarrow.parquet as pq

        pq.write_table(table, asked.output)
    found = {"seconds": seconds, "mib": _peak_mib(), "rows": table.num_rows}
    sys.stdout.write(json.dumps(found) + "\n")


def _peak_mib() -> float:
    """Return the peak resident memory of this program.

    Linux: not `ru_maxrss`, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _bind() -> None:
    """Give each engine the same two cores, before it starts its threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    import pyarrow as pa

    pa.set_cpu_count(THREADS)


def _ours(folder: Path, size: Any) -> Build:
    from bench.pit import stores

    store = stores.open_ours(folder, size)
    return lambda labels: store.get_historical_features(labels, stores.references(size)).to_arrow()


def _duckdb_store(folder: Path, size: Any) -> Build:
    from bench.pit import stores

    store = stores.open_duckdb(folder, size, THREADS)
    return _feast(store, size)


def _dask_store(folder: Path, size: Any) -> Build:
    import dask

    from bench.pit import stores

    dask.config.set(num_workers=THREADS)
    return _feast(stores.open_dask(folder, size), size)


def _feast(store: Any, size: Any) -> Build:
    from bench.pit import stores

    # Without late rows the condition would cost the peer time and change nothing.
    return lambda labels: store.get_historical_features(
        labels, stores.references(size), filter_by_created_timestamp=bool(size.late)
    ).to_arrow()


def _handwritten(folder: Path, size: Any) -> Build:
    """What a careful person writes without Feast: DuckDB's ASOF LEFT JOIN, once for each view."""
    import duckdb

    from bench.pit import data

    joins, columns = [], []
    for number in range(size.views):
        files = f"read_parquet('{folder}/offline/{data.view_name(number)}/*.parquet')"
        key, ttl = data.key(number), data.ttl(number)
        records = f"(FROM {files} SELECT *, event_timestamp AS known)"
        if size.late:
            # Exact with late rows: only a row that sets a new maximum of the event time can count.
            known = "greatest(event_timestamp, created_timestamp)"
            newest = f"max(event_timestamp) OVER (PARTITION BY {key} ORDER BY {known})"
            records = (
                f"(FROM {files} SELECT *, {known} AS known QUALIFY event_timestamp = {newest})"
            )
        joins.append(
            f"ASOF LEFT JOIN {records} v{number} ON l.{key} = v{number}.{key} "
            f"AND v{number}.known <= l.event_timestamp"
        )
        limit = f"l.event_timestamp - INTERVAL '{int(ttl.total_seconds())}' SECOND"
        columns += [
            f"CASE WHEN v{number}.event_timestamp >= {limit} THEN v{number}.{feature} END "
            f"AS {feature}"
            if ttl
            else f"v{number}.{feature}"
            for feature in data.features(number)
        ]
    query = f"SELECT l.*, {', '.join(columns)} FROM labels l {' '.join(joins)}"  # noqa: S608  # our own names
    connection = duckdb.connect(config={"threads": THREADS})

    def build(labels: Any) -> Any:
        connection.register("labels", labels)
        return connection.sql(query).to_arrow_table()

    return build


def _floor(folder: Path, size: Any) -> Build:
    """Read the columns that a build needs, and nothing else: what no join can be faster than."""
    import polars as pl

    from bench.pit import data

    def build(_labels: Any) -> Any:
        tables = [
            pl.read_parquet(f"{folder}/offline/{data.view_name(number)}/*.parquet")
            for number in range(size.views)
        ]
        return tables[-1].head(0).to_arrow()

    return build


CONTENDERS: Final[dict[str, Callable[[Path, Any], Build]]] = {
    "ours": _ours,
    "duckdb": _duckdb_store,
    "dask": _dask_store,
    "asof": _handwritten,
    "floor": _floor,
}


if __name__ == "__main__":
    main()
