"""What Prometheus reads of the gateway.

Counters and histograms are bound to their labels once, so that a request pays for additions only
(0.7 us each, 2.2 us with several workers, whose values lie in mapped files). Labels stay few: use
cases, hops, views and reasons come from the spec, arms and versions from the route. The buckets lie
around the budgets of the spec, with a bound at each hop's own budget.

Arm and version are who was asked, also where the rules had to answer. A shadow has its own rows and
reasons, under its arm; nobody waits for it, so it has no latencies, and the ages are those of
live traffic.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)
from prometheus_client.metrics_core import Metric

from mlplatform.contracts.usecase.operation import Serving
from serving.gateway.answer import Scored
from serving.gateway.breaker import Breaker

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of prometheus_client: the folder where the values of all workers lie."""

_SHARES: Final = (0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 4)
"""Bounds of the latency buckets, in total budgets."""
_AGES: Final = (60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800, 604_800)
"""Bounds of the feature ages, seconds: a minute to a week."""
_VERSIONS: Final = 32
"""Model versions with their own label; a process that has seen more calls further ones "other"."""
_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
_GONE: Final = -1
"""A breaker whose dependency is gone, with several workers: their values cannot be removed."""
_KEPT: Final = ("written", "spilled", "dropped")
_SHADOW: Final = "shadow"
_HOPS: Final = ("total", "features", "inference", "decision")


class Metrics:
    """The metrics of one process.

    Args:
        budgets: What the spec of each use case says.
    """

    def __init__(self, budgets: Mapping[str, Serving]) -> None:
        self._shared = SHARED in os.environ
        self._registry = CollectorRegistry()
        into = None if self._shared else self._registry
        name, labels = "mlplatform_gateway", ("usecase",)
        self.seconds = Histogram(
            f"{name}_seconds",
            "Time of a scored request in the gateway, by hop.",
            (*labels, "arm", "version", "hop"),
            registry=into,
            buckets=_bounds(budgets.values()),
        )
        self.requests = Counter(
            f"{name}_requests", "Requests, by HTTP status.", (*labels, "status"), registry=into
        )
        self.rows = Counter(
            f"{name}_rows",
            "Scored rows: scored, degraded or fallback.",
            (*labels, "arm", "version", "outcome"),
            registry=into,
        )
        self.reasons = Counter(
            f"{name}_reasons",
            "Rows that were degraded or fell back, by reason.",
            (*labels, "arm", "version", "reason"),
            registry=into,
        )
        self.ages = Histogram(
            f"{name}_feature_age_seconds",
            "Age of a view's features at the time of the prediction; first row of each request.",
            (*labels, "view"),
            registry=into,
            buckets=_AGES,
        )
        self.shed = Counter(
            f"{name}_shadow_shed", "Shadow requests given up under load.", labels, registry=into
        )
        self.in_flight = self._gauge("in_flight", "Open units of work.", labels, "livesum")
        self.epoch = self._gauge("route_epoch", "Epoch in effect; 0: no route.", labels, "livemin")
        self.breakers = self._gauge(
            "breaker", "0 closed, 1 half open, 2 open.", (*labels, "dependency"), "livemax"
        )
        self.log_queued = self._gauge(
            "log_queued_rows",
            "Rows of the prediction log that are in memory only.",
            labels,
            "livesum",
        )
        self.log_rows = Counter(
            f"{name}_log_rows",
            "Rows of the prediction log: written to Redis, spilled to disk, dropped.",
            (*labels, "state"),
            registry=into,
        )
        if not self._shared:
            ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all values in Prometheus' text format."""
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        registry.register(_AllWorkers())
        return generate_latest(registry)

    def forget_breaker(self, usecase: str, dependency: str) -> None:
        """Drop the breaker of a dependency that the use case no longer has."""
        if self._shared:
            self.breakers.labels(usecase, dependency).set(_GONE)
        else:
            self.breakers.remove(usecase, dependency)

    def _gauge(self, name: str, what: str, labels: tuple[str, ...], mode: str) -> Gauge:
        into = None if self._shared else self._registry
        return Gauge(
            f"mlplatform_gateway_{name}",
            what,
            labels,
            registry=into,
            multiprocess_mode=mode,  # type: ignore[arg-type]  # one of its literals
        )


class _AllWorkers:
    """The values of all workers, without breakers that are gone."""

    def collect(self) -> Iterable[Metric]:
        """Return all metrics."""
        found = multiprocess.MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        for metric in found.collect():  # type: ignore[no-untyped-call]
            if metric.name == "mlplatform_gateway_breaker":
                metric.samples = [item for item in metric.samples if item.value != _GONE]
            yield metric


@dataclass(slots=True)
class _Asked:
    """What is counted for one arm and version, bound to its labels."""

    labels: tuple[str, str, str]
    hops: tuple[Histogram, ...]
    outcomes: dict[str, Counter] = field(default_factory=dict)
    reasons: dict[str, Counter] = field(default_factory=dict)


class UseCaseMetrics:
    """The metrics of one use case, bound to their labels.

    Args:
        metrics: Of the process.
        usecase: Whose.
    """

    def __init__(self, metrics: Metrics, usecase: str) -> None:
        self._metrics, self._usecase = metrics, usecase
        self._asked: dict[tuple[str, int], _Asked] = {}
        self._versions: set[int] = set()
        self._breakers: set[str] = set()
        self._kept = dict.fromkeys(_KEPT, 0)
        self._statuses: dict[int, Counter] = {}
        self._ages: dict[str, Histogram] = {}
        self.shed = metrics.shed.labels(usecase)
        self.in_flight = metrics.in_flight.labels(usecase)

    def status(self, status: int) -> None:
        """Count a request by the status of its answer."""
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._metrics.requests.labels(
                self._usecase, str(status)
            )
        counter.inc()

    def scored(self, scored: Scored) -> None:
        """Count rows that were scored together."""
        latency, asked = scored.latency, self._of(scored)
        if scored.arm != _SHADOW:
            total, read, model, decision = asked.hops
            total.observe(latency.total_us / 1e6)
            read.observe(latency.features_us / 1e6)
            model.observe(latency.inference_us / 1e6)
            decision.observe(latency.decision_us / 1e6)
            self._observe_ages(scored)
        degraded = sum(scored.degraded)
        if scored.fallback:
            self._outcome(asked, "fallback").inc(scored.batch.rows)
        elif degraded:
            self._outcome(asked, "degraded").inc(degraded)
        if not scored.fallback and degraded < scored.batch.rows:
            self._outcome(asked, "scored").inc(scored.batch.rows - degraded)
        for reasons in scored.reasons if scored.fallback or degraded else ():
            for reason in reasons:
                self._reason(asked, reason).inc()

    def state(self, epoch: int, breakers: Mapping[str, Breaker], log: Mapping[str, int]) -> None:
        """Set what is true now."""
        self._metrics.epoch.labels(self._usecase).set(epoch)
        for dependency, breaker in breakers.items():
            self._metrics.breakers.labels(self._usecase, dependency).set(_STATES[breaker.state])
        for dependency in self._breakers - set(breakers):
            self._metrics.forget_breaker(self._usecase, dependency)
        self._breakers = set(breakers)
        self._metrics.log_queued.labels(self._usecase).set(log["queued"])
        for state, before in self._kept.items():
            # Counters: what a worker has lost is not forgotten when it dies.
            self._metrics.log_rows.labels(self._usecase, state).inc(log[state] - before)
            self._kept[state] = log[state]

    def _observe_ages(self, scored: Scored) -> None:
        if scored.event_us is None or scored.server is None:
            return
        at = scored.batch.event_us[0]
        for view, event in zip(scored.server.views, scored.event_us[0].tolist(), strict=True):
            if event:
                self._age(view).observe(max(at - event, 0) / 1e6)

    def _of(self, scored: Scored) -> _Asked:
        version = 0 if scored.server is None else scored.server.model.version
        asked = self._asked.get((scored.arm, version))
        if asked is None:
            if version not in self._versions and len(self._versions) >= _VERSIONS:
                label = "other"
            else:
                self._versions.add(version)
                label = str(version)
            labels = (self._usecase, scored.arm, label)
            seconds = self._metrics.seconds
            hops = () if scored.arm == _SHADOW else _HOPS
            asked = self._asked[scored.arm, version] = _Asked(
                labels, tuple(seconds.labels(*labels, hop) for hop in hops)
            )
        return asked

    def _outcome(self, asked: _Asked, outcome: str) -> Counter:
        if outcome not in asked.outcomes:
            asked.outcomes[outcome] = self._metrics.rows.labels(*asked.labels, outcome)
        return asked.outcomes[outcome]

    def _reason(self, asked: _Asked, reason: str) -> Counter:
        if reason not in asked.reasons:
            asked.reasons[reason] = self._metrics.reasons.labels(*asked.labels, reason)
        return asked.reasons[reason]

    def _age(self, view: str) -> Histogram:
        if view not in self._ages:
            self._ages[view] = self._metrics.ages.labels(self._usecase, view)
        return self._ages[view]


def forget_the_dead() -> None:
    """Drop the gauges of workers that are gone; one that was killed could not do it itself."""
    folder = os.environ.get(SHARED)
    if folder is None:
        return
    for path in Path(folder).glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                path.unlink()


def _bounds(budgets: Iterable[Serving]) -> tuple[float, ...]:
    bounds: set[float] = set()
    for serving in budgets:
        budget = serving.latency_ms
        hops = (budget.features, budget.queue + budget.inference, budget.decision)
        inside = budget.total - budget.network
        bounds |= {round(budget.total * share, 6) for share in _SHARES}
        bounds |= {round(hop, 6) for hop in (*hops, inside)}
    return tuple(sorted(bound / 1000 for bound in bounds if bound > 0))
