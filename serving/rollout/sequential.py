"""Tests that may be looked at as often as one likes: e-processes of rates and of bounded means.

An e-value is a bet against a null hypothesis at fair odds: if the null holds, the chance that it
ever reaches 1/alpha is at most alpha (Ville 1939), whenever one looks and stops. All functions
take sums over entities and return the natural logarithm of an e-value, so that nothing need be
remembered between looks. They are Python without numpy: the sums are few, the looks are many.

What makes them valid is the assignment: given all that happened before, an entity falls on the
challenger with the probability that was the weight of its stage. Weights may change from stage to
stage (factors of different stages multiply), and no rate or mean need be constant over time.

Sources: Lindon & Malek 2020 (arXiv 2011.03567) and Lindon, Sanden & Shirikian 2022 (arXiv
2205.14762) for counts; Waudby-Smith & Ramdas 2024 (arXiv 2010.09686) for betting; Vovk & Wang 2021
(arXiv 1912.06116) for means of e-values.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from mlplatform.contracts.rollout import Counts, Moments, Pair
from serving.rollout.bets import arm_bets, paired_bets

RATIOS: Final = (1.5, 2.0, 3.0, 5.0, 10.0)
"""How many times the champion's rate the challenger's may be, if it is worse."""

MISMATCHES: Final = (1 / 2, 1 / 1.25, 1 / 1.1, 1.1, 1.25, 2.0)
"""How many times its due share an arm may get, if the split is broken."""

Arms = tuple[float, Moments, Moments]
"""An arm's share of entities, its sums, and those of the other arm."""

Odds = tuple[float, float]
"""ln(θ/w) and ln((1 - θ)/(1 - w)): what an event on either arm multiplies a bet by."""


def log_mean(logs: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return ln of the mean of exp(logs), by weights that add up to 1 (default: equal ones).

    A mean of e-values is an e-value against "all their nulls hold", however they depend on each
    other, if the weights were fixed before the data (Vovk & Wang 2021).
    """
    top = max(logs)
    shifted = [log - top for log in logs]
    if weights is None:
        return top + math.log(sum(map(math.exp, shifted)) / len(logs))
    return top + math.log(sum(map(operator.mul, weights, map(math.exp, shifted))))


# --- Rates: on which arm do events fall? ---------------------------------------------------------


def log_rise(stages: Iterable[tuple[float, Counts]]) -> float:
    """Return ln of the e-value against "an event is no more likely on the challenger".

    Given that an event happened, it is the challenger's with probability w (the weight) if rates
    are equal, and θ = wr / (wr + 1 - w) if the challenger's is r times the champion's. With C and
    S events of challenger and champion the e-value is the mean over `RATIOS` of the product over
    stages of (θ/w)^C ((1 - θ)/(1 - w))^S.

    The smallest ratio makes an indifference zone: a rise below about 22 % is not found, however
    long one looks.

    Args:
        stages: Weight and events; each entity in one stage at most, with its first event.
    """
    return _log_ratio(stages, _rise_odds)


def log_discordant(pairs: Moments) -> float:
    """Return the same for pairs of both versions' answers to the same requests.

    Only pairs in which one of them had the event tell anything; if rates are equal it is either's
    with probability 1/2 (McNemar's test, made sequential).

    Args:
        pairs: Of differences of events, which are -1, 0 or 1.
    """
    challenger = (pairs.squares + pairs.total) / 2
    champion = (pairs.squares - pairs.total) / 2
    return log_mean([challenger * a + champion * b for a, b in _rise_odds(0.5)])


def log_mismatch(weight: float, exposed: Counts) -> float:
    """Return ln of the e-value against "the split between arms is as the weight says".

    For one stage: an entity that comes again in the next stage is no new toss, so e-values of
    several stages are not multiplied.
    """
    return _log_ratio(((weight, exposed),), _mismatch_odds)


def wald_events(ratio: float, weight: float, alpha: float) -> float:
    """Return how many events any test needs on average to find a rate `ratio` times as high.

    Wald's bound ln(1/alpha) / KL(θ ‖ w), θ as in `log_rise` (Wald 1945): both arms' events
    together, for a test that errs with probability alpha.
    """
    theta = weight * ratio / (weight * ratio + 1 - weight)
    information = theta * math.log(theta / weight) + (1 - theta) * math.log(
        (1 - theta) / (1 - weight)
    )
    return math.log(1 / alpha) / information


def _log_ratio(
    stages: Iterable[tuple[float, Counts]], odds_of: Callable[[float], Sequence[Odds]]
) -> float:
    logs: list[float] = []
    for weight, counts in stages:
        challenger, champion = counts.challenger, counts.champion
        if challenger or champion:
            gains = [challenger * a + champion * b for a, b in odds_of(weight)]
            logs = list(map(operator.add, logs, gains)) if logs else gains
    return log_mean(logs) if logs else 0.0


@lru_cache(maxsize=1024)
def _rise_odds(weight: float) -> tuple[Odds, ...]:
    return _odds(weight, RATIOS)


@lru_cache(maxsize=1024)
def _mismatch_odds(weight: float) -> tuple[Odds, ...]:
    return _odds(weight, MISMATCHES)


def _odds(weight: float, ratios: Sequence[float]) -> tuple[Odds, ...]:
    totals = [weight * ratio + 1 - weight for ratio in ratios]
    return tuple((math.log(r / t), -math.log(t)) for r, t in zip(ratios, totals, strict=True))


# --- Bounded means: is the difference larger than this? ------------------------------------------


def log_above(
    stages: Iterable[tuple[float, Pair]], null: float, *, center: float, binary: bool
) -> float:
    """Return ln of the e-value against "challenger's mean - champion's mean ≤ null".

    For an entity with the value x in [0, 1] let z = (x - center) / w on the challenger and
    -(x - center) / (1 - w) on the champion: the expectation of z is the difference of the means,
    whatever the constant. A stake λ of the capital on y = (z - null) / b, with b so that y ≥ -1,
    multiplies it by 1 + λy, at fair odds under the null. The e-value is the mean over `bets.BETS`
    of the capital, each bounded from below by sums (see `bets`).

    Args:
        stages: Weight and sums of values in [0, 1]; each entity in one stage at most.
        null: In (-1, 1).
        center: In [0, 1], and in (0, 1) unless `binary`; fixed beforehand. The closer to the mean,
            the fewer entities it takes.
        binary: Whether values are 0 or 1: then the bound is exact.
    """
    return _log_capital(_arms(stages), null, center, binary=binary)


def log_below(
    stages: Iterable[tuple[float, Pair]], null: float, *, center: float, binary: bool
) -> float:
    """Return ln of the e-value against "challenger's mean - champion's mean ≥ null"."""
    return _log_capital(_mirrored(stages), -null, center, binary=binary)


def log_above_paired(pairs: Moments, null: float) -> float:
    """Return ln of the e-value against "the mean difference of pairs ≤ null".

    Args:
        pairs: Sums of differences in [-1, 1].
        null: In (-1, 1).
    """
    n, total, squares = pairs.n, pairs.total, pairs.squares
    return log_mean([a * n + b * total + c * squares for a, b, c in paired_bets(null)])


def log_below_paired(pairs: Moments, null: float) -> float:
    """Return ln of the e-value against "the mean difference of pairs ≥ null"."""
    return log_above_paired(_negative(pairs), -null)


def interval(
    stages: Sequence[tuple[float, Pair]],
    paired: Moments | None,
    alpha: float,
    *,
    center: float,
    binary: bool,
) -> tuple[float, float]:
    """Return a confidence sequence of the challenger's mean minus the champion's.

    The differences that neither test rejects at alpha / 2: at all looks together it misses the
    truth with probability alpha at most.

    Args:
        stages: As in `log_above`.
        paired: As in `log_above_paired`, and half of the capital is theirs; None: there is no
            shadow, so all of it is the arms'.
        alpha: Between 0 and 1.
        center: As in `log_above`.
        binary: As in `log_above`.

    Returns:
        Low and high, within [-1, 1].
    """
    limit = math.log(2 / alpha)

    def lowest(arms: Sequence[Arms], pairs: Moments | None) -> float:
        # The capital itself, of which the e-value is a bound, falls as the null rises: so what
        # bisection finds is no higher than where the capital is at the limit.
        low, high = -1.0, 1.0
        while high - low > _RESOLUTION:
            null = (low + high) / 2
            log = _log_capital(arms, null, center, binary=binary)
            if pairs is not None:
                log = log_mean((log, log_above_paired(pairs, null)))
            low, high = (null, high) if log >= limit else (low, null)
        return low

    return (
        lowest(_arms(stages), paired),
        -lowest(_mirrored(stages), None if paired is None else _negative(paired)),
    )


def _arms(stages: Iterable[tuple[float, Pair]]) -> list[Arms]:
    return [(weight, pair.challenger, pair.champion) for weight, pair in stages]


def _mirrored(stages: Iterable[tuple[float, Pair]]) -> list[Arms]:
    return [(1 - weight, pair.champion, pair.challenger) for weight, pair in stages]


def _negative(pairs: Moments) -> Moments:
    return Moments(pairs.n, -pairs.total, pairs.squares)


_RESOLUTION: Final = 1e-5
"""Of a confidence sequence: bisection stops here, on the wide side."""


def _log_capital(arms: Iterable[Arms], null: float, center: float, *, binary: bool) -> float:
    """Return `log_above` of one arm's share and sums, and the other arm's sums, by stage."""
    logs: list[float] = []
    for share, own, other in arms:
        n, total, squares = own.n, own.total, own.squares
        m, others, other_squares = other.n, other.total, other.squares
        if not (n or m):
            continue
        bets = arm_bets(share, null, center, binary)
        if binary:  # the squares are the totals, and have no coefficient
            gains = [a * n + b * total + d * m + e * others for a, b, _, d, e, _ in bets]
        else:
            gains = [
                a * n + b * total + c * squares + d * m + e * others + f * other_squares
                for a, b, c, d, e, f in bets
            ]
        logs = list(map(operator.add, logs, gains)) if logs else gains
    return log_mean(logs) if logs else 0.0
