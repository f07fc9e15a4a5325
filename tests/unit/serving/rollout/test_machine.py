"""How a rollout goes on, what it waits for, and what ends it."""

import math
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from mlplatform.contracts import Counts, Evidence, Moments, Rollout, ServerStatus
from mlplatform.contracts.rollout import AT_REST, Phase, Share
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.errors import RolloutError
from serving.rollout import machine
from tests.unit.serving.rollout.builders import (
    CHALLENGER,
    CHAMPION,
    HOUR,
    NEWER,
    PLAN,
    READY,
    START,
    UNDER_WAY,
    after,
    begun,
    driven,
    evidence,
    look,
    reach,
    route,
    servers,
    shown,
)

# --- Forwards ------------------------------------------------------------------------------------


def test_a_good_model_goes_through_every_phase_and_each_share_of_traffic_has_its_epoch() -> None:
    rollout = driven(begun(first_epoch=7), START)

    assert [
        ("pending", 0.0, 0.0, 7),
        ("verifying", 0.0, 0.0, 7),
        ("shadow", 0.0, 1.0, 8),
        ("canary", 0.05, 1.0, 9),
        ("canary", 0.2, 1.0, 10),
        ("canary", 0.5, 1.0, 11),
        ("soak", 0.95, 0.0, 12),
        ("promoted", 1.0, 0.0, 13),
    ] == [
        (turn.phase, routed.weight, routed.shadow, turn.epoch)
        for turn in rollout.story
        for routed in rollout.routes
        if routed.epoch == turn.epoch
    ]
    assert rollout.at_rest


@pytest.mark.parametrize("shadow", [{"shadow_hours": 0.0}, {"shadow_share": 0.0}])
def test_without_a_shadow_the_verified_version_goes_straight_to_its_canary(
    shadow: dict[str, float],
) -> None:
    rollout, now = reach("verifying", plan=PLAN.model_copy(update=shadow))

    assert "canary" == look(rollout, now).phase


def test_the_soak_holds_back_the_first_share_but_never_takes_traffic_away() -> None:
    soaks = [
        reach("soak", plan=PLAN.model_copy(update={"weights": weights}))[0].routes[-1].weight
        for weights in [(0.05, 0.5), (0.4, 0.9), (0.5,)]
    ]

    assert [0.95, 0.9, 0.5] == soaks


def test_a_route_that_stays_the_same_keeps_its_epoch() -> None:
    plan = PLAN.model_copy(update={"weights": (0.5,), "shadow_share": 0.0})
    canary, _ = reach("canary", plan=plan)
    soak, _ = reach("soak", plan=plan, in_force=False)

    assert (canary.epoch, canary.committed) == (soak.epoch, soak.committed)


@pytest.mark.parametrize(("phase", "hours"), [("shadow", 6), ("soak", 24)])
def test_a_phase_lasts_its_hours_from_when_every_gateway_follows(phase: Phase, hours: int) -> None:
    rollout, _ = reach(phase, in_force=False)
    followed = rollout.entered_at + 5 * HOUR
    rollout = look(rollout, followed)
    early = look(rollout, followed + hours * HOUR - timedelta(seconds=1))
    late = look(rollout, followed + hours * HOUR)

    assert (phase, f"the {phase} to last {hours} hours") == (early.phase, early.waits_for)
    assert phase != late.phase


# --- What it waits for ---------------------------------------------------------------------------

Change = dict[str, Any]

UNFIT = [
    pytest.param({"statistics": None}, "evidence on this model", id="none"),
    pytest.param({"digest": "f" * 64}, "evidence on this model", id="another digest"),
    pytest.param({"version": 5}, "evidence on this model", id="another version"),
    pytest.param({"number": 1}, "evidence on this model", id="another rollout"),
    pytest.param({"usecase": "fraud"}, "evidence on this model", id="another use case"),
    pytest.param({"newest": {}}, "evidence that is fresh and sound", id="nothing new"),
    pytest.param({"at": START - 25 * HOUR}, "evidence that is fresh and sound", id="stale"),
    pytest.param({"misassigned": 1}, "evidence that is fresh and sound", id="a wrong arm"),
    pytest.param(
        {"paired": {"loss": Moments(9, float("nan"), 1.0)}},
        "evidence that is fresh and sound",
        id="not a number",
    ),
    pytest.param(
        {"recent": {"error_rate": Share(4_000, 40_000)}},
        "both versions to recover: they are worse together",
        id="both arms worse",
    ),
]


def unfit(rollout: Rollout, change: Change, now: datetime) -> Evidence:
    if "statistics" in change:
        return evidence(rollout, None)
    return evidence(rollout, msgspec.structs.replace(shown(rollout, now), **change))


PLACES: list[tuple[Phase, int]] = [("shadow", 0), ("canary", 0), ("canary", 2), ("soak", 0)]


@pytest.mark.parametrize(("phase", "step"), PLACES)
@pytest.mark.parametrize(("change", "waits_for"), UNFIT)
def test_nothing_goes_on_without_evidence_that_is_fresh_and_of_this_model(
    phase: Phase, step: int, change: Change, waits_for: str
) -> None:
    rollout, now = reach(phase, step)
    now += 30 * HOUR
    stays = after(rollout, unfit(rollout, change, now), now)

    assert (phase, rollout.step, waits_for) == (stays.phase, stays.step, stays.waits_for)
    assert look(stays, now).epoch == rollout.epoch + 1


ELSEWHERE = [
    pytest.param({"acknowledged": 0}, "every gateway to follow epoch", id="no gateway"),
    pytest.param({"acknowledged": 6}, "every gateway to follow epoch", id="an older route"),
    pytest.param({"acknowledged": 99}, "every gateway to follow epoch", id="another's route"),
    pytest.param({"challenger": ServerStatus("absent")}, "the server of version 4", id="gone"),
    pytest.param({"challenger": ServerStatus("starting")}, "the server of version 4", id="starts"),
    pytest.param({"champion": ServerStatus("failed")}, "the server of version 3", id="no way back"),
]


@pytest.mark.parametrize(("phase", "step"), PLACES)
@pytest.mark.parametrize(("change", "waits_for"), ELSEWHERE)
def test_nothing_goes_on_until_servers_are_ready_and_gateways_follow(
    phase: Phase, step: int, change: Change, waits_for: str
) -> None:
    rollout, now = reach(phase, step, in_force=False)
    now += 30 * HOUR
    seen = evidence(rollout, shown(rollout, now))
    stays = after(rollout, msgspec.structs.replace(seen, **change), now)

    assert (phase, rollout.epoch) == (stays.phase, stays.epoch)
    assert stays.waits_for.startswith(waits_for)


@pytest.mark.parametrize(
    ("phase", "exposed", "goes_on"),
    [
        ("canary", Counts(500, 500), True),
        ("canary", Counts(499, 500), False),
        ("canary", Counts(500, 499), False),
        ("soak", Counts(26, 500), True),
        ("soak", Counts(500, 499), False),
    ],
)
def test_a_step_ends_when_enough_entities_were_seen_at_its_weight(
    phase: Phase, exposed: Counts, goes_on: bool
) -> None:
    plan = PLAN.model_copy(update={"weights": (0.5,) if phase == "canary" else (0.05, 0.5)})
    rollout, now = reach(phase, plan=plan)
    now += 30 * HOUR
    seen = shown(rollout, now)
    newest = msgspec.structs.replace(seen.stages[-1], exposed=exposed)
    few = msgspec.structs.replace(seen, stages=(*seen.stages[:-1], newest))
    then = after(rollout, evidence(rollout, few), now)

    assert goes_on == (then.phase != phase), then.waits_for


def test_a_shadow_ends_when_both_versions_answered_enough_entities() -> None:
    rollout, now = reach("shadow")
    now += 6 * HOUR
    few = after(rollout, evidence(rollout, shown(rollout, now, entities=499)), now)
    enough = after(rollout, evidence(rollout, shown(rollout, now, entities=500)), now)

    assert ("shadow", "canary") == (few.phase, enough.phase)


@pytest.mark.parametrize(("answered", "phase"), [(499, "shadow"), (500, "canary")])
def test_a_shadow_whose_plan_guards_only_what_comes_late_waits_for_its_pairs_as_well(
    answered: int, phase: Phase
) -> None:
    late = tuple(guard for guard in PLAN.guardrails if guard.metric != "error_rate")
    rollout, now = reach("shadow", plan=PLAN.model_copy(update={"guardrails": late}))
    now += 6 * HOUR
    seen = evidence(rollout, shown(rollout, now, entities=answered))

    assert phase == after(rollout, seen, now).phase


@pytest.mark.parametrize(
    ("phase", "step", "what"), [("canary", 2, "safe"), ("soak", 0, "still safe")]
)
def test_only_a_last_step_and_a_soak_need_every_guardrail_safe(
    phase: Phase, step: int, what: str
) -> None:
    first, now = reach("canary", 0)
    last, later = reach(phase, step)
    later += 30 * HOUR
    goes = after(first, evidence(first, shown(first, now, entities=10_000, loss=0.119)), now)
    stays = after(last, evidence(last, shown(last, later, entities=10_000, loss=0.119)), later)

    assert ("canary", 1) == (goes.phase, goes.step)
    assert f"evidence that every guardrail is {what}" == stays.waits_for


@pytest.mark.parametrize(
    ("metric", "log_safe", "phase"),
    [
        ("error_rate", 0.0, "promoted"),  # it was at its limit once: that was the proof
        ("error_rate", -0.1, "soak"),
        ("loss", math.log(100), "promoted"),
        ("loss", math.log(99), "soak"),  # late labels are what the soak waits for
    ],
)
def test_a_soak_ends_unless_a_guardrail_has_turned_since(
    metric: str, log_safe: float, phase: Phase
) -> None:
    rollout, now = reach("soak")
    now += 30 * HOUR
    seen = evidence(rollout, shown(rollout, now))
    safe = machine.look(rollout, seen, now)
    assert safe is not None
    readings = tuple(
        reading.model_copy(update={"log_safe": log_safe}) if reading.metric == metric else reading
        for reading in safe.readings
    )
    now_undecided = safe.model_copy(update={"kind": "undecided", "readings": readings})

    assert phase == machine.turn(rollout, seen, now_undecided, now).phase


def test_old_labels_keep_a_step_from_nothing_and_a_promotion_from_happening() -> None:
    rollout, now = reach("soak")
    now += 30 * HOUR
    seen = shown(rollout, now)
    old = msgspec.structs.replace(seen, newest=seen.newest | {"loss": now - 25 * HOUR})

    assert (
        "evidence that every guardrail is still safe"
        == after(rollout, evidence(rollout, old), now).waits_for
    )


@pytest.mark.parametrize("lacking", ["gone", "old"])
@pytest.mark.parametrize("phase", ["canary", "soak"])
def test_a_verdict_is_not_taken_at_its_word(phase: Phase, lacking: str) -> None:
    rollout, now = reach(phase, 2 if phase == "canary" else 0)
    now += 30 * HOUR
    seen = evidence(rollout, shown(rollout, now))
    safe = machine.look(rollout, seen, now)
    assert safe is not None
    first, *others = safe.readings
    readings = others if lacking == "gone" else [first.model_copy(update={"fresh": False}), *others]
    rash = safe.model_copy(update={"readings": tuple(readings)})

    assert phase != machine.turn(rollout, seen, safe, now).phase
    assert phase == machine.turn(rollout, seen, rash, now).phase


def test_a_look_that_changes_nothing_gives_the_same_object_whatever_the_numbers() -> None:
    rollout, now = reach("canary", 2)
    rollout = after(rollout, evidence(rollout, shown(rollout, now, entities=400)), now)
    again = [
        after(rollout, evidence(rollout, shown(rollout, now + n * HOUR, entities=400 + n)), now)
        for n in range(5)
    ]

    assert all(rollout is same for same in again)


# --- Backwards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", [False, True], ids=["going on", "paused"])
@pytest.mark.parametrize("in_force", [False, True], ids=["asked for", "in force"])
@pytest.mark.parametrize(("phase", "step"), PLACES)
def test_a_broken_model_is_rolled_back_at_once(
    phase: Phase, step: int, in_force: bool, paused: bool
) -> None:
    rollout, now = reach(phase, step, in_force=in_force)
    if paused:
        rollout = machine.order(rollout, "pause", "ana", "lunch", now)
    seen = Evidence(READY, READY, rollout.committed, shown(rollout, now, errors=0.03))
    back = after(rollout, seen, now)

    assert ("rolled_back", "harm") == (back.phase, back.story[-1].verdict)
    assert (CHAMPION, None, 0.0, 0.0) == (
        route(back).champion,
        route(back).challenger,
        route(back).weight,
        route(back).shadow,
    )
    assert "error_rate" in back.story[-1].reason
    assert "harm" == getattr(back.story[-1].looked, "kind", None)


@pytest.mark.parametrize("phase", UNDER_WAY[1:])
def test_a_challenger_whose_server_fails_is_rolled_back_with_what_failed(phase: Phase) -> None:
    rollout, now = reach(phase)
    failed = ServerStatus("failed", detail="the signature is another key's; sign it again")
    back = after(rollout, Evidence(failed, READY, rollout.epoch), now)

    assert ("rolled_back", "failed") == (back.phase, back.story[-1].verdict)
    assert failed.detail in back.story[-1].reason


def test_a_version_that_is_refused_before_its_shadow_never_touches_the_route() -> None:
    rollout, now = reach("verifying")
    back = after(rollout, Evidence(ServerStatus("failed"), READY, rollout.epoch), now)

    assert route(rollout) == route(back)
    assert (CHAMPION,) == servers(back).versions


@pytest.mark.parametrize("paused", [False, True], ids=["going on", "paused"])
@pytest.mark.parametrize("phase", UNDER_WAY)
def test_it_is_held_at_its_deadline_wherever_it_is(phase: Phase, paused: bool) -> None:
    rollout, now = reach(phase)
    if paused:
        rollout = machine.order(rollout, "pause", "ana", "lunch", now)
    seen = evidence(rollout)
    before = after(rollout, seen, rollout.deadline_at - timedelta(seconds=1))
    then = after(rollout, seen, rollout.deadline_at)

    assert before.phase not in AT_REST
    assert ("held", 0.0) == (then.phase, route(then).weight)


BLIND = [
    pytest.param({"statistics": None}, id="unread"),
    pytest.param({"digest": "f" * 64}, id="another digest"),
    pytest.param({"misassigned": 1}, id="a wrong arm"),
    pytest.param({"paired": {"loss": Moments(9, float("nan"), 1.0)}}, id="not a number"),
]
STALE = timedelta(hours=PLAN.stale_hours)


@pytest.mark.parametrize("paused", [False, True], ids=["going on", "paused"])
@pytest.mark.parametrize(("phase", "step"), [("canary", 0), ("canary", 2), ("soak", 0)])
@pytest.mark.parametrize("change", BLIND)
def test_users_meet_a_version_that_nobody_can_judge_no_longer_than_evidence_counts(
    phase: Phase, step: int, change: Change, paused: bool
) -> None:
    rollout, now = reach(phase, step)
    if paused:
        rollout = machine.order(rollout, "pause", "ana", "lunch", now)
    blind = after(rollout, unfit(rollout, change, now), now)
    almost, then = now + STALE - timedelta(seconds=1), now + STALE
    stays = after(blind, unfit(blind, change, almost), almost)
    held = after(stays, unfit(stays, change, then), then)

    assert (phase, now) == (stays.phase, stays.blind_since)
    assert ("held", 0.0, None) == (held.phase, route(held).weight, held.blind_since)
    assert held.story[-1].reason.startswith("nobody could tell for 24 hours whether it does harm: ")


def test_one_sound_look_in_between_is_enough_to_go_on() -> None:
    rollout, now = reach("canary", 0)
    void = {"misassigned": 1}
    rollout = after(rollout, unfit(rollout, void, now), now)
    now += STALE - HOUR
    rollout = after(rollout, evidence(rollout, shown(rollout, now, entities=400)), now)
    sound = rollout.blind_since
    now += 2 * HOUR
    rollout = after(rollout, unfit(rollout, void, now), now)

    assert (None, "canary", now) == (sound, rollout.phase, rollout.blind_since)


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        pytest.param("shadow", {"misassigned": 1}, id="a shadow, which nobody meets"),
        pytest.param("canary", {"newest": {}}, id="no traffic"),
        pytest.param("canary", {"recent": {"error_rate": Share(4_000, 40_000)}}, id="both worse"),
    ],
)
def test_where_nobody_is_harmed_or_harm_can_be_told_only_the_deadline_counts(
    phase: Phase, change: Change
) -> None:
    rollout, now = reach(phase)
    for _ in range(3):
        rollout = after(rollout, unfit(rollout, change, now), now)
        now += STALE

    assert (phase, None) == (rollout.phase, rollout.blind_since)


def test_a_soak_waits_for_evidence_no_longer_than_evidence_counts() -> None:
    rollout, _ = reach("soak", in_force=False)

    assert rollout.entered_at + (24 + 24) * HOUR == rollout.deadline_at


def test_harm_that_comes_with_the_deadline_is_called_harm() -> None:
    rollout, _ = reach("canary")
    now = rollout.deadline_at
    back = after(rollout, evidence(rollout, shown(rollout, now, errors=0.03)), now)

    assert "harm" == back.story[-1].verdict


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_newer_version_ends_a_rollout_that_is_under_way(phase: Phase) -> None:
    rollout, now = reach(phase)
    over = machine.supersede(rollout, NEWER, "ana", now)

    assert ("superseded", CHAMPION, 0.0) == (over.phase, route(over).champion, route(over).weight)
    assert "version 5" in over.story[-1].reason


@pytest.mark.parametrize("phase", sorted(AT_REST))
def test_what_is_over_is_not_superseded(phase: Phase) -> None:
    rollout, now = reach(phase)

    with pytest.raises(RolloutError, match=f"is {phase}"):
        machine.supersede(rollout, NEWER, "ana", now)


def test_a_version_does_not_supersede_itself_nor_replace_itself() -> None:
    rollout, now = reach("canary")

    with pytest.raises(RolloutError, match="rolls out version 4 itself"):
        machine.supersede(rollout, CHALLENGER, "ana", now)
    with pytest.raises(RolloutError, match="version 3 of x serves already"):
        machine.start("x", 1, CHAMPION, CHAMPION, PLAN, 1, START, "ana", "")


@pytest.mark.parametrize("in_force", [False, True], ids=["asked for", "in force"])
@pytest.mark.parametrize("phase", sorted(AT_REST))
def test_nothing_but_an_order_leaves_a_phase_that_is_an_end(phase: Phase, in_force: bool) -> None:
    rollout, now = reach(phase, in_force=in_force)
    broken = Evidence(READY, READY, rollout.committed, shown(rollout, now, errors=0.5))
    then = after(rollout, broken, now + 1_000 * HOUR)

    assert (phase, rollout.epoch, in_force) == (then.phase, then.epoch, then.at_rest)
    assert then is after(then, broken, now + 1_001 * HOUR)


def plan_without(metric: str) -> RolloutPlan:
    kept = tuple(guard for guard in PLAN.guardrails if guard.metric != metric)
    return PLAN.model_copy(update={"guardrails": kept})


@pytest.mark.parametrize("metric", ["error_rate", "budget_overrun_rate", "loss"])
def test_a_plan_with_fewer_guardrails_comes_to_its_end_as_well(metric: str) -> None:
    rollout, _ = reach("promoted", plan=plan_without(metric))

    assert rollout.at_rest


@pytest.mark.parametrize("phase", ["shadow", "canary", "soak"])
def test_a_clock_that_went_back_stops_nothing(phase: Phase) -> None:
    rollout, now = reach(phase)
    early = after(rollout, evidence(rollout), now - 24 * HOUR)

    assert (phase, rollout.epoch) == (early.phase, early.epoch)
    assert early.waits_for
