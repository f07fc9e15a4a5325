"""Rollouts as the loop sees them: asked for, told turn by turn, and how each of them ended.

What happens is up to the driver and the evidence: nothing is decided here.
"""

from collections.abc import Callable
from typing import Any, Final

from pydantic import Field

from local.serving import Serving
from mlplatform.contracts import Contract, Rollout
from mlplatform.contracts.rollout import Chapter, Phase

_ACTOR: Final = "demo"

Say = Callable[[str, str], None]
"""Prints a line under the name of a step."""


class Rolled(Contract):
    """How a rollout went."""

    title: str
    number: int
    version: int
    champion: int = Field(description="What it was compared with.")
    phase: Phase
    reason: str = Field(description="Of its last turn.")
    hours: float = Field(description="Of the data's time, from the request to the last turn.")
    turns: tuple[str, ...] = Field(description="Its turns' verdicts, oldest first.")


class Followed:
    """The rollouts that this loop asked for.

    Args:
        running: The platform.
        say: Prints a line.
    """

    def __init__(self, running: Serving, say: Say) -> None:
        self._running, self._say = running, say
        self._titles: dict[int, str] = {}
        self._told = 0
        self._rolled: dict[int, Rolled] = {}

    @property
    def rolled(self) -> tuple[Rolled, ...]:
        """How the rollouts went, one that is still under way included."""
        self.tell()
        return tuple(self._rolled.values())

    @property
    def under_way(self) -> bool:
        """Whether one has not come to rest."""
        rollout = self._running.rollout
        return rollout is not None and not rollout.at_rest

    def ask(self, version: int, title: str) -> None:
        """Roll a version out."""
        self.tell()
        self._say("rollout", title)
        rollout = self._running.start_rollout(version, actor=_ACTOR, reason=title, again=True)
        self._titles[rollout.number], self._told = title, 0

    def watch(self, line: dict[str, Any]) -> None:
        """Tell new turns while traffic passes; the line gets the rollout's state as text."""
        rollout = self.tell()
        if rollout is not None and not rollout.at_rest:
            line["rollout"] = state(rollout)

    def tell(self) -> Rollout | None:
        """Say the turns that have not been said; return the newest rollout of this loop."""
        rollout = self._running.rollout
        if rollout is None or rollout.number not in self._titles:
            return None
        for chapter in rollout.story[self._told :]:
            self._say("rollout", turn(rollout, chapter))
        self._told = len(rollout.story)
        self._rolled[rollout.number] = outcome(self._titles[rollout.number], rollout)
        return rollout


def outcome(title: str, rollout: Rollout) -> Rolled:
    """Return how a rollout went."""
    last = rollout.story[-1]
    return Rolled(
        title=title,
        number=rollout.number,
        version=rollout.challenger.version,
        champion=rollout.champion.version,
        phase=rollout.phase,
        reason=last.reason,
        hours=round((last.at - rollout.started_at).total_seconds() / 3600, 1),
        turns=tuple(chapter.verdict for chapter in rollout.story),
    )


def state(rollout: Rollout) -> str:
    """Return where a rollout stands, in a line."""
    weight = rollout.routes[-1].weight if rollout.routes else 0.0
    waits = f"; waits for {rollout.waits_for}" if rollout.waits_for else ""
    return f"version {rollout.challenger.version}: {rollout.phase}, {weight:.0%} of entities{waits}"


def turn(rollout: Rollout, chapter: Chapter) -> str:
    """Return a turn of a rollout, in a line."""
    weight = next((r.weight for r in rollout.routes if r.epoch == chapter.epoch), 0.0)
    share = f" at {weight:.0%}" if chapter.phase in {"canary", "soak"} else ""
    return (
        f"{chapter.at:%b %d %H:%M}  version {rollout.challenger.version} {chapter.phase}{share}: "
        f"{chapter.reason}"
    )
