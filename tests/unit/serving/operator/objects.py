"""Objects of a cluster, as far as these tests look into them."""

from typing import Any

from mlplatform.clients.kubernetes import Object

GPU = "nvidia.com/gpu"
READY = {"type": "Ready", "status": "True"}


def node(name: str = "one", gpus: int = 2, **more: Any) -> Object:
    """A node that is ready; `labels`, `taints`, `unschedulable` and `conditions` as given."""
    return {
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": {
            "taints": more.get("taints", []),
            "unschedulable": more.get("unschedulable", False),
        },
        "status": {
            "allocatable": {"cpu": "2", **({GPU: str(gpus)} if gpus else {})},
            "conditions": more.get("conditions", [READY]),
        },
    }


def pod(
    name: str = "pod", node: str = "one", gpus: int = 1, phase: str = "Running", **status: Any
) -> Object:
    limits = {GPU: str(gpus)} if gpus else {}
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-03-01T12:00:00Z"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"limits": limits}}]},
        "status": {"phase": phase, **status},
    }


def deployment(gpus: int = 1, **spec: Any) -> Object:
    """A Deployment of one pod; `annotations` are its own, the rest is of its pod's spec."""
    annotations = spec.pop("annotations", {})
    replicas = spec.pop("replicas", 1)
    resources = {"limits": {GPU: gpus}} if gpus else {}
    container = {"name": "triton", "resources": resources}
    return {
        "metadata": {"name": "triton-flight-delay-v4-abc", "annotations": annotations},
        "spec": {
            "replicas": replicas,
            "template": {"metadata": {}, "spec": {"containers": [container], **spec}},
        },
    }
