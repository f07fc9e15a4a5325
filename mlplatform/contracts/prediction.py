"""`Prediction`: one row of the prediction log, written for each answered request.

A msgspec struct, not a pydantic model: it is made, encoded and decoded on the hot path.
"""

from typing import Literal

import msgspec

ArmName = Literal["champion", "challenger", "shadow", "rules"]
"""Who made the score; `rules`: no model answered in time."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One scored row; times are microseconds since 1970, UTC.

    `gateway` and `sequence` name the row: each gateway process counts its rows from 1, in the order
    in which they reach the log. A batch request has one row for each item; a shadowed request has
    a second one whose arm is `shadow`.
    """

    gateway: str
    sequence: int
    request_id: str
    usecase: str
    event_time: int
    received_at: int
    entity: str
    request: dict[str, str | int | float | None]
    """Keys and inputs as they came; timestamps as microseconds."""
    arm: ArmName
    version: int
    """0: the rules answered."""
    epoch: int
    """Of the route that was followed; 0: there was none."""
    service: str
    """Feature service of the vector; empty when no route was known."""
    features: bytes
    """The model's inputs in its order, float32 little-endian; empty when no route was known."""
    feature_times: tuple[int, ...]
    """Event time of each view's row, in the layout's order; 0: there was none."""
    score: float
    decision: bool
    degraded: bool
    fallback: bool
    reasons: tuple[str, ...]
    """Why it is degraded or a fallback: `features_late`, `features_down`, `stale:<view>`,
    `request_features_failed` (the use case's code could not compute them), `inference_late`,
    `inference_down`, `no_route`, `rules_failed` (the score is then the constant 0)."""
    total_us: int
    features_us: int
    inference_us: int
    decision_us: int
