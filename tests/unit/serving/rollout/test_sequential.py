"""The sequential tests against exact enumeration, brute-force bets and simulated traffic."""

import itertools
import math
from collections.abc import Callable
from typing import Final

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlplatform.contracts.rollout import Counts, Moments, Pair
from serving.rollout import bets, sequential

Stages = list[tuple[float, Pair]]

weights = st.floats(0.01, 0.99)
nulls = st.floats(-0.9, 0.9)
tosses = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.floats(0, 1)), min_size=1, max_size=40
)
"""Entities: stage, whether the challenger's, value."""


def _moments(values: list[float]) -> Moments:
    return Moments(len(values), math.fsum(values), math.fsum(x * x for x in values))


def _stages(shares: list[float], entities: list[tuple[int, bool, float]]) -> Stages:
    return [
        (
            share,
            Pair(
                champion=_moments([x for s, arm, x in entities if s == stage and not arm]),
                challenger=_moments([x for s, arm, x in entities if s == stage and arm]),
            ),
        )
        for stage, share in enumerate(shares)
    ]


def _capital(
    shares: list[float], entities: list[tuple[int, bool, float]], null: float, center: float
) -> float:
    """Return ln of what bets on one entity after the other have won, without any sums."""
    capitals = []
    for stake in bets.BETS:
        capital = 0.0
        for stage, challengers, x in entities:
            w = shares[stage]
            z = (x - center) * (1 / w if challengers else -1 / (1 - w))
            least = min(-center / w, -(1 - center) / (1 - w))
            capital += math.log1p(stake * (z - null) / max(null - least, 0.01))
        capitals.append(capital)
    return float(np.logaddexp.reduce(capitals)) - math.log(len(capitals))


# --- Fairness, exactly: the expectation over all that could have happened is 1 --------------------


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
@pytest.mark.parametrize(
    "test",
    [
        pytest.param(lambda w, counts: sequential.log_rise([(w, counts)]), id="rise"),
        pytest.param(sequential.log_mismatch, id="mismatch"),
    ],
)
def test_a_bet_on_counts_is_fair(test: Callable[[float, Counts], float], share: float) -> None:
    expected = sum(
        math.comb(30, k)
        * share**k
        * (1 - share) ** (30 - k)
        * math.exp(test(share, Counts(30 - k, k)))
        for k in range(31)
    )

    assert expected == pytest.approx(1, rel=1e-9)


def test_a_bet_on_pairs_that_disagree_is_fair() -> None:
    expected = sum(
        math.comb(30, k)
        / 2**30
        * math.exp(sequential.log_discordant(Moments(500, 2.0 * k - 30, 30)))
        for k in range(31)
    )

    assert expected == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("center", [0.0, 0.1])
@pytest.mark.parametrize(
    ("shares", "champion", "null"),
    [
        pytest.param([0.5] * 4, [0.3] * 4, 0.0, id="equal"),
        pytest.param([0.05, 0.05, 0.2, 0.95], [0.1] * 4, 0.2, id="weights change"),
        pytest.param([0.2, 0.2, 0.5, 0.5], [0.1, 0.7, 0.3, 0.5], -0.1, id="rates change"),
    ],
)
def test_a_bet_on_a_difference_is_fair_at_the_null(
    shares: list[float], champion: list[float], null: float, center: float
) -> None:
    expected = 0.0
    arms = list(itertools.product([False, True], [0.0, 1.0]))
    for outcome in itertools.product(arms, repeat=len(shares)):
        chance = 1.0
        for (challengers, x), w, rate in zip(outcome, shares, champion, strict=True):
            p = rate + null * challengers
            chance *= (w if challengers else 1 - w) * (p if x else 1 - p)
        entities = [(stage, arm, x) for stage, (arm, x) in enumerate(outcome)]
        expected += chance * math.exp(
            sequential.log_above(_stages(shares, entities), null, center=center, binary=True)
        )

    assert expected == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("null", [-0.3, 0.0, 0.25])
def test_a_bet_on_pairs_never_gains_by_expectation_at_the_null(null: float) -> None:
    values = {-1.0: 0.1, -0.2: 0.3, 0.0: 0.3, 0.5: 0.2, 1.0: 0.1}
    mean = sum(x * p for x, p in values.items())
    moved = {x: p * (1 - 0.5) for x, p in values.items()}
    target = (null - 0.5 * mean) / 0.5
    moved[1.0] += 0.5 * (1 + target) / 2
    moved[-1.0] += 0.5 * (1 - target) / 2
    assert sum(x * p for x, p in moved.items()) == pytest.approx(null)

    expected = sum(
        math.prod(moved[x] for x in outcome)
        * math.exp(sequential.log_above_paired(_moments(list(outcome)), null))
        for outcome in itertools.product(moved, repeat=4)
    )

    assert 0.5 < expected <= 1 + 1e-9


# --- Sums: never more than the bets themselves ---------------------------------------------------


@settings(derandomize=True, deadline=None)
@given(st.lists(weights, min_size=3, max_size=3), tosses, nulls, st.floats(0.01, 0.99))
@example([0.05] * 3, [(0, True, 1.0)] * 40, 0.0, 0.1)
def test_sums_claim_no_more_than_bets_on_one_entity_after_the_other(
    shares: list[float], entities: list[tuple[int, bool, float]], null: float, center: float
) -> None:
    found = sequential.log_above(_stages(shares, entities), null, center=center, binary=False)

    assert found <= _capital(shares, entities, null, center) + 1e-6


@settings(derandomize=True, deadline=None)
@given(st.lists(weights, min_size=3, max_size=3), tosses, nulls, st.floats(0, 1))
def test_sums_of_zeros_and_ones_claim_exactly_as_much(
    shares: list[float], entities: list[tuple[int, bool, float]], null: float, center: float
) -> None:
    entities = [(stage, arm, float(x > 0.5)) for stage, arm, x in entities]

    found = sequential.log_above(_stages(shares, entities), null, center=center, binary=True)

    assert found == pytest.approx(_capital(shares, entities, null, center), abs=1e-6)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), nulls)
def test_sums_of_pairs_claim_no_more_than_bets_on_one_after_the_other(
    differences: list[float], null: float
) -> None:
    capitals = [
        sum(math.log1p(stake * (d - null) / max(1 + null, 0.01)) for d in differences)
        for stake in bets.BETS
    ]
    capital = float(np.logaddexp.reduce(capitals)) - math.log(len(capitals))

    assert sequential.log_above_paired(_moments(differences), null) <= capital + 1e-6


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(weights, st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=4))
def test_the_bet_on_a_rise_is_the_mean_of_likelihood_ratios(
    events: list[tuple[float, int, int]],
) -> None:
    ratios = []
    for r in sequential.RATIOS:
        log = 0.0
        for w, champion, challenger in events:
            theta = w * r / (w * r + 1 - w)
            log += challenger * math.log(theta / w) + champion * math.log((1 - theta) / (1 - w))
        ratios.append(math.exp(log))

    found = sequential.log_rise([(w, Counts(s, c)) for w, s, c in events])

    assert math.exp(found) == pytest.approx(sum(ratios) / len(ratios), rel=1e-9)


@settings(derandomize=True, deadline=None)
@given(weights, tosses, nulls, st.floats(0.01, 0.99))
def test_a_stage_that_is_cut_in_two_says_the_same(
    share: float, entities: list[tuple[int, bool, float]], null: float, center: float
) -> None:
    whole = _stages([share], [(0, arm, x) for _, arm, x in entities])
    parts = _stages([share] * 3, entities)

    assert sequential.log_above(parts, null, center=center, binary=False) == pytest.approx(
        sequential.log_above(whole, null, center=center, binary=False), abs=1e-6
    )


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("null", [-1.0, 0.0, 1.0])
def test_a_billion_entities_and_the_widest_margins_give_a_finite_number(
    share: float, null: float
) -> None:
    many = Moments(10**9, 10.0**9, 10.0**9)
    stages = [(share, Pair(champion=Moments(10**9, 0, 0), challenger=many))]

    found = [
        sequential.log_above(stages, null, center=0.1, binary=False),
        sequential.log_below(stages, null, center=0.0, binary=True),
        sequential.log_above_paired(many, null),
        sequential.log_below_paired(many, null),
        sequential.log_rise([(share, Counts(10**9, 10**9))]),
        sequential.log_mismatch(share, Counts(0, 10**9)),
    ]

    assert all(math.isfinite(log) for log in found)


# --- Simulated traffic: entities return, cross arms, differ in risk -------------------------------

WEIGHTS: Final = (0.05, 0.2, 0.5, 0.95)
LOOKS: Final = 6
"""In each stage."""
RUNS: Final = 1_000
ALPHA: Final = 0.05
SLACK: Final = 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""Three standard errors of a share of runs."""

Look = list[tuple[float, Pair, Counts, Counts]]
"""For each stage up to now: weight, values, first events, entities that came in it."""


def _rollout(rng: np.random.Generator, *, rise: float = 0.0, every: bool = False) -> list[Look]:
    """Simulate a rollout in which 800 entities send 80 requests between any two looks.

    A few entities send a third of the requests and have most of the events. The arm changes
    nothing but the chance of an event, by `rise`.

    Args:
        rng: Random numbers.
        rise: How much likelier an event is on the challenger.
        every: Count all requests and events instead of each entity's first.
    """
    entities, batch = 800, 80
    n = batch * LOOKS * len(WEIGHTS)
    busy = np.arange(entities) < entities // 40
    share = np.where(busy, 20.0, 1.0)
    who = rng.choice(entities, size=n, p=share / share.sum())
    stage = np.arange(n) // (batch * LOOKS)
    arm = rng.random(entities)[who] < np.array(WEIGHTS)[stage]
    event = rng.random(n) < np.where(busy, 0.5, 0.03)[who] + rise * arm
    rows = np.arange(n)
    first = rows if every else np.unique(who, return_index=True)[1]
    failed = rows[event]
    first_events = failed if every else failed[np.unique(who[event], return_index=True)[1]]
    present = np.unique(who + entities * stage, return_index=True)[1]

    def sums(counted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return counts by stage, look (cumulative within the stage) and arm."""
        cells = (counted // batch) * 2 + arm[counted]
        found = np.bincount(cells, minlength=2 * LOOKS * len(WEIGHTS))
        return found.reshape(len(WEIGHTS), LOOKS, 2).cumsum(axis=1)

    seen, bad = sums(first).tolist(), sums(first[event[first]]).tolist()
    events, exposed = sums(first_events).tolist(), sums(present).tolist()
    looks = []
    for now in range(LOOKS * len(WEIGHTS)):
        look = []
        for s in range(now // LOOKS + 1):
            at = min(now - s * LOOKS, LOOKS - 1)
            pair = Pair(*(Moments(seen[s][at][a], bad[s][at][a], bad[s][at][a]) for a in (0, 1)))
            look.append((WEIGHTS[s], pair, Counts(*events[s][at]), Counts(*exposed[s][at])))
        looks.append(look)
    return looks


def _rises(look: Look) -> float:
    return sequential.log_rise([(w, events) for w, _, events, _ in look])


def _above(look: Look, null: float = 0.0) -> float:
    return sequential.log_above([(w, p) for w, p, _, _ in look], null, center=0.0, binary=True)


def _below(look: Look, null: float = 0.0) -> float:
    return sequential.log_below([(w, p) for w, p, _, _ in look], null, center=0.1, binary=True)


def _mismatches(look: Look) -> float:
    logs = [sequential.log_mismatch(w, exposed) for w, _, _, exposed in look]
    return sequential.log_mean(logs + [0.0] * (len(WEIGHTS) - len(logs)))


def _share_rejected(test: Callable[[Look], float], rollouts: list[list[Look]]) -> float:
    limit = math.log(1 / ALPHA)
    return sum(any(test(look) >= limit for look in looks) for looks in rollouts) / len(rollouts)


@pytest.fixture(scope="module")
def equal() -> list[list[Look]]:
    """Rollouts of two equal versions."""
    rng = np.random.default_rng(5)
    return [_rollout(rng) for _ in range(RUNS)]


@pytest.mark.parametrize("test", [_rises, _above, _below, _mismatches])
def test_equal_versions_are_told_apart_no_more_often_than_stated(
    test: Callable[[Look], float], equal: list[list[Look]]
) -> None:
    assert _share_rejected(test, equal) <= ALPHA + SLACK


def test_a_version_worse_by_just_the_margin_is_called_safe_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(6)
    rollouts = [_rollout(rng, rise=0.06) for _ in range(RUNS)]

    assert _share_rejected(lambda look: _below(look, 0.06), rollouts) <= ALPHA + SLACK


def test_counting_requests_instead_of_entities_would_break_the_level() -> None:
    rng = np.random.default_rng(7)
    rollouts = [_rollout(rng, every=True) for _ in range(RUNS // 4)]

    assert _share_rejected(_rises, rollouts) > 2 * ALPHA


def test_a_confidence_sequence_holds_the_truth_at_all_looks(equal: list[list[Look]]) -> None:
    missed = 0
    for looks in equal[:300]:
        bounds = [
            sequential.interval(
                [(w, p) for w, p, _, _ in look], None, ALPHA, center=0.1, binary=True
            )
            for look in looks[::6]
        ]
        missed += any(low > 0 or high < 0 for low, high in bounds)

    assert missed / 300 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 300)


# --- Power: not much more data than any test needs ------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_a_threefold_rate_is_found_near_walds_bound(share: float) -> None:
    rng = np.random.default_rng(8)
    theta = 3 * share / (3 * share + 1 - share)
    bound = sequential.wald_events(3, share, 0.01)
    needed = []
    for _ in range(500):
        challenger = np.cumsum(rng.random(int(bound * 10)) < theta).tolist()
        needed.append(
            next(
                n
                for n, own in enumerate(challenger, start=1)
                if sequential.log_rise([(share, Counts(n - own, own))]) >= math.log(100)
            )
        )

    assert float(np.median(needed)) <= 1.4 * bound


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(
    ("offset", "test"),
    [
        pytest.param(0.2, sequential.log_above, id="worse by two margins"),
        pytest.param(0.0, sequential.log_below, id="equal"),
    ],
)
def test_a_loss_is_told_from_its_margin_near_the_normal_bound(
    offset: float, test: Callable[..., float], share: float
) -> None:
    """A normal mean needs 2 ln(1/alpha) times variance over gap squared (Wald 1945)."""
    rng = np.random.default_rng(9)
    margin, center = 0.02, 0.1

    def losses(n: int, offset: float) -> NDArray[np.float64]:
        chance = rng.beta(0.6, 2.4, n)
        label = rng.random(n) < chance
        loss: NDArray[np.float64] = (label - np.minimum(chance + offset, 1)) ** 2
        return loss

    champion, challenger = losses(10**6, 0), losses(10**6, offset)
    gap = challenger.mean() - champion.mean() - margin
    variance = ((challenger - center) ** 2).mean() / share
    variance += ((champion - center) ** 2).mean() / (1 - share)
    bound = 2 * math.log(100) * float(variance / gap**2)
    needed = []
    for _ in range(40):
        n = round(6 * bound)
        arm = rng.random(n) < share
        x = np.where(arm, losses(n, offset), losses(n, 0))
        sums = [np.cumsum([of, x * of, x * x * of], axis=1) for of in (~arm, arm)]
        for at in range(n // 200, n, n // 200):
            pair = Pair(*(Moments(*side[:, at].tolist()) for side in sums))
            if test([(share, pair)], margin, center=center, binary=False) >= math.log(100):
                needed.append(at)
                break
        else:
            needed.append(n)

    assert float(np.median(needed)) <= 1.75 * bound


@pytest.mark.parametrize(
    ("ratio", "events"),
    [pytest.param(3, 32.4, id="threefold"), pytest.param(2, 97.5, id="twofold")],
)
def test_walds_bound_is_that_of_the_likelihood_ratio(ratio: float, events: float) -> None:
    rng = np.random.default_rng(10)
    theta = 0.1 * ratio / (0.1 * ratio + 0.9)
    gains = np.where(
        rng.random(400_000) < theta, math.log(theta / 0.1), math.log((1 - theta) / 0.9)
    )

    assert sequential.wald_events(ratio, 0.1, 0.05) == pytest.approx(events, abs=0.05)
    assert math.log(20) / gains.mean() == pytest.approx(events, rel=0.02)


# --- Confidence sequences -------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=40)
@given(weights, tosses, st.lists(st.floats(-1, 1), max_size=30), st.booleans())
def test_a_confidence_sequence_is_what_the_tests_do_not_reject(
    share: float,
    entities: list[tuple[int, bool, float]],
    differences: list[float],
    shadowed: bool,
) -> None:
    stages = _stages([share], [(0, arm, x) for _, arm, x in entities])
    pairs = _moments(differences) if shadowed else None

    low, high = sequential.interval(stages, pairs, 0.05, center=0.1, binary=False)

    def logs(null: float) -> tuple[float, float]:
        above = [sequential.log_above(stages, null, center=0.1, binary=False)]
        below = [sequential.log_below(stages, null, center=0.1, binary=False)]
        if pairs is not None:
            above.append(sequential.log_above_paired(pairs, null))
            below.append(sequential.log_below_paired(pairs, null))
        return sequential.log_mean(above), sequential.log_mean(below)

    limit = math.log(2 / 0.05)
    assert -1 <= low < high <= 1
    assert low == -1 or logs(low)[0] >= limit > logs(low + 2e-5)[0]
    assert high == 1 or logs(high)[1] >= limit > logs(high - 2e-5)[1]


def test_a_confidence_sequence_shrinks_around_the_difference() -> None:
    def interval(n: int) -> tuple[float, float]:
        stages = [(0.2, Pair(Moments(4 * n, 0.4 * n, 0.4 * n), Moments(n, 0.15 * n, 0.15 * n)))]
        return sequential.interval(stages, None, 0.05, center=0.0, binary=True)

    few, more, many = interval(200), interval(2_000), interval(200_000)

    assert few[0] < more[0] < many[0] < 0.05 < many[1] < more[1] < few[1]
    assert many[1] - many[0] < 0.015
