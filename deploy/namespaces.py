"""The platform's namespace: what Pod Security demands of every pod in it."""

from typing import Final

from mlplatform.clients.kubernetes import NAMESPACES, Cluster, Object
from mlplatform.errors import SettingsError

MANAGER: Final = "mlplatform-deploy"
"""To whom the fields belong that these commands apply."""
PART_OF: Final = "app.kubernetes.io/part-of"
PLATFORM: Final = "mlplatform"
_LEVEL: Final = "restricted"
_SECURITY: Final = "pod-security.kubernetes.io"
_RESERVED: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


def labels(component: str = "") -> dict[str, str]:
    """Return the labels of an object that these commands make."""
    found = {PART_OF: PLATFORM, "app.kubernetes.io/managed-by": MANAGER}
    return found | ({"app.kubernetes.io/component": component} if component else {})


def wanted(name: str) -> Object:
    """Return the namespace as it should be.

    Raises:
        SettingsError: The name belongs to the cluster.
    """
    if name in _RESERVED:
        raise SettingsError(
            f"the namespace {name} belongs to the cluster and other programs: give the platform "
            "one of its own with NAMESPACE="
        )
    modes = {f"{_SECURITY}/{mode}": _LEVEL for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels() | modes},
    }


def lacks(namespace: Object) -> tuple[str, ...]:
    """Return the labels that a namespace lacks or has otherwise, each as `name=value`."""
    name = namespace["metadata"]["name"]
    there = namespace["metadata"].get("labels") or {}
    needed: dict[str, str] = wanted(name)["metadata"]["labels"]
    return tuple(f"{key}={value}" for key, value in needed.items() if there.get(key) != value)


def ensure(cluster: Cluster) -> str:
    """Make the namespace and its labels so; return what was done, in words.

    Raises:
        SettingsError: The name belongs to the cluster.
        ServiceError: The API server is away, or refuses.
    """
    body = wanted(cluster.namespace)
    found = cluster.find(NAMESPACES, cluster.namespace)
    if found is not None and not lacks(found):
        return f"{cluster.namespace} is there; Pod Security {_LEVEL} is enforced in it"
    cluster.apply(NAMESPACES, body, MANAGER)
    done = "made" if found is None else "labelled"
    return f"{cluster.namespace} {done}: Pod Security {_LEVEL} is enforced in it"
