"""Each window of the loop: served, judged, decided, retrained, rolled out, told; in this order.

The trigger, its submitter, the stores and the ledger are real. What answers, judges and trains is
played: a test says what a window showed and what a run registered.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feature_repo import catalog
from local.alert_lines import AlertLines
from local.followed import Followed
from local.loop import Loop, Parts
from local.story import _decisions
from local.told import Day
from local.workspace import Workspace
from mlplatform.contracts import Decision, Rollout, Window
from mlplatform.contracts.retrain import Cause, History
from mlplatform.contracts.rollout import Version
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import DataError, PlatformError, ServiceError
from mlplatform.ledger import Ledger
from monitoring.requests import RequestStore, notice
from monitoring.submit import Submitter
from serving.rollout import machine
from serving.rollout.store import RolloutStore
from tests.unit.local import stories
from tests.unit.monitoring.orchestrator import FakeOrchestrator
from tests.unit.serving.rollout.builders import PLAN

SPEC = catalog.spec(stories.NAME)


@dataclass
class World:
    """All that the loop meets, and what happened in which order."""

    workspace: Workspace
    happened: list[str] = field(default_factory=list)
    causes: dict[int, Cause] = field(default_factory=dict)
    """What a day's inputs show; healthy where nothing is said."""
    aliases: dict[str, int] = field(default_factory=lambda: {"champion": 1})
    gain: bool | None = None
    """Whether what was trained is better; None: its rollout goes on."""
    broken: dict[str, PlatformError] = field(default_factory=dict)
    """Parts that fail, and how."""

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.workspace.ledger_url)
        self.requests = RequestStore(self.workspace.ledger_url)
        self.rollouts = RolloutStore(self.workspace.ledger_url)
        self.orchestrator = FakeOrchestrator()
        self.note("registration", "before the loop")

    def does(self, part: str, what: str) -> None:
        if part in self.broken:
            raise self.broken[part]
        self.happened.append(f"{part}: {what}")

    def note(self, kind: str, subject: str, usecase: str = stories.NAME) -> None:
        """Put a row on the ledger, as some process does at some time."""
        row = {"usecase": usecase, "kind": kind, "subject": subject, "verdict": "seen",
               "reason": "", "actor": "test", "at": stories.START,
               "key": f"{usecase}/{kind}/{subject}"}  # fmt: skip
        self.ledger.append(Decision.model_validate(row))

    def parts(self, now: Callable[[], datetime]) -> Parts:
        spoken: Any = SimpleNamespace(say=lambda *_: None)
        serving: Any = self
        played: Any = self
        return Parts(
            usecase=stories.NAME, traffic=played, rounds=played, requests=self.requests,
            submitter=Submitter(stories.NAME, "training", self.requests, played,
                                lambda _: self.gain, self.ledger, now),
            registry=played, rollouts=self.rollouts, followed=Followed(serving, spoken.say),
            told=AlertLines(spoken), ledger=self.ledger,
        )  # fmt: skip

    def until(self, moment: datetime, withheld: Collection[str]) -> None:
        self.does("serve", f"until {moment:%d}" + "".join(f" without {one}" for one in withheld))

    def go(self, window: Window, now: datetime) -> tuple[WindowReport, History]:
        self.does("judge", f"at {now:%d}")
        number = (window.start - stories.START).days
        cause = self.causes.get(number, "healthy")
        blamed = () if cause == "healthy" else ("temperature",)
        found = stories.finding(number, cause, blamed=blamed)
        history = notice(
            self.requests, self.ledger, stories.NAME, [found], SPEC.monitoring, now
        )  # fmt: skip
        return stories.day(number).report.model_copy(update={"findings": (found,)}), history

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        self.does("retrain", f"as of {datetime.fromisoformat(parameters['as_of']):%d}")
        run = self.orchestrator.submit(pipeline, parameters, key)
        self.orchestrator.states[run] = "succeeded"
        self.aliases["challenger"] = 2
        self.note("run", run)
        return run

    def state(self, run: str) -> Any:
        return self.orchestrator.state(run)

    def by_alias(self, name: str, alias: str) -> Any:
        if "registry" in self.broken:
            raise self.broken["registry"]
        assert name == stories.NAME
        version = self.aliases.get(alias)
        return None if version is None else SimpleNamespace(version=version)

    @property
    def rollout(self) -> Rollout | None:
        stored = self.rollouts.read(stories.NAME)
        return None if stored is None else stored.rollout

    def start_rollout(self, version: int, *, actor: str, reason: str, again: bool) -> Rollout:
        assert again
        self.does("roll out", f"{version}, {reason}")
        stored = self.rollouts.read(stories.NAME)
        before = None if stored is None else stored.rollout
        asked = machine.start(
            stories.NAME, before.number + 1 if before else 1, _version(version),
            machine.serves(before) if before else _version(1), PLAN,
            before.epoch + 1 if before else 2, stories.START, actor, reason,
        )  # fmt: skip
        self.rollouts.write(asked, revision=stored.revision if stored else 0)
        return asked

    def end_rollout(self, phase: str) -> None:
        stored = self.rollouts.read(stories.NAME)
        assert stored is not None
        ended = {"phase": phase, "committed": stored.rollout.epoch}
        self.rollouts.write(stored.rollout.model_copy(update=ended), revision=stored.revision)


def _version(number: int) -> Version:
    return Version(version=number, digest=str(number) * 64)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Workspace(tmp_path), causes={1: "input_drift", 2: "input_drift"})


@pytest.fixture
def loop(world: World) -> Loop:
    return Loop(world.parts, stories.START)


def live(loop: Loop, days: range) -> list[Day]:
    return [loop.live(stories.window(day), "an act") for day in days]


def test_a_window_is_served_judged_decided_on_retrained_for_and_rolled_out_in_this_order(
    world: World, loop: Loop
) -> None:
    live(loop, range(1, 3))
    first, second = (f"{stories.window(day).end:%d}" for day in (1, 2))

    assert [
        f"serve: until {first}",
        f"judge: at {first}",
        f"serve: until {second}",
        f"judge: at {second}",
        f"retrain: as of {second}",
        "roll out: 2, version 2 is to take over (retraining: drift)",
    ] == world.happened
    assert loop.rolling_out


def test_a_feed_that_is_stopped_is_withheld_from_the_traffic_and_said(
    world: World, loop: Loop
) -> None:
    day = loop.live(stories.window(0), "an act", withheld=("weather",))

    assert world.happened[0].endswith("without weather")
    assert ("weather",) == day.withheld


@pytest.mark.parametrize(("phase", "serves"), [("promoted", 2), ("rolled_back", 1)])
def test_a_challenger_is_rolled_out_once_however_that_ended(
    world: World, loop: Loop, phase: str, serves: int
) -> None:
    live(loop, range(1, 4))
    world.end_rollout(phase)
    world.aliases["champion"] = serves
    live(loop, range(4, 7))

    assert 1 == sum(one.startswith("roll out") for one in world.happened)


def test_a_later_challenger_is_rolled_out_as_well(world: World, loop: Loop) -> None:
    live(loop, range(1, 3))
    world.end_rollout("rolled_back")
    world.aliases["challenger"] = 3
    live(loop, range(3, 4))

    assert [2, 3] == [int(one.split()[2][:1]) for one in world.happened if "roll out" in one]


@pytest.mark.parametrize("challenger", [None, 1], ids=["none", "which serves already"])
def test_without_a_challenger_that_is_newer_than_what_serves_nothing_is_rolled_out(
    world: World, loop: Loop, challenger: int | None
) -> None:
    world.causes = {}
    if challenger is not None:
        world.aliases["challenger"] = challenger
    (day,) = live(loop, range(1))

    assert "" == day.rollout
    assert not loop.rolling_out


@pytest.mark.parametrize("better", [True, False])
def test_a_retraining_is_over_when_it_is_known_what_came_of_it(
    world: World, loop: Loop, *, better: bool
) -> None:
    live(loop, range(1))
    never = loop.retrained
    live(loop, range(1, 4))
    under_way = loop.retrained
    world.gain = better
    live(loop, range(4, 5))

    assert (False, False, True) == (never, under_way, loop.retrained)


def test_each_row_of_the_ledger_is_told_of_one_window_and_all_of_them_in_the_end(
    world: World, loop: Loop
) -> None:
    world.note("gate", "between the start and the first window")
    days = live(loop, range(1, 4))
    world.gain = True
    world.note("gate", "of another use case", usecase="fraud")
    world.note("gate", "between two windows")
    days += live(loop, range(4, 6))
    world.note("rollout", "while the servers end")

    told = [row for day in days for row in day.decisions]
    rows = world.ledger.entries(stories.NAME)
    first, *lived, late = _decisions(world.workspace, stories.NAME, loop.before, days)
    assert [entry.decision.subject for entry in rows] == [
        row.subject for row in (first, *lived, late)
    ]
    assert told == lived
    assert ("before the loop", None) == (first.subject, first.window)
    assert ("while the servers end", days[-1].window.end) == (late.subject, late.window)
    assert {"requested", "submitted", "better"} < {row.verdict for row in told}
    assert all(row.window == day.window.end for day in days for row in day.decisions)


@pytest.mark.parametrize(
    ("part", "done"),
    [
        ("serve", []),
        ("judge", ["serve"]),
        ("retrain", ["serve", "judge"]),
        ("registry", ["serve", "judge", "retrain"]),
        ("roll out", ["serve", "judge", "retrain"]),
    ],
)
def test_a_part_that_fails_is_not_hidden_and_nothing_follows_from_it_until_it_is_back(
    world: World, loop: Loop, part: str, done: list[str]
) -> None:
    live(loop, range(1, 2))
    world.happened.clear()
    world.broken[part] = DataError("broken") if part == "judge" else ServiceError("away")

    with pytest.raises(type(world.broken[part])):
        live(loop, range(2, 3))
    assert done == [one.partition(":")[0] for one in world.happened]

    world.broken.clear()
    live(loop, range(2, 3))
    assert 1 == sum(one.startswith("retrain") for one in world.happened)
    assert world.happened[-1].startswith("roll out: 2")
