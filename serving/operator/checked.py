"""One version's server as the operator sees it, in a thread of its own.

The thread exports the version itself (fetched, signature and digest verified), so it knows what a
healthy server answers. Then it looks at the pod until the server gives these golden answers, and
from then on the version is ready until it is let go: a pod that restarts keeps its address, and
whether it does harm meanwhile is for the evidence to say.

It refuses a version whose registered content is not what was asked for by digest. What was refused
stays refused until the version has been let go and is asked for anew; a registry that is away is
asked again, and a pod that could not start is looked at on.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mlplatform.clients.kubernetes import DEPLOYMENTS, PODS, Cluster
from mlplatform.clients.triton import golden_answer, model_ready
from mlplatform.contracts import ServerStatus
from mlplatform.contracts.rollout import Version
from mlplatform.errors import NotFoundError, PlatformError, ServiceError, shorten
from serving.operator.pods import Trouble, runs, trouble
from serving.operator.template import of_version, server_name
from serving.rollout.ports import Server
from serving.triton.export import Export

_PAUSE_SECONDS: Final = 1.0
"""Between two looks at a pod, and between two questions to a registry that is away."""
_ANSWER_SECONDS: Final = 1.0
"""Longest wait for readiness and for the golden answers, each; they take about a millisecond."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What the servers of a use case have in common."""

    cluster: Cluster
    usecase: str
    export: Callable[[int], Export]
    """Fetches, verifies and writes one registered version, by number."""
    address: Callable[[str], str]
    """Returns the address of a server, by the name of its Service; '' where it has none yet."""
    start_seconds: float
    """How long a pod that cannot start is tried."""


class Checked(threading.Thread):
    """One version's server, from its export to its end."""

    def __init__(self, around: Surroundings, version: Version) -> None:
        super().__init__(name=f"server of {around.usecase} version {version.version}", daemon=True)
        self.server = Server(ServerStatus("starting", detail="its model is fetched and verified"))
        self.exported: Export | None = None
        """The verified model; only then may a server be made for it."""
        self.refusal = ""
        """Why no server is made for it now, said by whoever would; empty: it may be."""
        self.tried_at = 0.0
        """When the last server was refused; monotonic."""
        self._around, self._version = around, version
        self._leave = threading.Event()
        self._since = time.monotonic()
        """Since when its pod may run and does not."""

    def let_go(self) -> None:
        """End the thread; what runs in the cluster is somebody else's business."""
        self._leave.set()

    def run(self) -> None:
        """Export, then look until it is ready or has failed."""
        try:
            self.exported = self._verified()
            self._since = time.monotonic()
            while self.exported is not None and not self._leave.is_set():
                if self._settled(self.exported):
                    return
                self._leave.wait(_PAUSE_SECONDS)
        except PlatformError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 (what a thread raises is seen by nobody)
            _log.exception("%s", self.name)
            self._failed(f"{self.name} cannot be looked at: {shorten(error)}")

    def _verified(self) -> Export | None:
        """Return the version as it is to be served; None when it was let go meanwhile."""
        while not self._leave.is_set():
            try:
                exported = self._around.export(self._version.version)
            except NotFoundError:
                raise
            except ServiceError as error:
                self._starting(str(error))
                self._leave.wait(_PAUSE_SECONDS)
                continue
            exported.refuse_other(self._version.digest)
            return exported
        return None

    def _settled(self, exported: Export) -> bool:
        """Look once; return whether the server is ready.

        One that has failed is looked at on: the version before, whose node was away for long, must
        be able to come back.
        """
        try:
            found = self._look(exported)
        except ServiceError as error:
            found = Trouble(str(error), "waits")
        if found is None:
            return True
        if self.refusal:
            found = Trouble(self.refusal, "waits")
        now = time.monotonic()
        if found.kind == "waits":
            self._since = now
        late = now - self._since >= self._around.start_seconds
        if found.kind == "final" or late or self.server.status.state == "failed":
            self._failed(found.text)
        else:
            self._starting(found.text)
        return False

    def _look(self, exported: Export) -> Trouble | None:
        """Return what keeps the server from being ready; None: it is."""
        around, name = self._around, server_name(self._around.usecase, self._version)
        pods = around.cluster.list(PODS, of_version(around.usecase, self._version))
        if not runs(pods):
            return trouble(around.cluster.find(DEPLOYMENTS, name), pods)
        url = around.address(name)
        if not url:
            return Trouble("its Service is not there yet")
        if not _answers(url, exported):
            return Trouble("its pod runs and does not give the golden answers yet")
        self.server = Server(ServerStatus("ready", url), exported.served)
        _log.info("%s is ready at %s", self.name, url)
        return None

    def _starting(self, detail: str) -> None:
        if detail != self.server.status.detail:
            self.server = Server(ServerStatus("starting", detail=detail))

    def _failed(self, reason: str) -> None:
        if self.server.status == ServerStatus("failed", detail=reason):
            return
        _log.warning("%s failed: %s", self.name, reason)
        self.server = Server(ServerStatus("failed", detail=reason))


def _answers(url: str, exported: Export) -> bool:
    """Return whether a server gives the golden answers now."""
    model, version = exported.served.name, exported.served.version
    features = exported.golden.features()
    try:
        return model_ready(url, model, version, timeout_seconds=_ANSWER_SECONDS) and (
            exported.golden.matches(
                golden_answer(url, model, version, features, timeout_seconds=_ANSWER_SECONDS)
            )
        )
    except PlatformError:
        return False
