"""What came of a request's rows: what the client reads, and what the prediction log keeps.

The two are made apart: the log's rows, which hold the features that were used, are made after the
answer has been sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from mlplatform.contracts.prediction import ArmName, Prediction
from serving.gateway.request import Batch
from serving.gateway.server import ModelServer

RULES: Final = "rules"


class Latency(msgspec.Struct, gc=False):
    """Microseconds of one request by hop, from the begin of its call, before its body is read.

    `decision_us` is all that is neither features nor model, waiting for the body included.
    """

    total_us: int
    features_us: int
    inference_us: int
    decision_us: int


class Answer(msgspec.Struct, gc=False):
    """The answer to one row."""

    request_id: str
    model: str
    version: int
    arm: str
    epoch: int
    score: float
    decision: bool
    degraded: bool
    fallback: bool
    reasons: tuple[str, ...]
    latency: Latency


@dataclass(slots=True)
class Scored:
    """Rows that were scored together: by one arm of one epoch, or by the rules."""

    batch: Batch
    entities: Sequence[str]
    received_us: int
    epoch: int
    arm: ArmName
    """Who was asked; `rules` where there was no route."""
    server: ModelServer | None
    matrix: npt.NDArray[np.float32] | None
    event_us: npt.NDArray[np.int64] | None
    scores: npt.NDArray[np.float32]
    decisions: npt.NDArray[np.bool_]
    degraded: Sequence[bool]
    fallback: bool
    reasons: Sequence[tuple[str, ...]]
    latency: Latency

    @property
    def by(self) -> ArmName:
        """Who made the scores; a shadow stays one even where the rules had to."""
        return RULES if self.fallback and self.arm != "shadow" else self.arm

    @property
    def version(self) -> int:
        """Of the model that made the scores; 0: the rules did."""
        if self.server is None or self.by == RULES:
            return 0
        return self.server.model.version

    def answers(self) -> list[Answer]:
        """Return the answer to each row."""
        model = RULES if self.server is None or self.fallback else self.server.model.name
        version, arm = self.version, self.by
        return [
            Answer(
                request_id, model, version, arm, self.epoch, score, decision, degraded,
                self.fallback, reasons, self.latency,
            )
            for request_id, score, decision, degraded, reasons in zip(
                self.batch.request_ids, self.scores.tolist(), self.decisions.tolist(),
                self.degraded, self.reasons, strict=True,
            )
        ]  # fmt: skip

    def predictions(
        self, gateway: str, usecase: str, next_sequence: Callable[[], int]
    ) -> list[Prediction]:
        """Return the log's row for each row."""
        batch, latency = self.batch, self.latency
        service = "" if self.server is None else self.server.model.layout.service
        version, arm = self.version, self.by
        return [
            Prediction(
                gateway=gateway,
                sequence=next_sequence(),
                request_id=batch.request_ids[row],
                usecase=usecase,
                event_time=batch.event_us[row],
                received_at=self.received_us,
                entity=self.entities[row],
                request=batch.row(row),
                arm=arm,
                version=version,
                epoch=self.epoch,
                service=service,
                features=b"" if self.matrix is None else self.matrix[row].tobytes(),
                feature_times=self._times(row),
                score=float(self.scores[row]),
                decision=bool(self.decisions[row]),
                degraded=self.degraded[row],
                fallback=self.fallback,
                reasons=self.reasons[row],
                total_us=latency.total_us,
                features_us=latency.features_us,
                inference_us=latency.inference_us,
                decision_us=latency.decision_us,
            )
            for row in range(batch.rows)
        ]

    def _times(self, row: int) -> tuple[int, ...]:
        if self.event_us is not None:
            return tuple(self.event_us[row].tolist())
        return () if self.server is None else (0,) * len(self.server.views)
