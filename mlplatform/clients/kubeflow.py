"""Kubeflow Pipelines as the orchestrator: starts a pipeline by its name, once for each key.

What it assumes, and tests against a stand-in only:

* The pipeline has been uploaded under its name; its newest version is the one to run.
* A run's display name is `<pipeline>-<key>`, and a list filtered by it shows runs of every state,
  archived ones included. A run that was deleted is forgotten.
* A run that was created is in the list at once: the API server reads what it has written.

KFP makes no name unique. Two submitters at the same moment can start two runs of a key; the second
one to take the request on the ledger ends in its first step.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from mlplatform.clients.kubeflow_api import KubeflowApi, named
from mlplatform.contracts.retrain import RunState
from mlplatform.errors import NotFoundError
from mlplatform.settings import KubeflowSettings

_ENDED: Final[dict[str, RunState]] = {
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "failed",
    "SKIPPED": "failed",  # nothing was trained
}
"""The states in which a run stays. All others, and none, are on the way to one of them."""


class KubeflowOrchestrator:
    """Runs pipelines in a cluster.

    Args:
        settings: Where the API is, and under what runs are kept there.

    Raises:
        ServiceError: The certificates that the API is checked with cannot be read.
    """

    def __init__(self, settings: KubeflowSettings) -> None:
        self._settings, self._api = settings, KubeflowApi(settings)

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        """Start a run that carries the key, unless one does; return the run's id.

        Args:
            pipeline: Its name.
            parameters: Of the pipeline; it gets the key as `request` besides.
            key: Of the request.

        Raises:
            NotFoundError: No pipeline has that name, or it has no version.
            ServiceError: The API failed, or is out of reach; whether a run started is then unknown.
        """
        name = f"{pipeline}-{key}"
        if (run := self._carries(name)) is not None:
            return run
        pipeline_id = self._api.pipeline(pipeline)
        if pipeline_id is None:
            raise NotFoundError(
                f"no pipeline is called {pipeline} at {self._settings.endpoint}: upload it with "
                "`python -m pipelines.submit upload`"
            )
        body: dict[str, Any] = {
            "display_name": name,
            "experiment_id": self._api.experiment(),
            "pipeline_version_reference": {
                "pipeline_id": pipeline_id,
                "pipeline_version_id": self._newest_version(pipeline, pipeline_id),
            },
            "runtime_config": {"parameters": {**parameters, "request": key}},
        }
        if self._settings.service_account:
            body["service_account"] = self._settings.service_account
        return self._api.text(self._api.call("POST", "/runs", body=body), "run_id")

    def state(self, run: str) -> RunState:
        """Return how a run is; unknown: it was deleted.

        Raises:
            ServiceError: The API failed, or is out of reach.
        """
        try:
            found = self._api.call("GET", f"/runs/{quote(run, safe='')}")
        except NotFoundError:
            return "unknown"
        return _ENDED.get(str(found.get("state")), "running")

    def _carries(self, name: str) -> str | None:
        """Return the oldest run of that name, whatever became of it."""
        query = {"sort_by": "created_at asc", **named(name), **self._api.of_namespace}
        runs = self._api.list("/runs", "runs", query)
        mine = (run for run in runs if run.get("display_name") == name)
        return next((self._api.text(run, "run_id") for run in mine), None)

    def _newest_version(self, name: str, pipeline_id: str) -> str:
        query = {"sort_by": "created_at desc", "page_size": "1"}
        path = f"/pipelines/{quote(pipeline_id, safe='')}/versions"
        versions = self._api.list(path, "pipeline_versions", query)
        if not versions:
            raise NotFoundError(f"the pipeline {name} has no version: upload one")
        return self._api.text(versions[0], "pipeline_version_id")
