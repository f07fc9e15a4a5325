"""The objects of a release, in the cluster: which are gone, and which Jobs have to start anew.

Helm compares manifests, not the cluster: an object that somebody deleted is not missed by it.
"""

from collections.abc import Iterator
from typing import Final

from deploy.first_model import ended
from mlplatform.clients.kubernetes import JOBS, Cluster, Kind, Object

_RELEASED: Final = "meta.helm.sh/release-name"
"""Helm's annotation on what belongs to a release."""
_SPELT: Final = {
    "NetworkPolicy": "networkpolicies",
    "Ingress": "ingresses",
    "PriorityClass": "priorityclasses",
    "StorageClass": "storageclasses",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
"""Plurals that are not the kind with an s."""
_OF_THE_CLUSTER: Final = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterSecretStore",
        "Namespace",
        "PersistentVolume",
        "PriorityClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
)
"""Kinds of the chart, and of what is applied before it, that lie in no namespace."""


def objects(manifest: str) -> Iterator[Object]:
    """Yield the objects of a manifest."""
    import yaml

    for body in yaml.safe_load_all(manifest):
        if body:
            yield body


def kind_of(body: Object) -> Kind:
    """Return where the API keeps an object of the chart."""
    name = body["kind"]
    plural = _SPELT.get(name, f"{name.lower()}s")
    return Kind(body["apiVersion"], plural, namespaced=name not in _OF_THE_CLUSTER)


def missing(cluster: Cluster, manifest: str) -> list[str]:
    """Return the objects of a manifest that are not in the cluster, as `Kind/name`.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    there: dict[Kind, set[str]] = {}
    gone = []
    for body in objects(manifest):
        kind, name = kind_of(body), body["metadata"]["name"]
        if kind not in there:
            there[kind] = {found["metadata"]["name"] for found in cluster.list(kind)}
        if name not in there[kind]:
            gone.append(f"{body['kind']}/{name}")
    return gone


def remove_failed_jobs(cluster: Cluster) -> list[str]:
    """Remove the release's Jobs that have given up, so that it makes them anew; return their names.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    removed = []
    for found in cluster.list(JOBS):
        metadata = found["metadata"]
        if _RELEASED in (metadata.get("annotations") or {}) and ended(found) is False:
            cluster.delete(JOBS, metadata["name"])
            removed.append(metadata["name"])
    return removed
