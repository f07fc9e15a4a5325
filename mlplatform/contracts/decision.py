"""A row of the ledger, before it is chained."""

from typing import Literal

from pydantic import Field, JsonValue

from mlplatform.contracts.base import Contract, UtcDatetime

DecisionKind = Literal[
    "validation",
    "training_set",
    "gate",
    "registration",
    "run",
    "route",
    "rollout",
    "monitor",
    "retrain",
]


class Decision(Contract):
    """Something that was decided, by whom, on what evidence."""

    key: str = Field(min_length=1, description="Idempotency key: one row for each key, ever.")
    usecase: str
    kind: DecisionKind
    subject: str = Field(description="What it is about: a run, a model version.")
    verdict: str = Field(description="One word: passed, rejected, registered, failed…")
    reason: str = Field(description="In words, with the numbers.")
    evidence: dict[str, JsonValue] = Field(default={}, description="Inputs, versions, statistics.")
    actor: str = Field(description="The process that decided.")
    at: UtcDatetime
