"""Why a pod does not run, in words: what Kubernetes says, what it means, and what to do.

Pure: objects as the API has them in, sentences out. What is not recognised is passed on as
Kubernetes says it, never hidden.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from deploy.scheduling import unscheduled
from deploy.troubles import Trouble, rule
from mlplatform.clients.kubernetes import Object
from mlplatform.errors import shorten

_PULLS: Final = (
    rule(
        r"not found|manifest unknown|404",
        "the image {image} is not in its registry",
        "push it with `make images`",
    ),
    rule(
        r"unauthorized|authentication required|denied|401|403",
        "the registry refuses to give {image} away",
        "give the nodes its credentials: a Secret in `imagePullSecrets`",
    ),
    rule(
        r"HTTP response to HTTPS client|x509|certificate",
        "the node does not trust the registry of {image}",
        "configure containerd for it, as `make cluster` does for localhost:5001",
    ),
    rule(
        r"dial tcp|i/o timeout|no such host|connection refused|lookup",
        "the node cannot reach the registry of {image}",
        "check the registry's address from the node",
    ),
)
_OUT_OF_MEMORY: Final = "OOMKilled"


def explain(pod: Object, events: Sequence[Object] = ()) -> tuple[Trouble, ...]:
    """Return what keeps a pod from running and being ready; nothing where it is well, or done.

    Args:
        pod: As the API has it.
        events: Of the pod, in any order.
    """
    phase = pod.get("status", {}).get("phase")
    if phase == "Succeeded":
        return ()
    if pod["metadata"].get("deletionTimestamp"):
        return (Trouble("it is being ended"),)
    if phase == "Failed":
        return (_failed(pod),)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False":
        return tuple(unscheduled(pod, scheduled))
    return tuple(_containers(pod, events)) or tuple(_not_ready(pod, events))


def _not_ready(pod: Object, events: Sequence[Object]) -> Iterator[Trouble]:
    ready = _condition(pod, "Ready")
    if pod.get("status", {}).get("phase") == "Pending":
        yield _starting(events)
    elif ready and ready["status"] == "False":
        yield _unready(pod, events)


def _condition(body: Object, kind: str) -> dict[str, Any] | None:
    conditions = body.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind), None)


def _containers(pod: Object, events: Sequence[Object]) -> Iterator[Trouble]:
    status = pod.get("status", {})
    for state in status.get("initContainerStatuses") or ():
        yield from _container(state, events, init=True)
    for state in status.get("containerStatuses") or ():
        yield from _container(state, events, init=False)


def _container(state: dict[str, Any], events: Sequence[Object], *, init: bool) -> Iterator[Trouble]:
    name = f"its init container {state['name']}" if init else f"its container {state['name']}"
    waiting = state.get("state", {}).get("waiting") or {}
    ended = state.get("state", {}).get("terminated") or {}
    last = state.get("lastState", {}).get("terminated") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}:
        yield _unpulled(state, message, events)
    elif reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
        yield Trouble(f"{name} cannot be made: {shorten(message)}", _missing_object(message))
    elif reason == "CrashLoopBackOff":
        yield _ended(name, last, f"has ended {state.get('restartCount', 0)} times")
    elif ended and ended.get("exitCode"):
        yield _ended(name, ended, "has failed")


def _unpulled(state: dict[str, Any], message: str, events: Sequence[Object]) -> Trouble:
    image = state.get("image", "")
    # Backing off says nothing of the cause; the event before it does.
    said = " ".join(
        [message, *(e.get("message", "") for e in events if e.get("reason") == "Failed")]
    )
    for known in _PULLS:
        if known.pattern.search(said):
            return Trouble(known.what.format(image=image), known.advice)
    return Trouble(f"the image {image} cannot be pulled: {shorten(message)}")


def _missing_object(message: str) -> str:
    if re.search(r"secret|configmap|couldn't find key", message):
        return "deploy again: it makes what is missing; or make it yourself, if it is yours"
    return ""


def _ended(name: str, last: dict[str, Any], how: str) -> Trouble:
    if last.get("reason") == _OUT_OF_MEMORY:
        return Trouble(
            f"{name} {how}: it needed more memory than its limit",
            "raise the memory limit in the values",
        )
    code = last.get("exitCode")
    status = f" with status {code}" if code is not None else ""
    said = last.get("message") or ""
    return Trouble(f"{name} {how}{status}" + (f": {shorten(said)}" if said else ""), "see its log")


def _failed(pod: Object) -> Trouble:
    status = pod["status"]
    reason, message = status.get("reason", ""), shorten(status.get("message", ""))
    if reason == "Evicted":
        return Trouble(f"it was evicted: {message}", "the node ran out of it; ask for what it uses")
    if reason == "DeadlineExceeded":
        return Trouble("it took longer than it may", "see its log, or give it more time")
    if found := next(_containers(pod, ()), None):
        return found
    return Trouble(
        f"it failed: {message or reason or 'Kubernetes does not say why'}", "see its log"
    )


def _starting(events: Sequence[Object]) -> Trouble:
    for event in _newest_first(events):
        if event.get("reason") in {"FailedMount", "FailedAttachVolume"}:
            return Trouble(f"a volume cannot be mounted: {shorten(event.get('message', ''))}")
        if event.get("reason") == "FailedCreatePodSandBox":
            return Trouble(f"the node cannot start it: {shorten(event.get('message', ''))}")
        if event.get("reason") == "Pulling":
            return Trouble("its image is being pulled")
    return Trouble("it is starting")


def _unready(pod: Object, events: Sequence[Object]) -> Trouble:
    owners = pod["metadata"].get("ownerReferences") or ()
    if any(owner["kind"] == "Job" for owner in owners):
        return Trouble("it runs")  # until it is done; nobody sends it requests
    for event in _newest_first(events):
        if event.get("reason") == "Unhealthy" and "eadiness" in event.get("message", ""):
            return Trouble(f"it runs and is not ready: {shorten(event['message'])}")
    statuses = pod["status"].get("containerStatuses") or ()
    waits = [state["name"] for state in statuses if not state.get("ready")]
    return Trouble(f"it runs and is not ready yet ({', '.join(waits) or 'gates'})")


def _newest_first(events: Iterable[Object]) -> list[Object]:
    def at(event: Object) -> str:
        return str(event.get("lastTimestamp") or event.get("eventTime") or "")

    return sorted(events, key=at, reverse=True)
