"""Drives the rollout of one use case: reads, decides, writes the state, then brings it about.

The state is written by compare-and-swap before anything follows from it, and every effect says
how things are to be. So a driver may be killed between any two of its calls, and another one goes
on from what is stored. Of two at once the slower one is refused: its state by the revision, its
route by the epoch, its aliases by their lock, its rows of the ledger by their keys.

All drivers of a use case must see the same servers: one that knows another address than the route
has asks for the route anew.

It never gives up: whatever fails is said once, keeps nothing else from being done, and is tried
again at the next tick. Traffic moves before servers, aliases and ledger are looked at.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from mlplatform.contracts import Evidence, Rollout, ServerStatus, Statistics, Verdict
from mlplatform.contracts.rollout import Version
from mlplatform.errors import DataError, PlatformError, StaleError, shorten
from mlplatform.ledger import Ledger
from serving.rollout import arms
from serving.rollout.effects import Effect, EnsureServers, PublishRoute, Record, SetAliases
from serving.rollout.machine import WATCHED, look, reissue, turn
from serving.rollout.ports import Aliases, Reader, Server, Servers, States
from serving.rollout.store import Look, Stored
from serving.rollout.wanted import effects
from serving.route import RouteStore

_ALIASES_SECONDS: Final = 60.0
"""How long aliases that were set are trusted: somebody may move one by hand."""
_REST: Final = 9
"""Aliases that could not be set are left alone for this many times as long as the attempt took:
a registry that hangs takes a tenth of the driver's time, and looks for harm go on."""
_LOOKS: Final = 1000
"""Looks that are kept in the time until a rollout's deadline, besides those that say another thing
than the one before: a driver looks several times a second, and a rollout may take weeks."""

_log: Final = logging.getLogger(__name__)


class Driver:
    """Drives the rollout of one use case; one thread calls it, tick after tick.

    Args:
        usecase: Its name.
        store: Where the state is.
        routes: Where gateways find the route.
        servers: Of the model versions.
        aliases: Of the registry.
        ledger: Where decisions are kept.
        reader: Of the evidence.
        now: The time.
    """

    def __init__(
        self,
        usecase: str,
        store: States,
        routes: RouteStore,
        servers: Servers,
        aliases: Aliases,
        ledger: Ledger,
        reader: Reader,
        now: Callable[[], datetime],
    ) -> None:
        self._usecase = usecase
        self._store, self._routes, self._servers = store, routes, servers
        self._aliases, self._ledger, self._reader, self._now = aliases, ledger, reader, now
        self._known: Rollout | None = None
        self._noted: Look | None = None
        self._recorded: set[str] = set()
        self._set: SetAliases | None = None
        """The aliases that were set last."""
        self._aliases_at = 0.0
        """When they are looked at again; monotonic seconds."""
        self._trouble: dict[str, str] = {}
        """What failed last, by what was tried: so that it is said once."""

    def tick(self) -> Rollout | None:
        """Look once, and bring about what follows; return the rollout as it is now known.

        None when the use case never had one. No error of the platform gets out of it.
        """
        try:
            with self._trying("drive the rollout"):
                self._look()
        except StaleError as error:
            _log.info("%s: %s", self._usecase, error)
        return self._known

    def _look(self) -> None:
        stored = self._store.read(self._usecase)
        self._known = None if stored is None else stored.rollout
        if stored is None:
            return
        rollout, now = stored.rollout, self._now()
        evidence = self._evidence(rollout)
        verdict = look(rollout, evidence, now)
        after = turn(rollout, evidence, verdict, now)
        if after is not rollout:
            stored = self._replace(stored, after)
        elif self._moved_on(stored):  # to gather evidence takes a while
            return
        for effect in sorted(effects(stored.rollout), key=_turn_of):
            self._bring_about(effect, stored)
        if verdict is not None:
            turned = len(stored.rollout.story) > len(rollout.story)
            self._note(rollout, verdict, now, turned=turned)

    def _replace(self, stored: Stored, rollout: Rollout) -> Stored:
        """Write the state that follows; raises StaleError when another writer was faster."""
        revision = self._store.write(rollout, revision=stored.revision)
        for chapter in rollout.story[len(stored.rollout.story) :]:
            _log.info("rollout %s: %s: %s", rollout.id, chapter.verdict, chapter.reason)
        self._known = rollout
        return Stored(revision, rollout)

    def _moved_on(self, stored: Stored) -> bool:
        found = self._store.read(self._usecase)
        return found is None or found.revision != stored.revision

    def _evidence(self, rollout: Rollout) -> Evidence:
        return Evidence(
            challenger=self._server(rollout.challenger).status,
            champion=self._server(rollout.champion).status,
            acknowledged=self._acknowledged(rollout),
            statistics=self._statistics(rollout),
        )

    def _server(self, version: Version) -> Server:
        found = Server(ServerStatus("absent"))
        with self._trying(f"look at the server of version {version.version}"):
            found = self._servers.look(version)
        return found  # noqa: RET504 (a failure is let pass)

    def _acknowledged(self, rollout: Rollout) -> int:
        """Return the epoch that all gateways follow, as far as the record is the rollout's own."""
        if rollout.committed >= rollout.epoch:
            return rollout.committed  # to ask means to scan all of Redis
        found = 0
        with self._trying("ask which epoch the gateways follow"):
            record = self._routes.read(self._usecase)
            if record is not None and record.salt == rollout.salt:
                epochs = self._routes.acknowledgements(self._usecase).values()
                found = min(record.epoch, *epochs) if epochs else 0
        return found

    def _statistics(self, rollout: Rollout) -> Statistics | None:
        found = None
        if rollout.phase in WATCHED:
            with self._trying("read the evidence"):
                try:
                    found = self._reader.read(rollout)
                except PlatformError:
                    raise
                except Exception as error:  # whatever a log holds: the deadline still counts
                    what = f"{type(error).__name__}: {shorten(error)}"
                    raise DataError(f"the evidence cannot be summed ({what})") from error
        return found

    def _note(self, rollout: Rollout, verdict: Verdict, now: datetime, *, turned: bool) -> None:
        """Keep what was seen, if it is worth a row (`_is_news`)."""
        seen = Look(
            usecase=rollout.usecase,
            number=rollout.number,
            at=now,
            phase=rollout.phase,
            step=rollout.step,
            verdict=verdict,
        )
        pause = timedelta(hours=rollout.plan.deadline_hours) / _LOOKS
        if _is_news(seen, self._noted, pause, turned=turned):
            with self._trying("keep what was seen"):
                self._store.note(seen)
                self._noted = seen

    def _bring_about(self, effect: Effect, stored: Stored) -> None:
        match effect:
            case PublishRoute():
                with self._trying("publish the route"):
                    self._publish(effect, stored)
            case EnsureServers():
                with self._trying("start and stop servers"):
                    self._servers.ensure(effect.versions)
            case SetAliases():
                with self._trying("set the aliases"):
                    self._alias(effect)
            case Record() if effect.decision.key not in self._recorded:
                with self._trying(f"record {effect.decision.key}"):
                    self._ledger.append(effect.decision)
                    self._recorded.add(effect.decision.key)

    def _publish(self, effect: PublishRoute, stored: Stored) -> None:
        """Make the record the wanted route, as soon as its servers allow.

        A different record that is not older belongs to a Redis that was restored from elsewhere,
        or a server has moved: the state asks for a later epoch. Where this process is merely late,
        that write is refused.
        """
        try:
            record = self._routes.read(self._usecase)
        except DataError:
            record = None  # no gateway can follow it
        versions = filter(None, (effect.champion, effect.challenger))
        servers = {version: self._server(version) for version in versions}
        route = arms.route(self._usecase, effect, arms.parts(record, servers))
        if route is None or route == record:
            return
        if record is None or record.epoch < route.epoch:
            self._routes.publish(route)
        else:
            self._replace(stored, reissue(stored.rollout, record.epoch, self._now()))

    def _alias(self, effect: SetAliases) -> None:
        began = time.monotonic()
        if began < self._aliases_at and effect == self._set:
            return
        self._set = effect
        try:
            self._aliases.set(self._usecase, effect.champion, effect.challenger)
            self._aliases_at = began + _ALIASES_SECONDS
        except PlatformError:
            ended = time.monotonic()
            self._aliases_at = ended + _REST * (ended - began)
            raise

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """Let a failure pass, for the next tick tries again; say the same one once.

        A StaleError ends the tick: whatever else would follow from the state is old as well.
        """
        try:
            yield
        except StaleError:
            raise
        except PlatformError as error:
            trouble = shorten(error)
            if self._trouble.get(what) != trouble:
                _log.warning("%s: could not %s: %s", self._usecase, what, trouble)
            self._trouble[what] = trouble
        else:
            self._trouble.pop(what, None)


def _is_news(seen: Look, before: Look | None, pause: timedelta, *, turned: bool) -> bool:
    """Return whether a look is kept: the first of its kind, one that decided, or one in a while."""
    if before is None or seen.number != before.number:
        return True
    if seen.verdict == before.verdict:
        return False
    place = seen.phase, seen.step, seen.verdict.kind
    same = place == (before.phase, before.step, before.verdict.kind)
    return turned or not same or abs(seen.at - before.at) >= pause


def _turn_of(effect: Effect) -> int:
    """Return when an effect's turn is: traffic first."""
    return 0 if isinstance(effect, PublishRoute) else 1
