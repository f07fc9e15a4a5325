"""Why a server's pod does not run, in words: a pure reading of the pod.

Three kinds of reasons are told apart. Some will not pass by themselves: an image name that is none,
a model that the init container has refused. Others are tried in vain and may pass: an image that
is not there yet, a registry that is away. For a node the pod just has to wait.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mlplatform.clients.kubernetes import Object
from serving.operator.template import EXPORT

REFUSED: Final = 1
"""Exit code of the init container that has refused the model; any other one may pass."""
_HOPELESS: Final = frozenset({"InvalidImageName", "CreateContainerConfigError"})
_STUCK: Final = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "CrashLoopBackOff", "RunContainerError"}
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a pod from running."""

    text: str
    kind: Literal["starts", "waits", "stuck", "final"] = "starts"


def trouble(deployment: Object | None, pods: Sequence[Object]) -> Trouble:
    """Return what keeps the pods of one server from running.

    Args:
        deployment: Of the server; None: there is none yet.
        pods: Of the Deployment, in any order.
    """
    if deployment is None:
        return Trouble("its Deployment is not there yet")
    if not pods:
        return next(_forbidden(deployment), Trouble("its pod is not there yet"))
    newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    found = [*_scheduling(newest), *_containers(newest)]
    return found[0] if found else Trouble("its pod starts")


def runs(pods: Iterable[Object]) -> bool:
    """Return whether a pod of the server runs its containers, so that it may be asked."""
    return any(
        pod.get("status", {}).get("phase") == "Running"
        and not pod["metadata"].get("deletionTimestamp")
        for pod in pods
    )


def _forbidden(deployment: Object) -> Iterator[Trouble]:
    """Yield why no pod can be made at all: a quota, or an admission rule."""
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            yield Trouble(f"no pod can be made: {condition.get('message', '')}", "stuck")


def _scheduling(pod: Object) -> Iterator[Trouble]:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Trouble(f"no node takes its pod: {condition.get('message', '')}", "waits")


def _containers(pod: Object) -> Iterator[Trouble]:
    status = pod.get("status", {})
    for container in status.get("initContainerStatuses") or []:
        yield from _refused(container)
    for container in (
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _HOPELESS or reason in _STUCK:
            last = (container.get("lastState") or {}).get("terminated") or {}
            words = _last_words(last) or waiting.get("message") or ""
            text = f"container {container['name']}: {reason}" + (f": {words}" if words else "")
            yield Trouble(text, "final" if reason in _HOPELESS else "stuck")


def _refused(container: Object) -> Iterator[Trouble]:
    """Yield why the init container has ended badly, also while it is tried again."""
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        ended = state.get("terminated")
        if not ended or not ended.get("exitCode"):
            continue
        words = _last_words(ended) or f"exit code {ended['exitCode']}"
        final = container["name"] == EXPORT and ended["exitCode"] == REFUSED
        yield Trouble(f"container {container['name']}: {words}", "final" if final else "stuck")
        return


def _last_words(ended: Object) -> str:
    message = str(ended.get("message") or "").strip()
    if message:
        return message
    reason = str(ended.get("reason") or "")
    return reason if reason not in {"", "Error", "Completed"} else ""
