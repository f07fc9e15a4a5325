"""A rollout: how a new model version takes over, and what both versions have shown meanwhile.

`Rollout` is the whole state of one rollout, written as one JSON value by compare-and-swap: the
route, the servers and the registry's aliases follow from it. `Statistics` is what the prediction
log shows: sums over entities, from which every test is computed anew at each look. Statistics are
msgspec structs, because a simulation makes millions of them.
"""

from datetime import datetime
from typing import Final, Literal

import msgspec
from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime
from mlplatform.contracts.usecase.operation import GuardrailMetric, RolloutPlan

Phase = Literal[
    "pending",  # asked for
    "verifying",  # its server starts: signature, digest, golden answers
    "shadow",  # answers that nobody sees
    "canary",  # step `step` of the plan's weights
    "soak",  # all traffic but the holdback; the version before stays warm
    "promoted",  # at rest: all traffic
    "rolled_back",  # at rest: no traffic; harm, a failed server, or by hand
    "held",  # at rest: no traffic; the evidence did not come in time, or did not count for long
    "superseded",  # at rest: a newer version was asked for
]

AT_REST: Final = frozenset({"promoted", "rolled_back", "held", "superseded"})
"""Phases that nothing but an order leaves."""

Order = Literal["promote", "rollback", "abort", "pause", "resume"]
"""What a person may ask of a rollout."""


class Moments(msgspec.Struct, frozen=True, gc=False):
    """Sums of one value over entities: of a value in [0, 1], or of a difference in [-1, 1]."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        """Return the mean; NaN of nothing."""
        return self.total / self.n if self.n else float("nan")


class Pair(msgspec.Struct, frozen=True, gc=False):
    """The same sums for both arms, which saw different entities."""

    champion: Moments = Moments()
    challenger: Moments = Moments()


class Counts(msgspec.Struct, frozen=True, gc=False):
    """Entities of both arms."""

    champion: int = 0
    challenger: int = 0


class Share(msgspec.Struct, frozen=True, gc=False):
    """How many of some entities had an event."""

    events: int = 0
    entities: int = 0


class Stage(msgspec.Struct, frozen=True):
    """What both arms showed while one weight was in force.

    An entity's value is that of its first request in the rollout, in the stage of that request:
    so every entity counts once, and its arm is the toss of the assignment whatever came before.
    `events` holds, for the rates, the entities whose *first event* of the kind fell in the stage,
    whichever of their requests it was: given that it happened, the arm is that toss as well.
    """

    epoch: int
    """First epoch of the route with this weight."""
    weight: float
    """Share of entities whose hash makes them the challenger's, in (0, 1)."""
    exposed: Counts = Counts()
    """Entities that made a request in this stage."""
    values: dict[str, Pair] = {}
    """By metric; `loss` over entities whose label has matured."""
    events: dict[str, Counts] = {}
    """By rate metric."""


class Statistics(msgspec.Struct, frozen=True):
    """All that the predictions since the start of one rollout have shown."""

    usecase: str
    number: int
    """Of the rollout."""
    version: int
    digest: str
    """Of the challenger's model: evidence never crosses digests."""
    at: datetime
    """Time for which it was computed."""
    newest: dict[str, datetime] = {}
    """By metric, the time of the newest row that counts (for `loss`: since when a label counts)."""
    stages: tuple[Stage, ...] = ()
    """Oldest first."""
    paired: dict[str, Moments] = {}
    """By metric: challenger's value minus champion's on the same requests, one for each entity.

    The challenger saw them as a shadow, so all phases with a shadow add to it.
    """
    baseline: dict[str, Share] = {}
    """By rate metric: of the champion alone, before the first canary step."""
    recent: dict[str, Share] = {}
    """By rate metric: of the champion in the newest `stale_hours` of the plan."""
    misassigned: int = 0
    """Rows that another arm answered than the assignment says: then nothing here counts."""
    unread: str = ""
    """Why the labels could not be read, and `loss` is missing; empty: they were, or nobody asks."""


class ServerStatus(msgspec.Struct, frozen=True):
    """What is known of the server of one version."""

    state: Literal["absent", "starting", "ready", "failed"]
    """`ready`: signature and digest verified and the golden answers given."""
    url: str = ""
    detail: str = ""
    """Of a failure: what failed and what to do."""


class Evidence(msgspec.Struct, frozen=True):
    """What `advance` is told at one look."""

    challenger: ServerStatus
    champion: ServerStatus
    acknowledged: int = 0
    """Newest epoch that every living gateway follows; 0: there is none, or nobody said."""
    statistics: Statistics | None = None
    """None: they could not be read, or the phase needs none."""


class Reading(Contract):
    """One guardrail at one look."""

    metric: GuardrailMetric
    margin: float
    champion: float | None = Field(description="Mean over all stages; None: nothing counts yet.")
    challenger: float | None = Field(description="The same.")
    entities: int = Field(ge=0, description="Of the challenger's arm, or pairs if those are more.")
    difference: float | None = Field(default=None, description="Challenger minus champion.")
    log_harm: float = Field(description="ln of the e-value against 'it does no harm'.")
    log_safe: float = Field(description="ln of the e-value against 'worse by the margin or more'.")
    fresh: bool = Field(description="Whether its newest row is younger than stale_hours.")


VerdictKind = Literal["harm", "safe", "undecided", "frozen", "inconclusive"]


class Verdict(Contract):
    """What the evidence of one look says."""

    kind: VerdictKind
    reason: str = Field(description="In words, with the numbers.")
    log_harm: float = Field(default=0.0, description="ln of the mean e-value over all guardrails.")
    readings: tuple[Reading, ...] = ()


class Routed(Contract):
    """One epoch of the route that the rollout asked for."""

    epoch: int = Field(ge=1)
    weight: float = Field(ge=0, le=1, description="The challenger's share of entities.")
    shadow: float = Field(ge=0, le=1, description="Share of requests shown to the shadow.")
    phase: Phase
    at: UtcDatetime = Field(description="When it was asked for.")


class Chapter(Contract):
    """One turn of a rollout: becomes a row of the ledger."""

    number: int = Field(ge=1)
    phase: Phase = Field(description="That it turned to.")
    step: int = Field(ge=0)
    verdict: str = Field(description="One word: started, verified, canary, harm, promoted…")
    reason: str
    actor: str = Field(description="`evidence`, or who asked by hand.")
    at: UtcDatetime
    epoch: int = Field(default=0, ge=0, description="The newest that was asked for by then.")
    looked: Verdict | None = Field(default=None, description="What was seen, if that decided.")


class Version(Contract):
    """A registered version, by number and content."""

    version: int = Field(ge=1)
    digest: str


class Rollout(Contract):
    """The state of one rollout."""

    usecase: str
    number: int = Field(ge=1, description="Counts the rollouts of the use case.")
    challenger: Version
    champion: Version = Field(description="What served before; stays warm until promotion.")
    plan: RolloutPlan = Field(description="The spec's when it started; a later one is ignored.")
    phase: Phase = "pending"
    step: int = Field(default=0, ge=0, description="Of the plan's weights, in phase canary.")
    paused: bool = False
    routes: tuple[Routed, ...] = Field(default=(), description="Asked for, oldest first.")
    first_epoch: int = Field(ge=1, description="The first epoch that it may ask for.")
    committed: int = Field(default=0, ge=0, description="Newest epoch that all gateways follow.")
    started_at: UtcDatetime
    entered_at: UtcDatetime = Field(description="When the phase or step came into force.")
    deadline_at: UtcDatetime
    blind_since: UtcDatetime | None = Field(
        default=None,
        description="Since when users have met a version whose harm nobody can tell; None: it can.",
    )
    story: tuple[Chapter, ...] = ()
    waits_for: str = Field(default="", description="Why it does not go on, in words.")

    @property
    def id(self) -> str:
        """Name of the rollout: use case and number."""
        return f"{self.usecase}/{self.number}"

    @property
    def salt(self) -> str:
        """What the assignment is salted with: each rollout splits anew."""
        return f"{self.usecase}/rollout/{self.number}"

    @property
    def epoch(self) -> int:
        """Newest epoch that was asked for; 0: none yet."""
        return self.routes[-1].epoch if self.routes else 0

    @property
    def at_rest(self) -> bool:
        """Whether it is over and its last route is in force everywhere."""
        return self.phase in AT_REST and self.committed >= self.epoch
