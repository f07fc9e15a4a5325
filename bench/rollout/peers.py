"""What others would have decided on the same trace: rules as their manuals give them.

Each policy moves its own weights over the same entities and sees what it would see there: of the
canary alone (Argo Rollouts, Flagger), or of both arms (the z-test). A batch is a minute. Nobody of
them sees the loss of matured labels but the z-test, which is given it. None waits for evidence:
who has not failed by the end is promoted.

Rules and numbers are those of the manuals' first examples:
- Argo Rollouts, docs/features/analysis.md: setWeight 20, 40, 60, 80, a pause of 10 minutes each;
  in the background successCondition `result >= 0.95` on the success rate of the canary's last five
  minutes, interval 5m, failureLimit 3: "and there are three such measurements, the analysis is
  considered Failed". It measures no latency there.
- Flagger, docs/gitbook/usage/how-it-works.md and metrics.md: interval 1m, threshold 10, stepWeight
  5, maxWeight 50; request-success-rate min 99, request-duration max 500 (ms, P99). A failed check
  halts the advance, the tenth rolls back. Here the budget is the limit of duration, so P99 is above
  it where more than 1 % of the requests overran.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final, Literal

import numpy as np

from bench.rollout.traffic import DELAYS, Trace, edge

Result = Literal["promoted", "rolled back", "held"]


@dataclass(frozen=True, slots=True)
class Ending:
    """What a policy made of a trace.

    Attributes:
        result: How it ended.
        batches: After how many since the start.
        spoiled: Errors and overruns of the canary on top of the champion's on the same entities.
        answers: All answers until then, from the canary's first on.
    """

    result: Result
    batches: int
    spoiled: float
    answers: float


class _Canary:
    """What a policy's canary sees of a trace, minute by minute."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._spoiled = 0.0

    def minute(self, number: int, weight: float) -> tuple[float, float, float]:
        """Return the canary's entities, errors and overruns of one minute; the first is 1."""
        self._trace.reach(number)
        counts, below = self._trace.counts, edge(weight)
        found = (counts[number, below] - counts[number - 1, below]).tolist()
        self._spoiled += found[2] - found[1] + found[4] - found[3]
        return found[0], found[2], found[4]

    def ending(self, result: Result, number: int) -> Ending:
        answers = float(self._trace.counts[number, -1, 0])
        return Ending(result, number, self._spoiled, answers)


def argo(trace: Trace, least: float) -> Ending:
    """Argo Rollouts' background analysis with a success rate of at least `least`."""
    weights, pause, interval, limit = (0.2, 0.4, 0.6, 0.8), 10, 5, 3
    canary, failures = _Canary(trace), 0
    entities = errors = 0.0
    for minute in range(1, pause * len(weights) + 1):
        more, failed, _ = canary.minute(minute, weights[(minute - 1) // pause])
        entities, errors = entities + more, errors + failed
        if minute % interval == 0:
            failures += entities > 0 and 1 - errors / entities < least
            entities = errors = 0.0
        if failures >= limit:
            return canary.ending("rolled back", minute)
    return canary.ending("promoted", pause * len(weights))


def flagger(trace: Trace) -> Ending:
    """Flagger's canary analysis with its built-in checks."""
    step, highest, threshold = 5, 50, 10
    canary, weight, failures, minute = _Canary(trace), step, 0, 0
    while True:
        minute += 1
        entities, errors, overruns = canary.minute(minute, weight / 100)
        if entities and (1 - errors / entities < 0.99 or overruns / entities > 0.01):
            failures += 1
            if failures >= threshold:
                return canary.ending("rolled back", minute)
        elif weight >= highest:
            return canary.ending("promoted", minute)
        else:
            weight += step


PEEKED_BATCHES: Final = 20
"""That the z-test stays at each weight."""


def peeked(trace: Trace, weights: tuple[float, ...]) -> Ending:
    """A z-test of all data so far, looked at every minute: rolled back at the first p < 0.05.

    Two-sided tests of errors, of overruns and of the loss, in the direction of harm; the rollout's
    own weights for `PEEKED_BATCHES` minutes each.
    """
    canary = _Canary(trace)
    starts: list[tuple[int, float]] = []
    end = PEEKED_BATCHES * len(weights)
    for minute in range(1, end + 1):
        weight = weights[(minute - 1) // PEEKED_BATCHES]
        if (minute - 1) % PEEKED_BATCHES == 0:
            starts.append((minute - 1, weight))
        canary.minute(minute, weight)
        if max(_scores(trace, starts, minute)) > 1.96:
            return canary.ending("rolled back", minute)
    return canary.ending("promoted", end)


def _scores(trace: Trace, starts: list[tuple[int, float]], now: int) -> tuple[float, float, float]:
    """Return the z-scores of errors, overruns and loss, challenger's minus champion's."""
    counts, labels = np.zeros((2, 7)), np.zeros((2, 7))
    for place, (start, weight) in enumerate(starts):
        end = now if place + 1 == len(starts) else starts[place + 1][0]
        bands = [edge(weight), -1]
        counts += trace.counts[end, bands] - trace.counts[start, bands]
        for sums, delay in ((trace.early, DELAYS[0]), (trace.late, DELAYS[1])):
            if min(end, now - delay) > start:
                labels += sums[min(end, now - delay), bands] - sums[start, bands]
    ours, theirs = counts[0].tolist(), (counts[1] - counts[0]).tolist()
    loss, other = labels[0].tolist(), (labels[1] - labels[0]).tolist()
    if trace.kind.errors is None:
        loss = [0.0] * 7
    return (
        _z(ours[0], ours[2], ours[2], theirs[0], theirs[1], theirs[1]),
        _z(ours[0], ours[4], ours[4], theirs[0], theirs[3], theirs[3]),
        _z(loss[0], loss[3], loss[4], other[0], other[1], other[2]),
    )


def _z(n: float, total: float, squares: float, m: float, other: float, others: float) -> float:
    """Return Welch's statistic of two means; 0 where it has none."""
    if min(n, m) < 1:
        return 0.0
    mean, champion = total / n, other / m
    variance = (squares / n - mean**2) / n + (others / m - champion**2) / m
    return (mean - champion) / sqrt(variance) if variance > 0 else 0.0
