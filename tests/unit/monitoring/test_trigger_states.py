"""Whatever is signalled, ordered and lost in whatever order, the limits of retraining hold.

The test keeps its own record of what was told, asked and started, and tells from it alone what is
right. Submitters are played that claim, stall, and tell of runs late or twice.
"""

from datetime import datetime, timedelta
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlplatform.contracts import Window
from mlplatform.contracts.retrain import Cause, Finding, History, Outcome
from monitoring.history import approve, claim, deny, ended, reset, submitted, turn
from monitoring.trigger import observe
from tests.unit.monitoring.signals import HOUR, START, USECASE, at, event, finding, plan

PLANS = (
    plan(cooldown_hours=5, retrains_per_week=14, stop_after_no_gain=2),
    plan(cooldown_hours=0, retrains_per_week=2, persistence=(1, 1), schedule_days=4),
    plan(cooldown_hours=30, retrains_per_week=7, persistence=(2, 4), schedule_days=2),
)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
CURABLE = {"input_drift", "output_drift", "performance_loss"}


class Trigger(RuleBasedStateMachine):
    """One use case, from its first window."""

    history: History

    @initialize(number=st.integers(0, len(PLANS) - 1), approval=st.booleans())
    def begins(self, number: int, approval: bool) -> None:
        self.plan = PLANS[number].model_copy(update={"approval": approval})
        self.now = at(4)
        self.history = History(usecase=USECASE, began=START)
        self.told: dict[tuple[str, Window], Finding] = {}
        self.keys: list[str] = []
        self.starts: list[datetime] = []
        self.in_vain = 0
        self.ended_at = START

    # --- What happens ---------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0.5, 1, 2, 6, 30]))
    def time_passes(self, hours: float) -> None:
        self.now += hours * HOUR

    @rule(
        ago=st.integers(1, 4),
        cause=st.sampled_from(["input_drift"] * 6 + list(get_args(Cause))),
        blamed=st.sampled_from(["temp", "temp", "dest"]),
    )
    def a_window_is_judged(self, ago: int, cause: Cause, blamed: str) -> None:
        hour = int((self.now - START) / HOUR) - ago
        found = finding(hour, cause, blamed).model_copy(update={"judged_at": self.now})
        self.hear(found)

    @rule(data=st.data())
    def a_window_is_told_again(self, data: st.DataObject) -> None:
        if self.told:
            self.hear(data.draw(st.sampled_from(sorted(self.told.values(), key=str))))

    @rule(hours_ago=st.sampled_from([0, 1, 50]))
    def an_event_happens(self, hours_ago: float) -> None:
        happened = self.now - hours_ago * HOUR
        told = event(0, happened.isoformat()).model_copy(update={"at": happened})
        self.history = observe(self.history, told, self.plan, self.now)

    @rule()
    def it_decides(self) -> None:
        before = self.history
        after = turn(before, self.plan, self.now)
        if len(after.retrainings) and after.last != before.last:
            self.it_asks_rightly(before, after)
        else:
            assert (after == before) == (after is before)
        self.history = after
        assert after is turn(after, self.plan, self.now) or after.in_flight

    @rule(yes=st.booleans())
    def a_person_answers(self, yes: bool) -> None:
        current = self.history.in_flight
        if current is not None and current.phase == "awaiting_approval":
            answer = approve if yes else deny
            self.history = answer(self.history, current.request.key, "ana", "so", self.now)
            self.ended_at = self.ended_at if yes else self.now

    @rule(by=st.sampled_from(["a", "b"]), dies=st.booleans())
    def a_submitter_ticks(self, by: str, dies: bool) -> None:
        after = claim(self.history, by, self.now + HOUR / 12, self.now)
        won = after is not self.history
        self.history = after
        current = after.last
        if won and not dies and current is not None:
            key = current.request.key
            assert not self.broken() or current.as_of != self.now, "a broken feed trains nothing"
            for run in ("first", "late"):
                self.history = submitted(self.history, key, run, self.now)
            self.starts.append(self.now)

    @rule(outcome=st.sampled_from(get_args(Outcome)))
    def the_run_ends(self, outcome: Outcome) -> None:
        last = self.history.last
        if last is None:
            return
        ends = last.phase == "submitted"
        self.history = ended(self.history, last.request.key, outcome, "so", self.now)
        if ends:
            self.in_vain = 0 if outcome == "better" else self.in_vain + 1
            self.ended_at = self.now

    @rule()
    def a_person_resets(self) -> None:
        self.history = reset(self.history, "ana", "found it", self.now)
        self.in_vain = 0

    # --- What must be so ------------------------------------------------------------------------

    def hear(self, found: Finding) -> None:
        self.history = observe(self.history, found, self.plan, self.now)
        place = (found.watch, found.window)
        known = self.told.get(place)
        if known is None or (known.judged_at, known.model_dump_json()) < (
            found.judged_at, found.model_dump_json()
        ):  # fmt: skip
            self.told[place] = found

    def newest(self, watch: str) -> list[Finding]:
        """Return what was told of a watch, by the time of its windows."""
        found = [item for (of, _), item in self.told.items() if of == watch]
        return sorted(found, key=lambda item: item.window.end)

    def broken(self) -> bool:
        inputs = self.newest("inputs")
        return bool(inputs) and inputs[-1].cause in {"data_fault", "skew"}

    def it_asks_rightly(self, before: History, after: History) -> None:
        assert before.in_flight is None, "one at a time"
        assert after.last is not None
        request = after.last.request
        assert request.key not in self.keys, "one run for each key"
        self.keys.append(request.key)
        assert not self.broken()
        assert self.in_vain < self.plan.stop_after_no_gain
        if self.starts:
            assert self.now - self.starts[-1] >= self.plan.cooldown_hours * HOUR
        assert sum(self.now - s < DAY for s in self.starts) < -(-self.plan.retrains_per_week // 7)
        if request.reason in {"drift", "performance_loss"}:
            watch = "inputs" if request.reason == "drift" else "performance"
            self.windows_agree(watch)

    def windows_agree(self, watch: str) -> None:
        k, n = self.plan.persistence
        told = self.newest(watch)
        since = max(told[-1].window.end - n * HOUR, self.ended_at)
        counting = [item for item in told if item.window.start >= since and item.cause in CURABLE]
        blamed = [name for item in counting for name in item.blamed]
        assert any(blamed.count(name) >= k for name in blamed)
        assert told[-1].cause != "inconclusive"

    @invariant()
    def limits_hold(self) -> None:
        week = self.plan.retrains_per_week
        for start in self.starts:
            assert sum(timedelta(0) <= s - start < WEEK for s in self.starts) <= week

    @invariant()
    def every_request_has_its_row(self) -> None:
        rows = self.history.unrecorded
        assert self.keys == [row.subject for row in rows if row.verdict == "requested"]
        assert len(self.starts) == sum(row.verdict == "submitted" for row in rows)
        assert len(rows) == len({row.key for row in rows}) == self.history.rows


TestTrigger = Trigger.TestCase
TestTrigger.settings = settings(
    derandomize=True, max_examples=150, stateful_step_count=40, deadline=None
)
