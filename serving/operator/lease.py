"""Who of several replicas drives: a Lease of the cluster, renewed by its holder.

The rules are client-go's. A lease is free when nobody holds it, or when nobody has written it for
as long as it lasts *as seen by this process*: clocks of nodes differ, so no time in it is compared
with one of our own. A holder counts the lease as its own from before it sent the last renewal that
succeeded, and for less long than others leave it alone; so it stops before anybody may begin, also
after it was asleep.

The number of transitions grows with each change of the holder, also when somebody has deleted the
lease: it is the token by which the state says who wrote it.

It refuses to wait: `turn` takes one step, and whoever runs it decides when the next one is due.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Self

from mlplatform.clients.kubernetes import LEASES, Cluster, Object
from mlplatform.errors import NotFoundError, PlatformError, StaleError, shorten

_OWN_SHARE: Final = 2 / 3
"""Of the lease's time for which its holder acts without a renewal; client-go's is 10 s of 15 s."""


class Lease:
    """One lease, for one replica; safe to share between threads.

    Args:
        cluster: Where it is.
        name: Of the lease.
        holder: This replica; no other one has the same.
        seconds: How long it lasts without a renewal.
        first_token: Gives what the token must be greater than where there is no lease.
        monotonic: Seconds that pass whatever the clock does.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        holder: str,
        seconds: int,
        first_token: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._name, self.holder = cluster, name, holder
        self._seconds, self._first_token, self._monotonic = seconds, first_token, monotonic
        self._turns = threading.Lock()
        self._known: Object | None = None
        """As we wrote it, while it is ours."""
        self._until = 0.0
        """Until when we act without another renewal; monotonic."""
        self._seen = ""
        self._seen_at = 0.0
        """Which writing of another holder was seen, and since when; monotonic."""
        self.lost = threading.Event()
        """Another replica has, or may have, begun since this one held it."""

    @property
    def held(self) -> bool:
        """Whether this replica may act now."""
        return self._known is not None and self._monotonic() < self._until

    @property
    def token(self) -> int:
        """Number of the holder's turn, greater than that of all before; 0: it never had one."""
        known = self._known
        return 0 if known is None else int(known["spec"]["leaseTransitions"])

    def turn(self) -> bool:
        """Renew the lease, or take it if it is free; return whether it is held.

        Raises:
            ServiceError: The API server is away: who holds the lease does so until its time is up.
        """
        with self._turns:
            return self._renew() if self._known is not None else self._take()

    def release(self) -> None:
        """Leave the lease to whoever comes next; best effort, for its time runs out anyway."""
        with self._turns:
            known, self._known = self._known, None
            if known is None:
                return
            try:
                self._write(known, holder="")
            except PlatformError:
                return

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make sure that this replica still holds the lease, for what cannot be compared.

        It is renewed just before, by its revision: whoever was taken over from is refused. What
        remains is a holder that falls asleep within the block for longer than a lease lasts.

        Raises:
            ServiceError: The API server is away.
            StaleError: Another replica holds it.
        """
        if not (self._known is not None and self.turn() and self.held):
            raise StaleError(
                f"the lease {self._name} is no longer held by {self.holder}: another replica "
                "drives now"
            )
        yield

    def _renew(self) -> bool:
        known = self._known
        if known is None:
            return False
        began = self._monotonic()
        try:
            self._known = self._write(known, holder=self.holder)
        except (StaleError, NotFoundError):
            # Perhaps our own writing, whose answer got lost; else somebody took it, or deleted it.
            found = self._cluster.find(LEASES, self._name)
            if found is None or not self._is_ours(found, known):
                self._known = None
                self.lost.set()
                return False
            self._known = found
            return self.held
        self._until = began + _OWN_SHARE * self._seconds
        return True

    def _is_ours(self, found: Object, known: Object) -> bool:
        return bool(
            _holder(found) == self.holder
            and found["spec"].get("leaseTransitions") == known["spec"]["leaseTransitions"]
        )

    def _take(self) -> bool:
        began = self._monotonic()
        found = self._cluster.find(LEASES, self._name)
        try:
            if found is None:
                taken = self._cluster.create(LEASES, self._new(self._first_token() + 1))
            elif self._is_free(found):
                transitions = int(found["spec"].get("leaseTransitions") or 0) + 1
                taken = self._write(found, holder=self.holder, transitions=transitions)
            else:
                return False
        except StaleError:
            return False
        self._known, self._until = taken, began + _OWN_SHARE * self._seconds
        self.lost.clear()
        return True

    def _is_free(self, found: Object) -> bool:
        if not _holder(found):
            return True
        written, now = found["metadata"]["resourceVersion"], self._monotonic()
        if written != self._seen:
            self._seen, self._seen_at = written, now
            return False
        lasts = float(found["spec"].get("leaseDurationSeconds") or self._seconds)
        return now - self._seen_at >= lasts

    def _new(self, transitions: int) -> Object:
        now = _micro_time()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": self._seconds,
                "leaseTransitions": transitions,
                "acquireTime": now,
                "renewTime": now,
            },
        }

    def _write(self, found: Object, *, holder: str, transitions: int | None = None) -> Object:
        now = _micro_time()
        spec = found["spec"] | {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._seconds,
            "renewTime": now,
        }
        if transitions is not None:
            spec |= {"leaseTransitions": transitions, "acquireTime": now}
        return self._cluster.replace(LEASES, found | {"spec": spec})


class Election:
    """The thread that renews the lease, or waits for it; a context manager.

    Args:
        lease: To hold.
        every_seconds: Between two renewals.
        say: Is told once what is wrong, and that it is over ("").
    """

    def __init__(
        self, lease: Lease, every_seconds: float, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._lease, self._every, self._say = lease, every_seconds, say
        self._stop = threading.Event()
        self.beat_at = time.monotonic()
        """When the thread last took a step; monotonic."""
        self.trouble = "the lease was not looked at yet"
        """Why the lease cannot be renewed, or looked at; empty: it can."""
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing, and leave the lease to others."""
        self._stop.set()
        self._thread.join()
        self._lease.release()

    def _run(self) -> None:
        told = ""
        while not self._stop.is_set():
            try:
                self._lease.turn()
                self.trouble = ""
            except PlatformError as error:
                self.trouble = str(error)
            except Exception as error:  # noqa: BLE001 (a thread that ends is missed by nobody)
                self.trouble = f"{type(error).__name__}: {shorten(error)}"
            if self.trouble != told:
                self._say(self.trouble)
            told = self.trouble
            self.beat_at = time.monotonic()
            # Whoever waits looks more often than it would renew: a lease that was left is taken.
            self._stop.wait(self._every if self._lease.held else self._every / 3)


def _holder(found: Object) -> str:
    return str(found.get("spec", {}).get("holderIdentity") or "")


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
