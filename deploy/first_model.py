"""A platform without a model trains its first one: the step between an installation and an answer.

Which model serves is read from the ModelRollout's status, which the operator writes. A training
that is under way is followed, not started again: a deployment that was killed goes on with it.
"""

import time
from datetime import datetime
from typing import Final

from deploy.pods import explain
from deploy.progress import Progress
from mlplatform.clients.kubernetes import (
    CRON_JOBS,
    EVENTS,
    JOBS,
    MODEL_ROLLOUTS,
    PODS,
    Cluster,
    Object,
)
from mlplatform.clients.kubernetes_jobs import job
from mlplatform.contracts.retrain import run_name
from mlplatform.errors import NotFoundError, ServiceError

_PIPELINE: Final = "training"
FIRST: Final = "first"
"""Begins the key of a first training; the time follows."""
_POLL_SECONDS: Final = 1.0
_STATUS_SECONDS: Final = 120.0
"""Longest wait for the operator's first word: it takes its lease within 15 s."""
SEEN_SECONDS: Final = 60.0
"""Longest time until the operator has seen a new version; it looks every few seconds."""
_WAITING: Final = "waiting"
"""The phase of a use case of which no version is registered."""
_CONTAINER: Final = "pipeline"


def object_name(usecase: str) -> str:
    """Return a use case's name where Kubernetes allows no underscore."""
    return usecase.replace("_", "-")


def status(cluster: Cluster, usecase: str) -> Object:
    """Return what the operator says of a use case; empty: nothing yet.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    rollout = cluster.find(MODEL_ROLLOUTS, object_name(usecase)) or {}
    found: Object = rollout.get("status") or {}
    return found


def needed(found: Object) -> bool:
    """Return whether no version of a use case is registered, as its status says."""
    waits = str(found.get("message", "")).startswith("waits for the first registered")
    return found.get("phase") == _WAITING and waits


def spoken(cluster: Cluster, usecase: str) -> Object:
    """Return the operator's status as soon as it says whether there is a model.

    Raises:
        ServiceError: It says nothing, or that it cannot tell.
    """
    deadline = time.monotonic() + _STATUS_SECONDS
    while True:
        found = status(cluster, usecase)
        if found.get("champion") or needed(found) or found.get("phase") not in {None, _WAITING}:
            return found
        if time.monotonic() > deadline:
            said = found.get("message") or "its operator has not said anything"
            raise ServiceError(
                f"whether {usecase} has a model is not known: {said}; "
                "`kubectl logs -l app.kubernetes.io/component=operator` has more"
            )
        time.sleep(_POLL_SECONDS)


def registered(cluster: Cluster, usecase: str, seconds: float = SEEN_SECONDS) -> None:
    """Wait until the operator has seen the version that a training has registered.

    Args:
        cluster: The namespace of the platform.
        usecase: Its name.
        seconds: Longest wait; longer where the training itself is not followed.

    Raises:
        NotFoundError: It has not: no candidate passed the gates.
    """
    deadline = time.monotonic() + seconds
    while needed(status(cluster, usecase)):
        if time.monotonic() > deadline:
            raise NotFoundError(
                f"the training of {usecase} has ended and registered no version: its log says "
                "which gates its candidates did not pass; nothing can be served"
            )
        time.sleep(_POLL_SECONDS)


def start(cluster: Cluster, usecase: str, as_of: datetime) -> tuple[str, bool]:
    """Return the Job of the first training, and whether it was started just now.

    Raises:
        NotFoundError: The chart has no template for it: another profile runs pipelines elsewhere.
        ServiceError: The API server is away, or refuses.
    """
    prefix = run_name(_PIPELINE, usecase, FIRST)
    for found in cluster.list(JOBS):
        if found["metadata"]["name"].startswith(prefix) and ended(found) is None:
            return str(found["metadata"]["name"]), False
    name = run_name(_PIPELINE, usecase, f"{FIRST}-{as_of:%Y%m%dt%H%M%S}")
    template = cluster.get(CRON_JOBS, f"mlplatform-{_PIPELINE}-{object_name(usecase)}")
    body = job(template, name, {"usecase": usecase, "as_of": as_of.isoformat()})
    cluster.create(JOBS, body)
    return name, True


def ended(found: Object) -> bool | None:
    """Return whether a Job has succeeded; None: it is under way."""
    for condition in found.get("status", {}).get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
            return bool(condition["type"] == "Complete")
    return None


def follow(progress: Progress, cluster: Cluster, name: str, *, timeout_seconds: float) -> None:
    """Show what the steps of a training say until it has ended.

    Raises:
        ServiceError: It failed, is gone, or took longer.
    """
    deadline = time.monotonic() + timeout_seconds
    said: set[str] = set()
    shown = 0
    while True:
        body = cluster.find(JOBS, name)
        if body is None:
            raise ServiceError(f"the Job {name} is gone: somebody deleted it; deploy again")
        pods = cluster.list(PODS, {"job-name": name})
        for pod in pods[-1:]:
            shown = _tell(progress, cluster, pod, said, shown)
        done = ended(body)
        if done:
            return
        if done is False:
            raise ServiceError(
                f"the training {name} failed; `kubectl logs job/{name}` has all of it; mend it and "
                "deploy again, which starts another"
            )
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the training {name} has not ended within {timeout_seconds / 60:.0f} minutes; "
                "it goes on: deploy again to follow it"
            )
        time.sleep(_POLL_SECONDS)


def _tell(progress: Progress, cluster: Cluster, pod: Object, said: set[str], shown: int) -> int:
    """Print what is new of a pod: why it does not run, or its lines; return how many were shown."""
    name = pod["metadata"]["name"]
    if pod.get("status", {}).get("phase") == "Pending":
        events = cluster.list(EVENTS, fields=f"involvedObject.name={name}")
        for trouble in explain(pod, events):
            text = str(trouble)
            if text not in said:
                said.add(text)
                progress.say("train", text, style="yellow")
        return shown
    try:
        lines = list(cluster.log(name, _CONTAINER))
    except (NotFoundError, ServiceError):  # between two states; the next look tells
        return shown
    for line in lines[shown:]:
        if line.lstrip().startswith("mlplatform.") or line.startswith("run "):
            progress.say("train", line.strip())
    return max(shown, len(lines))
