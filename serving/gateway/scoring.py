"""From checked rows to scores: features, model, decision, each within its share of the budget.

Every row gets a score. Without features the model runs on the declared defaults and the row is
marked degraded; without the model the use case's rules answer and the row is marked a fallback; and
where these fail too the score is a constant. It refuses to wait: all hanging together take the
budgets of the two hops and no more.
"""

import asyncio
import logging
import traceback
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
REQUEST_FAILED: Final = "request_features_failed"
RULES_FAILED: Final = "rules_failed"
_WITHOUT: Final = frozenset({features.LATE, features.DOWN, REQUEST_FAILED})
"""Reasons for which all rows are degraded."""
_LAST_SCORE: Final = 0.0
"""Where the rules fail: below every threshold, so that nothing is done about the row."""
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
        tables = code.spec.data.tables.values()
        self._columns = {
            name: rule.type for table in tables for name, rule in table.columns.items()
        }

    def check(self, model: ModelServer) -> None:
        """Refuse a model that cannot be fed from this use case's requests and its own layout.

        Raises:
            SpecError: A key or an input is missing, a required view is unknown, or a key's type is
                not that of its features.
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
        for key in model.keys:
            kind, stored = self._requests.fields[key].type, self._columns.get(key)
            if kind not in _KEYS or (stored in _KEYS and stored != kind):
                raise SpecError(
                    f"{model.model.name} version {model.model.version} cannot be served: "
                    f"serving.request.{key} is {kind}, and it is the key of features by "
                    f"{stored if stored in _KEYS else 'string or integer'}: no row would be found; "
                    "declare that type"
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
        for arm, _ in split:  # now: a part begins later, and its server may be retired until then
            arm.server.take()
        try:
            return list(await asyncio.gather(*parts))
        finally:
            for arm, _ in split:
                arm.server.release()

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
                event_us = lacking = None
            else:
                matrix, inputs, event_us = found.matrix, found.inputs, found.event_us
                lacking = self._lacking(model, found.stale)
                if lacking is not None and self._defaults:
                    model.put_defaults(matrix, lacking, self._required, self._defaults)
            if not self._add_request_features(model, matrix, inputs, batch):
                missing.append(REQUEST_FAILED)
            asked = perf_counter_ns()
            scores = await model.infer(matrix, self._model_seconds)
            answered = perf_counter_ns()
        finally:
            model.release()
        fallback = isinstance(scores, str)
        if isinstance(scores, str):
            missing.append(scores)
            scores, threshold = self._rules(batch, missing), self._rules_threshold
        else:
            threshold = model.model.threshold
        reasons, degraded = self._reasons(lacking, tuple(missing), batch.rows)
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
        missing = [NO_ROUTE]
        scores = self._rules(batch, missing)
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
            reasons=[tuple(missing)] * batch.rows,
            latency=Latency(total, 0, 0, total),
        )

    def _rules(self, batch: Batch, missing: list[str]) -> npt.NDArray[np.float32]:
        """Return the scores of the rules, or the last one; adds the reason if they failed."""
        try:
            with np.errstate(over="ignore"):  # beyond float32 it is no score either
                found = np.asarray(self._code.rules(self._requests.columns(batch)), np.float32)
            # NaN compares as False.
            if found.shape == (batch.rows,) and found.min() >= 0 and found.max() <= 1:
                return found
            trouble = f"they answered {batch.rows} rows with {list(found.shape)} or no scores"
        except Exception as error:  # noqa: BLE001  # the use case's code: as below
            trouble = _where(error)
        _log.error("the rules of %s failed: %s", self._code.spec.name, trouble)
        missing.append(RULES_FAILED)
        return np.full(batch.rows, _LAST_SCORE, np.float32)

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
        except Exception as error:  # noqa: BLE001  # the use case's code: a request is answered even where it fails
            name = self._code.spec.name
            _log.error("the request-time features of %s failed: %s", name, _where(error))
            return False
        return True

    def _lacking(
        self, model: ModelServer, stale: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_] | None:
        """Return which required views each row lacks [N, views]; None: no row lacks any."""
        if not self._required:
            return None
        required = stale[:, model.columns_of(self._required)]
        return required if required.any() else None

    def _reasons(
        self,
        lacking: npt.NDArray[np.bool_] | None,
        missing: tuple[str, ...],
        rows: int,
    ) -> tuple[Sequence[tuple[str, ...]], Sequence[bool]]:
        """Return why each row is degraded or a fallback, and which are degraded."""
        without = not _WITHOUT.isdisjoint(missing)
        if lacking is not None:
            reasons = [
                missing + tuple(f"stale:{view}" for view, gone in self._marked(row) if gone)
                for row in lacking.tolist()
            ]
            return reasons, [without or any(row) for row in lacking.tolist()]
        return [missing] * rows, [without] * rows

    def _marked(self, row: Sequence[bool]) -> Iterable[tuple[str, bool]]:
        return zip(self._required, row, strict=True)


def _where(error: Exception) -> str:
    """Return what failed and where; not the message, which may repeat what a client sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.filename}, line {frame.lineno}"


REASONS: Final = (
    features.LATE, features.DOWN, REQUEST_FAILED, server.LATE, server.DOWN, NO_ROUTE, RULES_FAILED,
)  # fmt: skip
"""Besides `stale:<view>`."""

_KEYS: Final = {"string", "integer"}
"""Types of fields that can name an entity."""
