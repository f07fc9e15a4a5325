"""Retraining: what windows showed, what was decided on it, and what became of each run.

`History` is all that the trigger of one use case knows, written as one JSON value by
compare-and-swap. It stays small whatever happens: of the windows it keeps those that still count,
of the runs those that limits still look at. What was decided is on the ledger.
"""

import hashlib
from datetime import datetime
from typing import Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from mlplatform.contracts.base import Contract, UtcDatetime, Window
from mlplatform.contracts.decision import Decision

Watch = Literal["inputs", "performance"]
"""What is watched: requests and answers, known at once; or labels, which mature later. Each has
windows of its own, because the newest window of labels lies far behind that of requests."""

Cause = Literal[
    "healthy",
    "input_drift",
    "output_drift",
    "performance_loss",
    "data_fault",  # the feed is broken
    "skew",  # serving computes other features than training
    "inconclusive",  # the window can tell nothing
]

CAUSES: Final[dict[Watch, frozenset[Cause]]] = {
    "inputs": frozenset(
        {"healthy", "input_drift", "output_drift", "data_fault", "skew", "inconclusive"}
    ),
    "performance": frozenset({"healthy", "performance_loss", "inconclusive"}),
}
"""What each watch may find."""

CURABLE: Final = frozenset[Cause]({"input_drift", "output_drift", "performance_loss"})
"""Causes that a model trained on newer data may cure."""

Reason = Literal["performance_loss", "drift", "event", "scheduled"]
"""Why a model is trained anew."""

Phase = Literal[
    "awaiting_approval",  # of a person
    "ready",  # to be submitted
    "submitted",  # a run has begun, and it is not known yet whether its model is better
    "better",  # at rest: its model took over
    "no_gain",  # at rest: no better model came of it: a gate or its rollout said no
    "failed",  # at rest: the run broke down
    "denied",  # at rest: a person said no; nothing has run
]

Outcome = Literal["better", "no_gain", "failed"]
"""How a retraining that ran may end."""

RunState = Literal["running", "succeeded", "failed", "unknown"]
"""Of a run; unknown: the orchestrator has no such run any more."""

_NAME_LENGTH: Final = 63
_DIGEST_LENGTH: Final = 16

IN_FLIGHT: Final = frozenset[Phase]({"awaiting_approval", "ready", "submitted"})


class Finding(Contract):
    """What one watch found in one window; a later judgement of the window replaces it."""

    usecase: str
    watch: Watch
    window: Window
    cause: Cause
    blamed: tuple[str, ...] = Field(
        default=(), description="Features, the score, tables or metrics that showed it."
    )
    why: str = Field(default="", description="In words, with the numbers.")
    judged_at: UtcDatetime

    @model_validator(mode="after")
    def _fits_its_watch(self) -> Self:
        if self.cause not in CAUSES[self.watch]:
            raise ValueError(f"{self.cause} cannot be found by watching {self.watch}")
        if self.cause in CURABLE and not self.blamed:
            raise ValueError(f"{self.cause} without what is to blame: windows could not agree")
        if not self.window.start < self.window.end <= self.judged_at:
            raise ValueError("a window must have a length, and have ended when it is judged")
        return self


class Event(Contract):
    """Something outside the data that a model must learn of: a new route, a new price list."""

    usecase: str
    id: str = Field(min_length=1, description="Its source's own: told twice, it is one event.")
    at: UtcDatetime = Field(description="When it happened.")
    why: str = Field(description="What happened, in words.")


Signal = Finding | Event


class RetrainRequest(Contract):
    """That a model be trained anew, once."""

    usecase: str
    reason: Reason
    window: Window = Field(description="The newest window of the evidence, or the period due.")
    asked_at: UtcDatetime
    why: str = Field(description="In words, with the numbers.")
    evidence: dict[str, JsonValue] = Field(default={})

    @property
    def key(self) -> str:
        """Return the idempotency key: there is one run for each, ever; 32 hexadecimal digits."""
        times = (self.window.start.isoformat(), self.window.end.isoformat())
        text = "\n".join((self.usecase, self.reason, *times))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Fire(Contract):
    """A model is to be trained anew."""

    kind: Literal["fire"] = "fire"
    request: RetrainRequest


class Wait(Contract):
    """Not yet."""

    kind: Literal["wait"] = "wait"
    reason: Literal["nothing", "persistence", "in_flight", "cooldown", "budget"]
    why: str
    window: Window | None = Field(default=None, description="What it is about.")


class Refuse(Contract):
    """To train anew cannot help, or has not helped."""

    kind: Literal["refuse"] = "refuse"
    reason: Literal["data_fault", "skew", "inconclusive", "no_gain"]
    why: str
    window: Window | None = Field(default=None, description="What it is about.")


Choice = Fire | Wait | Refuse


class Retraining(Contract):
    """What became of a request."""

    request: RetrainRequest
    phase: Phase
    as_of: UtcDatetime | None = Field(
        default=None, description="The time that training looks from: when it was first claimed."
    )
    claimed_by: str | None = Field(default=None, description="The submitter at work on it.")
    claimed_until: UtcDatetime | None = Field(default=None, description="Then another takes over.")
    run: str | None = Field(default=None, description="The orchestrator's id.")
    submitted_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None


class Said(Contract):
    """A decision by what makes it another one."""

    kind: Literal["fire", "wait", "refuse"]
    reason: str
    since: UtcDatetime | None = Field(default=None, description="When what it is about began.")


class History(Contract):
    """All that the trigger of one use case knows."""

    usecase: str
    began: UtcDatetime = Field(description="Scheduled runs count from here until there is one.")
    findings: tuple[Finding, ...] = Field(default=(), description="By watch and time.")
    events: tuple[Event, ...] = Field(default=(), description="That no run knows of, oldest first.")
    covered_until: UtcDatetime | None = Field(
        default=None, description="A run, or a person who said no, knew of all events until then."
    )
    retrainings: tuple[Retraining, ...] = Field(default=(), description="Oldest first.")
    without_gain: int = Field(default=0, ge=0, description="Runs in a row.")
    said: Said | None = Field(default=None, description="What was decided last.")
    rows: int = Field(default=0, ge=0, description="Rows for the ledger so far.")
    unrecorded: tuple[Decision, ...] = Field(
        default=(), description="Rows that may not be on the ledger yet, oldest first."
    )

    @property
    def last(self) -> Retraining | None:
        """Return the newest retraining."""
        return self.retrainings[-1] if self.retrainings else None

    @property
    def in_flight(self) -> Retraining | None:
        """Return the retraining that has not ended; there is at most one."""
        last = self.last
        return last if last is not None and last.phase in IN_FLIGHT else None


def ownership(usecase: str, key: str, run: str, at: datetime) -> Decision:
    """Return the row with which a run takes the request that it was started for.

    The first step of a run adds it to the ledger, which keeps one row for each key. The run whose
    row is refused is a second one, started by a submitter that was taken for dead: it ends there.
    """
    return Decision(
        key=ownership_key(usecase, key),
        usecase=usecase,
        kind="retrain",
        subject=key,
        verdict="running",
        reason=f"run {run} trains what was asked for",
        evidence={"run": run},
        actor="pipelines",
        at=at,
    )


def owner(row: Decision) -> str:
    """Return the run that a row of `ownership` names."""
    return str(row.evidence["run"])


def ownership_key(usecase: str, key: str) -> str:
    """Return the ledger's key of the row that says which run owns a request."""
    return f"{usecase}/retrain/{key}/run"


def run_name(pipeline: str, usecase: str, key: str) -> str:
    """Return the name of the run that carries a key, where the orchestrator lets names be chosen.

    It is a name that Kubernetes takes for a Job and for a label: 63 letters, digits and dashes.
    One that is too long keeps its beginning, and ends in a digest of all of it.

    Args:
        pipeline: Its name.
        usecase: Its name.
        key: Of a request: letters, digits and dashes.
    """
    name = f"{pipeline}-{usecase}-{key}".replace("_", "-").lower()
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: _NAME_LENGTH - _DIGEST_LENGTH - 1].rstrip('-')}-{digest}"
