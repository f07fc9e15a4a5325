"""What the state of a rollout means for servers, route, aliases and ledger."""

import pytest

from mlplatform.contracts import Evidence, Rollout, ServerStatus
from mlplatform.contracts.rollout import AT_REST, Phase
from serving.rollout import machine
from serving.rollout.effects import PublishRoute
from tests.unit.serving.rollout.builders import (
    CHALLENGER,
    CHAMPION,
    HOUR,
    PHASES,
    READY,
    START,
    after,
    aliases,
    begun,
    evidence,
    look,
    reach,
    route,
    rows,
    servers,
    shown,
)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("in_force", [False, True], ids=["asked for", "in force"])
def test_the_stored_state_alone_says_what_is_to_be(phase: Phase, in_force: bool) -> None:
    rollout, _ = reach(phase, in_force=in_force)
    stored = Rollout.model_validate_json(rollout.model_dump_json())

    assert machine.effects(rollout) == machine.effects(stored)
    assert rollout == stored


@pytest.mark.parametrize("phase", PHASES)
def test_both_servers_run_until_every_gateway_follows_the_last_route(phase: Phase) -> None:
    moving, _ = reach(phase, in_force=False)
    resting, _ = reach(phase)
    serving = CHALLENGER if phase == "promoted" else CHAMPION

    assert {CHAMPION.version, CHALLENGER.version} == {v.version for v in servers(moving).versions}
    assert phase not in AT_REST or (serving,) == servers(resting).versions
    assert serving == servers(resting).versions[0] == aliases(resting).champion


def test_a_promotion_is_taken_back_by_the_version_before_once_its_server_is_ready() -> None:
    promoted, now = reach("promoted")
    back = machine.order(promoted, "rollback", "ana", "complaints", now)
    starting = after(back, Evidence(READY, ServerStatus("starting"), promoted.epoch), now)
    over = after(starting, evidence(starting), now)

    assert (CHALLENGER, CHAMPION) == servers(back).versions
    assert (CHAMPION, back.epoch) == (route(back).champion, promoted.epoch + 1)
    assert CHALLENGER == aliases(starting).champion
    assert "the server of version 3 to be ready" == starting.waits_for
    assert ((CHAMPION,), CHAMPION) == (servers(over).versions, aliases(over).champion)
    assert over.at_rest


def test_the_registry_calls_it_champion_only_when_every_gateway_follows() -> None:
    soak, _ = reach("soak")
    asked, _ = reach("promoted", in_force=False)
    done, _ = reach("promoted")

    assert [(CHAMPION, CHALLENGER), (CHAMPION, None), (CHALLENGER, None)] == [
        (aliases(r).champion, aliases(r).challenger) for r in (soak, asked, done)
    ]


def test_a_row_of_the_ledger_is_the_same_however_the_story_goes_on() -> None:
    now, rollout, said = START, begun(), rows(begun())
    while not rollout.at_rest:
        now += HOUR
        rollout = look(rollout, now)
        assert said == rows(rollout)[: len(said)]
        said = rows(machine.reissue(rollout, rollout.epoch, now))

    assert [f"flight_delay/rollout/2/{n}" for n in range(1, len(said) + 1)] == [
        row.decision.key for row in said
    ]


def test_a_row_of_the_ledger_holds_what_decided() -> None:
    rollout, now = reach("canary", 1)
    decision = rows(after(rollout, evidence(rollout, shown(rollout, now, errors=0.03)), now))[-1]
    content = decision.decision.evidence

    assert ("rollout", "4", "harm", "evidence") == (
        decision.decision.kind,
        decision.decision.subject,
        decision.decision.verdict,
        decision.decision.actor,
    )
    assert {"digest": "d" * 64, "champion": 3, "step": 1, "epoch": 11, "weight": 0.0} == {
        name: content[name] for name in ("digest", "champion", "step", "epoch", "weight")
    }
    looked = content["looked"]
    assert isinstance(looked, dict)
    assert "harm" == looked["kind"]


def test_a_route_that_is_asked_for_anew_goes_on_where_it_was() -> None:
    rollout, now = reach("soak")
    again = machine.reissue(rollout, 40, now + 23 * HOUR)
    followed = after(again, evidence(again), now + 23 * HOUR)

    assert (41, 0.95, "soak") == (again.epoch, again.routes[-1].weight, again.phase)
    assert (41, rollout.entered_at) == (followed.committed, followed.entered_at)
    assert "promoted" == look(followed, now + 24 * HOUR).phase


def test_a_route_that_is_asked_for_anew_starts_no_server_that_was_released() -> None:
    rollout, now = reach("promoted")

    assert servers(rollout) == servers(machine.reissue(rollout, 40, now))


@pytest.mark.parametrize(("beyond", "again"), [(-1, False), (0, True), (5, True)])
def test_a_route_is_asked_for_anew_where_its_epoch_is_taken(beyond: int, again: bool) -> None:
    rollout, now = reach("canary")
    then = machine.reissue(rollout, rollout.epoch + beyond, now)

    assert again == (then is not rollout)
    assert not again or rollout.epoch + beyond + 1 == then.epoch


def test_a_promoted_version_is_the_only_arm() -> None:
    rollout, _ = reach("promoted", in_force=False)

    assert PublishRoute(
        epoch=rollout.epoch,
        salt="flight_delay/rollout/2",
        champion=CHALLENGER,
        challenger=None,
        weight=0.0,
        shadow=0.0,
    ) == route(rollout)
