"""Whether a server that needs GPUs fits beside what runs: asked before its Deployment is made.

While a version is rolled out, two servers run. A Deployment whose pod cannot be placed says so
only in an event of the scheduler, and holds its place in the queue; here nothing is made, and what
is in the way is said in words. The scheduler has the last word: this looks at GPUs and at their
memory, and at what keeps a pod from a node that has them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mlplatform.clients.kubernetes import Object

_KINDS: Final = ("/gpu", "nvidia.com/mig-")
"""How the names of GPU resources end or begin: nvidia.com/gpu, amd.com/gpu, parts of a GPU."""
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"
"""Of a node, set by NVIDIA's GPU feature discovery: memory of one of its GPUs, MiB."""
MEMORY_ANNOTATION: Final = "mlplatform.dev/gpu-memory"
"""Of the template: memory that a server needs on one GPU, MiB."""
_OVER: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    gpus: int
    taken: Mapping[str, int]
    """GPUs by pod."""
    obstacle: str
    """Why the pod may not go there, whatever is free; empty: it may."""

    @property
    def free(self) -> int:
        return self.gpus - sum(self.taken.values())


def resource_of(deployment: Object) -> str:
    """Return the GPU resource that a Deployment's pods ask for; empty: they need none."""
    spec = deployment["spec"]["template"]["spec"]
    for container in (*(spec.get("containers") or []), *(spec.get("initContainers") or [])):
        for name, count in _asked(container).items():
            if int(count) and (name.endswith(_KINDS[0]) or name.startswith(_KINDS[1])):
                return name
    return ""


def refusal(deployment: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> str:
    """Return why a Deployment's pods would not be placed; empty: they would, or need no GPU.

    Args:
        deployment: That is to be made.
        nodes: Of the cluster.
        pods: Of the whole cluster.
    """
    resource, replicas = resource_of(deployment), int(deployment["spec"].get("replicas", 1))
    if not resource or not replicas:
        return ""
    need = _count(deployment["spec"]["template"]["spec"], resource)
    asked = f"{need} {resource}" + (f" for each of {replicas} pods" if replicas > 1 else "")
    found = [
        _node(node, deployment, pods, resource) for node in nodes if _allocatable(node, resource)
    ]
    if not found:
        return f"it needs {asked}, and no node of the cluster has any: add one"
    usable = [node for node in found if not node.obstacle]
    if not usable:
        reasons = "; ".join(f"{node.name} {node.obstacle}" for node in found)
        return f"it needs {asked}, and may not go to any node that has them: {reasons}"
    if sum(node.free // need for node in usable) >= replicas:
        return ""
    return f"it needs {asked}, and too few are free beside what runs: {_taken(usable)}"


def _taken(nodes: Iterable[_Node]) -> str:
    told = []
    for node in nodes:
        by = ", ".join(f"{name} has {count}" for name, count in sorted(node.taken.items()))
        told.append(
            f"node {node.name} has {node.free} of {node.gpus} free" + (f" ({by})" if by else "")
        )
    return "; ".join(told)


def _node(node: Object, deployment: Object, pods: Iterable[Object], resource: str) -> _Node:
    name = node["metadata"]["name"]
    taken = {}
    for pod in pods:
        here = pod["spec"].get("nodeName") == name
        over = pod.get("status", {}).get("phase") in _OVER
        if here and not over and (count := _count(pod["spec"], resource)):
            taken[pod["metadata"]["name"]] = count
    return _Node(name, _allocatable(node, resource), taken, _obstacle(node, deployment))


def _obstacle(node: Object, deployment: Object) -> str:
    spec = deployment["spec"]["template"]["spec"]
    labels = node["metadata"].get("labels") or {}
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in node.get("status", {}).get("conditions") or []
    )
    if not ready:
        return "is not ready"
    if node["spec"].get("unschedulable"):
        return "is cordoned"
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return f"lacks the label {key}={value} that the template selects"
    if not _affine(spec, labels):
        return "is not one that the template's node affinity selects"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(taint, spec):
            return (
                f"has the taint {taint['key']}={taint.get('value', '')}:{taint['effect']}, which "
                "the template does not tolerate"
            )
    return _memory(labels, deployment)


def _memory(labels: Mapping[str, str], deployment: Object) -> str:
    pod = deployment["spec"]["template"].get("metadata") or {}
    annotations = {
        **(deployment["metadata"].get("annotations") or {}), **(pod.get("annotations") or {}),
    }  # fmt: skip
    wanted, there = str(annotations.get(MEMORY_ANNOTATION, "")), labels.get(MEMORY_LABEL, "")
    if wanted.isdigit() and there.isdigit() and int(wanted) > int(there):
        return f"has GPUs of {there} MiB, and the server needs {wanted} MiB on one"
    return ""


def _tolerated(taint: Object, spec: Object) -> bool:
    for toleration in spec.get("tolerations") or []:
        key, effect = toleration.get("key", ""), toleration.get("effect", "")
        exists = toleration.get("operator", "Equal") == "Exists"
        if effect not in {"", taint["effect"]} or (
            key != taint["key"] and not (exists and not key)
        ):
            continue
        if exists or toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def _affine(spec: Object, labels: Mapping[str, str]) -> bool:
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return True
    return any(
        all(_matches(rule, labels) for rule in term.get("matchExpressions") or [])
        for term in affinity["nodeSelectorTerms"]
    )


def _matches(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values") or []
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:  # Gt, Lt: left to the scheduler
            return True


def _count(spec: Object, resource: str) -> int:
    """Return how many a pod needs: its containers together, or the greediest init container."""
    together = sum(int(_asked(one).get(resource, 0)) for one in spec.get("containers") or [])
    before = [int(_asked(one).get(resource, 0)) for one in spec.get("initContainers") or []]
    return max([together, *before])


def _asked(container: Object) -> dict[str, Any]:
    """Return what a container asks for; a limit alone is a request as well."""
    resources = container.get("resources") or {}
    both = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: count for name, count in both.items() if "/" in name and str(count).isdigit()}


def _allocatable(node: Object, resource: str) -> int:
    return int((node.get("status", {}).get("allocatable") or {}).get(resource, 0))
