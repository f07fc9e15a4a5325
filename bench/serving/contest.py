"""The contest: contenders in turn under the same load, and what each took.

A contender is an address, the requests in its own form, and the processes that work for it. Each
round runs all of them, so that a disturbance of the machine meets neighbours alike.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np

from bench.serving import processes
from bench.serving.generator import Job, Outcome
from mlplatform.errors import ServiceError, shorten

TOLERANCE: Final = 1e-6
"""Largest difference of two scores of the same vector; float32 and decimal text cost 6e-8."""

Score = Callable[[Any], float]
"""Takes the score out of a decoded answer."""


@dataclass(frozen=True)
class Contender:
    """One way to answer the requests."""

    name: str
    url: str
    path: str
    bodies: Path
    score: Score
    parts: dict[str, tuple[int, ...]]
    """Part → its processes: who is charged for the requests."""


@dataclass
class Run:
    """What one contender took in all rounds."""

    contender: Contender
    outcomes: list[Outcome] = field(default_factory=list)

    def percentile(self, share: float) -> list[float]:
        """Return a percentile of the latency of each round, milliseconds."""
        return [float(np.percentile(outcome.ms, share)) for outcome in self.outcomes]

    def pooled(self, share: float) -> float:
        """Return a percentile of the latency over all rounds, milliseconds."""
        return float(np.percentile([ms for one in self.outcomes for ms in one.ms], share))

    def cpu_ms(self) -> list[float]:
        """Return the CPU time per request of each round, all processes, milliseconds."""
        return [sum(one.cpu.values()) * 1000 / len(one.ms) for one in self.outcomes]

    def part_ms(self, part: str) -> float:
        """Return the CPU time per request of one part, median of the rounds, milliseconds."""
        return median(one.cpu[part] * 1000 / len(one.ms) for one in self.outcomes)

    def wall_ms(self) -> list[float]:
        """Return the wall time per request of each round, milliseconds."""
        return [one.seconds * 1000 / len(one.ms) for one in self.outcomes]

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(one.failed for one in self.outcomes)


def load(
    contender: Contender, *, rate: float = 0, warm: int, count: int, clients: int = 0
) -> Outcome:
    """Run one load in a process of its own: open loop at a rate, or closed with clients.

    Raises:
        ServiceError: The generator failed.
    """
    job = Job(
        url=contender.url,
        path=contender.path,
        bodies=str(contender.bodies),
        rate=rate,
        warm=warm,
        count=count,
        groups={name: list(pids) for name, pids in contender.parts.items()},
        clients=clients,
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.serving.generator"],
        input=msgspec.json.encode(job),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(
            f"the load on {contender.name} failed: {shorten(done.stderr.decode()[-500:])}"
        )
    return msgspec.json.decode(done.stdout, type=Outcome)


def scores(contender: Contender, count: int) -> np.ndarray[Any, Any]:
    """Return the scores of the first requests.

    Raises:
        ServiceError: One of them was not answered with a score.
    """
    found = load(contender, warm=0, count=count, clients=2)
    if found.failed:
        raise ServiceError(
            f"{contender.name} did not answer {found.failed} of {count} requests: "
            f"{shorten(found.bodies[0].decode(errors='replace'))}"
        )
    return np.array([contender.score(msgspec.json.decode(body)) for body in found.bodies])


def saturate(
    contenders: Sequence[Contender], *, rounds: int, seconds: float, clients: int
) -> list[Run]:
    """Keep each contender busy in turn, each round about as long for all of them."""
    runs = [Run(contender) for contender in contenders]
    counts = [clients * 10] * len(runs)
    for number in range(rounds + 1):  # the first only finds out how many requests fit
        for index, run in enumerate(runs):
            found = load(run.contender, warm=clients, count=counts[index], clients=clients)
            if number:
                run.outcomes.append(found)
            counts[index] = max(clients * 10, round(counts[index] / found.seconds * seconds))
    return runs


def contest(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    rate: float,
    warm: int,
    count: int,
    say: Callable[[str], None],
) -> list[Run]:
    """Run all contenders in each round; the order turns, so that each follows each."""
    runs = [Run(contender) for contender in contenders]
    for number in range(rounds):
        turned = runs[number % len(runs) :] + runs[: number % len(runs)]
        for run in turned:
            found = load(run.contender, rate=rate, warm=warm, count=count)
            run.outcomes.append(found)
        say(
            f"  round {number + 1} of {rounds}, p99 ms: "
            + ", ".join(f"{run.contender.name} {run.percentile(99)[-1]:.2f}" for run in runs)
        )
    return runs


def idle(contender: Contender, seconds: float) -> dict[str, float]:
    """Return what each part uses per second while nobody asks, milliseconds of CPU."""
    before = processes.sample(contender.parts)
    time.sleep(seconds)
    after = processes.sample(contender.parts)
    return {part: (after[part] - before[part]) * 1000 / seconds for part in before}
