"""After a restore: what follows from the copies is made again, and what is there is looked at."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from deploy.backups.shell import Shell
from deploy.first_model import ended
from deploy.target import Target
from mlplatform.clients.kubernetes import (
    CRON_JOBS,
    JOBS,
    MODEL_ROLLOUTS,
    PODS,
    Cluster,
    Object,
)
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.ledger import Head

_T = TypeVar("_T")
_RELEASED: Final = "meta.helm.sh/release-name"
"""Helm's annotation on what belongs to a release, and not to us."""
_COMPONENT: Final = "app.kubernetes.io/component"
_JOB_SECONDS: Final = 1800.0
"""Of a materialization whose features have to be computed from the beginning."""
_SERVING_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 1.0
_CONTROLLED: Final = ("controller-uid", "batch.kubernetes.io/controller-uid", "job-name",
                      "batch.kubernetes.io/job-name")  # fmt: skip
"""Labels that a Job's controller gives; another Job has others."""


class Aftermath:
    """The steps after the last part is in its place.

    Args:
        cluster: Where.
        target: The same, for programs.
    """

    def __init__(self, cluster: Cluster, target: Target) -> None:
        self._cluster, self._target = cluster, target

    def accounts(self) -> str:
        """Have the registry's users, models and rights made again where any is missing.

        Raises:
            ServiceError: The Job that does it failed.
        """
        for job in self._cluster.list(JOBS, {_COMPONENT: "registry-setup"}):
            if _RELEASED in (job["metadata"].get("annotations") or {}):
                self._run("mlplatform-registry-setup-restore", _again(job["spec"]), {})
        return "users, models and rights are as the Secrets and the use cases say"

    def materialize(self) -> str:
        """Bring the features online that are known by now; return for how many use cases.

        Raises:
            ServiceError: A materialization failed.
        """
        done = 0
        for found in self._cluster.list(CRON_JOBS, {_COMPONENT: "features"}):
            template = found["spec"]["jobTemplate"]
            labels = (template.get("metadata") or {}).get("labels") or {}
            self._run(f"{found['metadata']['name']}-restore"[:63], template["spec"], labels)
            done += 1
        return f"materialized for {done} use cases"

    def verify(self, head: Head | None) -> str:
        """Check the ledger with the platform's own rights; return what the check says.

        Raises:
            ServiceError: The chain is broken, or the ledger cannot be reached.
        """
        known = () if head is None else ("--known", f"{head.count}:{head.hash}")
        shell = self._shell("operator")
        said = shell.run("python", "-m", "mlplatform.ledger", "verify", *known).out
        return " ".join(said.split())

    def serving(self) -> str:
        """Wait until the operator serves what the states say; return it, in words.

        Raises:
            ServiceError: It does not.
        """

        def see() -> str:
            found = self._cluster.list(MODEL_ROLLOUTS)
            waiting = [one["metadata"]["name"] for one in found if not _serves(one)]
            if waiting:
                raise NotFoundError(f"no version serves: {', '.join(waiting)}")
            return "; ".join(f"{one['metadata']['name']}: {_served(one)}" for one in found)

        try:
            return _eventually(see, _SERVING_SECONDS)
        except NotFoundError as error:
            raise ServiceError(
                f"{error}; `kubectl get modelrollouts` says what it waits for; everything else is "
                "in its place"
            ) from error

    def _shell(self, component: str) -> Shell:
        def see() -> Object:
            found = self._cluster.list(PODS, {_COMPONENT: component}, fields="status.phase=Running")
            if not found:
                raise NotFoundError(f"no pod of {component} runs")
            return found[0]

        pod = _eventually(see, _SERVING_SECONDS)
        container = pod["spec"]["containers"][0]["name"]
        return Shell(self._target, pod["metadata"]["name"], container)

    def _run(self, name: str, spec: Object, labels: Object) -> None:
        """Run a Job to its end; one of an earlier attempt is run anew."""
        if self._cluster.delete(JOBS, name):
            _eventually(lambda: self._refuse_existing(name), _SERVING_SECONDS)
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": labels},
            "spec": spec,
        }
        self._cluster.create(JOBS, body)

        def see() -> bool:
            well = ended(self._cluster.get(JOBS, name))
            if well is None:
                raise NotFoundError(f"the Job {name} does not end")
            return well

        if not _eventually(see, _JOB_SECONDS):
            raise ServiceError(
                f"the Job {name} failed: `kubectl logs job/{name}` says why; give the command again"
            )

    def _refuse_existing(self, name: str) -> None:
        if self._cluster.find(JOBS, name) is not None:
            raise NotFoundError(f"the Job {name} of an earlier attempt does not go")


def _again(spec: Object) -> Object:
    """Return the spec of a Job as it was before its controller filled it in."""
    template = spec["template"]
    labels = (template.get("metadata") or {}).get("labels") or {}
    kept = {name: value for name, value in labels.items() if name not in _CONTROLLED}
    metadata: Object = {**template.get("metadata", {}), "labels": kept}
    metadata.pop("creationTimestamp", None)
    rest = {
        name: value for name, value in spec.items() if name not in {"selector", "manualSelector"}
    }
    return {**rest, "template": {**template, "metadata": metadata}}


def _serves(found: Object) -> bool:
    """Return whether what the status says is served; a use case without a model need not."""
    status = found.get("status") or {}
    if status.get("phase") == "waiting":
        return True
    conditions = {item["type"]: item["status"] for item in status.get("conditions", [])}
    return bool(status.get("champion")) and conditions.get("Serving") == "True"


def _served(found: Object) -> str:
    champion = (found.get("status") or {}).get("champion")
    return f"version {champion}" if champion else "no version is registered"


def _eventually(see: Callable[[], _T], seconds: float) -> _T:
    """Return what `see` returns as soon as it no longer raises NotFoundError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return see()
        except NotFoundError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)
