"""What a person may ask of a rollout, and what comes of it."""

import pytest

from mlplatform.contracts.rollout import Order, Phase
from mlplatform.errors import RolloutError
from serving.rollout import machine
from tests.unit.serving.rollout.builders import (
    CHAMPION,
    HOUR,
    PHASES,
    after,
    driven,
    evidence,
    look,
    reach,
    route,
    shown,
)


@pytest.mark.parametrize("asked", ["rollback", "abort"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "rolled_back"])
def test_a_person_can_roll_back_from_wherever_it_is(phase: Phase, asked: Order) -> None:
    rollout, now = reach(phase)
    back = machine.order(rollout, asked, "ana", "complaints", now)
    verdict = {"rollback": "rolled_back", "abort": "aborted"}[asked]

    assert ("rolled_back", CHAMPION, 0.0) == (back.phase, route(back).champion, route(back).weight)
    assert (verdict, "ana", "by hand: complaints") == (
        back.story[-1].verdict,
        back.story[-1].actor,
        back.story[-1].reason,
    )


@pytest.mark.parametrize(
    ("phase", "onward"),
    [("shadow", "soak"), ("canary", "soak"), ("soak", "promoted")],
)
def test_a_person_can_skip_the_proof_and_the_story_says_so(phase: Phase, onward: Phase) -> None:
    rollout, now = reach(phase)
    paused = machine.order(rollout, "pause", "ana", "lunch", now)
    forced = machine.order(paused, "promote", "ana", "the champion is down", now)

    assert (onward, False) == (forced.phase, forced.paused)
    assert ("forced", "ana") == (forced.story[-1].verdict, forced.story[-1].actor)
    assert "not on evidence" in forced.story[-1].reason


def test_a_soak_that_was_asked_for_by_hand_ends_without_proof_but_not_without_evidence() -> None:
    rollout, now = reach("shadow")
    rollout = look(machine.order(rollout, "promote", "ana", "", now), now)
    now += 24 * HOUR
    blind = after(rollout, evidence(rollout), now)
    unproven = shown(rollout, now, entities=10_000, loss=0.119)
    undecided = after(rollout, evidence(rollout, unproven), now)
    broken = after(rollout, evidence(rollout, shown(rollout, now, errors=0.03)), now)

    assert ("soak", "promoted", "rolled_back") == (blind.phase, undecided.phase, broken.phase)
    assert undecided.story[-1].reason.endswith("Steps were skipped by hand.")


def test_a_pause_keeps_it_where_it_is_until_it_is_resumed() -> None:
    rollout, now = reach("shadow")
    paused = machine.order(rollout, "pause", "ana", "lunch", now)
    waiting = driven(paused, now, hours=48)
    resumed = machine.order(waiting, "resume", "ben", "", now + 48 * HOUR)

    assert ("shadow", "someone to resume it") == (waiting.phase, waiting.waits_for)
    assert "canary" == look(resumed, now + 48 * HOUR).phase
    assert [("paused", "ana"), ("resumed", "ben")] == [
        (chapter.verdict, chapter.actor) for chapter in resumed.story[-2:]
    ]


@pytest.mark.parametrize(
    ("phase", "asked", "because"),
    [
        ("pending", "promote", "not verified yet"),
        ("verifying", "promote", "not verified yet"),
        ("promoted", "promote", "it is over"),
        ("held", "promote", "it is over"),
        ("superseded", "promote", "it is over"),
        ("rolled_back", "promote", "it is over"),
        ("rolled_back", "rollback", "version 3 gets all traffic"),
        ("rolled_back", "abort", "version 3 gets all traffic"),
        ("promoted", "pause", "it is over"),
        ("canary", "resume", "it is not paused"),
    ],
)
def test_an_order_that_is_not_possible_is_refused_with_the_reason(
    phase: Phase, asked: Order, because: str
) -> None:
    rollout, now = reach(phase)

    with pytest.raises(RolloutError, match=because) as refusal:
        machine.order(rollout, asked, "ana", "", now)
    assert f"flight_delay/2 of version 4 is {phase}" in str(refusal.value)


def test_what_is_paused_is_not_paused_again() -> None:
    rollout, now = reach("canary")
    paused = machine.order(rollout, "pause", "ana", "", now)

    with pytest.raises(RolloutError, match="is paused already"):
        machine.order(paused, "pause", "ana", "", now)
