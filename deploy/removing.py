"""`make destroy`: removes the platform with its data, and proves that nothing is left.

The order is the reverse of the installation's. ModelRollouts go first, while their operator is
there to clean up behind them; the namespace takes all that lies in it; what belongs to the whole
cluster goes last. A definition that another platform's objects still need stays.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from deploy import custom_resources, upstream
from deploy.helm import Helm
from deploy.namespaces import PART_OF, PLATFORM
from deploy.progress import Progress
from deploy.target import Target
from deploy.turns import alone
from mlplatform.clients.kubernetes import (
    MODEL_ROLLOUTS,
    NAMESPACES,
    Cluster,
    Kind,
    Object,
)
from mlplatform.errors import NotFoundError, ServiceError, shorten

_OPERATOR_SECONDS: Final = 60.0
"""Time for the operator to remove servers and routes; it needs some seconds."""
_NAMESPACE_SECONDS: Final = 300.0
"""Gateways drain for half a minute; volumes take longer to be given back."""
_POLL_SECONDS: Final = 0.5
_RELEASED_FROM: Final = "meta.helm.sh/release-namespace"
_VOLUMES: Final = Kind("v1", "persistentvolumes", namespaced=False)


class Removal:
    """One run of `make destroy`.

    Args:
        target: Where.
        progress: Where it is told.
    """

    def __init__(self, target: Target, progress: Progress) -> None:
        self._target, self._progress = target, progress
        self._cluster = Cluster.connect(target.namespace, target.context)
        self._helm = Helm(target)

    def run(self) -> None:
        """Do all steps.

        Raises:
            ServiceError: Something cannot be removed, or is left; with what and why.
        """
        step = self._progress.step
        found = self._cluster.find(NAMESPACES, self._target.namespace)
        installed = upstream.installed(found)
        if found is not None:
            with alone(self._cluster, self._progress):
                step("rollouts", self._rollouts)
                step("release", self._release)
                # Before the namespace that they are in: they clean up behind their runs.
                for component in (c for c in reversed(installed) if not c.namespace):
                    step(
                        component.name,
                        partial(upstream.remove, self._cluster, self._target, component),
                    )
            step("namespace", lambda: self._namespace(found))
        step("cluster-wide", self._cluster_wide)
        for component in (c for c in reversed(installed) if c.namespace):
            step(component.name, partial(upstream.remove, self._cluster, self._target, component))
        step("check", self._check)

    def _rollouts(self) -> str:
        try:
            names = [body["metadata"]["name"] for body in self._cluster.list(MODEL_ROLLOUTS)]
        except NotFoundError:
            return "the cluster does not know ModelRollouts"
        for name in names:
            self._cluster.delete(MODEL_ROLLOUTS, name)
        if _until(lambda: not self._cluster.list(MODEL_ROLLOUTS), _OPERATOR_SECONDS):
            return f"{len(names)} ModelRollouts removed, with their servers and routes"
        # Its operator is gone or cannot clean up; the namespace takes what it would have removed.
        stuck = [body["metadata"]["name"] for body in self._cluster.list(MODEL_ROLLOUTS)]
        for name in stuck:
            self._cluster.patch(MODEL_ROLLOUTS, name, {"metadata": {"finalizers": None}})
        return f"no operator cleaned up behind {', '.join(stuck)}: removed without it"

    def _release(self) -> str:
        if self._helm.current() is None:
            return "there is none"
        self._helm.uninstall()
        return "removed"

    def _namespace(self, found: Object) -> str:
        name = self._target.namespace
        labels = found["metadata"].get("labels") or {}
        if labels.get(PART_OF) != PLATFORM:
            raise ServiceError(
                f"the namespace {name} was not made by `make deploy`: what else lies in it is not "
                f"the platform's to remove. The release is gone; remove the rest with `kubectl "
                f"delete namespace {name}`, or label it {PART_OF}={PLATFORM} and run this again"
            )
        self._cluster.delete(NAMESPACES, name)
        if not _until(lambda: self._cluster.find(NAMESPACES, name) is None, _NAMESPACE_SECONDS):
            left = self._cluster.get(NAMESPACES, name)
            raise ServiceError(
                f"the namespace {name} does not go: {why_it_stays(left)}; run this again when "
                "that is mended"
            )
        return f"{name} removed, with Secrets, volume claims and all else in it"

    def _cluster_wide(self) -> str:
        removed = []
        for kind, body in _own(self._cluster, self._target.namespace):
            self._cluster.delete(kind, body["metadata"]["name"])
            removed.append(body["metadata"]["name"])
        removed += self._definitions()
        return f"removed {', '.join(removed)}" if removed else "nothing was left"

    def _definitions(self) -> list[str]:
        """Remove the definitions that no other platform needs; return their names."""
        try:
            needed = self._cluster.list(MODEL_ROLLOUTS, everywhere=True)
        except NotFoundError:
            return []
        others = {body["metadata"]["namespace"] for body in needed}
        others |= {
            body["metadata"]["name"]
            for body in self._cluster.list(NAMESPACES, {PART_OF: PLATFORM})
            if body["metadata"]["name"] != self._target.namespace
        }
        if others:
            where = ", ".join(sorted(others))
            self._progress.say("kinds", f"they stay: there is another platform in {where}")
            return []
        names = [body["metadata"]["name"] for body in custom_resources.wanted()]
        return [n for n in names if self._cluster.delete(custom_resources.DEFINITIONS, n)]

    def _check(self) -> str:
        def gone() -> bool:
            return not any(_own(self._cluster, self._target.namespace))

        if not _until(gone, _OPERATOR_SECONDS) or self._cluster.find(
            NAMESPACES, self._target.namespace
        ):
            left = [
                f"{kind.plural}/{body['metadata']['name']}"
                for kind, body in _own(self._cluster, self._target.namespace)
            ]
            raise ServiceError(
                f"these are left: {', '.join(left) or self._target.namespace}: remove them by hand"
            )
        kept = kept_volumes(self._cluster.list(_VOLUMES), self._target.namespace)
        if kept:
            return (
                f"nothing is left but {', '.join(kept)}: their storage class keeps the data; "
                "`kubectl delete persistentvolume` gives it up"
            )
        return "nothing is left"


def why_it_stays(namespace: Object) -> str:
    """Return in words why a namespace does not go."""
    conditions = namespace.get("status", {}).get("conditions") or ()
    said = [c.get("message", "") for c in conditions if c.get("status") == "True"]
    return shorten("; ".join(filter(None, said))) or "Kubernetes does not say why"


def kept_volumes(volumes: Iterable[Object], namespace: str) -> list[str]:
    """Return the names of volumes that outlive their claims in a namespace that is gone."""
    return [
        body["metadata"]["name"]
        for body in volumes
        if (body["spec"].get("claimRef") or {}).get("namespace") == namespace
        and body["spec"].get("persistentVolumeReclaimPolicy") == "Retain"
    ]


def _own(cluster: Cluster, namespace: str) -> Iterable[tuple[Kind, Object]]:
    """Yield what carries the platform's label and belongs to this namespace's platform."""
    for kind in cluster.kinds():
        try:
            found = cluster.list(kind, {PART_OF: PLATFORM}, everywhere=True)
        except ServiceError:  # a kind that is just going, or may not be read
            continue
        for body in found:
            metadata = body["metadata"]
            released_from = (metadata.get("annotations") or {}).get(_RELEASED_FROM)
            if namespace in {metadata.get("namespace"), released_from}:
                yield kind, body


def _until(done: Callable[[], bool], seconds: float) -> bool:
    """Return whether it is done within some seconds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
