"""Objects of Kubernetes for tests, with as much in them as a rule reads."""

from typing import Any

from mlplatform.clients.kubernetes import Object

IMAGE = "registry.example/mlplatform-gateway@sha256:" + "0" * 64


def pod(
    name: str = "gateway-abc",
    *,
    phase: str = "Running",
    conditions: list[dict[str, Any]] | None = None,
    containers: list[dict[str, Any]] | None = None,
    init: list[dict[str, Any]] | None = None,
    requests: dict[str, str] | None = None,
    owner: tuple[str, str] = ("ReplicaSet", "mlplatform-gateway-5f"),
    **status: Any,
) -> Object:
    kind, owned_by = owner
    return {
        "metadata": {
            "name": name,
            "labels": {"pod-template-hash": "5f"},
            "ownerReferences": [{"kind": kind, "name": owned_by, "controller": True}],
        },
        "spec": {
            "nodeSelector": {"pool": "ml"},
            "containers": [{"name": "gateway", "resources": {"requests": requests or {}}}],
        },
        "status": {
            "phase": phase,
            "conditions": conditions or [],
            "containerStatuses": containers or [],
            "initContainerStatuses": init or [],
            **status,
        },
    }


def unscheduled(message: str, **more: Any) -> Object:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return pod(phase="Pending", conditions=[condition], **more)


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    """A container's status."""
    return {
        "name": "gateway",
        "image": IMAGE,
        "ready": False,
        "state": {"waiting": {"reason": reason, "message": message}},
        **more,
    }


def event(kind: str, name: str, reason: str, message: str, at: str = "2026-01-01") -> Object:
    return {
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "lastTimestamp": f"{at}T00:00:00Z",
    }


def deployment(name: str = "mlplatform-gateway", *, ready: int = 0, replicas: int = 1) -> Object:
    return {
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "generation": 1,
            "labels": {"app.kubernetes.io/component": "gateway"},
            "annotations": {"meta.helm.sh/release-name": "mlplatform"},
        },
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
        },
    }


def node(
    name: str = "one",
    *,
    cpu: str = "2",
    memory: str = "8Gi",
    gpus: int = 0,
    taints: list[dict[str, str]] | None = None,
) -> Object:
    allocatable = {"cpu": cpu, "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {
        "metadata": {"name": name},
        "spec": {"taints": taints or []},
        "status": {"allocatable": allocatable},
    }
