"""The process that replays past events as live traffic, with the event time of the data.

Before a request leaves, every feature row that was known by its event time has been pushed, and
none that was known later: so the online store is at each request what it would have been then.
Rows that become known while requests are open wait until those are answered.

It is told how far to go, a stretch at a time: a line of JSON on its standard input says until when,
and which views get nothing meanwhile because their feed has stopped; what was held back is pushed
when the feed is there again. It prints one JSON line about twice a second for who shows it, the
last one of a stretch with `reached`. At the end of its input, or at SIGTERM, nothing more is sent,
and it leaves the client's own ledger: one row for each request that was sent.
"""

import argparse
import asyncio
import bisect
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
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
from local.tally import Tally, ledger
from local.traffic import Traffic, traffic

_REPORT_SECONDS: Final = 0.5


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


@dataclass(frozen=True)
class Stretch:
    """How far a replay goes on, and what its online store is not told meanwhile."""

    until: datetime
    withheld: tuple[str, ...] = ()


class Replay:
    """Sends the requests of a window at their turn, each after the features known by then.

    Args:
        client: The gateway.
        path: Where it scores.
        requests: In the order of event time.
        feed: Feature rows, by the request that follows them.
        push: Writes rows of a view to the online store.
        per_second: Pace.
        goes_on: Whether another request is to be sent.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        requests: Traffic,
        feed: Feed,
        push: Callable[[str, pl.DataFrame], object],
        per_second: float,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client, self._path, self._per_second = client, path, per_second
        self._times, self._bodies = requests.times, requests.bodies()
        self._feed, self._push, self._goes_on = feed, push, goes_on
        self._held_back: list[tuple[str, pl.DataFrame]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._reported = time.monotonic()
        self.tally = Tally(len(self._times))
        self.answers: list[Answer] = []

    async def run(self, stretch: Stretch) -> None:
        """Send what is left before the end of a stretch, and return when all is answered."""
        first = len(self.answers)
        last = bisect.bisect_left(self._times, int(stretch.until.timestamp() * 1_000_000))
        withheld = frozenset(stretch.withheld)
        self._write(self._released(withheld))
        started, before_it = time.monotonic(), self.tally.seconds

        async def before(number: int) -> None:
            index = first + number
            if known := self._feed.get(index):
                await self._idle.wait()  # an open request must not see what was known after it
                self._held_back += [item for item in known if item[0] in withheld]
                self._write([item for item in known if item[0] not in withheld])
            self.tally.sent += 1
            self.tally.event_us = self._times[index]
            self.tally.seconds = before_it + time.monotonic() - started
            self._idle.clear()
            if time.monotonic() - self._reported >= _REPORT_SECONDS:
                self._reported = time.monotonic()
                _say(self.tally.line())

        turns = itertools.islice(self._bodies, max(0, last - first))
        asked = itertools.takewhile(lambda _: self._goes_on(), turns)
        payloads = (self._client.request(self._path, body) for body in asked)
        self.answers += await open_loop(
            self._client, payloads, self._per_second, before=before, after=self._after
        )
        _say(self.tally.line() | {"reached": stretch.until.isoformat()})

    def _released(self, withheld: Collection[str]) -> list[tuple[str, pl.DataFrame]]:
        """Return what a feed that is there again delivers after its gap."""
        found = [item for item in self._held_back if item[0] not in withheld]
        self._held_back = [item for item in self._held_back if item[0] in withheld]
        return found

    def _write(self, known: list[tuple[str, pl.DataFrame]]) -> None:
        for view, rows in known:
            self._push(view, rows)
            self.tally.pushed += rows.height

    def _after(self, answer: Answer) -> None:
        self.tally.add(answer)
        if self.tally.answered + self.tally.refused + self.tally.lost == self.tally.sent:
            self._idle.set()


async def stretches(stopped: asyncio.Event) -> AsyncIterator[Stretch]:
    """Yield what the standard input asks for, until its end or a stop."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    ended = loop.create_task(stopped.wait())
    while not stopped.is_set():
        read = loop.create_task(lines.readline())
        await asyncio.wait({read, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not read.done() or not read.result():
            read.cancel()
            break
        yield msgspec.json.decode(read.result(), type=Stretch)
    ended.cancel()


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
            replay = Replay(
                client, path, requests, feed, pusher.write, options.rate,
                lambda: not stopped.is_set(),
            )  # fmt: skip
            async for stretch in stretches(stopped):
                await replay.run(stretch)
            return replay.answers

    answers = uvloop.run(run())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ledger(requests, answers).write_parquet(options.out)


if __name__ == "__main__":
    main()
