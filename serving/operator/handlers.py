"""kopf's handlers: a daemon for each ModelRollout, and what is done when one is deleted.

kopf watches the objects, keeps one daemon for each, and holds a deletion up (by a finalizer) until
the clean-up is done. It decides nothing: the status is written by the hosts alone, and what kopf
remembers it keeps in annotations.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import kopf

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, Cluster
from mlplatform.errors import PlatformError, StaleError, shorten
from serving.operator.host import Host
from serving.operator.lease import Lease

_GROUP: Final = "mlplatform.dev"
_VERSION: Final = "v1alpha1"
_RETRY_SECONDS: Final = 2.0
"""Between two tries to make a host, and to clean up."""
_PATIENCE_SECONDS: Final = 60.0
"""How long a deletion waits for a Redis that is away: it may be gone as well."""
_TURN_SECONDS: Final = 10.0
"""Longest wait for the turn that is under way when a daemon is to end."""
_EXIT_SECONDS: Final = 2.0
"""In which nearly every turn ends: so long kopf waits at once, instead of looking again later."""
_THREADS: Final = 64
"""Use cases that one operator drives at most: each has a thread."""

_log: Final = logging.getLogger(__name__)


class Hosts:
    """The hosts of all use cases during one turn as the leader, made when they are first needed.

    Args:
        cluster: Where a use case that cannot be hosted is told so.
        lease: Of this replica.
        make: Returns the host of a use case; raises PlatformError where it cannot be made.
    """

    def __init__(self, cluster: Cluster, lease: Lease, make: Callable[[str], Host]) -> None:
        self.lease, self._cluster, self._make = lease, cluster, make
        self._guard, self._making = threading.Lock(), threading.Lock()
        self._hosts: dict[str, Host] = {}
        """By the uid of the ModelRollout: one that is made anew is another one."""
        self._gone: set[str] = set()
        self._stopped = False

    def of(self, uid: str, usecase: str) -> Host:
        """Return the host of a ModelRollout.

        Raises:
            StaleError: It was removed, or this replica drives no longer.
            PlatformError: It cannot be made.
        """
        with self._making:  # takes seconds, in which whoever asks for the slowest is answered
            found = self._kept(uid, usecase)
            if found is not None:
                return found
            made = self._make(usecase)
            try:
                self._kept(uid, usecase, made)
            except StaleError:
                made.stop()
                raise
            return made

    def _kept(self, uid: str, usecase: str, made: Host | None = None) -> Host | None:
        """Return the host that there is; keep the one that was made where there is none."""
        with self._guard:
            if self._stopped or uid in self._gone:
                raise StaleError(f"{usecase} is no longer driven here")
            if made is not None:
                self._hosts.setdefault(uid, made)
            return self._hosts.get(uid)

    def remove(self, uid: str, usecase: str, *, patient: bool) -> None:
        """Remove what belongs to a ModelRollout; asked again, it does nothing.

        Raises:
            PlatformError: Not all of it is gone; ask again.
        """
        if uid in self._gone:
            return
        self.of(uid, usecase).remove(patient=patient)
        with self._guard:
            self._gone.add(uid)
            self._hosts.pop(uid, None)

    def stop(self) -> None:
        """End all hosts; servers, routes and aliases stay as they are."""
        with self._guard:
            self._stopped = True
            for host in self._hosts.values():
                host.stop()
            self._hosts.clear()

    @property
    def slowest(self) -> float:
        """Seconds since the turn of a host that has looked least recently; 0: there is none."""
        with self._guard:
            beats = [host.beat_at for host in self._hosts.values()]
        return time.monotonic() - min(beats) if beats else 0.0

    def refuse(self, name: str, trouble: str) -> None:
        """Tell a ModelRollout that has no host why; best effort."""
        status = {"phase": "refused", "message": trouble}
        try:
            self._cluster.patch(MODEL_ROLLOUTS, name, {"status": status}, subresource="status")
        except PlatformError as error:
            _log.info("%s: its trouble cannot be told: %s", name, error)


def registered(hosts: Hosts, tick_seconds: float) -> kopf.OperatorRegistry:
    """Return the handlers of one operator."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**about: Any) -> Any:
        return kopf.login_with_service_account(**about) or kopf.login_with_kubeconfig(**about)

    @kopf.daemon(
        _GROUP, _VERSION, MODEL_ROLLOUTS.plural, registry=registry, id="drive",
        cancellation_backoff=_TURN_SECONDS,
    )  # fmt: skip
    def drive(name: str, uid: str, spec: kopf.Spec, stopped: kopf.DaemonStopped, **_: Any) -> None:
        _drive(hosts, (name, uid, str(spec["usecase"])), stopped, tick_seconds)

    @kopf.on.delete(_GROUP, _VERSION, MODEL_ROLLOUTS.plural, registry=registry, id="clean-up")
    def clean_up(name: str, uid: str, spec: kopf.Spec, meta: kopf.Meta, **_: Any) -> None:
        _clean_up(hosts, (name, uid, str(spec["usecase"])), str(meta["deletionTimestamp"]))

    return registry


def settings() -> kopf.OperatorSettings:
    """Return how kopf is to behave: alone, in one namespace, quiet, without the status."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False  # the hosts write events, with the story's own words
    found.scanning.disabled = True  # it needs no right to look at other kinds and namespaces
    found.peering.standalone = True  # the lease says who leads
    found.persistence.finalizer = f"{_GROUP}/clean-up"
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{_GROUP}")
    found.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{_GROUP}")
    found.execution.max_workers = _THREADS
    found.background.instant_exit_timeout = _EXIT_SECONDS
    # A connection that has died silently is noticed, instead of a deletion that nobody hears of.
    found.watching.server_timeout = 300
    found.watching.client_timeout = 330
    return found


def _drive(
    hosts: Hosts, what: tuple[str, str, str], stopped: kopf.DaemonStopped, tick_seconds: float
) -> None:
    """Take turn after turn until the object goes, or this replica ends.

    Args:
        hosts: Of this turn as the leader.
        what: Name and uid of the ModelRollout, and its use case.
        stopped: Says when to end.
        tick_seconds: Between two turns.
    """
    (name, uid, usecase), trouble = what, ""
    while not stopped:
        pause = tick_seconds
        try:
            hosts.of(uid, usecase).turn()
            trouble = ""
        except StaleError:
            pause = _RETRY_SECONDS
        except PlatformError as error:
            pause = _RETRY_SECONDS
            if trouble != (trouble := shorten(error)):
                _log.warning("%s cannot be driven: %s", name, trouble)
                hosts.refuse(name, trouble)
        except Exception as error:  # noqa: BLE001 (one that ends leaves a bad version where it is)
            pause = _RETRY_SECONDS
            if trouble != (trouble := shorten(error)):
                _log.exception("%s could not be driven", name)
        stopped.wait(pause)


def _clean_up(hosts: Hosts, what: tuple[str, str, str], since: str) -> None:
    """Remove what belongs to a use case; kopf asks again until nothing fails."""
    name, uid, usecase = what
    waited = datetime.now(UTC) - datetime.fromisoformat(since)
    if not hosts.lease.held:
        raise kopf.TemporaryError("this replica does not drive now", delay=_RETRY_SECONDS)
    try:
        hosts.remove(uid, usecase, patient=waited.total_seconds() < _PATIENCE_SECONDS)
    except PlatformError as error:
        _log.warning("%s is not cleaned up yet: %s", name, error)
        raise kopf.TemporaryError(shorten(error), delay=_RETRY_SECONDS) from error
    _log.info("%s: its servers and its route are removed; the aliases stay", name)
