"""Verdicts: what harms, what is safe, what comes first, and the stated error rates."""

import math
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import (
    Counts,
    Moments,
    Pair,
    Share,
    Stage,
    Statistics,
    Verdict,
)
from mlplatform.contracts.usecase.operation import Guardrail, GuardrailMetric, RolloutPlan
from serving.rollout import sequential
from serving.rollout.judge import judge
from tests.unit.serving.rollout.builders import CHALLENGER, CHAMPION, PLAN, START

RATES: Final[tuple[GuardrailMetric, ...]] = (
    "error_rate",
    "fallback_rate",
    "budget_overrun_rate",
    "decision_rate",
)
ALL: Final[tuple[GuardrailMetric, ...]] = (*RATES, "loss")
NOW: Final = START + timedelta(hours=30)


def _plan(*metrics: GuardrailMetric, margin: float = 0.02, **fields: Any) -> RolloutPlan:
    guardrails = tuple(Guardrail(metric=metric, margin=margin) for metric in metrics)
    return PLAN.model_copy(update={"guardrails": guardrails, **fields})


def _rollout(plan: RolloutPlan) -> Rollout:
    return Rollout(
        usecase="flight_delay",
        number=2,
        challenger=CHALLENGER,
        champion=CHAMPION,
        plan=plan,
        phase="canary",
        first_epoch=7,
        started_at=START,
        entered_at=START,
        deadline_at=START + timedelta(hours=336),
    )


def _binary(n: int, mean: float) -> Moments:
    return Moments(n, float(round(n * mean)), float(round(n * mean)))


def _stage(
    n: int, champion: float, challenger: float, weight: float = 0.2, metric: str = "error_rate"
) -> Stage:
    """Return a stage in which `n` entities had these means of one metric."""
    own = round(n * weight)
    if metric == "loss":
        pair = Pair(
            *(
                Moments(k, k * m, k * (m * m + 0.01))
                for k, m in ((n - own, champion), (own, challenger))
            )
        )
    else:
        pair = Pair(_binary(n - own, champion), _binary(own, challenger))
    events = Counts(int(pair.champion.total), int(pair.challenger.total))
    return Stage(
        epoch=8,
        weight=weight,
        exposed=Counts(n - own, own),
        values={metric: pair},
        events={} if metric in {"loss", "decision_rate"} else {metric: events},
    )


def _statistics(*stages: Stage, at: datetime = NOW, **fields: Any) -> Statistics:
    found = Statistics(
        usecase="flight_delay",
        number=2,
        version=CHALLENGER.version,
        digest=CHALLENGER.digest,
        at=at,
        newest=dict.fromkeys(ALL, at),
        stages=stages,
    )
    return msgspec.structs.replace(found, **fields)


def _judged(plan: RolloutPlan, statistics: Statistics | None) -> Verdict:
    return judge(_rollout(plan), statistics, NOW)


# --- Harm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "champion", "challenger"),
    [
        pytest.param("error_rate", 0.01, 0.03, id="errors"),
        pytest.param("fallback_rate", 0.01, 0.03, id="fallbacks"),
        pytest.param("budget_overrun_rate", 0.01, 0.03, id="late answers"),
        pytest.param("loss", 0.10, 0.18, id="loss"),
        pytest.param("decision_rate", 0.20, 0.32, id="decides more often"),
        pytest.param("decision_rate", 0.20, 0.08, id="decides less often"),
        pytest.param("decision_rate", 0.10, 0.0, id="constant answers"),
    ],
)
def test_a_worse_version_is_harm_and_the_guardrail_is_named(
    metric: GuardrailMetric, champion: float, challenger: float
) -> None:
    others = tuple(other for other in RATES if other != metric)[:2]

    verdict = _judged(
        _plan(metric, *others), _statistics(_stage(20_000, champion, challenger, metric=metric))
    )

    assert verdict.kind == "harm"
    assert verdict.reason.startswith(f"{metric}: ")
    assert verdict.log_harm >= math.log(100)


def test_a_harm_verdict_says_its_numbers() -> None:
    verdict = _judged(_plan("error_rate"), _statistics(_stage(20_000, 0.01, 0.031, weight=0.05)))

    assert verdict.reason.startswith(
        "error_rate: 3.1 % of 1,000 entities against 1 % of 19,000, "
        "31 of 221 events on the challenger where 11.1 are due; e-value "
    )
    assert verdict.reason.endswith("≥ 100.")


@pytest.mark.parametrize("metric", ["error_rate", "fallback_rate", "budget_overrun_rate"])
def test_a_rise_of_bad_events_is_harm_though_it_is_within_the_margin(
    metric: GuardrailMetric,
) -> None:
    plan = _plan(metric, margin=0.5)

    verdict = _judged(plan, _statistics(_stage(50_000, 0.01, 0.03, metric=metric)))

    assert verdict.readings[0].log_safe > math.log(100)
    assert verdict.kind == "harm"


@pytest.mark.parametrize("metric", ["loss", "decision_rate"])
def test_a_rise_within_the_margin_is_no_harm(metric: GuardrailMetric) -> None:
    verdict = _judged(_plan(metric), _statistics(_stage(500_000, 0.1, 0.11, metric=metric)))

    assert verdict.kind == "safe"


@pytest.mark.parametrize(
    ("metric", "difference"),
    [
        pytest.param("error_rate", Moments(2_000, 60.0, 60.0), id="errors"),
        pytest.param("fallback_rate", Moments(2_000, 60.0, 60.0), id="fallbacks"),
        pytest.param("decision_rate", Moments(2_000, -400.0, 420.0), id="decisions"),
        pytest.param("loss", Moments(2_000, 200.0, 60.0), id="loss"),
    ],
)
def test_a_shadow_that_is_worse_on_the_same_requests_is_harm(
    metric: GuardrailMetric, difference: Moments
) -> None:
    verdict = _judged(_plan(metric), _statistics(paired={metric: difference}))

    assert verdict.kind == "harm"
    assert "over 2,000 pairs" in verdict.reason


def test_a_shadows_late_answers_are_not_held_against_it() -> None:
    difference = {"budget_overrun_rate": Moments(2_000, 500.0, 500.0)}

    verdict = _judged(_plan("budget_overrun_rate"), _statistics(paired=difference))

    assert verdict.kind == "undecided"


@pytest.mark.parametrize(("level", "kind"), [(1.001, "harm"), (0.999, "undecided")])
def test_harm_begins_where_the_mean_e_value_is_one_over_alpha(level: float, kind: str) -> None:
    statistics = _statistics(_stage(4_000, 0.01, 0.03))
    log_harm = _judged(_plan(*RATES[:2]), statistics).log_harm
    assert log_harm > math.log(10)

    plan = _plan(*RATES[:2], rollback_alpha=level * math.exp(-log_harm))

    assert _judged(plan, statistics).kind == kind


@pytest.mark.parametrize(("level", "kind"), [(1.001, "safe"), (0.999, "undecided")])
def test_safety_begins_where_the_least_e_value_is_one_over_alpha(level: float, kind: str) -> None:
    statistics = _statistics(_stage(12_000, 0.01, 0.01))
    log_safe = _judged(_plan("error_rate"), statistics).readings[0].log_safe
    assert log_safe > math.log(10)

    plan = _plan("error_rate", promotion_alpha=level * math.exp(-log_safe))

    assert _judged(plan, statistics).kind == kind


def test_harm_counts_over_all_stages_together() -> None:
    part = _stage(2_000, 0.01, 0.023)
    one = _judged(_plan("error_rate"), _statistics(part))
    two = _judged(_plan("error_rate"), _statistics(part, _stage(4_000, 0.01, 0.023, weight=0.5)))

    assert one.kind == "undecided"
    assert two.kind == "harm"


def test_harm_shows_through_stale_evidence_and_a_champion_that_is_worse_too() -> None:
    statistics = _statistics(
        _stage(20_000, 0.02, 0.06),
        newest={},
        baseline={"error_rate": Share(10, 10_000)},
        recent={"error_rate": Share(200, 10_000)},
    )

    assert _judged(_plan("error_rate"), statistics).kind == "harm"


def test_more_guardrails_need_more_evidence_for_one_level() -> None:
    statistics = _statistics(_stage(20_000, 0.01, 0.03))
    one, three = (_judged(plan, statistics) for plan in (_plan("error_rate"), _plan(*RATES[:3])))

    assert three.log_harm == pytest.approx(one.log_harm - math.log(3), abs=0.01)


# --- Safe ----------------------------------------------------------------------------------------


def test_an_equal_version_is_safe_when_every_guardrail_rules_its_margin_out() -> None:
    stages = [_stage(40_000, 0.01, 0.01), _stage(40_000, 0.1, 0.1, metric="loss")]
    both = msgspec.structs.replace(stages[0], values={**stages[0].values, **stages[1].values})
    plan = _plan("error_rate", "loss")

    assert _judged(plan, _statistics(both)).kind == "safe"
    assert _judged(plan, _statistics(stages[0])).kind == "undecided"


def test_pairs_alone_make_the_loss_safe_but_not_the_errors() -> None:
    paired = {"error_rate": Moments(50_000, 0.0, 10.0), "loss": Moments(50_000, 0.0, 50.0)}

    verdict = _judged(_plan("error_rate", "loss"), _statistics(paired=paired))

    errors, loss = verdict.readings
    assert verdict.kind == "undecided"
    assert errors.log_safe == pytest.approx(0)
    assert loss.log_safe > math.log(100)


def test_a_version_that_decides_otherwise_is_not_safe_in_either_direction() -> None:
    for challenger in (0.085, 0.115):
        verdict = _judged(
            _plan("decision_rate", margin=0.015),
            _statistics(_stage(20_000, 0.1, challenger, metric="decision_rate")),
        )

        assert verdict.kind == "undecided"


def test_labels_that_are_not_known_yet_delay_a_promotion_but_are_not_inconclusive() -> None:
    statistics = _statistics(_stage(40_000, 0.01, 0.01), newest={"error_rate": NOW})

    verdict = _judged(_plan("error_rate", "loss"), statistics)

    assert verdict.kind == "undecided"
    assert "loss: nothing yet" in verdict.reason
    assert "none at all" in verdict.reason


def test_old_labels_keep_a_loss_from_being_safe() -> None:
    newest = {"loss": NOW - timedelta(hours=25)}
    statistics = _statistics(_stage(400_000, 0.1, 0.1, metric="loss"), newest=newest)

    verdict = _judged(_plan("loss"), statistics)

    assert verdict.readings[0].log_safe > math.log(100)
    assert verdict.kind == "undecided"
    assert "newest of 2026-03-02 13:00" in verdict.reason


def test_a_plan_without_a_shadow_leaves_all_capital_to_the_arms() -> None:
    statistics = _statistics(_stage(20_000, 0.01, 0.03))
    without, shadowed = (
        _judged(_plan("error_rate", shadow_share=share), statistics) for share in (0.0, 1.0)
    )

    assert shadowed.log_harm == pytest.approx(without.log_harm + math.log(0.8), abs=0.01)


def test_a_change_of_the_mix_between_stages_is_no_difference() -> None:
    stages = (_stage(10_000, 0.01, 0.01, weight=0.05), _stage(10_000, 0.05, 0.05, weight=0.5))

    verdict = _judged(_plan("error_rate", shadow_share=0.0), _statistics(*stages))

    reading = verdict.readings[0]
    assert reading.challenger is not None
    assert reading.champion is not None
    assert reading.challenger - reading.champion > 0.01
    assert reading.difference == pytest.approx(0)
    assert verdict.kind != "harm"


def test_differences_of_stages_weigh_by_what_they_tell() -> None:
    stages = (_stage(10_000, 0.01, 0.03, weight=0.1), _stage(10_000, 0.01, 0.01, weight=0.5))

    verdict = _judged(_plan("error_rate"), _statistics(*stages))

    # 9,000 and 1,000 entities tell as much as 900, twice 5,000 as much as 2,500
    assert verdict.readings[0].difference == pytest.approx(0.02 * 900 / (900 + 2_500))


# --- Inconclusive, frozen ------------------------------------------------------------------------

HARM: Final = _statistics(_stage(20_000, 0.01, 0.03))
SAFE: Final = _statistics(_stage(200_000, 0.01, 0.01))


def _changed(statistics: Statistics, **fields: Any) -> Statistics:
    return msgspec.structs.replace(statistics, **fields)


@pytest.mark.parametrize(
    "statistics", [pytest.param(HARM, id="harm"), pytest.param(SAFE, id="safe")]
)
@pytest.mark.parametrize(
    ("fields", "word"),
    [
        pytest.param({"usecase": "other"}, "rollout other/2", id="another use case"),
        pytest.param({"number": 1}, "rollout flight_delay/1", id="another rollout"),
        pytest.param({"version": 3}, "version 3", id="another version"),
        pytest.param({"digest": "e" * 64}, "eeeeeeeeeeee", id="another digest"),
        pytest.param({"misassigned": 1}, "1 rows were answered by another arm", id="misassigned"),
        pytest.param(
            {"paired": {"loss": Moments(3, math.nan, 1.0)}}, "sums of loss", id="a pair is NaN"
        ),
        pytest.param(
            {"paired": {"loss": Moments(3, 1.0, math.inf)}}, "sums of loss", id="infinite squares"
        ),
        pytest.param(
            {"paired": {"loss": Moments(3, 2.0, 3.5)}}, "sums of loss", id="a loss above 1"
        ),
        pytest.param(
            {
                "stages": (
                    *HARM.stages,
                    Stage(
                        9,
                        0.5,
                        values={
                            "error_rate": Pair(
                                Moments(1, -math.inf, 0.0), Moments(1, math.inf, 0.0)
                            )
                        },
                    ),
                )
            },
            "sums of error_rate",
            id="infinities that cancel",
        ),
        pytest.param(
            {
                "stages": tuple(
                    msgspec.structs.replace(stage, exposed=Counts(16_000, 3_400))
                    for stage in HARM.stages
                )
            },
            "Sample ratio mismatch: 17.5 % of 19,400 entities were the challenger's at a weight "
            "of 20 %",
            id="uneven split",
        ),
    ],
)
def test_evidence_that_does_not_count_decides_nothing_whatever_it_shows(
    statistics: Statistics, fields: dict[str, Any], word: str
) -> None:
    verdict = _judged(_plan("error_rate"), _changed(statistics, **fields))

    assert (verdict.kind, verdict.log_harm, verdict.readings) == ("inconclusive", 0, ())
    assert word in verdict.reason


@pytest.mark.parametrize(
    "newest",
    [
        pytest.param({}, id="none at all"),
        pytest.param({"error_rate": NOW - timedelta(hours=24, seconds=1)}, id="old"),
        pytest.param({"error_rate": NOW + timedelta(hours=25)}, id="of the future"),
        pytest.param({"loss": NOW, "budget_overrun_rate": NOW}, id="of other metrics"),
    ],
)
def test_without_fresh_evidence_a_look_is_inconclusive(newest: dict[str, datetime]) -> None:
    verdict = _judged(_plan("error_rate"), _changed(SAFE, newest=newest))

    assert verdict.kind == "inconclusive"
    assert not verdict.readings[0].fresh


@pytest.mark.parametrize("metric", ["error_rate", "loss"])
@pytest.mark.parametrize("hours", [-25, 25])
def test_statistics_of_another_time_are_inconclusive(hours: int, metric: GuardrailMetric) -> None:
    at = NOW + timedelta(hours=hours)

    assert _judged(_plan(metric), _changed(SAFE, at=at)).kind == "inconclusive"


def test_evidence_that_cannot_be_read_is_inconclusive() -> None:
    assert _judged(_plan("error_rate"), None).kind == "inconclusive"


def test_labels_that_cannot_be_read_decide_nothing_but_hide_no_harm() -> None:
    trouble = "the labels cannot be read: the warehouse is away"
    plan = _plan("error_rate", "loss")
    harm, safe = (_judged(plan, _changed(seen, unread=trouble)) for seen in (HARM, SAFE))

    assert harm.kind == "harm"
    assert (safe.kind, len(safe.readings)) == ("inconclusive", 2)
    assert safe.reason == "The labels cannot be read: the warehouse is away."


def test_nothing_at_all_is_inconclusive() -> None:
    assert _judged(_plan(*ALL), _statistics(newest={})).kind == "inconclusive"


def test_entities_that_come_again_in_a_later_stage_are_no_new_tosses() -> None:
    uneven = Counts(18_780, 1_220)  # of 20,000 at 5 %: seven standard errors off
    stages = [Stage(8 + i, 0.05, exposed=Counts(18_900, 1_100)) for i in range(4)]

    once = sequential.log_mismatch(0.05, stages[0].exposed)

    assert 4 * once > math.log(1_000)
    assert _judged(_plan("error_rate"), _statistics(*stages)).kind == "undecided"
    assert (
        _judged(_plan("error_rate"), _statistics(Stage(8, 0.05, exposed=uneven))).kind
        == "inconclusive"
    )


@pytest.mark.parametrize(("own", "kind"), [(1_151, "inconclusive"), (1_150, "undecided")])
def test_every_step_that_a_plan_may_have_gets_its_part_of_the_level(own: int, kind: str) -> None:
    stage = Stage(8, 0.05, exposed=Counts(20_000 - own, own))
    log = sequential.log_mismatch(0.05, stage.exposed)

    assert (log >= math.log(1_000 * (len(PLAN.weights) + 1))) == (kind == "inconclusive")
    assert log >= math.log(1_000)
    assert _judged(_plan("error_rate"), _statistics(stage)).kind == kind


@pytest.mark.parametrize(
    ("recent", "kind"),
    [
        pytest.param(Share(100, 10_000), "safe", id="as before"),
        pytest.param(Share(300, 10_000), "frozen", id="three times as high"),
        pytest.param(Share(10, 10_000), "safe", id="better"),
        pytest.param(Share(0, 0), "safe", id="no traffic"),
    ],
)
def test_a_champion_that_is_worse_than_before_freezes_a_safe_version(
    recent: Share, kind: str
) -> None:
    statistics = _changed(
        SAFE, baseline={"error_rate": Share(100, 10_000)}, recent={"error_rate": recent}
    )

    assert _judged(_plan("error_rate"), statistics).kind == kind


# --- The stated error rates ----------------------------------------------------------------------

RUNS: Final = 700
ALPHA: Final = 0.05
SLACK: Final = 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""Three standard errors of a share of runs."""
BOTH: Final = RolloutPlan.model_validate(
    _plan("error_rate", "loss").model_dump()
    | {
        "guardrails": (
            {"metric": "error_rate", "margin": 0.05},
            {"metric": "loss", "margin": 0.05},
        ),
        "rollback_alpha": ALPHA,
        "promotion_alpha": ALPHA,
    }
)


def _looks(rng: np.random.Generator, worse: float) -> list[Statistics]:
    """Simulate a rollout of three steps of five looks, with a shadow of the champion's requests.

    Args:
        rng: Random numbers.
        worse: How much the challenger's mean loss is larger.
    """
    weights, batch, length = (0.05, 0.2, 0.5), 300, 1_500
    n = length * len(weights)
    arm = rng.random(n) < np.repeat(weights, length)
    loss = rng.beta(0.5, 4, n)
    shadow = np.where(rng.random(n) < worse / (1 - 0.5 / 4.5), 1.0, loss)
    errors = (rng.random((2, n)) < 0.03) * 1.0
    shown = {"error_rate": np.where(arm, *errors[::-1]), "loss": np.where(arm, shadow, loss)}
    gaps = {"error_rate": errors[1] - errors[0], "loss": shadow - loss}
    looks = []
    done: list[Stage] = []
    for end in range(batch, n + 1, batch):
        start = (end - 1) // length * length
        new = arm[start:end]
        values = {
            metric: Pair(_moments(x[start:end][~new]), _moments(x[start:end][new]))
            for metric, x in shown.items()
        }
        events = {"error_rate": Counts(*(int(of.total) for of in _both(values["error_rate"])))}
        exposed = Counts(*(of.n for of in _both(values["error_rate"])))
        stage = Stage(8, weights[start // length], exposed, values, events)
        pairs = {metric: _moments(gap[:end][~arm[:end]]) for metric, gap in gaps.items()}
        looks.append(_statistics(*done, stage, paired=pairs))
        if end % length == 0:
            done.append(stage)
    return looks


def _both(pair: Pair) -> tuple[Moments, Moments]:
    return pair.champion, pair.challenger


def _moments(values: NDArray[np.float64]) -> Moments:
    return Moments(values.size, float(values.sum()), float((values**2).sum()))


def _share_of(kind: str, worse: float) -> float:
    """Return how many of the simulated rollouts ever had such a verdict."""
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(RUNS):
        found += any(_judged(BOTH, look).kind == kind for look in _looks(rng, worse))
    return found / RUNS


def test_an_equal_version_is_called_harmful_no_more_often_than_stated() -> None:
    assert _share_of("harm", 0.0) <= ALPHA + SLACK


def test_a_version_worse_by_the_margin_is_called_safe_no_more_often_than_stated() -> None:
    assert _share_of("safe", 0.05) <= ALPHA + SLACK


def test_an_equal_version_is_found_safe_and_one_worse_by_two_margins_harmful() -> None:
    rng = np.random.default_rng(12)
    safe = sum(_judged(BOTH, _looks(rng, 0.0)[-1]).kind == "safe" for _ in range(100))
    harm = sum(_judged(BOTH, _looks(rng, 0.1)[-1]).kind == "harm" for _ in range(100))

    assert safe >= 95
    assert harm >= 95
