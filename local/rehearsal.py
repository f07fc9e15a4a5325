"""The rollouts of a replay: a newer version that takes over, and a broken one that must not.

It asks for them one after the other while live traffic passes, and says each turn that they take.
What happens is up to the driver and the evidence: it decides nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from local import clock
from local.broken_model import register_broken
from local.rollout_orders import Orders
from local.serving import Serving
from local.workspace import Workspace
from mlplatform.contracts import Contract, Rollout, UseCase
from mlplatform.contracts.rollout import AT_REST, Chapter, Phase
from mlplatform.ledger import Ledger
from mlplatform.signing import KeyPair
from serving.rollout import machine
from serving.rollout.store import RolloutStore

_ACTOR: Final = "demo"

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Act:
    """A rollout that is to be asked for."""

    title: str
    version: Callable[[], int]
    """Called when its turn comes."""
    expected: Phase


class Rolled(Contract):
    """How a rollout went."""

    title: str
    number: int
    version: int
    champion: int = Field(description="What it was compared with.")
    expected: Phase
    phase: Phase
    reason: str = Field(description="Of its last turn.")
    hours: float = Field(description="Of the data's time, from the request to the last turn.")
    turns: tuple[str, ...] = Field(description="Its turns' verdicts, oldest first.")

    @property
    def good(self) -> bool:
        """Whether it ended as it should."""
        return self.phase == self.expected


class Rehearsal:
    """Asks for rollouts in turn.

    Args:
        running: The platform.
        acts: What to ask for.
        say: Prints a line under the name of a step.
    """

    def __init__(self, running: Serving, acts: Sequence[Act], say: Say) -> None:
        self._running, self._say = running, say
        self._waiting = list(acts)
        self._act: Act | None = None
        self._number = self._told = 0
        self.rolled: list[Rolled] = []

    def step(self, line: dict[str, Any]) -> bool:
        """Take one line of the replay; return whether the replay is to go on.

        The line gets the rollout's state as text, for who shows it.
        """
        self._running.clock.seen(datetime.fromisoformat(line["event_time"]))
        if self._act is not None:
            rollout = self._running.rollout
            if rollout is None or rollout.number != self._number:
                return True
            self._tell(rollout)
            line["rollout"] = state(rollout)
            if not rollout.at_rest:
                return True
            self.rolled.append(outcome(self._act, rollout))
            self._act = None
        if self._waiting:
            self._act = self._waiting.pop(0)
            version = self._act.version()
            self._say("rollout", self._act.title)
            asked = self._running.start_rollout(
                version, actor=_ACTOR, reason=self._act.title, again=True
            )
            self._number, self._told = asked.number, 0
        return self._act is not None

    @property
    def missed(self) -> tuple[str, ...]:
        """What there was no time for, or what somebody else's rollout took the place of."""
        begun = () if self._act is None else (self._act,)
        return tuple(act.title for act in (*begun, *self._waiting))

    def end(self) -> tuple[Rolled, ...]:
        """Return how the rollouts went, one that is still under way included."""
        rollout = self._running.rollout
        if self._act is not None and rollout is not None and rollout.number == self._number:
            self._tell(rollout)
            self.rolled.append(outcome(self._act, rollout))
            self._act = None
        return tuple(self.rolled)

    def _tell(self, rollout: Rollout) -> None:
        for chapter in rollout.story[self._told :]:
            self._say("rollout", turn(rollout, chapter))
        self._told = len(rollout.story)


def acts(running: Serving, workspace: Workspace, trained: int | None) -> tuple[Act, ...]:
    """Return what is rolled out: a newer version, then a broken copy of what serves by then.

    Args:
        running: The platform.
        workspace: Has the keys.
        trained: Version that the last run has registered; None: it has registered none.
    """
    serving = running.model.version
    first: tuple[Act, ...] = ()
    if trained is not None and trained > serving:
        title = f"version {trained}, trained on newer data, is to replace version {serving}"
        first = (Act(title, lambda: trained, "promoted"),)

    def broken() -> int:
        rollout = running.rollout
        sound = serving if rollout is None else machine.serves(rollout).version
        return register_broken(
            running.registry,
            running.usecase,
            sound,
            keys=KeyPair(*workspace.keys),
            workdir=workspace.replay,
            now=running.clock.now(),
        ).version

    title = "a broken version: all its inputs are taken in the wrong unit"
    return (*first, Act(title, broken, "rolled_back"))


def abandon(workspace: Workspace, spec: UseCase) -> Rollout | None:
    """End a rollout that an interrupted replay has left; return it, None when there is none.

    It has seen a part of the window that is replayed anew.
    """
    rollouts = RolloutStore(workspace.ledger_url)
    stored = rollouts.read(spec.name)
    if stored is None or stored.rollout.phase in AT_REST:
        return None
    now = clock.read(workspace.clock)
    orders = Orders(spec, rollouts, Ledger(workspace.ledger_url), lambda: now, lambda: False)
    return orders.give("abort", actor=_ACTOR, reason="the window is replayed from its start")


def outcome(act: Act, rollout: Rollout) -> Rolled:
    """Return how a rollout went."""
    last = rollout.story[-1]
    return Rolled(
        title=act.title,
        number=rollout.number,
        version=rollout.challenger.version,
        champion=rollout.champion.version,
        expected=act.expected,
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
