"""One Deployment and Service for each model version, made and deleted as a rollout asks.

A live server is never changed: what differs has another name. Servers of versions that are not
asked for are deleted, under the operator's lease, so that a replica that was taken over from takes
no server away.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal

from mlplatform.clients.kubernetes import (
    DEPLOYMENTS,
    NODES,
    PODS,
    SERVICES,
    Cluster,
    Kind,
    Object,
)
from mlplatform.contracts import ServerStatus
from mlplatform.contracts.rollout import Version
from mlplatform.errors import ServiceError, StaleError
from serving.operator import gpu, template
from serving.operator.checked import Checked, Surroundings
from serving.operator.template import Template
from serving.rollout.ports import Lock, Server

_ABSENT: Final = Server(ServerStatus("absent"))
_RETRY_SECONDS: Final = 5.0
"""Between two tries to make a server that does not fit: to ask means to list all pods."""


class ClusterServers:
    """The servers of one use case; a `ports.Servers`, safe to share between threads.

    Args:
        around: What they have in common.
        made_from: Gives the template as it is now.
        owner: Gives the ModelRollout that owns them.
        lock: Held while a server is deleted.
    """

    def __init__(
        self,
        around: Surroundings,
        made_from: Callable[[], Template],
        owner: Callable[[], Object],
        lock: Lock,
    ) -> None:
        self._around, self._cluster = around, around.cluster
        self._made_from, self._owner, self._lock = made_from, owner, lock
        self._guard = threading.Lock()
        self._checked: dict[Version, Checked] = {}

    def look(self, version: Version) -> Server:
        """Return how a version's server is; asks nobody.

        It is ready from its first golden answers on. A pod that restarts later keeps its Service's
        address; whether its version does harm meanwhile is for the evidence to say, and traffic
        must be free to go back to a version that was ready.
        """
        checked = self._checked.get(version)
        return _ABSENT if checked is None else checked.server

    def all(self) -> dict[Version, ServerStatus]:
        """Return the servers that are asked for, oldest version first."""
        found = sorted(self._checked.items(), key=lambda item: item[0].version)
        return {version: checked.server.status for version, checked in found}

    def ensure(self, versions: Collection[Version]) -> None:
        """Make the servers that are missing and delete all others; does not wait for any.

        A server is made only from a model that was verified here, and where it fits.

        Raises:
            ServiceError: The API server is away, or refuses.
            SettingsError: The template is not complete.
            StaleError: Another replica drives.
        """
        with self._guard:
            for version in self._checked.keys() - set(versions):
                self._checked.pop(version).let_go()
            for version in versions:
                if version not in self._checked:
                    self._checked[version] = checked = Checked(self._around, version)
                    checked.start()
            found = self._cluster.list(DEPLOYMENTS, template.of_usecase(self._around.usecase))
            services = self._cluster.list(SERVICES, template.of_usecase(self._around.usecase))
            self._delete_others(versions, found, services)
            there = _names(found) & _names(services)
            for version in versions:
                if template.server_name(self._around.usecase, version) not in there:
                    self._make(version, self._checked[version])

    def stop(self) -> None:
        """End the threads; the servers go on."""
        with self._guard:
            for checked in self._checked.values():
                checked.let_go()
            self._checked.clear()

    def remove(self) -> None:
        """Delete all servers of the use case; raises as `ensure`."""
        self.stop()
        with self._guard:
            labels = template.of_usecase(self._around.usecase)
            found = self._cluster.list(DEPLOYMENTS, labels), self._cluster.list(SERVICES, labels)
            self._delete_others((), *found)

    def _make(self, version: Version, checked: Checked) -> None:
        if checked.exported is None or checked.server.status.state == "failed":
            return
        if checked.refusal and time.monotonic() - checked.tried_at < _RETRY_SECONDS:
            return
        made_from, owner, usecase = self._made_from(), self._owner(), self._around.usecase
        deployment = template.deployment(made_from, usecase, version, owner)
        checked.refusal = self._refusal(deployment)
        if checked.refusal:
            checked.tried_at = time.monotonic()
            return
        self._create(SERVICES, template.service(made_from, usecase, version, owner))
        self._create(DEPLOYMENTS, deployment)

    def _refusal(self, deployment: Object) -> str:
        """Return why the server would not fit; the scheduler decides where nobody may look."""
        if not gpu.resource_of(deployment):
            return ""
        try:
            pods = self._cluster.list(PODS, everywhere=True)
            return gpu.refusal(deployment, self._cluster.list(NODES), pods)
        except ServiceError:
            return ""

    def _create(self, kind: Kind, body: Object) -> None:
        try:
            self._cluster.create(kind, body)
        except StaleError:
            return  # there it is; or one of that name is about to go, and the next look makes it

    def _delete_others(
        self, versions: Collection[Version], deployments: list[Object], services: list[Object]
    ) -> None:
        """Delete the servers that are not asked for; traffic has left them before."""
        kept = {template.server_name(self._around.usecase, version) for version in versions}
        strays = [
            (kind, name)
            for kind, found in ((DEPLOYMENTS, deployments), (SERVICES, services))
            for name in sorted(_names(found) - kept)
        ]
        if strays:
            with self._lock.alone():
                for kind, name in strays:
                    self._cluster.delete(kind, name)


def addresses(
    cluster: Cluster, made_from: Callable[[], Template], by: Literal["name", "ip"]
) -> Callable[[str], str]:
    """Return what tells the address of a server, '' while it has no Service.

    Args:
        cluster: Where the Services are.
        made_from: Gives the template, which says the port.
        by: The Service's name, which pods resolve, or its IP.
    """

    def address(name: str) -> str:
        found = cluster.find(SERVICES, name)
        if found is None:
            return ""
        host = name if by == "name" else found["spec"]["clusterIP"]
        return f"http://{host}:{template.port(made_from())}"

    return address


def _names(objects: Iterable[Object]) -> set[str]:
    """Return the names of those that stay: one that is being deleted is as good as gone."""
    return {
        str(found["metadata"]["name"])
        for found in objects
        if not found["metadata"].get("deletionTimestamp")
    }
