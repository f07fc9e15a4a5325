"""Callers of the gateway: an even pace of requests, each of another flight, and what came back."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, takewhile

import msgspec
import uvloop

from feature_repo.catalog import UseCaseCode
from local.load import Answer, Client, open_loop
from local.tally import scored_of
from local.traffic import rfc3339, traffic
from serving.gateway.answer import Answer as Scored
from tests.cluster.waiting import wait

_FLIGHTS = 9000
"""Flight numbers a day: after so many requests the day in the key is another one."""


@dataclass
class Answers:
    """What clients got."""

    all: list[Answer] = field(default_factory=list)

    @property
    def scored(self) -> list[tuple[Answer, Scored]]:
        return [(one, scored) for one in self.all if (scored := scored_of(one)) is not None]

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return sum(one.status == 0 for one in self.all)

    @property
    def refused(self) -> int:
        """Answers that are no score: another status than 200."""
        return len(self.all) - len(self.scored) - self.lost

    @property
    def by_version(self) -> dict[int, int]:
        """Answers by the version that gave them; 0: the rules."""
        found: dict[int, int] = {}
        for _, scored in self.scored:
            found[scored.version] = found.get(scored.version, 0) + 1
        return found


def requests(
    code: UseCaseCode, day: datetime, now: Callable[[], datetime], prefix: str
) -> Iterator[bytes]:
    """Yield requests without end: real flights of a day under numbers of their own, asked now."""
    known = list(traffic(code, day, day + timedelta(hours=24)).events())
    for number in count():
        event = known[number % len(known)]
        date = day + timedelta(days=number // _FLIGHTS)
        key = f"{date:%Y-%m-%d}-{event['carrier']}-{number % _FLIGHTS + 1}-{event['origin']}"
        yield msgspec.json.encode(
            event
            | {"flight_key": key, "request_id": f"{prefix}-{number}"}
            | {"event_timestamp": rfc3339(now())}
        )


@contextlib.contextmanager
def load(url: str, path: str, bodies: Iterator[bytes], per_second: float) -> Iterator[Answers]:
    """Send requests for the length of the block, and some before it and after it."""
    found, stop = Answers(), threading.Event()

    async def send() -> None:
        async with Client(url) as client:
            asked = takewhile(lambda _: not stop.is_set(), bodies)
            payloads = (client.request(path, body) for body in asked)
            await open_loop(client, payloads, per_second, after=found.all.append)

    def more() -> None:
        known = len(found.all)
        wait(lambda: len(found.all) >= known + per_second, 60)

    thread = threading.Thread(target=lambda: uvloop.run(send()), name="clients")
    thread.start()
    try:
        more()
        yield found
        more()
    finally:
        stop.set()
        thread.join()
