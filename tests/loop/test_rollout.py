"""Versions take over and are sent back under live traffic, with real servers.

Hours of the plan are seconds here. Requests leave at an even pace, 100 a second, open loop; each is
of another flight, so that rows are entities.
"""

import contextlib
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import pytest
import uvloop

from local.load import Answer, Client, open_loop
from local.serving import Serving, serving
from local.tally import scored_of
from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import Phase
from mlplatform.contracts.usecase.operation import Guardrail, RolloutPlan
from mlplatform.ledger import Ledger
from serving.gateway.answer import Answer as Scored
from serving.rollout import machine
from serving.rollout.desk import Orders
from serving.route import RouteStore
from tests.conftest import ROOT
from tests.loop.small_platform import (
    AS_OF,
    LATE,
    ON_TIME,
    SECOND,
    USECASE,
    SmallPlatform,
    small_platform,
)

pytestmark = pytest.mark.loop

_LOG = logging.getLogger("tests.rollout")
PER_SECOND = 100
PATIENCE = 120.0
"""Seconds after which what is waited for will not come, however busy the machine."""
RULES = {0}
"""The version of their answers: a model may be late on a busy machine."""
PLAN = RolloutPlan(
    assignment_unit="flight",
    shadow_hours=2 * SECOND,
    weights=(0.2, 0.5),
    min_exposure=100,
    # Of decisions alone: what a busy machine does to latency is harm to a version as well.
    guardrails=(Guardrail(metric="decision_rate", margin=0.1),),
    rollback_alpha=0.01,
    promotion_alpha=0.01,
    # Long beside what a busy machine may be late by.
    stale_hours=60 * SECOND,
    soak_hours=2 * SECOND,
    deadline_hours=600 * SECOND,
)
UNSEEN = PLAN.model_copy(
    update={"shadow_hours": 0.0, "shadow_share": 0.0, "weights": (0.05, 0.5), "min_exposure": 500}
)
"""Without a shadow, so that users meet a broken version: in a step of 5 % that is planned for
10,000 requests."""


ENDLESS = PLAN.model_copy(update={"min_exposure": 10**6, "soak_hours": 1.0})
"""Goes on by hand alone."""


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> SmallPlatform:
    """A platform that nobody has served yet, to be copied."""
    return small_platform(tmp_path_factory.mktemp("untouched") / "root")


@pytest.fixture(scope="module")
def platform(untouched: SmallPlatform, tmp_path_factory: pytest.TempPathFactory) -> SmallPlatform:
    return untouched.copy(tmp_path_factory.mktemp("rollout") / "root", PLAN)


@pytest.fixture(scope="module")
def running(platform: SmallPlatform) -> Iterator[Serving]:
    with serving(platform.workspace, platform.code, AS_OF, lambda *_: None) as found:
        yield found


@dataclass
class Traffic:
    """What clients got, and when: seconds of the monotonic clock."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def scored(self) -> list[tuple[Answer, Scored]]:
        return [(a, s) for a in self.answers if (s := scored_of(a)) is not None]

    @property
    def lost(self) -> int:
        return sum(answer.status == 0 for answer in self.answers)

    @property
    def refused(self) -> int:
        return len(self.answers) - len(self.scored) - self.lost

    def by(self, version: int) -> list[Answer]:
        return [answer for answer, scored in self.scored if scored.version == version]


@contextlib.contextmanager
def under_load(platform: SmallPlatform, running: Serving, name: str) -> Iterator[Traffic]:
    """Send requests for the length of the block, and some before it and after it."""
    found, stop = Traffic(), threading.Event()

    async def load() -> None:
        async with Client(running.url) as client:
            path = f"/v1/{USECASE}/score"
            bodies = takewhile(lambda _: not stop.is_set(), platform.requests(running.clock, name))
            payloads = (client.request(path, body) for body in bodies)
            await open_loop(client, payloads, PER_SECOND, after=found.answers.append)

    def more() -> None:
        known = len(found.answers)
        wait(lambda: len(found.answers) >= known + PER_SECOND // 2)

    thread = threading.Thread(target=lambda: uvloop.run(load()), name="load")
    thread.start()
    try:
        more()
        yield found
        more()
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def ordered(platform: SmallPlatform, running: Serving) -> Callable[[RolloutPlan], Orders]:
    """Orders by another plan than the platform's."""

    def orders(plan: RolloutPlan) -> Orders:
        spec = platform.code.spec.model_copy(update={"rollout": plan})
        ledger = Ledger(platform.workspace.ledger_url)
        return Orders(spec, running.rollouts, ledger, running.clock.now, lambda: True)

    return orders


def until(running: Serving, *phases: Phase) -> Rollout:
    """Return the rollout when it is in one of the phases, and in force everywhere."""

    def there() -> bool:
        found = running.rollout
        return found is not None and found.phase in phases and found.committed >= found.epoch

    wait(there, lambda: f"{running.rollout}")
    found = running.rollout
    assert found is not None
    return found


def wait(condition: Callable[[], bool], told: Callable[[], str] = str) -> float:
    """Return when a condition holds, by the monotonic clock."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)
    return time.monotonic()


def acknowledged(running: Serving) -> int:
    """Epoch that every gateway follows."""
    routes = RouteStore(running.redis_url)
    try:
        return min(routes.acknowledgements(USECASE).values())
    finally:
        routes.close()


def alias(running: Serving) -> int:
    """Version that the registry calls champion."""
    found = running.registry.by_alias(USECASE, "champion")
    assert found is not None
    return found.version


def verdicts(platform: SmallPlatform, version: int) -> list[str]:
    rows = Ledger(platform.workspace.ledger_url).entries(USECASE, "rollout", str(version))
    return [entry.decision.verdict for entry in rows]


def servers(platform: SmallPlatform) -> list[int]:
    """Versions that have a running Triton in this workspace."""
    folder = f"--model-repository={platform.workspace.models.resolve()}/{USECASE}-v"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            told = path.read_bytes().decode(errors="replace")
            found += re.findall(re.escape(folder) + r"(\d+)-", told)
    return sorted(map(int, found))


def champion_of(running: Serving) -> int:
    """Version that has all traffic while no rollout is under way."""
    rollout = running.rollout
    return running.model.version if rollout is None else machine.serves(rollout).version


def test_a_good_version_takes_over_and_no_request_is_lost(
    platform: SmallPlatform, running: Serving
) -> None:
    champion = champion_of(running)
    good = platform.register(running.registry, ON_TIME, tag="good")

    with under_load(platform, running, "good") as traffic:
        running.start_rollout(good.version, reason="a test")
        until(running, "promoted")

    told = ["started", "verifying", "verified", "canary", "canary", "soak", "promoted"]
    assert told == verdicts(platform, good.version)
    assert (0, 0) == (traffic.lost, traffic.refused)
    assert {champion, good.version} == {scored.version for _, scored in traffic.scored} - RULES
    wait(lambda: servers(platform) == [good.version])
    wait(lambda: alias(running) == good.version)


def test_a_broken_version_has_no_traffic_within_a_second_of_the_verdict(
    platform: SmallPlatform,
    running: Serving,
    ordered: Callable[[RolloutPlan], Orders],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = platform.register(running.registry, LATE, tag="broken")

    with under_load(platform, running, "broken") as traffic:
        ordered(UNSEEN).start(running.registry, broken.version, actor="test", reason="a test")
        wait(lambda: running.rollout.phase == "rolled_back")  # type: ignore[union-attr]
        back = running.rollout
        assert back is not None
        committed = wait(lambda: acknowledged(running) >= back.epoch)
        ahead = running.clock.now().timestamp() - time.monotonic()

    verdict = back.story[-1].at.timestamp() - ahead
    (step,) = [routed for routed in back.routes if routed.weight > 0]
    begun = step.at.timestamp() - ahead
    spoiled = traffic.by(broken.version)
    during = [answer for answer in traffic.answers if begun <= answer.sent <= committed]
    planned = UNSEEN.min_exposure / UNSEEN.weights[0]
    # Requests leave when they are due, unless the machine itself is late.
    meanwhile = [a for a in traffic.answers if verdict <= a.done and a.due <= committed]
    late = max((answer.sent - answer.due for answer in meanwhile), default=0.0)
    caplog.set_level(logging.INFO, _LOG.name)  # shown by `pytest -rP`
    for name, value in {
        "seconds from the verdict to 0 %": committed - verdict,
        "seconds that the machine was late by meanwhile": late,
        "seconds from the step's route to the verdict": verdict - begun,
        "spoiled answers": len(spoiled),
        "of the step's planned traffic": len(spoiled) / planned,
        "of its traffic until it ended": len(spoiled) / len(during),
    }.items():
        _LOG.info("%s: %.4g", name, value)
    assert "harm" == back.story[-1].verdict
    assert committed - verdict < 1 + late
    assert 0 < len(spoiled) <= 0.01 * planned
    assert [] == [answer for answer in spoiled if answer.sent > committed]
    assert (0, 0) == (traffic.lost, traffic.refused)
    wait(lambda: broken.version not in servers(platform))


def test_a_tampered_model_is_refused_and_costs_no_request(
    platform: SmallPlatform, running: Serving
) -> None:
    champion = champion_of(running)
    tampered = platform.register(running.registry, ON_TIME, tag="tampered")
    stored = platform.stored_model(tampered.digest)
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")

    with under_load(platform, running, "tampered") as traffic:
        running.start_rollout(tampered.version, reason="a test")
        back = until(running, "rolled_back")

    assert ["started", "verifying", "failed"] == verdicts(platform, tampered.version)
    assert "is not what was signed" in back.story[-1].reason
    assert [0.0] == [routed.weight + routed.shadow for routed in back.routes]
    assert (0, 0) == (traffic.lost, traffic.refused)
    assert {champion} == {scored.version for _, scored in traffic.scored} - RULES


def test_after_a_promotion_the_version_before_gets_its_traffic_back_by_hand(
    platform: SmallPlatform, running: Serving, ordered: Callable[[RolloutPlan], Orders]
) -> None:
    champion = champion_of(running)
    good = platform.register(running.registry, ON_TIME, tag="regretted")
    orders = ordered(ENDLESS)

    with under_load(platform, running, "regretted") as traffic:
        orders.start(running.registry, good.version, actor="test", reason="")
        until(running, "shadow")
        orders.give("promote", actor="test", reason="")
        until(running, "soak")
        orders.give("promote", actor="test", reason="")
        until(running, "promoted")
        wait(lambda: servers(platform) == [good.version])
        orders.give("rollback", actor="test", reason="")
        until(running, "rolled_back")
        wait(lambda: servers(platform) == [champion])

    assert ["forced", "forced", "rolled_back"] == verdicts(platform, good.version)[-3:]
    assert (0, 0) == (traffic.lost, traffic.refused)
    assert {champion, good.version} == {scored.version for _, scored in traffic.scored} - RULES
    wait(lambda: alias(running) == champion)


def test_a_rollout_goes_on_where_the_platform_was_stopped_and_is_ended_from_a_terminal(
    untouched: SmallPlatform, tmp_path: Path
) -> None:
    unseen = ENDLESS.model_copy(update={"shadow_hours": 0.0, "shadow_share": 0.0})
    other = untouched.copy(tmp_path / "root", unseen)
    with serving(other.workspace, other.code, AS_OF, lambda *_: None) as running:
        good = other.register(running.registry, ON_TIME, tag="good")
        running.start_rollout(good.version)
        before = until(running, "canary")
    assert [] == servers(other)

    with serving(other.workspace, other.code, AS_OF, lambda *_: None) as running:
        assert running.clock.now() >= before.story[-1].at  # what it saw does not lie ahead of it
        with under_load(other, running, "resumed") as traffic:
            after = until(running, "canary")
            wait(lambda: {s.version for _, s in traffic.scored} >= {1, good.version})
        command = [sys.executable, "-m", "local.rollout", "rollback", "--reason", "enough"]
        command += ["--root", str(other.workspace.root)]
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        wait(lambda: servers(other) == [before.champion.version])

    assert (before.number, before.story) == (after.number, after.story)
    assert {1, good.version} == {scored.version for _, scored in traffic.scored} - RULES
    assert (0, 0) == (traffic.lost, traffic.refused)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert "enough" in ended.stdout
    assert "every gateway follows it" in ended.stdout
