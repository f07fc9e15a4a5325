"""Simulated traffic: what both models would answer to each entity, whoever serves it.

A trace holds both potential outcomes of every entity and the band of its hash, so that each policy
sees the same entities and the same models through its own weights. Counts are drawn for cells of
one batch (a minute) and one band; losses one by one. An entity makes one request, and whether it
meets an error, an overrun or a large loss is independent of the others: what repeated requests do
is the business of the evidence reader and of the tests' own simulations, not of this one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EDGES: Final = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 80, 95, 100)
"""Upper ends of the bands of the hash, percent: every weight that some policy sets is one."""
BASE_RATES: Final = (0.001, 0.005, 0.01, 0.05)
"""Of errors and of overruns, each; run i has rate i modulo four."""
ENTITIES: Final = (4000, 800, 400, 200)
"""Expected in a batch, by base rate: 4 errors of the champion, at 5 % 10."""
LABELS: Final = (140, 60)
"""Entities of a batch whose label becomes known early, and late."""
DELAYS: Final = (5, 40)
"""After how many batches that is."""
LOSS_MARGIN: Final = 0.02
"""Of the Brier score, as the shipped use case has it."""

CHUNK: Final = 64
"""Batches drawn at once; a rollout that ends early needs no more."""

_WIDTHS: Final = np.diff(np.array((0, *EDGES))) / 100
_SHARED: Final = 0.5
"""Part of the rarer model's errors that strikes both models: broken requests."""
_TABLE: Final = 1 << 16
"""Labelled entities that losses are drawn from, with replacement: their means are known."""
_NOISE: Final = 0.15
"""Standard deviation of the champion's score around the true probability."""
_ALIKE: Final = 0.8
"""Correlation of both models' noise: they learned from much the same rows."""


@dataclass(frozen=True)
class Kind:
    """A class of challengers.

    Attributes:
        name: In tables.
        errors: Its error rate over the champion's; None: every answer is an error.
        overruns: The same of budget overruns.
        loss: Its mean Brier score minus the champion's.
        scores: How it comes to that loss.
        good: Whether it is to be promoted; None: either is right, only no false alarm counts.
        margin: Harm allowed to the error rate, over the champion's rate.
        shadow: Whether there is a shadow, which shows errors and losses before the canary does.
        pace: Entities and labels in a batch, over the usual: how finely one looks.
    """

    name: str
    errors: float | None = 1.0
    overruns: float = 1.0
    loss: float = 0.0
    scores: str = "alike"
    good: bool | None = False
    margin: float = 1.0
    shadow: bool = True
    pace: float = 1.0


KINDS: Final = (
    Kind("equal", good=None),
    Kind("better", errors=0.5, overruns=0.5, loss=-0.015, scores="sharper", good=True),
    Kind("error rate up", errors=2.0, margin=0.5),
    Kind("threefold errors, no shadow", errors=3.0, shadow=False, pace=0.25),
    Kind("slow", overruns=3.0),
    Kind("NaN output", errors=None),
    Kind("constant output", scores="constant"),
    Kind("one slice bad", loss=2 * LOSS_MARGIN, scores="slice"),
    Kind("bad on late labels", loss=2 * LOSS_MARGIN, scores="late"),
    Kind("miscalibrated", loss=2 * LOSS_MARGIN, scores="shifted"),
)
"""Each harmful one is worse by twice a margin or more."""


@dataclass(frozen=True)
class Losses:
    """Brier scores of both models on the same labelled entities; one row for each entity."""

    champion: Array
    early: Array
    """The challenger's where the label comes early."""
    late: Array


@cache
def losses(kind: Kind) -> Losses:
    """Return what the losses of a class are drawn from.

    The true probability is Beta(1.5, 5.3), mean 0.22; a score is that plus noise, clipped to
    [0, 1]. The loss is then moved, by one parameter found by bisection, until its mean differs from
    the champion's as the class says.
    """
    rng = np.random.default_rng(20130101)
    truth = rng.beta(1.5, 5.3, _TABLE)
    label = (rng.random(_TABLE) < truth).astype(np.float64)
    own, other = rng.standard_normal((2, _TABLE))
    noise = _ALIKE * own + np.sqrt(1 - _ALIKE**2) * other
    champion = (label - np.clip(truth + _NOISE * own, 0, 1)) ** 2
    alike = np.clip(truth + _NOISE * noise, 0, 1)
    slice_ = rng.random(_TABLE) < 0.1

    def moved(by: float) -> Array:
        score: Array
        match kind.scores:
            case "sharper":
                score = np.clip(truth + _NOISE * (1 - by) * noise, 0, 1)
            case "slice":
                score = np.where(slice_, alike + by * (1 - alike), alike)
            case "shifted" | "late":
                score = np.clip(alike + by, 0, 1)
            case _:
                score = alike
        return np.square(label - score)

    equal = moved(0.0)
    wanted = kind.loss * (sum(LABELS) / LABELS[1] if kind.scores == "late" else 1.0)
    if kind.scores == "constant":
        found = (label - 0.9) ** 2
    elif kind.loss:
        found = moved(_root(lambda by: float((moved(by) - champion).mean()), wanted))
    else:
        found = equal
    return Losses(champion, equal if kind.scores == "late" else found, found)


def _root(of: Callable[[float], float], wanted: float) -> float:
    """Return where a monotone function of [0, 1] takes a value."""
    low, high = 0.0, 1.0
    rising = of(high) > of(low)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if (of(middle) < wanted) == rising else (low, middle)
    return low


class Trace:
    """One rollout's entities; batches are drawn when they are asked for.

    Batch 0 is the first of the rollout, for every policy.

    `counts[t, k]` and `early[t, k]`, `late[t, k]` are sums over the batches before t and the bands
    below the k-th edge, so that any arm of any span is a difference. Their last axis:
    counts: entities, champion's errors, challenger's errors, champion's overruns, challenger's
    overruns, and of the difference of errors (challenger minus champion) its sum and its squares;
    early, late: labels, champion's sum and squares, challenger's sum and squares, and those of the
    difference.
    """

    def __init__(self, kind: Kind, base: float, seed: tuple[int, ...]) -> None:
        self.kind = kind
        self.base = base
        """Champion's rate of errors, and of overruns."""
        self._rng = np.random.default_rng(seed)
        self._losses = losses(kind)
        empty = np.zeros((1, len(EDGES) + 1, 7))
        self.counts, self.early, self.late = empty, empty, empty

    @property
    def batches(self) -> int:
        """Batches drawn by now."""
        return len(self.counts) - 1

    def reach(self, batches: int) -> None:
        """Draw until there are so many batches."""
        while self.batches < batches:
            self.counts = _onto(self.counts, self._draw_counts())
            self.early = _onto(self.early, self._draw_losses(LABELS[0], self._losses.early))
            self.late = _onto(self.late, self._draw_losses(LABELS[1], self._losses.late))

    def _draw_counts(self) -> Array:
        rng, shape = self._rng, (CHUNK, len(EDGES))
        cells = np.empty((*shape, 7))
        expected = self.kind.pace * ENTITIES[BASE_RATES.index(self.base)]
        entities = rng.poisson(expected * _WIDTHS, shape)
        rate = 1.0 if self.kind.errors is None else self.base * self.kind.errors
        both = max(_SHARED * min(self.base, rate), self.base + rate - 1)
        shared = rng.binomial(entities, both)
        champions = rng.binomial(entities - shared, max(0.0, self.base - both) / (1 - both))
        others = min(1.0, (rate - both) / (1 - self.base))
        challengers = rng.binomial(entities - shared - champions, others)
        cells[..., 0] = entities
        cells[..., 1] = shared + champions
        cells[..., 2] = shared + challengers
        cells[..., 3] = rng.binomial(entities, self.base)
        cells[..., 4] = rng.binomial(entities, self.base * self.kind.overruns)
        cells[..., 5] = challengers - champions
        cells[..., 6] = challengers + champions
        return cells

    def _draw_losses(self, usual: int, challenger: Array) -> Array:
        labels = round(self.kind.pace * usual)
        count = CHUNK * labels
        rows = self._rng.integers(0, _TABLE, count, dtype=np.uint16)
        bands = _BAND_OF[self._rng.integers(0, 100, count, dtype=np.uint8)]
        cells = np.repeat(np.arange(CHUNK) * len(EDGES), labels) + bands
        old, new = self._losses.champion[rows], challenger[rows]
        gap = new - old
        sums = np.empty((CHUNK * len(EDGES), 7))
        for place, weight in enumerate((None, old, old * old, new, new * new, gap, gap * gap)):
            sums[:, place] = np.bincount(cells, weight, len(sums))
        return sums.reshape(CHUNK, len(EDGES), 7)


_BAND_OF: Final = np.searchsorted(np.array(EDGES), np.arange(100), side="right")
"""Band of a hash, by its percent."""


def edge(weight: float) -> int:
    """Return how many bands lie below a weight, which must be the end of one."""
    return 0 if weight == 0 else EDGES.index(round(weight * 100)) + 1


def _onto(sums: Array, cells: Array) -> Array:
    """Return the sums with more batches: cumulated over batches and over bands."""
    more = np.zeros((len(cells), len(EDGES) + 1, cells.shape[-1]))
    np.cumsum(np.cumsum(cells, axis=0), axis=1, out=more[:, 1:])
    return np.concatenate([sums, sums[-1] + more])
