"""What a person asks of the rollouts of one use case: written into the stored state, no more.

Whoever drives the rollout, in this process or another one, brings it about. A state is replaced by
compare-and-swap, so an order is decided anew when the driver was faster. Before a new rollout takes
the place of the last one, that one's decisions are on the ledger and its traffic has gone back.

It refuses a version that serves already, and one whose very model was promoted or rolled back
before, unless that is said to be meant.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from mlplatform.clients.registry import Registry
from mlplatform.contracts import Evidence, ModelRef, Rollout, ServerStatus, UseCase
from mlplatform.contracts.rollout import AT_REST, Order, Version
from mlplatform.errors import NotFoundError, RolloutError, ServiceError, StaleError
from mlplatform.ledger import Ledger
from serving.rollout import machine
from serving.rollout.effects import Record
from serving.rollout.ports import States
from serving.rollout.store import Stored

_ATTEMPTS: Final = 20
"""To write a state; the driver writes a few times a minute."""
_SETTLE_SECONDS: Final = 30.0
"""Longest wait until the rollout before is at rest: gateways follow a route within a second; where
the last version was rolled back after its promotion, a server starts first."""
_POLL_SECONDS: Final = 0.05
_FIRST_EPOCH: Final = 2
"""Of the first rollout of all; before it the champion has a route of its own, with epoch 1."""
_ABSENT: Final = ServerStatus("absent")
_ENDED: Final = {"promoted": "promoted", "rolled_back": "rolled back"}


class Orders:
    """Asks for rollouts and changes the one under way.

    Args:
        spec: The use case; its plan holds for the rollouts that are asked for here.
        rollouts: The stored states.
        ledger: Knows what was rolled out before.
        now: The time of the servers.
        driven: Whether somebody drives the rollouts now.
        pause: What is done while a driver, or another writer, has its turn; may raise.
        once_more: How a person asks for a model that had its chance, for the refusal's words.
    """

    def __init__(
        self,
        spec: UseCase,
        rollouts: States,
        ledger: Ledger,
        now: Callable[[], datetime],
        driven: Callable[[], bool],
        *,
        pause: Callable[[], object] = lambda: time.sleep(_POLL_SECONDS),
        once_more: str = "give --again (make: AGAIN=1)",
    ) -> None:
        self._spec, self._rollouts, self._ledger = spec, rollouts, ledger
        self._now, self._driven, self._pause, self._once_more = now, driven, pause, once_more

    def start(
        self,
        registry: Registry,
        version: int | None,
        *,
        actor: str,
        reason: str,
        again: bool = False,
    ) -> Rollout:
        """Ask for a rollout; one that is under way is superseded first.

        Args:
            registry: Knows the versions.
            version: To roll out; None: the newest one.
            actor: Who asks.
            reason: Why, in words.
            again: Whether a model that was promoted or rolled back before may have another one.

        Raises:
            NotFoundError: No such version, or none at all, or nothing serves yet.
            RolloutError: It serves, is being rolled out, or had its rollout.
            ServiceError: A service is away, or the rollout before did not come to rest.
        """
        usecase = self._spec.name
        challenger = _version(self._registered(registry, version))

        def begun(stored: Stored | None) -> Rollout:
            champion = (
                self._champion(registry) if stored is None else machine.serves(stored.rollout)
            )
            return machine.start(
                usecase,
                1 if stored is None else stored.rollout.number + 1,
                challenger,
                champion,
                self._spec.rollout,
                _FIRST_EPOCH if stored is None else stored.rollout.epoch + 1,
                self._now(),
                actor,
                reason or "asked for",
            )

        def write() -> Rollout:
            stored = self._settled()
            rollout = begun(stored)
            self._rollouts.write(rollout, revision=0 if stored is None else stored.revision)
            return rollout

        stored = self._known()
        begun(stored)  # refuses what serves, before anything is changed
        if stored is not None:
            self._record(stored.rollout)
        if not again:
            self._refuse_known(challenger)
        if stored is not None and stored.rollout.phase not in AT_REST:
            self._changed(lambda known: machine.supersede(known, challenger, actor, self._now()))
        return self._in_turn(write)

    def give(self, asked: Order, *, actor: str, reason: str) -> Rollout:
        """Change the newest rollout as a person asks.

        Raises:
            NotFoundError: There is none.
            RolloutError: It is not possible in its phase.
            ServiceError: The database is away.
        """
        return self._changed(lambda known: machine.order(known, asked, actor, reason, self._now()))

    def _changed(self, change: Callable[[Rollout], Rollout]) -> Rollout:
        def write() -> Rollout:
            stored = self._rollouts.read(self._spec.name)
            if stored is None:
                raise NotFoundError(
                    f"{self._spec.name} has had no rollout: ask for one with `make rollout`"
                )
            after = change(stored.rollout)
            self._rollouts.write(after, revision=stored.revision)
            return after

        return self._in_turn(write)

    def _settled(self) -> Stored | None:
        """Return the last rollout once it is at rest, with its decisions on the ledger."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            stored = self._known()
            if stored is None:
                return None
            rollout = stored.rollout
            if rollout.at_rest:
                break
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"rollout {rollout.id} of version {rollout.challenger.version} is "
                    f"{rollout.phase} but not at rest: it waits for "
                    f"{rollout.waits_for or 'its next look'}; try again when it is"
                )
            self._pause()
        self._record(rollout)
        return stored

    def _record(self, rollout: Rollout) -> None:
        """Do what a driver may not have come to: what was decided is not lost with the state."""
        for effect in machine.effects(rollout):
            if isinstance(effect, Record):
                self._ledger.append(effect.decision)

    def _known(self) -> Stored | None:
        """Return the last rollout; where no servers run, one that is over is at rest.

        Its route is in force then: no gateway is there that could follow another one.
        """
        stored = self._rollouts.read(self._spec.name)
        if stored is None or stored.rollout.phase not in AT_REST or self._driven():
            return stored
        everybody = Evidence(_ABSENT, _ABSENT, acknowledged=stored.rollout.epoch)
        rollout = machine.turn(stored.rollout, everybody, None, self._now())
        return Stored(stored.revision, rollout)

    def _registered(self, registry: Registry, version: int | None) -> ModelRef:
        if version is not None:
            return registry.get(self._spec.name, version)
        newest = registry.newest(self._spec.name)
        if newest is None:
            raise NotFoundError(
                f"no version of {self._spec.name} is registered: run `make demo` and see why its "
                "gates refused the candidates"
            )
        return newest

    def _champion(self, registry: Registry) -> Version:
        champion = registry.by_alias(self._spec.name, "champion")
        if champion is None:
            raise NotFoundError(
                f"no version of {self._spec.name} serves yet: the first one is promoted by "
                "`make serve`, and the next one can be rolled out against it"
            )
        return _version(champion)

    def _refuse_known(self, challenger: Version) -> None:
        """Refuse a model that had its chance: what it showed has not changed."""
        for entry in reversed(self._ledger.entries(usecase=self._spec.name)):
            row = entry.decision
            if row.kind not in {"route", "rollout"} or (
                row.evidence.get("digest") != challenger.digest
            ):
                continue
            ended = _ENDED.get(str(row.evidence.get("phase", row.verdict)))
            if ended is not None:
                raise RolloutError(
                    f"the model of version {challenger.version} was {ended} on "
                    f"{row.at:%Y-%m-%d %H:%M} UTC as version {row.subject} ({row.reason}): "
                    f"{self._once_more} to roll it out once more"
                )

    def _in_turn(self, write: Callable[[], Rollout]) -> Rollout:
        """Return what a write returns, decided anew while others are faster."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return write()
            except StaleError:
                self._pause()
        return write()


def _version(ref: ModelRef) -> Version:
    return Version(version=ref.version, digest=ref.digest)
