"""What many simulated rollouts show: how each class ended under each policy, and what was asked.

A requirement is met or missed only as far as the number of runs tells: the 95 % interval of the
share lies on one side of its bound (Clopper & Pearson 1934). In between, it is open.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Final

from bench.rollout.simulate import POLICIES, Outcome
from bench.rollout.traffic import BASE_RATES, KINDS

ALPHA: Final = 0.01
"""False rollbacks of an equal model, at most: the plan's `rollback_alpha`."""
POWER: Final = 0.99
"""Of clearly better models, promoted at least."""
WALD: Final = 1.5
"""Median of errors until the verdict over Wald's bound, at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """One class under one policy, over all base rates or at one.

    Attributes:
        kind: The class.
        policy: Of `POLICIES`.
        base: Champion's error rate; None: all.
        runs: Rollouts.
        promoted: How many of them were.
        rolled_back: The same.
        held: The same.
        minutes: Median until rollback, from the start; None without one.
        spoiled: Errors and overruns of the canary on top of the champion's on the same entities,
            over all answers from the canary's first on to the end; all runs together.
    """

    kind: str
    policy: str
    base: float | None
    runs: int
    promoted: int
    rolled_back: int
    held: int
    minutes: float | None
    spoiled: float


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that was asked for, and what was measured.

    Attributes:
        name: What is asked.
        value: The measure.
        low: Lower end of its 95 % interval.
        high: Upper end.
        met: Whether; None: so few runs do not tell.
        words: The numbers, for a person.
    """

    name: str
    value: float
    low: float
    high: float
    met: bool | None
    words: str

    @property
    def verdict(self) -> str:
        """One word."""
        return {True: "met", False: "MISSED", None: "open"}[self.met]


@cache
def interval(events: int, runs: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share; one-sided where no run or every run counts.

    Without events the upper end is 1 - 0.05^(1/runs), about 3 / runs.
    """
    from scipy.stats import beta

    if events == 0:
        return 0.0, 1 - 0.05 ** (1 / runs)
    if events == runs:
        return 0.05 ** (1 / runs), 1.0
    low = beta.ppf(0.025, events, runs - events + 1)
    return float(low), float(beta.ppf(0.975, events + 1, runs - events))


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return every class under every policy, over all base rates and then at each."""
    found = []
    for kind in KINDS:
        of_kind = [one for one in outcomes if one.kind == kind.name]
        for base in (None, *BASE_RATES):
            chosen = [one for one in of_kind if base in {None, one.base}]
            if chosen:
                found += [_row(kind.name, place, base, chosen) for place in range(len(POLICIES))]
    return found


def _row(kind: str, place: int, base: float | None, outcomes: Sequence[Outcome]) -> Row:
    endings = [one.endings[place] for one in outcomes]
    results = Counter(one.result for one in endings)
    minutes = [one.batches for one in endings if one.result == "rolled back"]
    answers = sum(one.answers for one in endings)
    return Row(
        kind=kind,
        policy=POLICIES[place],
        base=base,
        runs=len(endings),
        promoted=results["promoted"],
        rolled_back=results["rolled back"],
        held=results["held"],
        minutes=median(minutes) if minutes else None,
        spoiled=sum(one.spoiled for one in endings) / answers if answers else 0.0,
    )


def requirements(outcomes: Sequence[Outcome]) -> Iterator[Requirement]:
    """Yield what was asked of our rollouts, for the classes that were run."""
    for kind in KINDS:
        chosen = [one for one in outcomes if one.kind == kind.name]
        if not chosen:
            continue
        results = Counter(one.endings[0].result for one in chosen)
        if kind.good is None:
            yield _at_most(
                f"an {kind.name} model is rolled back by false alarm",
                results["rolled back"], len(chosen), ALPHA,
            )  # fmt: skip
        elif kind.good:
            yield _at_least(
                f"a {kind.name} model is promoted", results["promoted"], len(chosen), POWER
            )
        else:
            yield _never(f"a model is promoted: {kind.name}", results["promoted"], len(chosen))
    late = [one for one in outcomes if one.kind == "bad on late labels"]
    if late:
        rolled_back = sum(one.endings[0].result == "rolled back" for one in late)
        yield _at_least(
            "a model that is bad on late labels is rolled back, in the soak at the latest",
            rolled_back, len(late), POWER,
        )  # fmt: skip
    walds = [one.wald for one in outcomes if one.kind.startswith("threefold")]
    if walds:
        yield _quick(walds)


def _at_most(name: str, events: int, runs: int, bound: float) -> Requirement:
    low, high = interval(events, runs)
    met = True if high <= bound else False if low > bound else None
    words = f"{events:,} of {runs:,}, {_percent(low)} to {_percent(high)}; at most {bound:.0%}"
    return Requirement(name, events / runs, low, high, met, words)


def _at_least(name: str, events: int, runs: int, bound: float) -> Requirement:
    low, high = interval(events, runs)
    met = True if low >= bound else False if high < bound else None
    words = f"{events:,} of {runs:,}, {_percent(low)} to {_percent(high)}; at least {bound:.0%}"
    return Requirement(name, events / runs, low, high, met, words)


def _never(name: str, events: int, runs: int) -> Requirement:
    low, high = interval(events, runs)
    words = f"{events:,} of {runs:,}, so below {_percent(high)} at 95 %; none is allowed"
    return Requirement(name, events / runs, low, high, events == 0, words)


def _quick(walds: Sequence[float]) -> Requirement:
    """Return how soon a threefold rate is found; a run that did not find it took for ever."""
    found = sorted(math.inf if math.isnan(one) else one for one in walds)
    runs, middle = len(found), median(found)
    off = 0.98 * math.sqrt(runs)  # ranks of the median's 95 % interval: 1.96 · √runs / 2
    low = found[max(0, math.floor(runs / 2 - off))]
    high = found[min(runs - 1, math.ceil(runs / 2 + off))]
    met = True if high <= WALD else False if low > WALD else None
    words = (
        f"median {middle:.3f} ({low:.3f} to {high:.3f}) times the errors of Wald's bound at "
        f"alpha {ALPHA:g}, looked at about once for each error of the champion; at most {WALD:g}"
    )
    name = "a threefold error rate is found about as soon as can be"
    return Requirement(name, middle, low, high, met, words)


def lines(found: Sequence[Row], asked: Sequence[Requirement]) -> Iterator[str]:
    """Yield both as lines for a person."""
    yield (
        f"{'':<28} {'policy':<20} {'promoted':>9} {'rolled back':>12} {'held':>7} "
        f"{'minutes':>8} {'spoiled':>8}"
    )
    kind = ""
    for row in found:
        if row.base is not None:
            continue
        spoiled = round(100 * row.spoiled, 2) + 0.0  # no minus before zero
        minutes = "-" if row.minutes is None else f"{row.minutes:g}"
        yield (
            f"{row.kind if row.kind != kind else '':<28} {row.policy:<20} "
            f"{_percent(row.promoted / row.runs):>9} {_percent(row.rolled_back / row.runs):>12} "
            f"{_percent(row.held / row.runs):>7} {minutes:>8} {spoiled:>6.2f} %"
        )
        kind = row.kind
    yield "minutes: median to the rollback; spoiled: errors and overruns beyond the champion's"
    yield ""
    for one in asked:
        yield f"{one.verdict:<6} {one.name}: {one.words}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
