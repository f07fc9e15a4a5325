"""One run for each request, though submitters die anywhere, stall, or are two."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from mlplatform.contracts.retrain import History, RunState
from mlplatform.errors import ServiceError
from mlplatform.ledger import Ledger
from monitoring.requests import RequestStore, notice
from monitoring.submit import CLAIM, Submitter
from tests.unit.monitoring.orchestrator import FakeOrchestrator, Killed, Killer
from tests.unit.monitoring.signals import (
    HOUR,
    MONITORING,
    USECASE,
    at,
    drifted,
    finding,
    last,
)

PIPELINE = "training"


@dataclass
class World:
    """A database, an orchestrator and a clock; processes come and go."""

    url: str
    orchestrator: FakeOrchestrator = field(default_factory=FakeOrchestrator)
    now: datetime = field(default_factory=lambda: at(2))
    gains: dict[str, bool] = field(default_factory=dict)
    killer: Killer = field(default_factory=Killer)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.url)

    def store(self) -> RequestStore:
        store = RequestStore(self.url)
        self.killer.guard(store, "write")
        return store

    def submitter(self) -> Submitter:
        return Submitter(
            USECASE,
            PIPELINE,
            self.store(),
            self.orchestrator,
            self.gains.get,
            self.ledger,
            lambda: self.now,
        )

    def ask(self) -> History:
        signals = [*drifted(0), *drifted(30)]
        known = [signal for signal in signals if signal.judged_at <= self.now]
        return notice(self.store(), self.ledger, USECASE, known, MONITORING, self.now)

    def history(self) -> History:
        stored = RequestStore(self.url).read(USECASE)
        assert stored is not None
        return stored.history

    def verdicts(self) -> list[str]:
        return [entry.decision.verdict for entry in self.ledger.entries(USECASE, "retrain")]

    def run_to_end(self) -> None:
        """Play what is asked for until the model is better, in a process that nobody kills."""
        submitter = self.submitter()
        submitter.tick()
        for run, state in self.orchestrator.states.items():
            if state == "running" and self.orchestrator.first_step(run, self.ledger, self.now):
                self.orchestrator.states[run] = "succeeded"
                self.gains[run] = True
        submitter.tick()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(f"sqlite:///{tmp_path}/ledger.db")


ROWS = ["requested", "submitted", "running", "better"]


def test_a_request_becomes_a_run_and_the_run_an_outcome(world: World) -> None:
    assert None is world.submitter().tick()
    asked = world.ask()

    world.run_to_end()

    as_of = world.now.isoformat()
    assert {"training-1": (last(asked).request.key, {"usecase": USECASE, "as_of": as_of})} == (
        world.orchestrator.runs
    )
    assert ROWS == world.verdicts()
    assert len(ROWS) == world.ledger.verify()
    assert () == world.history().unrecorded


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_at_any_call_there_is_one_run_and_every_row(
    tmp_path: Path, when: str
) -> None:
    kill, calls = 0, 1
    while kill < calls:
        world = World(f"sqlite:///{tmp_path}/{kill}.db")
        world.killer = Killer(lambda call, at=kill: when if call == at else "")  # type: ignore[misc]
        world.killer.guard(world.ledger, "append")
        world.killer.guard(world.orchestrator, "look", "start")
        for _ in range(2):  # the second time as the process that comes after the dead one
            try:
                world.ask()
                world.run_to_end()
            except Killed:
                world.now += CLAIM
        calls = len(world.killer.calls)

        assert 1 == len(world.orchestrator.runs), world.killer.calls[kill]
        assert sorted(ROWS) == sorted(world.verdicts()), world.killer.calls[kill]
        assert "better" == last(world.history()).phase, world.killer.calls[kill]
        assert () == world.history().unrecorded
        kill += 1
    assert kill > 10, "the calls were not counted"


def test_while_one_submits_another_keeps_away(world: World) -> None:
    world.ask()
    start = world.orchestrator.start
    world.orchestrator.start = unreachable  # type: ignore[method-assign,assignment]
    first, second = world.submitter(), world.submitter()
    with pytest.raises(ServiceError):
        first.tick()
    world.orchestrator.start = start  # type: ignore[method-assign]

    second.tick()
    assert {} == world.orchestrator.runs
    first.tick()
    assert 1 == len(world.orchestrator.runs)
    second.tick()
    assert 1 == len(world.orchestrator.runs)


def unreachable(_pipeline: str, _parameters: Mapping[str, str], _key: str) -> str:
    raise ServiceError("the orchestrator is out of reach")


def test_of_many_submitters_at_once_one_starts_the_run(world: World) -> None:
    submitters = [world.submitter() for _ in range(6)]
    together = threading.Barrier(len(submitters))
    world.ask()

    def tick(submitter: Submitter) -> None:
        together.wait(30)
        submitter.tick()

    with ThreadPoolExecutor(len(submitters)) as threads:
        list(threads.map(tick, submitters))

    assert 1 == len(world.orchestrator.runs)
    assert ["requested", "submitted"] == world.verdicts()


@pytest.mark.parametrize("faster", [0, 1], ids=["the first run", "the second run"])
def test_of_two_runs_that_a_stalled_submitter_left_one_trains(world: World, faster: int) -> None:
    asked = world.ask()
    stalled = world.submitter()
    start = world.orchestrator.start

    def stall(pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        """Start only after another submitter has taken over and started a run itself."""
        world.orchestrator.start = start  # type: ignore[method-assign]
        world.now += CLAIM
        world.submitter().tick()
        return start(pipeline, parameters, key)

    world.orchestrator.start = stall  # type: ignore[method-assign]
    stalled.tick()
    runs = list(world.orchestrator.runs)
    owner, other = runs[faster], runs[1 - faster]

    assert 2 == len(runs)
    assert 1 == len({str(carried) for carried in world.orchestrator.runs.values()})
    assert world.orchestrator.first_step(owner, world.ledger, world.now)
    assert not world.orchestrator.first_step(other, world.ledger, world.now)
    stalled.tick()
    assert "submitted" == last(world.history()).phase, "the run that trains is the one followed"
    world.orchestrator.states[owner], world.gains[owner] = "succeeded", True
    stalled.tick()
    assert "better" == last(world.history()).phase
    assert [last(asked).request.key] == [item.request.key for item in world.history().retrainings]


@pytest.mark.parametrize(
    ("state", "gain", "phase"),
    [
        ("running", None, "submitted"),
        ("succeeded", None, "submitted"),
        ("succeeded", True, "better"),
        ("succeeded", False, "no_gain"),
        ("failed", None, "failed"),
        ("unknown", None, "failed"),
    ],
)
def test_a_run_is_followed_until_it_is_known_whether_it_helped(
    world: World, state: RunState, gain: bool | None, phase: str
) -> None:
    world.ask()
    submitter = world.submitter()
    submitter.tick()
    [run] = world.orchestrator.runs
    world.orchestrator.states[run] = state
    if gain is not None:
        world.gains[run] = gain

    submitter.tick()

    assert phase == last(world.history()).phase


def test_drift_that_returns_is_another_request(world: World) -> None:
    world.ask()
    world.run_to_end()
    world.now = at(32)
    world.ask()
    world.run_to_end()

    keys = [key for key, _ in world.orchestrator.runs.values()]
    assert 2 == len(set(keys)) == len(keys)
    assert ROWS * 2 == world.verdicts()


def test_nothing_is_submitted_that_is_not_on_the_ledger(world: World) -> None:
    broken = Killer(lambda _: "before")
    broken.guard(world.ledger, "append")
    with pytest.raises(Killed):
        world.ask()
    with pytest.raises(Killed):
        world.submitter().tick()

    assert {} == world.orchestrator.runs
    assert "ready" == last(world.history()).phase


def test_a_second_run_of_a_request_is_refused_by_the_ledger(world: World) -> None:
    world.ask()
    world.submitter().tick()
    run = next(iter(world.orchestrator.runs))
    second = world.orchestrator.start(PIPELINE, {}, world.orchestrator.runs[run][0])

    for _ in range(2):  # a step that is repeated takes its own request again
        assert world.orchestrator.first_step(run, world.ledger, world.now)
        world.now += HOUR
    assert not world.orchestrator.first_step(second, world.ledger, world.now)
    assert "failed" == world.orchestrator.state(second)


def test_a_feed_that_broke_holds_the_submission_back(world: World) -> None:
    world.ask()
    world.now = at(3)
    fault = finding(2, "data_fault", "flights", why="no rows since 02:00")
    notice(world.store(), world.ledger, USECASE, [fault], MONITORING, world.now)

    world.submitter().tick()
    assert {} == world.orchestrator.runs
    world.now = at(4)
    whole = finding(3, "healthy")
    notice(world.store(), world.ledger, USECASE, [whole], MONITORING, world.now)
    world.submitter().tick()

    assert ["requested", "refused", "submitted"] == world.verdicts()
    assert [at(4).isoformat()] == [
        parameters["as_of"] for _, parameters in world.orchestrator.runs.values()
    ]
