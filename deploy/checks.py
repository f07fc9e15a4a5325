"""What may keep the platform from running, checked before it is tried: pure functions of facts.

Each check says what was found, whether that is enough, and what to do. `deploy.doctor` gathers the
facts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from deploy.namespaces import lacks
from deploy.quantities import cpus, memory, quantity
from deploy.scheduling import request
from mlplatform.clients.kubernetes import Object

Level = Literal["good", "warning", "bad"]

_SKEW: Final = 1
"""Minor versions by which kubectl may differ from the API server: Kubernetes' own rule."""
LEAST_SERVER: Final = (1, 30)
"""The chart's: ValidatingAdmissionPolicy, and preStop's sleep."""
_LEAST_HELM: Final = (3, 14)
"""From it on `--dry-run=server` asks the API server."""
_INSTANCES: Final = 512
_WATCHES: Final = 524288
"""inotify's limits that kind recommends: a node in a container shares the machine's."""
_GPU: Final = "nvidia.com/gpu"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    level: Level
    name: str
    text: str
    advice: str = ""

    @property
    def bad(self) -> bool:
        """Whether the platform cannot run so."""
        return self.level == "bad"


def versions(server: str, kubectl: str, helm: str) -> list[Finding]:
    """Check the versions of the API server and of the two programs.

    Args:
        server: E.g. v1.34.4.
        kubectl: The same of the client.
        helm: E.g. v3.19.0.
    """
    there, client, chart = _minor(server), _minor(kubectl), _minor(helm)
    found = []
    if there < LEAST_SERVER:
        least = ".".join(map(str, LEAST_SERVER))
        found.append(
            Finding("bad", "kubernetes", f"{server}: too old", f"the chart needs {least} or newer")
        )
    else:
        found.append(Finding("good", "kubernetes", server))
    if abs(there[1] - client[1]) > _SKEW:
        advice = f"install one of {there[0]}.{there[1]}: more than one minor version lies between"
        found.append(Finding("warning", "kubectl", f"{kubectl} beside {server}", advice))
    else:
        found.append(Finding("good", "kubectl", kubectl))
    if chart < _LEAST_HELM:
        found.append(Finding("bad", "helm", f"{helm}: too old", "install 3.14 or newer"))
    else:
        found.append(Finding("good", "helm", helm))
    return found


def room(nodes: Sequence[Object], others: Sequence[Object], wanted: Sequence[Object]) -> Finding:
    """Check whether the cluster has room for what is to be deployed.

    Args:
        nodes: All of them.
        others: Pods of others, which keep what they ask for.
        wanted: Pod specs of the platform, one for each pod.
    """
    usable = [node for node in nodes if not node["spec"].get("unschedulable")]
    text, short = [], []
    for resource, words in (("cpu", cpus), ("memory", memory)):
        there = sum(quantity(node["status"]["allocatable"][resource]) for node in usable)
        taken = sum(request(pod["spec"], resource) for pod in others)
        needed = sum(request(spec, resource) for spec in wanted)
        unit = " CPUs" if resource == "cpu" else ""
        text.append(f"{words(needed)} of {words(there - taken)}{unit} free")
        if needed > there - taken:
            short.append("CPUs" if resource == "cpu" else "memory")
    said = f"asks for {' and '.join(text)} on {len(usable)} nodes".replace("1 nodes", "1 node")
    if short:
        advice = "add a node, remove other pods, or ask for less in the values"
        return Finding("bad", "room", f"{said}: too little {' and '.join(short)}", advice)
    return Finding("good", "room", said)


def pod_of(body: Object) -> Object | None:
    """Return the spec of the pods that an object makes; None: it makes none."""
    spec = body.get("spec") or {}
    if body["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if body["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}:
        found: Object = spec["template"]["spec"]
        return found
    return spec if body["kind"] == "Pod" else None


def pod_specs(objects: Iterable[Object]) -> list[Object]:
    """Return the pod spec of each pod that a manifest makes, and of one training and second server.

    CronJobs count with one pod each, the suspended training templates among them; the template of
    a model server, which lies in a ConfigMap, counts twice: a rollout runs two versions.
    """
    import yaml

    found: list[Object] = []
    for body in objects:
        pod = pod_of(body)
        if pod is not None:
            found += [pod] * int(body["spec"].get("replicas", 1))
        elif body["kind"] == "ConfigMap" and body["metadata"]["name"] == "mlplatform-triton":
            template = yaml.safe_load(body["data"]["deployment.yaml"])["spec"]
            found += [template["template"]["spec"]] * 2 * int(template.get("replicas", 1))
    return found


def gpus(nodes: Sequence[Object], wanted: Sequence[Object]) -> list[Finding]:
    """Check whether there are GPUs for the pods that ask for one, and whether those may use them.

    Args:
        nodes: All of them.
        wanted: Pod specs of the platform.
    """
    asking = [spec for spec in wanted if request(spec, _GPU) > 0]
    there = {
        node["metadata"]["name"]: node
        for node in nodes
        if quantity(node["status"].get("allocatable", {}).get(_GPU, 0)) > 0
    }
    total = sum(quantity(node["status"]["allocatable"][_GPU]) for node in there.values())
    if not asking:
        text = f"none needed; {total:.0f} there" if total else "none needed"
        return [Finding("good", "gpus", text)]
    needed = sum(request(spec, _GPU) for spec in asking)
    if total < needed:
        return [
            Finding(
                "bad",
                "gpus",
                f"{needed:.0f} needed, {total:.0f} there",
                "add GPU nodes with NVIDIA's device plugin; a rollout needs those of two versions",
            )
        ]
    found = [Finding("good", "gpus", f"{needed:.0f} of {total:.0f}")]
    for name, node in there.items():
        for taint in node["spec"].get("taints") or ():
            if taint["effect"] != "PreferNoSchedule" and not all(
                tolerates(spec, taint) for spec in asking
            ):
                shown = f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
                found.append(
                    Finding(
                        "warning",
                        "gpus",
                        f"node {name} carries the taint {shown}, which its pods do not tolerate",
                        "add the toleration under `triton` in the values",
                    )
                )
    return found


def tolerates(spec: Object, taint: Mapping[str, str]) -> bool:
    """Return whether a pod tolerates a taint, by the scheduler's rules."""
    for toleration in spec.get("tolerations") or ():
        if toleration.get("effect") not in {None, "", taint["effect"]}:
            continue
        if not toleration.get("key"):
            if toleration.get("operator") == "Exists":
                return True
            continue
        if toleration["key"] != taint["key"]:
            continue
        if toleration.get("operator", "Equal") == "Exists":
            return True
        if (toleration.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def inotify(instances: int, watches: int) -> Finding:
    """Check this machine's inotify limits, which the nodes of kind share."""
    text = f"{instances} instances, {watches} watches"
    if instances < _INSTANCES or watches < _WATCHES:
        advice = (
            f"sudo sysctl fs.inotify.max_user_instances={_INSTANCES} "
            f"fs.inotify.max_user_watches={_WATCHES}: pods fail with `too many open files` else"
        )
        return Finding("warning", "inotify", text, advice)
    return Finding("good", "inotify", text)


def volumes(
    claims: Sequence[str],
    bound: Iterable[str],
    classes: Sequence[Object],
    available: Sequence[Object],
    named: Iterable[str],
) -> Finding:
    """Check whether the volume claims will find volumes.

    Args:
        claims: Names of those that are to be made.
        bound: Names of those that have a volume.
        classes: Storage classes of the cluster.
        available: Persistent volumes that no claim has.
        named: Classes that the claims name; empty ones mean the default.
    """
    open_claims = [name for name in claims if name not in set(bound)]
    if not open_claims:
        return Finding("good", "volumes", f"all {len(claims)} claims have theirs")
    names = {body["metadata"]["name"] for body in classes}
    if unknown := sorted({name for name in named if name} - names):
        return Finding(
            "bad",
            "volumes",
            f"there is no storage class {', '.join(unknown)}",
            f"name one of {', '.join(sorted(names)) or 'none: the cluster has no class'}",
        )
    default = [body["metadata"]["name"] for body in classes if _is_default(body)]
    if default or all(named):
        of = default[0] if default else "the classes named"
        return Finding("good", "volumes", f"{len(open_claims)} claims, made by {of}")
    unclassed = [body for body in available if not body["spec"].get("storageClassName")]
    if len(unclassed) >= len(open_claims):
        text = f"{len(open_claims)} claims, {len(unclassed)} volumes wait for one"
        return Finding("good", "volumes", text)
    return Finding(
        "bad",
        "volumes",
        f"{len(open_claims)} claims, {len(unclassed)} volumes and no default storage class",
        "mark a class as the default, name one under `storage` in the values, or make "
        "PersistentVolumes",
    )


def _is_default(body: Object) -> bool:
    annotations = body["metadata"].get("annotations") or {}
    return annotations.get("storageclass.kubernetes.io/is-default-class") == "true"


def security(namespace: Object | None) -> Finding:
    """Check that Pod Security is enforced in the namespace."""
    if namespace is None:
        return Finding("good", "namespace", "not there yet: `make deploy` makes it")
    name = namespace["metadata"]["name"]
    if missing := lacks(namespace):
        text = f"{name} lacks the labels {', '.join(missing)}"
        return Finding("warning", "namespace", text, "deploy again: it sets them")
    return Finding("good", "namespace", f"{name}: Pod Security restricted is enforced")


def _minor(version: str) -> tuple[int, int]:
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
