"""What a demonstration of the loop showed: its days, its decisions, and whether the story held."""

from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from local.followed import Rolled
from local.replayed import Replayed
from mlplatform.contracts import Contract, Decision, UtcDatetime, Window
from mlplatform.contracts.performance import PairedPerformance
from mlplatform.contracts.watch import WindowReport


class Line(Contract):
    """A decision, as a summary lists it."""

    window: UtcDatetime | None = Field(description="End of the window in which; None: before.")
    kind: str
    subject: str
    verdict: str
    reason: str
    recorded_at: UtcDatetime = Field(description="By the clock of whoever decided.")


class Day(Contract):
    """One window of the loop."""

    act: str = Field(description="What the story is about in this window.")
    report: WindowReport
    withheld: tuple[str, ...] = Field(default=(), description="Feeds that were stopped on purpose.")
    decisions: tuple[Line, ...] = Field(description="Rows of the ledger that this window added.")
    rollout: str = Field(default="", description="Where the rollout stood at its end.")
    alerts: tuple[str, ...] = Field(default=(), description="Alerts that were sent.")

    @property
    def window(self) -> Window:
        """Its window."""
        return self.report.window


class Claim(Contract):
    """Something that the story says, and whether it was so."""

    text: str
    held: bool
    seen: str = Field(description="What was seen, in words.")


class Told(Contract):
    """The story of one demonstration."""

    usecase: str
    goal: str
    trained_as_of: UtcDatetime = Field(description="The first model learnt what was known then.")
    start: UtcDatetime = Field(description="Live traffic begins.")
    end: UtcDatetime
    git_commit: str
    seconds: float
    claims: tuple[Claim, ...]
    days: tuple[Day, ...]
    rollouts: tuple[Rolled, ...]
    replaced: PairedPerformance | None = Field(
        description="The new champion beside the model that it replaced, on the same matured rows."
    )
    traffic: Replayed
    decisions: tuple[Line, ...] = Field(description="All rows of the ledger, oldest first.")

    @property
    def good(self) -> bool:
        """Whether everything that the story says was so."""
        return all(claim.held for claim in self.claims)

    def write(self, path: Path) -> None:
        """Write it as indented JSON, the old file replaced at once."""
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def line(decision: Decision, window: datetime | None) -> Line:
    """Return a row of the ledger as a summary lists it."""
    return Line(
        window=window,
        kind=decision.kind,
        subject=decision.subject,
        verdict=decision.verdict,
        reason=decision.reason,
        recorded_at=decision.at,
    )


def ended(path: Path, usecase: str) -> datetime | None:
    """Return the time at which the last story of a use case ended; None where none was told."""
    try:
        told = Told.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return told.end if told.usecase == usecase else None
