"""Rollouts among faults: whatever happens in whatever order, these promises hold.

A driver is played that stores the state, brings its effects about in any order and may be killed
between any two; two gateways that follow late, servers that fail, a clock that jumps, orders, newer
versions, a route store that somebody else wrote to, evidence of every kind and a judge that lies.
What is right is told by the test's own record of what it showed and what the gateways followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlplatform.contracts import Evidence, Moments, Rollout, ServerStatus, Verdict
from mlplatform.contracts.rollout import AT_REST, Order, Reading, Share, Statistics, Version
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.errors import RolloutError
from serving.rollout import machine
from serving.rollout.effects import Effect, EnsureServers, PublishRoute, Record, SetAliases
from tests.unit.serving.rollout.builders import PLAN, START, shown

QUICK: Final = PLAN.model_copy(
    update={"weights": (0.1, 0.5), "shadow_hours": 2.0, "soak_hours": 3.0, "deadline_hours": 50.0}
)
SHADOWLESS: Final = QUICK.model_copy(update={"shadow_share": 0.0})
WATCHED: Final = ("shadow", "canary", "soak")
PLACES: Final = st.sampled_from(("pending", *WATCHED, "promoted"))
GATEWAYS: Final = ("a", "b")
ABSENT: Final = ServerStatus("absent")
FAILED: Final = ServerStatus("failed")

UNFIT: Final[dict[str, dict[str, Any]]] = {
    "another digest": {"digest": "f" * 64},
    "another rollout": {"number": 99},
    "stale": {"newest": {"error_rate": START - timedelta(days=30)}},
    "not a number": {"paired": {"error_rate": Moments(9, float("nan"), 1.0)}},
    "a wrong arm": {"misassigned": 3},
    "both worse": {"recent": {"error_rate": Share(4_000, 40_000)}},
}
SHOWN: Final[dict[str, dict[str, Any]]] = {
    "good": {},
    "undecided": {"entities": 10_000, "loss": 0.119},
    "few": {"entities": 400},
    "harmful": {"errors": 0.05},
}
KINDS: Final = ("none", *SHOWN, *UNFIT)
BLIND: Final = ("none", "another digest", "another rollout", "not a number", "a wrong arm")
"""Evidence that shows no harm even where there is some."""
STALE: Final = timedelta(hours=PLAN.stale_hours)
POSSIBLE: Final[dict[Order, tuple[str, ...]]] = {
    "promote": WATCHED,
    "rollback": ("pending", "verifying", *WATCHED, "promoted", "held", "superseded"),
    "abort": ("pending", "verifying", *WATCHED, "promoted", "held", "superseded"),
    "pause": ("pending", "verifying", *WATCHED),
    "resume": ("pending", "verifying", *WATCHED),
}


def seen(kind: str, rollout: Rollout, now: Any) -> Statistics | None:
    if kind == "none":
        return None
    if kind in SHOWN:
        return shown(rollout, now, **SHOWN[kind])
    return msgspec.structs.replace(shown(rollout, now), **UNFIT[kind])


def lie(rollout: Rollout, *, fresh: bool) -> Verdict:
    """Return what a judge that does not look at anything would say."""
    readings = tuple(
        Reading(
            metric=guardrail.metric,
            margin=guardrail.margin,
            champion=None,
            challenger=None,
            entities=0,
            log_harm=0.0,
            log_safe=99.0,
            fresh=fresh,
        )
        for guardrail in rollout.plan.guardrails
    )
    return Verdict(kind="safe", reason="trust me", readings=readings)


@dataclass
class World:
    """What the effects are brought about in."""

    servers: dict[int, str]
    route: PublishRoute
    follows: dict[str, PublishRoute]
    """By living gateway."""
    aliases: SetAliases | None = None

    def acknowledged(self) -> int:
        return min((route.epoch for route in self.follows.values()), default=0)

    def status(self, version: Version) -> ServerStatus:
        state: Any = self.servers.get(version.version, "absent")
        return ServerStatus(state, detail="it fell over" if state == "failed" else "")

    def ready(self, route: PublishRoute) -> bool:
        """Whether the route can be published: its servers are ready, or in the route already."""
        known = versions(self.route)
        return all(v in known or self.servers.get(v) == "ready" for v in versions(route))


def versions(routed: PublishRoute) -> set[int]:
    return {v.version for v in (routed.champion, routed.challenger) if v is not None}


def route(rollout: Rollout) -> PublishRoute:
    return next(e for e in untold(rollout) if isinstance(e, PublishRoute))


def servers(rollout: Rollout) -> tuple[Version, ...]:
    return next(e.versions for e in untold(rollout) if isinstance(e, EnsureServers))


def untold(rollout: Rollout) -> tuple[Effect, ...]:
    """Return the effects but for the ledger's rows, which take most of the time."""
    return machine.effects(rollout.model_copy(update={"story": ()}))


class Rollouts(RuleBasedStateMachine):
    """Rollouts of one use case, one after the other."""

    rollout: Rollout
    world: World

    @initialize(plan=st.sampled_from([QUICK, QUICK, SHADOWLESS]))
    def a_first_version_serves(self, plan: RolloutPlan) -> None:
        self.now = START
        self.plan = plan
        self.ledger: dict[str, object] = {}
        self.promotions: dict[str, int] = {}
        champion = Version(version=1, digest="1" * 64)
        served = PublishRoute(5, "first", champion, None, 0.0, 0.0)
        self.world = World({1: "ready"}, served, dict.fromkeys(GATEWAYS, served))
        self.ask_for(number=1, champion=champion)

    def ask_for(self, number: int, champion: Version) -> None:
        version = number + 1
        self.rollout = machine.start(
            "flight_delay",
            number,
            Version(version=version, digest=f"{version:064x}"),
            champion,
            self.plan,
            self.world.route.epoch + 1,
            self.now,
            "ana",
            "newer",
        )
        self.forced = False
        self.followed: dict[int, Any] = {}
        """When the gateways were first seen to follow each epoch."""
        self.blind: list[Any] = []
        """When the looks were since users met a version of which nothing could be told."""

    # --- The driver --------------------------------------------------------------------------

    def tick(self, kind: str, verdict: Verdict | None = None, kept: int = 99) -> None:
        """Look once, store the state and bring about the first `kept` of its effects."""
        before = self.rollout
        evidence = Evidence(
            self.world.status(before.challenger),
            self.world.status(before.champion),
            self.world.acknowledged(),
            seen(kind, before, self.now),
        )
        if evidence.acknowledged == before.epoch:
            self.followed.setdefault(before.epoch, self.now)
        if before.phase in {"canary", "soak"} and kind in BLIND and verdict is None:
            self.blind.append(self.now)
        else:
            self.blind = []
        verdict = verdict or machine.look(before, evidence, self.now)
        after = machine.turn(before, evidence, verdict, self.now)

        assert (after == before) == (after is before)
        self.went_on_rightly(before, after, kind)
        self.store(after)
        self.act(kept)

    def store(self, rollout: Rollout) -> None:
        """Keep the state as its JSON, and what must be so of any two states after each other."""
        before = self.rollout
        if (rollout.phase, rollout.step) != (before.phase, before.step):
            self.blind = []
        if rollout.phase == "promoted" != before.phase:
            digest = rollout.challenger.digest
            self.promotions[digest] = self.promotions.get(digest, 0) + 1

        assert rollout.committed >= before.committed
        assert rollout.routes[: len(before.routes)] == before.routes
        assert rollout.story[: len(before.story)] == before.story
        self.rollout = Rollout.model_validate_json(rollout.model_dump_json())
        assert self.rollout == rollout

    def act(self, kept: int, order: Sequence[int] = ()) -> None:
        effects = list(machine.effects(self.rollout))
        if order:
            effects = [effects[i % len(effects)] for i in order] + effects
        for effect in effects[:kept]:
            self.bring_about(effect)

    def bring_about(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case EnsureServers(wanted):
                numbers = [version.version for version in wanted]
                world.servers = {n: world.servers.get(n, "starting") for n in numbers}
            case PublishRoute():
                if effect == world.route or not world.ready(effect):
                    return
                if effect.epoch > world.route.epoch:
                    world.route = effect
                else:
                    self.store(machine.reissue(self.rollout, world.route.epoch, self.now))
            case SetAliases():
                world.aliases = effect
            case Record(decision):
                assert decision == self.ledger.setdefault(decision.key, decision)

    def settled(self) -> bool:
        """Return whether it is at rest, and nobody else has published meanwhile."""
        if self.rollout.at_rest:
            self.act(99)
        return self.rollout.at_rest

    # --- What is right -----------------------------------------------------------------------

    def went_on_rightly(self, before: Rollout, after: Rollout, kind: str) -> None:
        """Check a turn against what the test itself showed and saw."""
        place = (before.phase, before.step)
        blind = bool(self.blind) and self.now - self.blind[0] >= STALE
        assert not (blind and after.phase in {"canary", "soak"})
        if (after.phase, after.step) == place or before.phase not in WATCHED:
            return
        event(f"{before.phase} → {after.phase} ({after.story[-1].verdict})")
        if after.phase == "rolled_back":
            failed = self.world.status(before.challenger).state == "failed"
            assert kind == "harmful" or failed
        elif after.phase == "held":
            assert blind or self.now >= before.deadline_at
        else:
            self.went_forward_rightly(before, kind)

    def went_forward_rightly(self, before: Rollout, kind: str) -> None:
        proof_needed = before.phase == "soak" or place_is_last(before)
        enough = {"good"} if proof_needed and not self.forced else {"good", "undecided"}
        hours = {"shadow": self.plan.shadow_hours, "soak": self.plan.soak_hours}
        mine = [r.epoch for r in before.routes if r.phase == before.phase]
        since = [self.followed[epoch] for epoch in mine if epoch in self.followed]

        assert kind in enough
        assert not before.paused
        assert before.epoch in self.followed
        assert self.now - since[0] >= timedelta(hours=hours.get(before.phase, 0.0))
        assert {"ready"} == {
            self.world.status(version).state for version in (before.champion, before.challenger)
        }

    # --- What happens ------------------------------------------------------------------------

    @rule(place=PLACES)
    def all_is_well_until(self, place: str) -> None:
        """Go on without a fault: what faults find would else be a rollout's beginning."""
        if self.rollout.phase in AT_REST:
            self.looks("good", 2)
            self.the_next_rollout_starts()
        if self.rollout.paused:
            self.order("resume")
        for _ in range(16):
            if self.rollout.phase in {place, *AT_REST}:
                break
            self.looks("good", 1)

    @rule(kind=st.sampled_from(KINDS), looks=st.integers(1, 8))
    def all_but_the_evidence_is_well(self, kind: str, looks: int) -> None:
        self.looks(kind, looks)

    def looks(self, kind: str, times: int) -> None:
        for _ in range(times):
            self.now += timedelta(hours=1)
            self.servers_come_up()
            self.world.follows = dict.fromkeys(GATEWAYS, self.world.route)
            self.tick(kind)

    @rule(kind=st.sampled_from(KINDS), kept=st.just(99) | st.integers(0, 6))
    def the_driver_looks_and_may_be_killed_between_two_effects(self, kind: str, kept: int) -> None:
        self.tick(kind, kept=kept)

    @rule(place=PLACES, kind=st.sampled_from(["none", *UNFIT]), lies=st.booleans())
    def only_the_evidence_is_missing(self, place: str, kind: str, lies: bool) -> None:
        """Let everything but sound evidence be there; a judge may even call it safe."""
        self.all_is_well_until(place)
        self.looks("none", 1)
        self.now += timedelta(hours=4)
        unread = kind in {"none", "another digest", "another rollout"}
        proof_needed = self.rollout.phase == "soak" and not self.forced
        if lies and (unread or proof_needed):
            self.tick(kind, lie(self.rollout, fresh=unread))
        else:
            self.tick(kind)

    @rule(place=st.sampled_from(["canary", "soak"]), kind=st.sampled_from(BLIND))
    def the_evidence_does_not_count_for_a_day(self, place: str, kind: str) -> None:
        self.all_is_well_until(place)
        self.looks(kind, 2)
        self.now += STALE - timedelta(hours=1)
        self.tick(kind)

    @rule(order=st.permutations(range(4)))
    def the_effects_come_again_in_another_order(self, order: list[int]) -> None:
        self.act(99, order)

    @rule(hours=st.floats(-1.0, 12.0))
    def the_clock_goes_or_jumps(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @rule(gateway=st.sampled_from(GATEWAYS))
    def a_gateway_follows(self, gateway: str) -> None:
        self.world.follows[gateway] = self.world.route

    @rule(gateway=st.sampled_from(GATEWAYS))
    def a_gateway_dies(self, gateway: str) -> None:
        self.world.follows.pop(gateway, None)

    @rule()
    def servers_come_up(self) -> None:
        self.world.servers = dict.fromkeys(self.world.servers, "ready")

    @rule(which=st.integers(0, 1), state=st.sampled_from(["failed", "starting"]))
    def a_server_falls_over(self, which: int, state: str) -> None:
        running = sorted(self.world.servers)
        self.world.servers[running[which % len(running)]] = state

    @rule(later=st.integers(0, 3))
    def somebody_else_publishes(self, later: int) -> None:
        foreign = Version(version=1, digest="1" * 64)
        epoch = self.world.route.epoch + later
        self.world.route = PublishRoute(epoch, "foreign", foreign, None, 0.0, 0.0)

    @rule(place=PLACES, asked=st.sampled_from(get_args(Order)))
    def a_person_orders(self, place: str, asked: Order) -> None:
        self.all_is_well_until(place)
        self.order(asked)

    @rule(asked=st.sampled_from(get_args(Order)))
    def order(self, asked: Order) -> None:
        before = self.rollout
        possible = before.phase in POSSIBLE[asked]
        if asked in {"pause", "resume"}:
            possible = possible and before.paused == (asked == "resume")
        if not possible:
            with pytest.raises(RolloutError, match=f"is {before.phase}, where {asked}"):
                machine.order(before, asked, "ana", "why not", self.now)
            return
        event(f"{asked} in {before.phase}")
        self.forced = self.forced or asked == "promote"
        self.store(machine.order(before, asked, "ana", "why not", self.now))

    @rule(place=PLACES)
    def a_newer_version_is_asked_for(self, place: str) -> None:
        self.all_is_well_until(place)
        number = self.rollout.number
        if self.rollout.phase not in AT_REST:
            newer = Version(version=number + 2, digest=f"{number + 2:064x}")
            self.store(machine.supersede(self.rollout, newer, "ana", self.now))

    @rule()
    def the_next_rollout_starts(self) -> None:
        if self.settled():
            self.ask_for(self.rollout.number + 1, self.world.route.champion)

    # --- What always holds -------------------------------------------------------------------

    @invariant()
    def epochs_rise_and_shares_are_shares(self) -> None:
        routes = self.rollout.routes
        epochs = [routed.epoch for routed in routes]

        assert epochs == sorted(set(epochs))
        assert all(0 <= routed.weight <= 1 and 0 <= routed.shadow <= 1 for routed in routes)

    @invariant()
    def the_route_shares_out_all_traffic_among_servers_that_are_kept(self) -> None:
        wanted, kept = route(self.rollout), servers(self.rollout)

        assert 0 <= wanted.weight < 1
        assert (wanted.challenger is None) == (wanted.weight == 0 and wanted.shadow == 0)
        assert versions(wanted) <= {version.version for version in kept}

    @invariant()
    def no_gateway_follows_a_route_whose_server_was_stopped(self) -> None:
        for routed in self.world.follows.values():
            if routed.salt == self.rollout.salt:
                assert versions(routed) <= set(self.world.servers)

    @invariant()
    def no_model_is_promoted_twice(self) -> None:
        assert all(times == 1 for times in self.promotions.values())

    @invariant()
    def a_way_back_is_open_until_it_was_taken(self) -> None:
        rollout, now = self.rollout, self.now
        if rollout.phase == "rolled_back":
            return
        ways = [machine.order(rollout, "rollback", "ana", "", now)]
        if rollout.phase != "pending" and rollout.phase not in AT_REST:
            ways += [machine.turn(rollout, Evidence(FAILED, ABSENT), None, now)]
        if rollout.phase in WATCHED:
            blind = Evidence(ABSENT, ABSENT, 0, seen("harmful", rollout, now))
            ways += [machine.turn(rollout, blind, machine.look(rollout, blind, now), now)]
        for back in ways:
            assert "rolled_back" == back.phase
            assert (0.0, 0.0) == (route(back).weight, route(back).shadow)
            assert rollout.champion == route(back).champion

    @invariant()
    def at_rest_one_version_has_all_traffic_its_alias_and_the_only_server(self) -> None:
        if not self.settled():
            return
        world, routed = self.world, self.world.route
        promoted = self.promotions.get(self.rollout.challenger.digest) and (
            self.rollout.phase == "promoted"
        )
        serving = self.rollout.challenger if promoted else self.rollout.champion

        assert (serving, None) == (routed.champion, routed.challenger)
        assert SetAliases(serving, None) == world.aliases
        assert {serving.version} == set(world.servers)

    def teardown(self) -> None:
        """Whatever the evidence says, it comes to rest once its deadlines have passed."""
        if not hasattr(self, "rollout"):
            return
        kept = self.rollout, self.now, self.world.servers, self.world.route, self.ledger
        for kind in ("none", "good", "undecided", "another digest"):
            self.rollout, self.now, running, routed, ledger = kept
            self.world, self.ledger = World(dict(running), routed, {}), dict(ledger)
            for _ in range(8):
                self.now = max(self.now, self.rollout.deadline_at)
                self.servers_come_up()
                self.world.follows = dict.fromkeys(GATEWAYS, self.world.route)
                self.tick(kind)
            assert self.rollout.at_rest, (kind, self.rollout.phase, self.rollout.waits_for)


def place_is_last(rollout: Rollout) -> bool:
    return rollout.phase == "canary" and rollout.step == len(rollout.plan.weights) - 1


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    derandomize=True, max_examples=200, stateful_step_count=25, deadline=None
)
