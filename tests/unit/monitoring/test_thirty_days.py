"""Thirty virtual days of duplicated, late and reordered signals, and processes that are killed.

The world drifts, breaks and is struck by events; two submitters and the process that decides are
killed every now and then, before or after what they write. What is signalled depends on the model
that serves, so that a drift ends only when a run has learned of it.
"""

import heapq
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, cast

import pytest

from mlplatform.contracts.retrain import Cause, Finding, Signal
from mlplatform.ledger import Ledger
from monitoring.requests import RequestStore, notice
from monitoring.submit import Submitter
from tests.unit.monitoring.orchestrator import FakeOrchestrator, Killed, Killer, at_random
from tests.unit.monitoring.signals import HOUR, START, USECASE, at, event, finding, plan

DAYS: Final = 30
PLAN: Final = plan(cooldown_hours=18, retrains_per_week=7, stop_after_no_gain=5)
DRIFTS: Final = (30, 95, 180, 191, 300, 420, 433, 540, 610, 660)
"""Hours at which a feature moves for good; some while a run is still on."""
LOSSES: Final = (230, 585)
"""Hours at which the label begins to follow other rules: the inputs do not show it."""
FAULTS: Final = (range(60, 80), range(96, 110), range(350, 380), range(500, 510))
EVENTS: Final = (10.5, 140.2, 141.0, 260.7, 399.9, 640.1)
CHANGES: Final = (*DRIFTS, *LOSSES, *EVENTS)
RUN_HOURS: Final = 4
FAILING: Final = frozenset({2, 5, 6})
"""Runs, by their order, that break down."""
MATURITY: Final = 20
"""Hours after which labels are known."""
DELIVERIES: Final = 10_000


@dataclass
class World:
    """What is so, and what is told of it."""

    chance: random.Random
    url: str
    now: datetime = START
    served: datetime = START
    """The time from which the model that serves was trained."""
    orchestrator: FakeOrchestrator = field(default_factory=FakeOrchestrator)
    serving: list[datetime] = field(default_factory=list)
    """The same, by hour."""
    begun: dict[str, datetime] = field(default_factory=dict)
    gains: dict[str, bool] = field(default_factory=dict)
    mail: list[tuple[datetime, int, Signal]] = field(default_factory=list)
    posted: int = 0
    causes: Counter[Cause] = field(default_factory=Counter)
    """Told so far."""
    kills: int = 0

    def __post_init__(self) -> None:
        self.killer = Killer(at_random(7, 0.02))
        self.ledger, self.store = Ledger(self.url), RequestStore(self.url)
        self.killer.guard(self.ledger, "append")
        self.killer.guard(self.store, "write")
        self.killer.guard(self.orchestrator, "look", "start")
        self.submitters = [self.submitter(), self.submitter()]

    def submitter(self) -> Submitter:
        return Submitter(
            USECASE,
            "training",
            self.store,
            self.orchestrator,
            self.gains.get,
            self.ledger,
            lambda: self.now,
        )

    # --- What is told ---------------------------------------------------------------------------

    def post(self, signal: Signal, copies: int) -> None:
        """Tell it several times, each some hours late, a few of them days."""
        for _ in range(copies):
            late = min(self.chance.expovariate(1 / 2), 60) * HOUR
            heapq.heappush(self.mail, (self.now + late, self.posted, signal))
            self.posted += 1

    def judge(self, hour: int) -> None:
        """Post what both watches find in windows that are over at this hour."""
        self.serving.append(self.served)
        copies = self.chance.choice([6, 7, 8, 9])
        moved = [f"feature {at_}" for at_ in DRIFTS if at_ <= hour and at(at_) > self.served]
        if any(hour in fault for fault in FAULTS):
            self.post(finding(hour, "data_fault"), copies)
        elif moved:
            self.post(finding(hour, "input_drift", *moved), copies)
        else:
            noise = self.chance.choice([*["healthy"] * 12, "inconclusive", "input_drift"])
            self.post(finding(hour, cast("Cause", noise), f"feature {self.posted}"), copies)
        if self.chance.random() < 0.1:  # late rows came in: the window is judged again
            self.post(finding(hour, "inconclusive").model_copy(update={"why": "first look"}), 1)
        mature = hour - MATURITY
        if mature >= 0:
            found = finding(mature, "performance_loss", "pr_auc", judged=MATURITY)
            if not any(loss <= mature and at(loss) > self.serving[mature] for loss in LOSSES):
                found = found.model_copy(update={"cause": "healthy"})
            self.post(found, copies)
        for number, moment in enumerate(EVENTS):
            if hour < moment <= hour + 1:
                self.post(event(moment, str(number)), 30)

    # --- What is done about it ------------------------------------------------------------------

    def deliver(self) -> None:
        """Tell what has arrived by now, a few signals at once."""
        while self.mail and self.mail[0][0] <= self.now:
            few = heapq.nsmallest(self.chance.randint(1, 40), self.mail)
            arrived = [signal for moment, _, signal in few if moment <= self.now]
            for _ in arrived:
                heapq.heappop(self.mail)
            self.causes.update(item.cause for item in arrived if isinstance(item, Finding))
            self.decide(arrived)

    def decide(self, signals: Sequence[Signal] = ()) -> None:
        """Have it decided, again and again until the process lives through it."""
        while True:
            try:
                notice(self.store, self.ledger, USECASE, signals, PLAN, self.now)
            except Killed:
                self.kills += 1
            else:
                return

    def submit(self) -> None:
        for number, submitter in enumerate(self.submitters):
            try:
                submitter.tick()
            except Killed:
                self.kills += 1
                self.submitters[number] = self.submitter()

    def run(self) -> None:
        """Take the runs further: some break down, the others' models serve at once."""
        for number, (run, (_, parameters)) in enumerate(self.orchestrator.runs.items()):
            begun = self.begun.setdefault(run, self.now)
            if self.orchestrator.states[run] != "running" or self.now < begun + RUN_HOURS * HOUR:
                continue
            broke = number in FAILING
            self.orchestrator.states[run] = "failed" if broke else "succeeded"
            if not broke:
                self.gains[run] = True
                self.served = datetime.fromisoformat(parameters["as_of"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Play the thirty days."""
    path = tmp_path_factory.mktemp("thirty-days") / "ledger.db"
    world = World(random.Random(20130701), f"sqlite:///{path}")  # noqa: S311
    with closing(sqlite3.connect(path)) as kept:
        # While one is open, those that are closed leave the write-ahead log as it is: much faster.
        kept.execute("SELECT * FROM ledger_head").fetchall()
        for hour in range(24 * DAYS):
            world.now = at(hour + 1)
            world.judge(hour)
            world.deliver()
            world.decide()
            world.submit()
            world.run()
    return world


def requests(world: World) -> list[tuple[datetime, str, str]]:
    """Return when each request was asked for, why, and its key."""
    rows = [entry.decision for entry in world.ledger.entries(USECASE, "retrain")]
    asked = [row for row in rows if row.verdict == "requested"]
    return [(row.at, str(row.evidence["request"]["reason"]), row.subject) for row in asked]  # type: ignore[call-overload, index]


def test_the_days_were_hard(world: World) -> None:
    assert world.posted - len(world.mail) >= DELIVERIES
    assert world.kills > 20
    assert {"drift", "event", "performance_loss"} == {reason for _, reason, _ in requests(world)}
    assert world.causes.keys() == {
        "healthy", "input_drift", "performance_loss", "data_fault", "inconclusive"
    }  # fmt: skip
    assert len(FAILING) == list(world.orchestrator.states.values()).count("failed")


def test_each_request_has_one_run(world: World) -> None:
    carried = [key for key, _ in world.orchestrator.runs.values()]

    assert sorted(carried) == sorted({key for _, _, key in requests(world)})
    assert len(carried) == len(set(carried))


def test_cooldown_and_budget_are_kept(world: World) -> None:
    starts = sorted(world.begun.values())

    assert all(b - a >= PLAN.cooldown_hours * HOUR for a, b in pairwise(starts))
    for start in starts:
        within = [other - start for other in starts if other >= start]
        assert sum(gap < timedelta(days=1) for gap in within) <= 1
        assert sum(gap < timedelta(days=7) for gap in within) <= PLAN.retrains_per_week


def test_no_drift_no_loss_and_no_event_is_lost(world: World) -> None:
    known = [
        datetime.fromisoformat(parameters["as_of"])
        for run, (_, parameters) in world.orchestrator.runs.items()
        if world.gains.get(run)
    ]
    for moved in CHANGES:
        after = min(as_of for as_of in known if as_of >= at(moved))
        assert after - at(moved) <= timedelta(days=3.5), "two runs broke down in a row at most"


def test_nothing_is_asked_for_that_nothing_explains(world: World) -> None:
    assert len(world.orchestrator.runs) <= len(CHANGES) + len(FAILING)
    for run, reason, _ in requests(world):
        before = [at(moved) for moved in CHANGES if at(moved) <= run]
        assert before, reason
        assert run - max(before) <= timedelta(days=3.5), reason


def test_nothing_is_asked_for_while_the_feed_is_known_to_be_broken(world: World) -> None:
    rows = [entry.decision for entry in world.ledger.entries(USECASE, "retrain")]
    faults = [row for row in rows if row.subject == "data_fault"]
    asked = [row.at for row in rows if row.verdict == "requested"]

    assert len(faults) >= len(FAULTS)
    for fault in FAULTS:
        told = [row.at for row in faults if at(fault.start) < row.at <= at(fault.stop)]
        assert told, "the fault was seen"
        assert not [moment for moment in asked if min(told) <= moment <= at(fault.stop)]


def test_the_ledger_is_whole_and_holds_every_row(world: World) -> None:
    stored = world.store.read(USECASE)
    rows = [entry.decision.key for entry in world.ledger.entries(USECASE, "retrain")]

    assert stored is not None
    assert stored.history.rows == len(rows) == world.ledger.verify()
    assert len(rows) == len(set(rows))
    assert len(stored.history.model_dump_json()) < 20_000
