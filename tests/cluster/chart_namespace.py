"""A namespace of its own for tests of the chart's objects, with Pod Security "restricted"."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import yaml

from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    MODEL_ROLLOUTS,
    NAMESPACES,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    VOLUME_CLAIMS,
    Cluster,
    Kind,
    Object,
)
from tests.helm.chart import CHART

DEFINITIONS: Final = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
_ACCESS: Final = "rbac.authorization.k8s.io/v1"
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
KINDS: Final[dict[str, Kind]] = {
    "ClusterRole": Kind(_ACCESS, "clusterroles", namespaced=False),
    "ClusterRoleBinding": Kind(_ACCESS, "clusterrolebindings", namespaced=False),
    "ConfigMap": CONFIG_MAPS,
    "CronJob": CRON_JOBS,
    "Deployment": DEPLOYMENTS,
    "HorizontalPodAutoscaler": Kind("autoscaling/v2", "horizontalpodautoscalers"),
    "Job": JOBS,
    "LimitRange": Kind("v1", "limitranges"),
    "ModelRollout": MODEL_ROLLOUTS,
    "NetworkPolicy": Kind("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": VOLUME_CLAIMS,
    "Pod": PODS,
    "PodDisruptionBudget": Kind("policy/v1", "poddisruptionbudgets"),
    "PriorityClass": Kind("scheduling.k8s.io/v1", "priorityclasses", namespaced=False),
    "ResourceQuota": Kind("v1", "resourcequotas"),
    "Role": Kind(_ACCESS, "roles"),
    "RoleBinding": Kind(_ACCESS, "rolebindings"),
    "Service": SERVICES,
    "ServiceAccount": Kind("v1", "serviceaccounts"),
    "StatefulSet": STATEFUL_SETS,
    "ValidatingAdmissionPolicy": Kind(_ADMISSION, "validatingadmissionpolicies", namespaced=False),
    "ValidatingAdmissionPolicyBinding": Kind(
        _ADMISSION, "validatingadmissionpolicybindings", namespaced=False
    ),
}
ELSEWHERE: Final = {"ServiceMonitor", "PrometheusRule"}
"""Kinds whose definitions come with Prometheus: checked in tests/helm/test_schemas.py instead."""
_MANAGER: Final = "mlplatform-tests"


@contextmanager
def restricted_namespace() -> Iterator[Cluster]:
    """Make a namespace, and take it away with all that was applied for it."""
    found = Cluster.connect(f"chart-{secrets.token_hex(3)}")
    definition: Any = yaml.safe_load(
        (CHART / "crds" / "modelrollouts.yaml").read_text(encoding="utf-8")
    )
    found.apply(DEFINITIONS, definition, _MANAGER)
    modes = ("enforce", "audit", "warn")
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}
    metadata = {"name": found.namespace, "labels": labels}
    found.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        yield found
    finally:
        # Bindings first: a policy that has one is in force.
        for kind in sorted(KINDS.values(), key=lambda one: one.plural, reverse=True):
            if kind.namespaced:
                continue
            for left in found.list(kind, {"app.kubernetes.io/part-of": "mlplatform"}):
                if left["metadata"]["name"].startswith(f"{found.namespace}-"):
                    found.delete(kind, left["metadata"]["name"])
        found.delete(NAMESPACES, found.namespace)


def applied(cluster: Cluster, objects: list[Object], *kinds: str) -> None:
    """Apply a release's objects of these kinds."""
    for found in objects:
        if found["kind"] in kinds:
            cluster.apply(KINDS[found["kind"]], found, _MANAGER)


@contextmanager
def acting_as(cluster: Cluster, user: str) -> Iterator[Cluster]:
    """Return the same cluster as an account sees it: `namespace:name` of the account."""
    name = f"system:serviceaccount:{user}"
    other = Cluster.connect(cluster.namespace)
    headers = other._api.default_headers
    headers["Impersonate-User"] = name
    # urllib3 sends one header for each name; this group is the one that admission looks at.
    headers["Impersonate-Group"] = "system:authenticated"
    yield other
