"""Jobs of Kubernetes as the orchestrator: a run is one Job, made from a CronJob that never fires.

The suspended CronJob `mlplatform-<pipeline>-<use case>` is the template: image, account, volumes
and limits are the chart's to say. A Job's name follows from the request's key and is the run's id,
so that of two submitters at the same moment one makes it and the other finds it. The API server
forgets a Job some time after it has ended (its TTL); the ledger does not, so it is asked first.

It refuses to know what a pipeline does: whether a Job that has ended trained a model, the row of
its end says.
"""

import contextlib
import copy
from collections.abc import Mapping
from typing import Any, Final

from mlplatform.clients.kubernetes import CRON_JOBS, JOBS, Cluster, Object
from mlplatform.contracts.retrain import RunState, owner, ownership_key, run_name
from mlplatform.errors import NotFoundError, ServiceError, StaleError
from mlplatform.ledger import Ledger

_STATES: Final[dict[str, RunState]] = {"registered": "succeeded", "rejected": "succeeded"}
"""By the verdict of a run that has ended; any other is a failure."""


class JobOrchestrator:
    """Runs pipelines as Jobs.

    Args:
        cluster: The namespace of the platform.
        ledger: Where runs take requests and leave the rows of their ends. None: it is out of reach
            from here, as from a person's machine; the Jobs that are there count alone.
    """

    def __init__(self, cluster: Cluster, ledger: Ledger | None) -> None:
        self._cluster, self._ledger = cluster, ledger

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        """Start a run that carries the key, unless there was one; return the run's id.

        Args:
            pipeline: Its name.
            parameters: Of the pipeline: `usecase` and `as_of`.
            key: Of the request.

        Raises:
            NotFoundError: There is no template for this pipeline and use case.
            ServiceError: The API server or the ledger is out of reach, or the Job is refused.
        """
        usecase = parameters["usecase"]
        taken = self._ledger.get(ownership_key(usecase, key)) if self._ledger else None
        if taken is not None:
            return owner(taken.decision)
        name = run_name(pipeline, usecase, key)
        if self._cluster.find(JOBS, name) is None:
            template = self._template(pipeline, usecase)
            with contextlib.suppress(StaleError):  # another submitter was faster: it is its run
                self._cluster.create(JOBS, job(template, name, {**parameters, "request": key}))
        return name

    def state(self, run: str) -> RunState:
        """Return how a run is; unknown: its Job is gone, or left no row of its end.

        Raises:
            ServiceError: The API server or the ledger is out of reach.
        """
        found = self._cluster.find(JOBS, run)
        if found is not None and not _condition(found, "Complete", "Failed"):
            return "running"
        # Read after the Job: a run that has ended has left its row by now, or never will.
        ends = self._ledger.entries(kind="run", subject=run, limit=1) if self._ledger else ()
        if ends:
            return _STATES.get(ends[0].decision.verdict, "failed")
        return "failed" if found is not None and _condition(found, "Failed") else "unknown"

    def _template(self, pipeline: str, usecase: str) -> Object:
        name = f"mlplatform-{pipeline}-{usecase}".replace("_", "-")
        try:
            return self._cluster.get(CRON_JOBS, name)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no CronJob {name} in namespace {self._cluster.namespace} to make a run "
                f"of {pipeline} from: is {usecase} among the chart's `usecases`, and is its "
                "profile minimal?"
            ) from error


def job(template: Object, name: str, parameters: Mapping[str, str]) -> Object:
    """Return the Job of a run, as the API server takes it. Pure.

    Args:
        template: The CronJob; its first container is the run's.
        name: Of the Job, and the run's id.
        parameters: Of the pipeline; they follow the container's own arguments and win over them.

    Raises:
        ServiceError: The CronJob holds no container.
    """
    found = template["spec"]["jobTemplate"]
    metadata = found.get("metadata", {})
    spec: dict[str, Any] = copy.deepcopy(found["spec"])
    containers = spec.get("template", {}).get("spec", {}).get("containers") or []
    if not containers:
        raise ServiceError(f"CronJob {template['metadata']['name']} has no container to run")
    arguments = [
        text
        for option, value in {**parameters, "run": name}.items()
        for text in (f"--{option.replace('_', '-')}", value)
    ]
    containers[0]["args"] = [*containers[0].get("args", []), *arguments]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": dict(metadata.get("labels", {})),
            "annotations": {
                **metadata.get("annotations", {}),
                # As `kubectl create job --from` says it: a person started it, not the schedule.
                "cronjob.kubernetes.io/instantiate": "manual",
            },
        },
        "spec": spec,
    }


def _condition(found: Object, *kinds: str) -> bool:
    """Return whether one of these conditions of a Job is true."""
    conditions = found.get("status", {}).get("conditions") or []
    return any(item["type"] in kinds and item["status"] == "True" for item in conditions)
