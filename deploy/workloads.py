"""The workloads of a namespace: how many pods of each are ready, and what holds the rest up.

One look reads the workloads, pods, events and volume claims of the namespace; what it means is
decided by pure functions over those objects.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from deploy.namespaces import PART_OF, PLATFORM
from deploy.pods import explain
from deploy.troubles import Trouble
from mlplatform.clients.kubernetes import (
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    PODS,
    STATEFUL_SETS,
    VOLUME_CLAIMS,
    Cluster,
    Kind,
    Object,
)
from mlplatform.errors import shorten

COMPONENT: Final = "app.kubernetes.io/component"
_RELEASED: Final = "meta.helm.sh/release-name"
"""Helm's annotation on what belongs to a release."""
_KINDS: Final = {"Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS, "Job": JOBS}


class Held(NamedTuple):
    """Something that waits, and what for."""

    name: str
    """Of the pod, or of the object that lacks its pods."""
    trouble: Trouble

    def __str__(self) -> str:
        return f"{self.name}: {self.trouble}"


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or Job."""

    kind: str
    name: str
    component: str
    ready: int
    """Pods of its newest revision that are ready; of a Job, those that have succeeded."""
    desired: int
    held: tuple[Held, ...] = ()
    failed: str = ""
    """Why a Job has given up; empty: it has not."""
    released: bool = True
    """Whether it belongs to the chart's release, and was not made at run time."""

    @property
    def well(self) -> bool:
        """Whether nothing is missing."""
        return self.ready >= self.desired


@dataclass(frozen=True)
class Look:
    """One look at the namespace."""

    workloads: tuple[Workload, ...]
    claims: tuple[Held, ...]
    """Volume claims that are not bound."""

    def waiting(self, without: Iterable[str] = ()) -> tuple[Workload, ...]:
        """Return the release's workloads that are not well, but for those of some components."""
        left_out = set(without)
        return tuple(
            w for w in self.workloads if w.released and not w.well and w.component not in left_out
        )


def look(cluster: Cluster) -> Look:
    """Return how the platform's workloads are.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    labels = {PART_OF: PLATFORM}
    found = {kind: cluster.list(where, labels) for kind, where in _KINDS.items()}
    pods = cluster.list(PODS)
    return looked(found, pods, cluster.list(EVENTS), cluster.list(VOLUME_CLAIMS, labels))


def looked(
    found: dict[str, list[Object]],
    pods: Sequence[Object],
    events: Sequence[Object],
    claims: Sequence[Object],
) -> Look:
    """Return what the objects say.

    Args:
        found: Workloads by kind.
        pods: Of the namespace.
        events: Of the namespace.
        claims: Volume claims of the platform.
    """
    happened = _by_object(events)
    workloads = [
        _workload(kind, body, pods, happened)
        for kind, bodies in found.items()
        for body in bodies
        if not (kind == "Job" and body["metadata"].get("ownerReferences"))  # a CronJob's
    ]
    order = sorted(workloads, key=lambda w: (w.kind == "Job", w.name))
    return Look(tuple(order), tuple(_unbound(claims, happened)))


def _by_object(events: Iterable[Object]) -> dict[tuple[str, str], list[Object]]:
    found: dict[tuple[str, str], list[Object]] = {}
    for event in events:
        about = event.get("involvedObject", {})
        found.setdefault((about.get("kind", ""), about.get("name", "")), []).append(event)
    return found


def _workload(
    kind: str,
    body: Object,
    pods: Sequence[Object],
    happened: dict[tuple[str, str], list[Object]],
) -> Workload:
    metadata, status = body["metadata"], body.get("status", {})
    labels = metadata.get("labels") or {}
    name = metadata["name"]
    ready, desired = (_job if kind == "Job" else _replicas)(body)
    held: list[Held] = []
    if ready < desired:
        for pod in _own(kind, name, pods):
            pod_name = pod["metadata"]["name"]
            troubles = explain(pod, happened.get(("Pod", pod_name), ()))
            held += [Held(pod_name, trouble) for trouble in troubles]
        held += _refused(kind, name, status, happened) if not held else []
    failed: dict[str, Any] = next(
        (c for c in status.get("conditions") or () if _gave_up(kind, c)), {}
    )
    return Workload(
        kind=kind,
        name=name,
        component=labels.get(COMPONENT, ""),
        ready=ready,
        desired=desired,
        held=tuple(held),
        failed=shorten(failed.get("message") or failed.get("reason") or ""),
        released=_RELEASED in (metadata.get("annotations") or {}),
    )


def _replicas(body: Object) -> tuple[int, int]:
    """Return how many pods are ready and how many should be; old revisions do not count."""
    status, desired = body.get("status", {}), int(body["spec"].get("replicas", 1))
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return 0, max(desired, 1)  # its controller has not seen the newest spec
    updated = status.get("updatedReplicas", status.get("replicas", 0))
    if status.get("updateRevision", "") != status.get("currentRevision", ""):
        updated = status.get("updatedReplicas", 0)
    return min(updated, status.get("readyReplicas", 0)), desired


def _job(body: Object) -> tuple[int, int]:
    return int(body.get("status", {}).get("succeeded", 0)), int(body["spec"].get("completions", 1))


def _gave_up(kind: str, condition: dict[str, Any]) -> bool:
    return kind == "Job" and condition["type"] == "Failed" and condition["status"] == "True"


def _own(kind: str, name: str, pods: Sequence[Object]) -> Iterator[Object]:
    return (pod for pod in pods if _owner(pod) == (kind, name))


def _owner(pod: Object) -> tuple[str, str]:
    """Return kind and name of the workload that a pod belongs to."""
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or ()
    owner = next((o for o in owners if o.get("controller")), {"kind": "", "name": ""})
    if owner["kind"] == "ReplicaSet":  # a Deployment's, named after it and its revision
        revision = (metadata.get("labels") or {}).get("pod-template-hash", "")
        return "Deployment", owner["name"].removesuffix(f"-{revision}")
    return owner["kind"], owner["name"]


def _refused(
    kind: str, name: str, status: Object, happened: dict[tuple[str, str], list[Object]]
) -> list[Held]:
    """Return why there are no pods: the API server refuses them."""
    said = [
        condition.get("message", "")
        for condition in status.get("conditions") or ()
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    ]
    said += [
        event.get("message", "")
        for event in happened.get((kind, name), ())
        if event.get("reason") == "FailedCreate"
    ]
    if not said:
        return []
    return [Held(name, refusal(said[-1]))]


def refusal(message: str) -> Trouble:
    """Return in words why the API server refuses a pod."""
    if "violates PodSecurity" in message:
        what = message.partition("violates PodSecurity")[2].partition('": ')[2]
        return Trouble(
            f"Pod Security refuses its pods: {shorten(what)}", "the chart's pods meet it; yours?"
        )
    if "exceeded quota" in message:
        what = message.partition("exceeded quota:")[2]
        return Trouble(
            f"the quota refuses its pods: {shorten(what)}", "raise `quota` in the values"
        )
    if "ValidatingAdmissionPolicy" in message:
        what = message.partition("ValidatingAdmissionPolicy")[2]
        return Trouble(f"an admission policy refuses its pods: {shorten(what)}")
    return Trouble(f"its pods are refused: {shorten(message)}")


def _unbound(
    claims: Iterable[Object], happened: dict[tuple[str, str], list[Object]]
) -> Iterator[Held]:
    for claim in claims:
        name = claim["metadata"]["name"]
        if claim.get("status", {}).get("phase") == "Bound":
            continue
        events = happened.get(("PersistentVolumeClaim", name), [])
        yield Held(f"volume claim {name}", _unbound_because(claim, events))


def _unbound_because(claim: Object, events: Sequence[Object]) -> Trouble:
    newest = {event.get("reason", ""): event.get("message", "") for event in events}
    wanted = claim["spec"].get("storageClassName")
    if "WaitForFirstConsumer" in newest and "ProvisioningFailed" not in newest:
        return Trouble("it is made when its first pod is placed")
    if "ProvisioningFailed" in newest:
        return Trouble(f"its volume cannot be made: {shorten(newest['ProvisioningFailed'])}")
    if not wanted:
        return Trouble(
            "no volume fits it and the cluster has no default storage class",
            "name a class under `storage` in the values, or make a PersistentVolume",
        )
    return Trouble(f"the storage class {wanted} has not made its volume yet")


def kind_of(name: str) -> Kind:
    """Return where the API keeps a workload of this kind."""
    return _KINDS[name]
