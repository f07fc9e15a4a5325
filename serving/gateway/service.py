"""One use case in this process: its route, its requests, its log, and what it tells of itself."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from feature_repo.catalog import ServingCode
from mlplatform.clients.redis_link import RedisLink
from mlplatform.contracts import ServedModel
from serving.gateway.admission import Admission, units_of
from serving.gateway.answer import Answer, Scored
from serving.gateway.features import FeatureStore
from serving.gateway.following import RouteFollower
from serving.gateway.metrics import Metrics, UseCaseMetrics
from serving.gateway.refusal import OVERLOADED, RefusedError
from serving.gateway.request import Batch, Requests
from serving.gateway.routing import RoutedArm, Routing
from serving.gateway.scoring import Scorer
from serving.gateway.server import ModelServer
from serving.predictions.log import PredictionLog

_SHADOWS: Final = 8
"""Shadow requests at once: one more waits for nothing, it is given up."""
_STATE_SECONDS: Final = 1.0
"""Between two looks at the state for the metrics."""

_log: Final = logging.getLogger(__name__)


class UseCaseService:
    """Answers the requests of one use case.

    Args:
        code: The use case.
        gateway: Name of this process.
        store: The online store.
        control: The connection to Redis that requests do not use.
        log: Takes a row for each answer.
        metrics: Of this process.
        failed: Told when a task that keeps this use case going has ended.

    Raises:
        SpecError: The requests cannot be checked as the spec declares them, or its largest batch
            is too large.
    """

    def __init__(
        self,
        code: ServingCode,
        gateway: str,
        store: FeatureStore,
        control: RedisLink,
        log: PredictionLog,
        metrics: Metrics,
        failed: Callable[[], None],
    ) -> None:
        self.spec = code.spec
        self.name = code.spec.name
        self.requests = Requests(self.name, code.spec.serving)
        self.metrics = UseCaseMetrics(metrics, self.name)
        self._code, self._gateway, self._store, self._rows = code, gateway, store, log
        self._scorer = Scorer(code, self.requests, store)
        self._follower = RouteFollower(self.name, gateway, control, self._make_server)
        self._admission = Admission.of(self.name, code.spec.serving)
        self._shadows: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._failed = failed

    async def start(self) -> None:
        """Begin to follow the route and to write the log.

        Raises:
            ServiceError: The spill folder cannot be written.
        """
        await self._rows.start()
        for name, work in (
            ("following the route", self._follower.follow()),
            ("watching the model servers", self._follower.watch_servers()),
            ("measuring the state", self._watch()),
        ):
            task = asyncio.create_task(work, name=f"{name} of {self.name}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def stop(self, seconds: float) -> None:
        """End: when it returns, the log's rows are in Redis or on disk. None may come after.

        Args:
            seconds: Longest wait for the log.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._shadows, return_exceptions=True)
        try:
            await self._follower.close()
        finally:
            await self._rows.drain(seconds)
        self._refresh()  # what the last rows came to is counted too

    @property
    def ready(self) -> bool:
        """Whether there is a route and its servers have answered."""
        return self._follower.ready

    @property
    def versions(self) -> tuple[int, ...]:
        """Model versions that live traffic may meet now."""
        routing = self._follower.routing
        return () if routing is None else tuple(arm.server.model.version for arm in routing.arms)

    def expect_room(self) -> None:
        """Refuse a request before it is read or decoded where there is no room for it.

        Raises:
            RefusedError: Too much is open.
        """
        if self._admission.full:
            raise _overloaded()

    async def score(self, batch: Batch, started_ns: int) -> list[Scored]:
        """Return the scores of all rows; `finish` must be called with them.

        Args:
            batch: The rows.
            started_ns: When the request's call began, on the clock that measures latencies.

        Raises:
            RefusedError: Too much is open.
        """
        units = units_of(batch.rows)
        if not self._admission.enter(units):
            raise _overloaded()
        try:
            return await self._scorer.score(
                self._follower.routing, batch, time.time_ns() // 1000, started_ns
            )
        finally:
            self._admission.leave(units)

    def finish(self, parts: list[Scored]) -> None:
        """Log and count rows whose answer has been sent, and show them to the shadow."""
        for scored in parts:
            self._record(scored)
        routing = self._follower.routing
        if routing is not None and routing.shadow is not None:
            for scored in parts:
                self._shadow(routing, routing.shadow, scored)

    def state(self) -> dict[str, Any]:
        """Return what an operator asks first, as JSON; names no addresses."""
        routing = self._follower.routing
        return {
            "ready": self.ready,
            "epoch": 0 if routing is None else routing.epoch,
            "arms": [
                {
                    "arm": arm.name,
                    "version": arm.server.model.version,
                    "answered": arm.server.answered,
                    "breaker": arm.server.breaker.state,
                }
                for arm in (() if routing is None else routing.arms)
            ],
            "features": self._store.breaker.state,
            "log": self._log_state(),
        }

    def refresh(self) -> None:
        """Bring the metrics of the state up to date."""
        routing = self._follower.routing
        breakers = {"features": self._store.breaker}
        if routing is not None:
            breakers |= {arm.name: arm.server.breaker for arm in routing.arms}
            if routing.shadow is not None:
                breakers["shadow"] = routing.shadow.breaker
        self.metrics.in_flight.set(self._admission.units)
        self.metrics.state(0 if routing is None else routing.epoch, breakers, self._log_state())

    def _record(self, scored: Scored) -> None:
        for row in scored.predictions(self._gateway, self.name, self._rows.next_sequence):
            self._rows.put(row)
        self.metrics.scored(scored)

    def _shadow(self, routing: Routing, server: ModelServer, scored: Scored) -> None:
        batch = scored.batch
        rows = [row for row, name in enumerate(batch.request_ids) if routing.shadows(name)]
        if not rows:
            return
        if self._admission.busy or len(self._shadows) >= _SHADOWS:
            self.metrics.shed.inc(len(rows))
            return
        arm = RoutedArm("shadow", server)
        entities = [scored.entities[row] for row in rows]
        work = self._scorer.by_arm(
            routing, arm, batch.part(rows), entities, scored.received_us, perf_counter_ns()
        )
        task = asyncio.create_task(_then(work, self._record))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    def _make_server(self, url: str, model: ServedModel) -> ModelServer:
        server = ModelServer(url, model, self._code.request_inputs)
        self._scorer.check(server)
        return server

    def _log_state(self) -> dict[str, int]:
        rows = self._rows
        return {
            "queued": rows.queued,
            "spilled": rows.spilled,
            "written": rows.written,
            "dropped": rows.dropped,
        }

    async def _watch(self) -> None:
        while True:
            self._refresh()
            await asyncio.sleep(_STATE_SECONDS)

    def _refresh(self) -> None:
        with contextlib.suppress(OSError):  # a full disk, with several workers
            self.refresh()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Say that a task has ended that never should: what it keeps up to date would freeze."""
        if not task.cancelled():
            _log.critical("%s has ended", task.get_name(), exc_info=task.exception())
            self._failed()


def _overloaded() -> RefusedError:
    return RefusedError(
        OVERLOADED,
        "too many requests are open; try again after a second",
        headers=[("retry-after", "1")],
    )


def answers(parts: list[Scored]) -> list[Answer]:
    """Return the answers in the order of the request's rows."""
    if len(parts) == 1:
        return parts[0].answers()
    found = [
        (number, answer)
        for part in parts
        for number, answer in zip(part.batch.numbers, part.answers(), strict=True)
    ]
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]


async def _then(work: Any, take: Callable[[Scored], None]) -> None:
    try:
        take(await work)
    except Exception:  # noqa: BLE001  # nobody waits for a shadow: it is said and forgotten
        _log.exception("a shadow request failed")
