"""The process that replays past events as live traffic, with the event time of the data.

Before a request leaves, every feature row that was known by its event time has been pushed, and
none that was known later: so the online store is at each request what it would have been then.
Rows that become known while requests are open wait until those are answered.

It prints one JSON line about twice a second for who shows it, and leaves `answers.parquet`: the
client's own ledger, one row for each request that was sent. SIGTERM ends it in order: nothing more
is sent, and the ledger is written.
"""

import argparse
import asyncio
import itertools
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import uvloop

from feature_repo import catalog, stream
from feature_repo import store as stores
from local.load import Answer, Client, open_loop
from local.traffic import Traffic, traffic
from serving.gateway.answer import Answer as Scored

_REPORT_SECONDS: Final = 0.5
_RECENT: Final = 1000
"""Answers over which the running percentiles are taken."""
_OK: Final = 200
HOPS: Final = ("features_us", "inference_us", "decision_us", "total_us")


@dataclass
class Tally:
    """What has come back so far."""

    total: int
    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    degraded: int = 0
    fallback: int = 0
    positive: int = 0
    pushed: int = 0
    event_us: int = 0
    recent: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        if (scored := scored_of(answer)) is not None:
            self.answered += 1
            self.degraded += scored.degraded
            self.fallback += scored.fallback
            self.positive += scored.decision
            hops = (getattr(scored.latency, hop) / 1000 for hop in HOPS)
            self.recent.append((answer.seconds * 1000, *hops))
        elif answer.status:
            self.refused += 1
        else:
            self.lost += 1

    def line(self, seconds: float) -> dict[str, Any]:
        """Return the state as one line for who shows it; milliseconds."""
        values = np.array(self.recent) if self.recent else np.full((1, 1 + len(HOPS)), np.nan)
        names = ("client", *(hop.removesuffix("_us") for hop in HOPS))
        median, tail = np.percentile(values, (50, 99), axis=0)
        return {
            "seconds": seconds,
            "total": self.total,
            "sent": self.sent,
            "answered": self.answered,
            "refused": self.refused,
            "lost": self.lost,
            "degraded": self.degraded,
            "fallback": self.fallback,
            "positive": self.positive,
            "pushed": self.pushed,
            "event_time": datetime.fromtimestamp(self.event_us / 1e6, UTC).isoformat(),
            "p50": dict(zip(names, median.tolist(), strict=True)),
            "p99": dict(zip(names, tail.tolist(), strict=True)),
        }


DECODER: Final = msgspec.json.Decoder(Scored)


def scored_of(answer: Answer) -> Scored | None:
    """Return what a good answer says; None for any other, a body that is none included."""
    try:
        return DECODER.decode(answer.body) if answer.status == _OK else None
    except msgspec.DecodeError:
        return None


Feed = dict[int, list[tuple[str, pl.DataFrame]]]
"""Index of a request → what becomes known before it: view and rows."""


def updates(code: catalog.UseCaseCode, start: datetime, end: datetime, times: list[int]) -> Feed:
    """Return the feature rows that become known in `(start, end]`, by the request that follows.

    Args:
        code: The use case.
        start: What was known by then is in the online store already.
        end: The last moment.
        times: Event times of the requests, rising, in microseconds.
    """
    raw = code.read(datetime(1970, 1, 1, tzinfo=UTC), end)
    feed: Feed = {}
    for view, rows in stream.updates(code, raw, start, end).items():
        known = rows.select(
            pl.max_horizontal("created_timestamp", "event_timestamp").dt.epoch("us")
        )
        before = np.searchsorted(np.array(times), known.to_series().to_numpy(), side="left")
        parts = rows.with_columns(__before=pl.Series(before)).partition_by(
            "__before", as_dict=True, include_key=False
        )
        for (index,), part in parts.items():
            feed.setdefault(int(index), []).append((view, part))
    return feed


async def replay(
    client: Client,
    path: str,
    requests: Traffic,
    feed: Feed,
    push: Callable[[str, pl.DataFrame], object],
    per_second: float,
    goes_on: Callable[[], bool] = lambda: True,
) -> tuple[list[Answer], Tally]:
    """Send every request at its turn, each after the features known by then.

    Args:
        client: The gateway.
        path: Where it scores.
        requests: In the order of event time.
        feed: Feature rows, by the request that follows them.
        push: Writes rows of a view to the online store.
        per_second: Pace.
        goes_on: Whether another request is to be sent.
    """
    times, tally = requests.times, Tally(len(requests.times))
    idle = asyncio.Event()
    idle.set()
    started = reported = time.monotonic()

    async def before(index: int) -> None:
        nonlocal reported
        if known := feed.get(index):
            await idle.wait()  # an open request must not see what was known after it
            for view, rows in known:
                push(view, rows)
                tally.pushed += rows.height
        tally.sent += 1
        tally.event_us = times[index]
        idle.clear()
        if time.monotonic() - reported >= _REPORT_SECONDS:
            reported = time.monotonic()
            _say(tally.line(reported - started))

    def after(answer: Answer) -> None:
        tally.add(answer)
        if tally.answered + tally.refused + tally.lost == tally.sent:
            idle.set()

    bodies = itertools.takewhile(lambda _: goes_on(), requests.bodies())
    payloads = (client.request(path, body) for body in bodies)
    answers = await open_loop(client, payloads, per_second, before=before, after=after)
    _say(tally.line(time.monotonic() - started))
    return answers, tally


def ledger(requests: Traffic, answers: list[Answer]) -> pl.DataFrame:
    """Return the client's own ledger: one row for each request that was sent."""
    scored = [scored_of(answer) for answer in answers]
    rows = requests.rows.select("request_id", "event_timestamp").head(len(answers))
    return rows.with_columns(
        pl.Series("status", [a.status for a in answers], dtype=pl.Int32),
        pl.Series("ms", [a.seconds * 1000 for a in answers], dtype=pl.Float64),
        pl.Series("late_ms", [(a.sent - a.due) * 1000 for a in answers], dtype=pl.Float64),
        *(
            pl.Series(name, [getattr(s, name) if s else None for s in scored], dtype=kind)
            for name, kind in (
                ("version", pl.Int64),
                ("arm", pl.String),
                ("epoch", pl.Int64),
                ("score", pl.Float64),
                ("decision", pl.Boolean),
                ("degraded", pl.Boolean),
                ("fallback", pl.Boolean),
                ("reasons", pl.List(pl.String)),
            )
        ),
        *(
            pl.Series(hop, [getattr(s.latency, hop) if s else None for s in scored], dtype=pl.Int64)
            for hop in HOPS
        ),
    )


def _say(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Replay a window and leave the ledger."""
    parser = argparse.ArgumentParser(prog="python -m local.replay", description=__doc__)
    parser.add_argument("--usecase", required=True, help="a folder under usecases/")
    parser.add_argument("--start", required=True, type=datetime.fromisoformat, help="UTC")
    parser.add_argument("--end", required=True, type=datetime.fromisoformat, help="UTC")
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--gateway", required=True, help="http://host:port")
    parser.add_argument("--redis", required=True, help="redis://host:port/db, the online store")
    parser.add_argument("--data-root", required=True, help="data root with the Feast registry")
    parser.add_argument("--out", required=True, type=Path, help="Parquet file of the ledger")
    options = parser.parse_args()
    code = catalog.load(options.usecase)
    requests = traffic(code, options.start, options.end)
    feed = updates(code, options.start, options.end, requests.times)
    pusher = stream.Pusher(stores.open_store(options.data_root, options.redis))

    async def run() -> list[Answer]:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        async with Client(options.gateway) as client:
            path = f"/v1/{options.usecase}/score"
            answers, _ = await replay(
                client, path, requests, feed, pusher.write, options.rate,
                lambda: not stopped.is_set(),
            )  # fmt: skip
            return answers

    answers = uvloop.run(run())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ledger(requests, answers).write_parquet(options.out)


if __name__ == "__main__":
    main()
