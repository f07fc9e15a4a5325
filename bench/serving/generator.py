"""The load, in a process of its own: `python -m bench.serving.generator` with a job on stdin.

Open loop at a fixed rate, latency from the intended moment. The client is `local.load`'s; the
schedule is finer than its own, because a loop's timers have steps of a millisecond and an answer
takes less: the last two are waited for by polling. The warm-up is a run of its own before the
measured one. Around the measured run it reads the CPU time of the processes that it is told, and
its own, so that a contender is charged for exactly those requests.

With `clients` it is a closed loop instead, each of them sending as soon as it has its answer: that
says what a request costs a busy server, and nothing of latency.
"""

import asyncio
import gc
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from bench.serving import processes
from local.load import Answer, Client

_POLLED_SECONDS: Final = 0.002
"""Before each request; two steps of the loop's timers."""


class Job(msgspec.Struct):
    """What to send, and whose CPU time to read."""

    url: str
    path: str
    bodies: str
    """File of JSON bodies, one a line, sent in turn."""
    rate: float
    """Requests per second; in a closed loop without meaning."""
    warm: int
    """Requests before the measured ones."""
    count: int
    groups: dict[str, list[int]]
    """Name → processes that are charged."""
    clients: int = 0
    """0: open loop; otherwise that many send one after another."""


class Outcome(msgspec.Struct):
    """What came back."""

    ms: list[float]
    """Latency of each request from its intended moment, milliseconds."""
    late_ms: list[float]
    """How late the generator itself was, milliseconds; part of the latency."""
    failed: int
    """Answers other than 200, and requests without one."""
    cpu: dict[str, float]
    """Name → CPU seconds during the measured requests."""
    own_cpu: float
    seconds: float
    """From the first request to the last answer."""
    strangers: float
    """CPU used meanwhile by everything else on the machine, in cores."""
    bodies: list[bytes]
    """The answers to the first pass over the different requests, in order."""


async def _run(job: Job, bodies: list[bytes]) -> Outcome:
    async with Client(job.url) as client:
        payloads = [client.request(job.path, body) for body in bodies]
        await _load(client, payloads, job.warm, job)
        gc.collect()
        gc.disable()  # the generator's own pauses are nobody's latency
        started, machine = time.monotonic(), processes.machine_seconds()
        before, own = processes.sample(job.groups), _own()
        answers = await _load(client, payloads, job.count, job)
        own = _own() - own
        after = processes.sample(job.groups)
        seconds, machine = time.monotonic() - started, processes.machine_seconds() - machine
        cpu = {name: after[name] - before[name] for name in before}
    return Outcome(
        ms=[answer.seconds * 1000 for answer in answers],
        late_ms=[(answer.sent - answer.due) * 1000 for answer in answers],
        failed=sum(answer.status != 200 for answer in answers),
        cpu=cpu,
        own_cpu=own,
        seconds=seconds,
        strangers=max(0.0, machine - own - sum(cpu.values())) / seconds,
        bodies=[answer.body for answer in answers[: len(bodies)]],
    )


async def _load(client: Client, payloads: Sequence[bytes], count: int, job: Job) -> list[Answer]:
    if job.clients:
        return await _saturate(client, payloads, count, job.clients)
    return await _send(client, payloads, count, job.rate)


async def _saturate(
    client: Client, payloads: Sequence[bytes], count: int, clients: int
) -> list[Answer]:
    """Send as fast as this many clients get their answers; return the answers in order."""
    left, answers = iter(range(count)), []

    async def ask() -> None:
        for index in left:  # the clients share it
            payload = payloads[index % len(payloads)]
            answers.append(await _one(client, payload, index, time.monotonic()))

    await asyncio.gather(*(ask() for _ in range(clients)))
    return sorted(answers, key=lambda answer: answer.index)


async def _send(client: Client, payloads: Sequence[bytes], count: int, rate: float) -> list[Answer]:
    """Send the payloads in turn on an even schedule; return the answers in order."""
    tasks = []
    start = time.monotonic() + 0.05
    for index in range(count):
        due = start + index / rate
        if (wait := due - _POLLED_SECONDS - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        while time.monotonic() < due:  # noqa: ASYNC110 (a timer would be late)
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(_one(client, payloads[index % len(payloads)], index, due)))
    return list(await asyncio.gather(*tasks))


async def _one(client: Client, payload: bytes, index: int, due: float) -> Answer:
    sent = time.monotonic()
    status, body = await client.exchange(payload)
    return Answer(index, status, body, due, sent, time.monotonic())


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the job of stdin and print the outcome as JSON."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    bodies = Path(job.bodies).read_bytes().splitlines()
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_run(job, bodies))))


if __name__ == "__main__":
    main()
