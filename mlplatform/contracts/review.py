"""Decisions that a person looks at, and the labels that come of it."""

from typing import Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime

ReviewReason = Literal["uncertain", "sampled"]
"""The score lies next to the threshold; or the row was drawn, whatever its score: only drawn rows
are a fair sample of all."""


class ReviewItem(Contract):
    """One decision that waits for a person, or has been looked at."""

    usecase: str
    request_id: str
    event_time: UtcDatetime
    entity: str
    request: str = Field(description="JSON: keys and inputs as they came.")
    version: int = Field(ge=1, description="Of the model that answered.")
    score: float
    decision: bool
    reason: ReviewReason
    queued_at: UtcDatetime
    label: int | None = Field(default=None, ge=0, le=1, description="None: waits; or cannot say.")
    reviewer: str = Field(default="", description="Who looked; empty: nobody yet.")
    note: str = Field(default="", description="Why, in words.")
    reviewed_at: UtcDatetime | None = None
