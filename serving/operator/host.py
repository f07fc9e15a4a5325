"""Hosts the driver of one use case: does what is asked for, lets it look, tells what came of it.

A turn is level-triggered, as everything here: it reads what is asked for and what is the case, and
does what is due. So it may be killed anywhere, and a replica that takes over goes on.

    restore   a state that the cluster has lost comes back from the copy in the ledger's database
    ask       orders, pauses, versions that were asked for or registered
    look      the driver's tick: evidence, state, traffic, servers, aliases, ledger
    tell      the status for people, an event for each chapter, the copy for the monitors

It never gives up: what fails is said once, in the log and in the status, and is tried again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from mlplatform.clients.kubernetes import Object
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Rollout, UseCase
from mlplatform.errors import NotFoundError, PlatformError, RolloutError, StaleError, shorten
from mlplatform.ledger import Ledger
from serving.operator import asked as requests
from serving.operator.asked import Asked, GivenOrder
from serving.operator.events import Events
from serving.operator.first import First
from serving.operator.lease import Lease
from serving.operator.registered import Registered
from serving.operator.servers import ClusterServers
from serving.operator.status import Seen, described
from serving.operator.store import ClusterStore, stored
from serving.rollout.desk import Orders
from serving.rollout.driver import Driver
from serving.rollout.store import RolloutStore, Stored
from serving.route import RouteStore

ACTOR: Final = "operator"
_RETRY_SECONDS: Final = 5.0
"""Between two tries of what could not be asked for: each asks the registry."""
_REST: Final = 9
"""What could not be asked for is left alone for this many times as long as the attempt took: a
registry that hangs takes a tenth of the time, and looks for harm go on."""
_COPY_SECONDS: Final = 5.0
"""Between two copies of a state in which no chapter was added."""
_PAUSE_SECONDS: Final = 0.2
"""Between two looks while a rollout before comes to rest."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a host acts through."""

    spec: UseCase
    store: ClusterStore
    copies: RolloutStore
    """In the ledger's database: for the monitors, and for a cluster that has lost its state."""
    driver: Driver
    servers: ClusterServers
    routes: RouteStore
    registry: Registry
    registered: Registered
    ledger: Ledger
    events: Events
    lease: Lease
    now: Callable[[], datetime]


@dataclass
class Host:
    """One use case; `turn` is called by one thread, the rest by any.

    Args:
        parts: What it acts through.
        first: The first champion, before there is a rollout.
    """

    parts: Parts
    first: First
    beat_at: float = field(default_factory=time.monotonic)
    """When the last turn ended; monotonic."""

    def __post_init__(self) -> None:
        self._turns = threading.Lock()
        self._closed = False
        self._restored = False
        self._trouble = ""
        self._said = ""
        self._retry_at = 0.0
        self._told: tuple[Rollout | None, Seen] | None = None
        self._copied: Rollout | None = None
        self._copy_at = 0.0

    @property
    def usecase(self) -> str:
        """Its name."""
        return self.parts.spec.name

    def turn(self) -> None:
        """Do what is due, once. No error of the platform gets out of it."""
        with self._turns:
            if self._closed or not self.parts.lease.held:
                return
            try:
                self._turn()
                self._say("")
            except StaleError as error:
                _log.info("%s: %s", self.usecase, error)
            except PlatformError as error:
                self._say(shorten(error))
            finally:
                self.beat_at = time.monotonic()

    def seen(self) -> Seen:
        """Return what is known besides the state."""
        return Seen(
            servers=self.parts.servers.all(),
            holder=self.parts.lease.holder,
            token=self.parts.lease.token,
            champion=self.first.champion,
            routed=self.first.routed,
            trouble=self._trouble,
        )

    def stop(self) -> None:
        """End the threads; servers, routes and aliases stay as they are."""
        with self._turns:
            self._closed = True
            self.parts.registered.let_go()
            self.parts.servers.stop()
            self.parts.routes.close()

    def remove(self, *, patient: bool) -> None:
        """Stop serving the use case: its route and its servers go, the registry's aliases stay.

        Args:
            patient: Whether a Redis that is away is waited for; else its record is left there.

        Raises:
            PlatformError: Not all of it is gone; ask again.
        """
        with self._turns:
            self._closed = True
            self.parts.registered.let_go()
            try:
                self.parts.routes.remove(self.usecase)
            except PlatformError as error:
                if patient:
                    raise
                _log.warning("the route of %s is left where it is: %s", self.usecase, error)
            self.parts.servers.remove()

    def _turn(self) -> None:
        found = self.parts.store.object(self.usecase)
        if found["metadata"].get("deletionTimestamp"):
            return  # what is done then is `remove`
        wanted = requests.parse(found)
        known = stored(found, self.usecase)
        if not self._restored:
            if self._restore(known):
                return
            self._restored = True
        self._trouble = ""
        if known is None:
            self.first.turn()
        self._ask(wanted, found.get("status") or {}, None if known is None else known.rollout)
        self.parts.driver.tick()
        self._tell()

    def _restore(self, known: Stored | None) -> bool:
        """Bring a state back that is further than the cluster's; return whether it was.

        The cluster's copy of a use case may be gone (its object was deleted) or old (etcd was
        restored). What was decided since is in the ledger, so nothing may be decided anew.
        """
        copy = self.parts.copies.read(self.usecase)
        if copy is None or (known is not None and _place(copy.rollout) <= _place(known.rollout)):
            return False
        revision = 0 if known is None else known.revision
        self.parts.store.write(copy.rollout, revision=revision)
        _log.warning(
            "%s: its rollout %s comes from the ledger's database: the cluster's was %s",
            self.usecase, copy.rollout.id, "gone" if known is None else "older",
        )  # fmt: skip
        return True

    def _ask(self, wanted: Asked, status: Object, rollout: Rollout | None) -> None:
        began = time.monotonic()
        try:
            self._ask_what_is_due(wanted, status, rollout)
        except StaleError:
            return  # decided anew at the next turn
        except PlatformError as error:
            self._trouble = shorten(error)
            ended = time.monotonic()
            self._retry_at = ended + max(_RETRY_SECONDS, _REST * (ended - began))
            self._warn(self._trouble)

    def _ask_what_is_due(self, wanted: Asked, status: Object, rollout: Rollout | None) -> None:
        order = requests.order_due(wanted, status)
        if order is not None:
            self._give(wanted, order)
            return
        pause = requests.pause_due(wanted, rollout)
        if pause is not None:
            self._orders(wanted).give(pause, actor="kubernetes", reason=wanted.reason)
            return
        marked, serving = self.parts.registered.marked, self.first.champion
        if marked is None or time.monotonic() < self._retry_at:
            return
        champion = serving.version if serving is not None and self.first.routed else None
        version = requests.version_due(wanted, status, rollout, marked.challenger, champion)
        if version is not None:
            self._start(wanted, version)

    def _give(self, wanted: Asked, order: GivenOrder) -> None:
        """Carry an order out, and answer it in the same writing."""
        answer = {"id": order.id, "action": order.action}
        done = {"lastOrder": answer | {"accepted": True, "message": "done"}}
        try:
            self._orders(wanted, lambda _: done).give(
                order.action, actor=order.actor, reason=order.reason
            )
        except (RolloutError, NotFoundError) as error:
            self._answer({"lastOrder": answer | {"accepted": False, "message": shorten(error)}})

    def _start(self, wanted: Asked, version: int) -> None:
        """Ask for a rollout, and answer it in the same writing."""
        by_hand = wanted.version is not None
        again = wanted.again and by_hand
        answer = {"version": version, "again": again}

        def begun(rollout: Rollout) -> Object:
            if rollout.challenger.version != version:
                return {}  # the one before is superseded first
            return {"asked": answer | {"accepted": True, "message": f"rollout {rollout.id}"}}

        reason = wanted.reason if by_hand else f"version {version} was registered"
        try:
            self._orders(wanted, begun).start(
                self.parts.registry,
                version,
                actor="kubernetes" if by_hand else ACTOR,
                reason=reason,
                again=again,
            )
        except RolloutError as error:
            self._answer({"asked": answer | {"accepted": False, "message": shorten(error)}})
            self._warn(shorten(error))

    def _orders(self, wanted: Asked, answer: Callable[[Rollout], Object] | None = None) -> Orders:
        plan = requests.planned(self.parts.spec.rollout, wanted)
        return Orders(
            self.parts.spec.model_copy(update={"rollout": plan}),
            self.parts.store if answer is None else self.parts.store.answering(answer),
            self.parts.ledger,
            self.parts.now,
            lambda: True,
            pause=self._look_meanwhile,
            once_more="set spec.again to true",
        )

    def _look_meanwhile(self) -> None:
        """Let the driver look while an order waits for the rollout before to come to rest."""
        if self._closed or not self.parts.lease.held:
            raise StaleError(f"the rollouts of {self.usecase} are no longer driven here")
        self.parts.driver.tick()
        self._tell()
        self.beat_at = time.monotonic()
        time.sleep(_PAUSE_SECONDS)

    def _answer(self, fields: Object) -> None:
        self.parts.store.describe(self.parts.store.object(self.usecase), fields)

    def _tell(self) -> None:
        """Tell people and monitors how it is, where that has changed."""
        known = self.parts.store.read(self.usecase)
        rollout = None if known is None else known.rollout
        now = rollout, self.seen()
        if now != self._told:
            found = self.parts.store.object(self.usecase)
            self.parts.store.describe(found, described(*now, found, datetime.now(UTC)))
            self.parts.events.tell(found, rollout, now[1].servers)
            self._told = now
        if rollout is not None:
            self._copy(rollout)

    def _copy(self, rollout: Rollout) -> None:
        """Keep the copy up to date; a database that is away keeps nobody from looking."""
        before = self._copied
        if rollout == before:
            return
        turned = before is not None and _place(rollout) != _place(before)
        if time.monotonic() < self._copy_at and not turned:
            return
        self._copy_at, self._copied = time.monotonic() + _COPY_SECONDS, None
        known = self.parts.copies.read(self.usecase)
        if known is None or known.rollout != rollout:
            revision = 0 if known is None else known.revision
            self.parts.copies.write(rollout, revision=revision)
        self._copied = rollout

    def _warn(self, trouble: str) -> None:
        self.parts.events.warn(self.usecase, trouble)

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._said:
            _log.warning("%s: %s", self.usecase, trouble)
        self._said = trouble


def _place(rollout: Rollout) -> tuple[int, int, int]:
    """Return how far a state is: its number, its chapters, its routes."""
    return rollout.number, len(rollout.story), rollout.epoch
