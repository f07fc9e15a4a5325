"""Why no node takes a pod: the scheduler's message, clause by clause, in words with advice."""

import re
from collections.abc import Iterator
from typing import Any, Final

from deploy.quantities import cpus, memory, quantity
from deploy.troubles import Rule, Trouble, rule
from mlplatform.clients.kubernetes import Object
from mlplatform.errors import shorten

_CLAUSES: Final = (
    rule(
        r"untolerated taint\(?s?\)? ?\{(?P<taint>[^}]*)\}",
        "{count} with the taint {taint}, which the pod does not tolerate",
        "add the toleration in the values, or remove the taint",
    ),
    rule(
        r"Insufficient (?P<resource>\S+)",
        "{count} with too little {resource} left ({asks})",
        "free some, add a node, or ask for less in the values",
    ),
    rule(r"Too many pods", "{count} with all the pods that fit", "add a node, or remove pods"),
    rule(
        r"didn't match Pod's node affinity/selector",
        "{count} without the labels of its node selector ({selector})",
        "label a node, or change the selector in the values",
    ),
    rule(
        r"unbound immediate PersistentVolumeClaims",
        "a volume claim of it is not bound",
        "see the claim's own line",
    ),
    rule(
        r'persistentvolumeclaim "(?P<claim>[^"]*)" not found',
        "the volume claim {claim} does not exist",
        "deploy again",
    ),
    rule(
        r"volume node affinity conflict|didn't find available persistent volumes",
        "its volume is on another node than those with room ({count})",
        "make room on the volume's node, or use a storage class that is not bound to one",
    ),
    rule(
        r"were unschedulable|node\(s\) had condition: .*unschedulable",
        "{count} cordoned",
        "`kubectl uncordon` the node",
    ),
    rule(
        r"(?:didn't match|not satisfied|didn't satisfy).*(?:topology spread|anti-affinity)",
        "{count} where its spread allows no other of its kind",
        "add a node, or wait until the pod before it has gone",
    ),
)
_RESOURCES: Final = {"nvidia.com/gpu": "GPU", "cpu": "CPU"}


def unscheduled(pod: Object, condition: dict[str, Any]) -> Iterator[Trouble]:
    """Yield what keeps a pod from a node.

    Args:
        pod: As the API has it.
        condition: Its `PodScheduled`.
    """
    message = condition.get("message", "")
    if condition.get("reason") == "SchedulingGated":
        yield Trouble("it waits for its scheduling gates", "whoever set them removes them")
        return
    # What preemption could not do repeats it all.
    clauses = message.split("preemption:")[0].partition(": ")[2] or message
    found = False
    for clause in re.split(r", (?=\d)|\. ", clauses):
        for clause_rule in _CLAUSES:
            if matched := clause_rule.pattern.search(clause):
                found = True
                yield _filled(clause_rule, matched, pod, clause)
                break
    if not found:
        yield Trouble(f"no node takes it: {shorten(message or 'the scheduler does not say why')}")


def _filled(found: Rule, matched: re.Match[str], pod: Object, clause: str) -> Trouble:
    number = re.match(r"\s*(\d+)", clause)
    nodes = int(number[1]) if number else 1
    words = {key: value.strip() for key, value in matched.groupdict().items()}
    resource = words.get("resource", "").rstrip(".")
    selector = pod["spec"].get("nodeSelector") or {}
    words |= {
        "count": f"{nodes} node{'s' if nodes > 1 else ''}",
        "resource": _RESOURCES.get(resource, resource),
        "asks": f"it asks for {asked(pod, resource)}" if resource else "",
        "selector": ", ".join(f"{key}={value}" for key, value in selector.items()) or "affinity",
    }
    if "taint" in words:
        words["taint"] = words["taint"].rstrip(": ")
    return Trouble(found.what.format(**words), found.advice)


def asked(pod: Object, resource: str) -> str:
    """Return in words what a pod asks for of a resource."""
    total = request(pod["spec"], resource)
    if resource == "memory":
        return memory(total)
    return cpus(total)


def request(spec: Object, resource: str) -> float:
    """Return what a pod asks for of a resource, as the scheduler counts it."""

    def of(container: Object) -> float:
        requests = container.get("resources", {}).get("requests") or {}
        return quantity(requests.get(resource, 0))

    running = sum(map(of, spec.get("containers", ())))
    # Init containers run one after the other, and are done before the others start.
    return max([running, *map(of, spec.get("initContainers") or ())])
