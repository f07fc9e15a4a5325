"""From checked rows to scores: features, model, decision, each within its share of the budget.

Every row gets a score. Without features the model runs on the declared defaults and the row is
marked degraded; without the model the use case's rules answer and the row is marked a fallback. It
refuses to wait: all hanging together take the budgets of the two hops and no more.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from time import perf_counter_ns
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from feature_repo.catalog import ServingCode
from mlplatform.contracts.prediction import ArmName
from mlplatform.errors import SpecError
from serving.gateway import features, server
from serving.gateway.answer import RULES, Latency, Scored
from serving.gateway.assignment import entity_name
from serving.gateway.features import FeatureStore
from serving.gateway.request import EVENT_TIME, Batch, Requests
from serving.gateway.routing import RoutedArm, Routing
from serving.gateway.server import ModelServer

NO_ROUTE: Final = "no_route"
_PER_SECOND: Final = 1000.0
"""The spec counts milliseconds."""

_log: Final = logging.getLogger(__name__)


class Scorer:
    """Scores the rows of one use case.

    Args:
        code: The use case.
        requests: Its requests.
        store: The online store.
    """

    def __init__(self, code: ServingCode, requests: Requests, store: FeatureStore) -> None:
        serving, budget = code.spec.serving, code.spec.serving.latency_ms
        self._code, self._requests, self._store = code, requests, store
        self._defaults, self._required = serving.defaults, serving.required_views
        self._features_seconds = budget.features / _PER_SECOND
        self._model_seconds = (budget.queue + budget.inference) / _PER_SECOND
        self._rules_threshold = serving.decision_threshold
        self._of_request = tuple(
            name for name in code.request_inputs if name in requests.fields or name == EVENT_TIME
        )
        unit = code.spec.rollout.assignment_unit
        (self._unit,) = (e.keys for e in code.spec.entities if e.name == unit)

    def check(self, model: ModelServer) -> None:
        """Refuse a model that cannot be fed from this use case's requests and its own layout.

        Raises:
            SpecError: A key or an input is missing, or a required view is unknown.
        """
        held = {field.name for view in model.model.layout.views for field in view.fields}
        inputs = set(self._code.request_inputs) - set(self._of_request) - held
        views = set(self._required) - set(model.views)
        keys = set(model.keys) - set(self._requests.fields)
        for what, missing in (("inputs", inputs), ("required views", views), ("keys", keys)):
            if missing:
                raise SpecError(
                    f"{model.model.name} version {model.model.version} cannot be served: its "
                    f"layout and the requests lack the {what} {', '.join(sorted(missing))}; "
                    "export it again with this use case's spec"
                )

    def entities(self, batch: Batch) -> list[str]:
        """Return the name of each row's entity, which picks its arm."""
        return [
            entity_name(keys) for keys in zip(*(batch.values[k] for k in self._unit), strict=True)
        ]

    async def score(
        self, routing: Routing | None, batch: Batch, received_us: int, started_ns: int
    ) -> list[Scored]:
        """Return the scores of all rows, in one part for each arm that they fall on.

        Args:
            routing: Where traffic goes; None: there is no route yet.
            batch: The rows.
            received_us: When they came, microseconds since 1970.
            started_ns: The same on the clock that measures latencies.
        """
        entities = self.entities(batch)
        if routing is None:
            return [self._by_rules(batch, entities, received_us, started_ns)]
        if batch.rows == 1 or len(routing.arms) == 1:
            arm = routing.arm_of(entities[0])
            parts = [self.by_arm(routing, arm, batch, entities, received_us, started_ns)]
            return [await parts[0]]
        split = routing.split(entities)
        parts = [
            self.by_arm(
                routing, arm, batch.part(rows), [entities[row] for row in rows], received_us,
                started_ns,
            )
            for arm, rows in split
        ]  # fmt: skip
        return list(await asyncio.gather(*parts))

    async def by_arm(
        self,
        routing: Routing,
        arm: RoutedArm,
        batch: Batch,
        entities: Sequence[str],
        received_us: int,
        started_ns: int,
    ) -> Scored:
        """Return the scores of rows that fall on one arm."""
        model = arm.server
        model.take()
        try:
            before = perf_counter_ns()
            at_us = np.array(batch.event_us, dtype=np.int64)
            keys = {name: batch.values[name] for name in model.keys}
            found = await self._store.read(model.reader, keys, at_us, self._features_seconds)
            read = perf_counter_ns()
            missing: list[str] = []
            if isinstance(found, str):
                missing.append(found)
                matrix, inputs = model.empty(batch.rows, self._defaults)
                event_us = stale = None
            else:
                matrix, inputs = found.matrix, found.inputs
                event_us, stale = found.event_us, found.stale
            if not self._add_request_features(model, matrix, inputs, batch) and not missing:
                missing.append(features.DOWN)
            asked = perf_counter_ns()
            scores = await model.infer(matrix, self._model_seconds)
            answered = perf_counter_ns()
        finally:
            model.release()
        fallback = isinstance(scores, str)
        if isinstance(scores, str):
            missing.append(scores)
            scores, threshold = self._rules(batch), self._rules_threshold
        else:
            threshold = model.model.threshold
        reasons, degraded = self._reasons(model, stale, tuple(missing), batch.rows)
        ended = perf_counter_ns()
        features_ns, inference_ns = read - before, answered - asked
        return Scored(
            batch=batch,
            entities=entities,
            received_us=received_us,
            epoch=routing.epoch,
            arm=cast("ArmName", arm.name),
            server=model,
            matrix=matrix,
            event_us=event_us,
            scores=scores,
            decisions=scores >= threshold,
            degraded=degraded,
            fallback=fallback,
            reasons=reasons,
            latency=Latency(
                (ended - started_ns) // 1000,
                features_ns // 1000,
                inference_ns // 1000,
                (ended - started_ns - features_ns - inference_ns) // 1000,
            ),
        )

    def _by_rules(
        self, batch: Batch, entities: Sequence[str], received_us: int, started_ns: int
    ) -> Scored:
        scores = self._rules(batch)
        total = (perf_counter_ns() - started_ns) // 1000
        return Scored(
            batch=batch,
            entities=entities,
            received_us=received_us,
            epoch=0,
            arm=RULES,
            server=None,
            matrix=None,
            event_us=None,
            scores=scores,
            decisions=scores >= self._rules_threshold,
            degraded=[False] * batch.rows,
            fallback=True,
            reasons=[(NO_ROUTE,)] * batch.rows,
            latency=Latency(total, 0, 0, total),
        )

    def _rules(self, batch: Batch) -> npt.NDArray[np.float32]:
        return np.asarray(self._code.rules(self._requests.columns(batch)), dtype=np.float32)

    def _add_request_features(
        self,
        model: ModelServer,
        matrix: npt.NDArray[np.float32],
        inputs: dict[str, Any],
        batch: Batch,
    ) -> bool:
        for name in self._of_request:
            inputs[name] = self._requests.column(batch, name)
        try:
            model.fill(matrix, self._code.request(inputs))
        except Exception:  # noqa: BLE001  # the use case's code: a request is answered even where it fails
            _log.exception("request-time features of %s failed", self._code.spec.name)
            return False
        return True

    def _reasons(
        self,
        model: ModelServer,
        stale: npt.NDArray[np.bool_] | None,
        missing: tuple[str, ...],
        rows: int,
    ) -> tuple[Sequence[tuple[str, ...]], Sequence[bool]]:
        """Return why each row is degraded or a fallback, and which are degraded."""
        without = features.LATE in missing or features.DOWN in missing
        if stale is not None and self._required:
            required = stale[:, model.columns_of(self._required)]
            if required.any():
                reasons = [
                    missing + tuple(f"stale:{view}" for view, gone in self._marked(row) if gone)
                    for row in required.tolist()
                ]
                return reasons, [without or any(row) for row in required.tolist()]
        return [missing] * rows, [without] * rows

    def _marked(self, row: Sequence[bool]) -> Iterable[tuple[str, bool]]:
        return zip(self._required, row, strict=True)


REASONS: Final = (features.LATE, features.DOWN, server.LATE, server.DOWN, NO_ROUTE)
"""Besides `stale:<view>`."""
