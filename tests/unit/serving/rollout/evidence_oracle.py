"""What a rollout has shown, counted row by row in plain loops: held against the sums."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlplatform.contracts import Rollout
from mlplatform.contracts.prediction import Prediction
from mlplatform.contracts.rollout import Counts, Moments, Pair, Share, Stage, Statistics
from serving.gateway.assignment import Assignment, bound

RATES = ("error_rate", "fallback_rate", "budget_overrun_rate", "decision_rate")
METRICS = (*RATES, "loss")
PAIRED = ("error_rate", "fallback_rate", "decision_rate", "loss")
ERRORS = {"inference_down", "request_features_failed", "rules_failed"}
AT_REST = {"promoted", "rolled_back", "held", "superseded"}


@dataclass(frozen=True)
class Label:
    event_at: datetime
    known_at: datetime | None
    value: int | None


def micro(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def event_time(row: Prediction) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.event_time)


class Oracle:
    """Counts one rollout.

    Args:
        rollout: Whose.
        rows: All rows, each once, in any order.
        labels: By request id.
        at: The time of the look.
        delay: Of labels.
        budget_us: Beyond which a request took too long.
        back: How long before the rollout the baseline begins.
    """

    def __init__(
        self,
        rollout: Rollout,
        rows: Iterable[Prediction],
        labels: Mapping[str, Label],
        at: datetime,
        *,
        delay: timedelta,
        budget_us: float,
        back: timedelta,
    ) -> None:
        self.rollout, self.labels, self.at = rollout, labels, at
        self.delay, self.budget_us, self.back = delay, budget_us, back
        self.rows = sorted(rows, key=_order)
        self.assignment = Assignment(rollout.salt)
        self.weights: dict[int, float] = {}
        self.stages: list[tuple[int, float]] = []
        self.stage_of: dict[int, int] = {}
        for route in rollout.routes:
            if route.phase in AT_REST or route.weight == 1:
                continue
            self.weights[route.epoch] = route.weight
            if route.weight > 0:
                if not self.stages or self.stages[-1][1] != route.weight:
                    self.stages.append((route.epoch, route.weight))
                self.stage_of[route.epoch] = len(self.stages) - 1
        mine = [row for row in self.rows if row.epoch in self.weights]
        self.live = [row for row in mine if row.arm != "shadow"]
        self.shadows = [
            row for row in mine if (row.arm, row.version) == ("shadow", rollout.challenger.version)
        ]
        self.newest: dict[str, datetime] = {}

    def statistics(self) -> Statistics:
        values, events, exposed = self.arms()
        paired = self.pairs()
        baseline, recent = self.champion_alone()
        return Statistics(
            usecase=self.rollout.usecase,
            number=self.rollout.number,
            version=self.rollout.challenger.version,
            digest=self.rollout.challenger.digest,
            at=self.at,
            newest=self.newest,
            stages=tuple(
                Stage(
                    epoch=epoch,
                    weight=weight,
                    exposed=Counts(*(len(exposed[stage, arm]) for arm in (False, True))),
                    values={
                        metric: Pair(*(_moments(values[metric, stage, a]) for a in (False, True)))
                        for metric in METRICS
                    },
                    events={
                        rate: Counts(*(events[rate, stage, arm] for arm in (False, True)))
                        for rate in RATES
                    },
                )
                for stage, (epoch, weight) in enumerate(self.stages)
            ),
            paired={metric: _moments(paired[metric]) for metric in PAIRED},
            baseline=self.shares(baseline),
            recent=self.shares(recent),
            misassigned=sum(map(self.misassigned, self.live)),
        )

    def challenged(self, row: Prediction) -> bool:
        return self.assignment.of(row.entity) < bound(self.weights[row.epoch])

    def misassigned(self, row: Prediction) -> bool:
        wanted = ("champion", self.rollout.champion.version)
        if self.challenged(row):
            wanted = ("challenger", self.rollout.challenger.version)
        return row.arm != "rules" and (row.arm, row.version) != wanted

    def counts_since(self, row: Prediction) -> datetime | None:
        label = self.labels.get(row.request_id)
        if label is None or label.value is None or label.known_at is None:
            return None
        known = max(label.known_at, label.event_at + self.delay)
        return known if known <= self.at else None

    def value(self, row: Prediction, metric: str) -> float | None:
        if metric == "error_rate":
            return float(bool(ERRORS & set(row.reasons)))
        if metric == "fallback_rate":
            return float(row.fallback)
        if metric == "budget_overrun_rate":
            return float(row.total_us > self.budget_us)
        if metric == "decision_rate":
            return None if row.fallback else float(row.decision)
        if row.degraded or row.fallback or self.counts_since(row) is None:
            return None
        return (float(self.labels[row.request_id].value or 0) - row.score) ** 2

    def renew(self, row: Prediction, metrics: Iterable[str]) -> None:
        time = event_time(row)
        for metric in metrics:
            time = (self.counts_since(row) or self.at) if metric == "loss" else time
            if time <= self.at:
                self.newest[metric] = max(time, self.newest.get(metric, time))

    def arms(
        self,
    ) -> tuple[
        dict[tuple[str, int, bool], list[float]],
        dict[tuple[str, int, bool], int],
        dict[tuple[int, bool], set[str]],
    ]:
        values: dict[tuple[str, int, bool], list[float]] = defaultdict(list)
        events: dict[tuple[str, int, bool], int] = defaultdict(int)
        exposed: dict[tuple[int, bool], set[str]] = defaultdict(set)
        seen: set[tuple[str, str]] = set()
        bursts: set[tuple[str, int]] = set()
        for row in self.live:
            if row.epoch not in self.stage_of:
                continue
            stage, arm = self.stage_of[row.epoch], self.challenged(row)
            if arm:
                self.renew(row, RATES)
            exposed[stage, arm].add(row.entity)
            for rate in RATES:
                if self.value(row, rate) and (rate, row.entity) not in seen:
                    seen.add((rate, row.entity))
                    events[rate, stage, arm] += (rate, _second(row)) not in bursts
                    bursts.add((rate, _second(row)))
            if ("", row.entity) in seen:
                continue
            seen.add(("", row.entity))
            for metric in METRICS:
                value = self.value(row, metric)
                if value is not None:
                    values[metric, stage, arm].append(value)
                    if metric == "loss" and arm:
                        self.renew(row, ["loss"])
        return values, events, exposed

    def pairs(self) -> dict[str, list[float]]:
        shown: dict[tuple[str, int, str, str], Prediction] = {}
        for row in self.shadows:
            shown.setdefault(_request(row), row)
            if not self.stages:
                self.renew(row, RATES)
        first: dict[str, Prediction] = {}
        for row in self.live:
            if _request(row) in shown and not self.challenged(row):
                first.setdefault(row.entity, row)
        found = defaultdict(list)
        bursts: set[tuple[str, int]] = set()
        for row in first.values():
            for metric in PAIRED:
                before = self.value(row, metric)
                after = self.value(shown[_request(row)], metric)
                if before is not None and after is not None:
                    difference = after - before
                    if difference and metric in {"error_rate", "fallback_rate"}:
                        again = (metric, _second(row)) in bursts
                        bursts.add((metric, _second(row)))
                        difference = 0.0 if again else difference
                    found[metric].append(difference)
                    if metric == "loss" and not self.stages:
                        self.renew(row, ["loss"])
        return found

    def champion_alone(self) -> tuple[list[Prediction], list[Prediction]]:
        """Return the rows before the split and the newest ones since."""
        start = self.at - timedelta(hours=self.rollout.plan.stale_hours)
        split = self.stages[0][0] if self.stages else 0
        before = list(self.before_the_rollout())
        recent = []
        for row in self.live:
            if row.epoch < split:
                before.append(row)
            elif not self.challenged(row) and start < event_time(row) <= self.at:
                recent.append(row)
        return before, recent

    def before_the_rollout(self) -> Iterator[Prediction]:
        rows = [
            row
            for row in self.rows
            if 0 < row.epoch < self.rollout.first_epoch
            and row.arm != "shadow"
            and event_time(row) >= self.rollout.started_at - self.back
        ]
        for row in rows:
            versions = {r.version for r in rows if r.epoch == row.epoch and r.arm != "rules"}
            if versions == {self.rollout.champion.version}:
                yield row

    def shares(self, rows: Sequence[Prediction]) -> dict[str, Share]:
        first: dict[str, Prediction] = {}
        for row in sorted(rows, key=_order):
            first.setdefault(row.entity, row)
        return {
            rate: Share(sum(bool(self.value(row, rate)) for row in first.values()), len(first))
            for rate in RATES
        }


def _order(row: Prediction) -> tuple[int, str, int]:
    return row.received_at, row.gateway, row.sequence


def _second(row: Prediction) -> int:
    return row.received_at // 1_000_000


def _request(row: Prediction) -> tuple[str, int, str, str]:
    return row.gateway, row.received_at, row.request_id, row.entity


def _moments(values: Sequence[float]) -> Moments:
    # 12 digits: sums of floats depend on their order.
    return Moments(
        len(values),
        round(math.fsum(values), 12),
        round(math.fsum(value * value for value in values), 12),
    )
