"""The stand-in of a rollout's driver: brings routes into force late, and sums up evidence.

It gives the machine what `serving/rollout/evidence.py` would read from the prediction log, from
differences of a trace's sums instead of rows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bench.rollout.traffic import DELAYS, Array, Trace, edge
from mlplatform.contracts.rollout import (
    Counts,
    Moments,
    Pair,
    Routed,
    Share,
    Stage,
    Statistics,
    Version,
)
from serving.rollout.sequential import wald_events

USECASE: Final = "simulated"
CHAMPION: Final = Version(version=1, digest="sha256:champion")
CHALLENGER: Final = Version(version=2, digest="sha256:challenger")

_RATES: Final = ("error_rate", "budget_overrun_rate")
_COLUMNS: Final = 7
"""Of a trace's sums."""


@dataclass(slots=True)
class _Sums:
    """What one span has shown: a trace's columns, of the challenger's bands and of the others."""

    ours: list[float]
    theirs: list[float]
    labels: list[float]
    other_labels: list[float]
    stage: Stage | None
    """None: the challenger had no share, or all."""


@dataclass(slots=True)
class _Span:
    """Batches under one route; `end` is None while it is in force."""

    start: int
    routed: Routed
    below: int
    """Bands that are the challenger's."""
    end: int | None = None
    whole: _Sums | None = None
    """Sums that can no longer change: it is over, and all labels are known."""


class Driver:
    """Serves a trace batch by batch.

    Args:
        trace: Whose entities come.
        lag: Batches after which gateways follow a route that was asked for; all at once.
        recent: Batches whose champion's rates are the recent ones.
    """

    def __init__(self, trace: Trace, lag: int, recent: int) -> None:
        self._trace = trace
        self._lag = lag
        self._recent = recent
        self._scored = trace.kind.errors is not None  # what is no number has no loss
        self._spans: list[_Span] = []
        self._asked: dict[int, int] = {}
        """By epoch, the first batch before which it was asked for."""
        self._champion = [(0, 0, 0)]
        """Entities, errors and overruns of the champion's arm by the end of each batch."""

    @property
    def batches(self) -> int:
        """Batches served by now."""
        return len(self._champion) - 1

    @property
    def acknowledged(self) -> int:
        """Epoch that every gateway follows."""
        return self._spans[-1].routed.epoch if self._spans else 0

    def serve(self, routes: tuple[Routed, ...]) -> None:
        """Serve one more batch, by the newest route that has reached the gateways."""
        now = self.batches
        if routes[-1].epoch != self.acknowledged:
            for routed in routes:
                self._asked.setdefault(routed.epoch, now)
            known = [r for r in routes if self._asked[r.epoch] + self._lag <= now] or routes[:1]
            if self.acknowledged != known[-1].epoch:
                if self._spans:
                    self._spans[-1].end = now
                self._spans.append(_Span(now, known[-1], edge(known[-1].weight)))
        self._trace.reach(now + 1)
        batch = self._trace.counts[now + 1] - self._trace.counts[now]
        served = (batch[-1] - batch[self._spans[-1].below]).tolist()
        entities, errors, overruns = self._champion[-1]
        self._champion.append(
            (entities + int(served[0]), errors + int(served[1]), overruns + int(served[3]))
        )

    def statistics(self, now: datetime) -> Statistics:
        """Return what the predictions have shown by now."""
        errors, losses, stages = [0.0] * 3, [0.0] * 3, []
        before = self.batches
        for span in self._spans:
            sums = self._sums(span)
            if span.routed.shadow:  # of what the champion answered
                errors = _plus_pairs(errors, sums.theirs)
                losses = _plus_pairs(losses, sums.other_labels)
            if sums.stage is not None:
                before = min(before, span.start)
                stages.append(sums.stage)
        paired = {"error_rate": _moments(*errors)}
        if self._scored:
            paired["loss"] = _moments(*losses)
        labelled = self._scored and self.batches > DELAYS[0]
        return Statistics(
            usecase=USECASE,
            number=1,
            version=CHALLENGER.version,
            digest=CHALLENGER.digest,
            at=now,
            newest=dict.fromkeys((*_RATES, "loss") if labelled else _RATES, now),
            stages=tuple(stages),
            paired=paired,
            baseline=self._shares(0, before),
            recent=self._shares(max(0, self.batches - self._recent), self.batches),
        )

    def information(self, alpha: float) -> float:
        """Return the errors counted by now, each over the number that Wald's bound asks for.

        Where the weight never changed this is errors over Wald's bound; 1 is the best that any
        test can do on average.
        """
        ratio = self._trace.kind.errors
        if ratio is None or ratio <= 1:
            return float("nan")
        stages = [sums.stage for span in self._spans if (sums := self._sums(span)).stage]
        return sum(
            (stage.events["error_rate"].champion + stage.events["error_rate"].challenger)
            / wald_events(ratio, stage.weight, alpha)
            for stage in stages
            if stage is not None
        )

    def spoiled(self) -> tuple[float, float]:
        """Return `Ending.spoiled` and `Ending.answers` by now."""
        errors = answers = 0.0
        for span in self._spans:
            sums = self._sums(span)
            if sums.stage is not None:
                errors += sums.ours[2] - sums.ours[1] + sums.ours[4] - sums.ours[3]
                answers += sums.ours[0] + sums.theirs[0]
        return errors, answers

    def _sums(self, span: _Span) -> _Sums:
        if span.whole is not None:
            return span.whole
        trace, now, start, below = self._trace, self.batches, span.start, span.below
        end = now if span.end is None else span.end
        ours, theirs = _between(trace.counts, start, end, below)
        labels, others = [0.0] * _COLUMNS, [0.0] * _COLUMNS
        for of, delay in ((trace.early, DELAYS[0]), (trace.late, DELAYS[1])):
            known = min(end, now - delay)
            if known > start:
                more, other = _between(of, start, known, below)
                labels = [a + b for a, b in zip(labels, more, strict=True)]
                others = [a + b for a, b in zip(others, other, strict=True)]
        stage = self._stage(span.routed, ours, theirs, labels, others) if below else None
        found = _Sums(ours, theirs, labels, others, stage)
        if span.end is not None and now - max(DELAYS) >= end:
            span.whole = found
        return found

    def _stage(
        self,
        routed: Routed,
        ours: list[float],
        theirs: list[float],
        labels: list[float],
        others: list[float],
    ) -> Stage:
        n, m = int(ours[0]), int(theirs[0])
        scored = _moments(labels[0], labels[3], labels[4]) if self._scored else Moments()
        return Stage(
            epoch=routed.epoch,
            weight=routed.weight,
            exposed=Counts(m, n),
            values={
                "error_rate": Pair(Moments(m, theirs[1], theirs[1]), Moments(n, ours[2], ours[2])),
                "budget_overrun_rate": Pair(
                    Moments(m, theirs[3], theirs[3]), Moments(n, ours[4], ours[4])
                ),
                "loss": Pair(_moments(others[0], others[1], others[2]), scored),
            },
            events={
                "error_rate": Counts(int(theirs[1]), int(ours[2])),
                "budget_overrun_rate": Counts(int(theirs[3]), int(ours[4])),
            },
        )

    def _shares(self, start: int, end: int) -> dict[str, Share]:
        """Return the champion's rates in a span of batches."""
        before, after = self._champion[start], self._champion[end]
        entities = after[0] - before[0]
        return {
            "error_rate": Share(after[1] - before[1], entities),
            "budget_overrun_rate": Share(after[2] - before[2], entities),
        }


def _between(of: Array, start: int, end: int, below: int) -> tuple[list[float], list[float]]:
    """Return the sums of a span of batches: of the bands below an edge, and of the others."""
    span = of[end] - of[start]
    mine = span[below]
    return mine.tolist(), (span[-1] - mine).tolist()


def _moments(n: float, total: float, squares: float) -> Moments:
    return Moments(int(n), total, squares)


def _plus_pairs(pairs: list[float], sums: list[float]) -> list[float]:
    return [pairs[0] + sums[0], pairs[1] + sums[5], pairs[2] + sums[6]]
