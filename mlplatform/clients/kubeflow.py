"""Kubeflow Pipelines as the orchestrator: starts a pipeline by its name, once for each key.

It speaks the five calls of the v2beta1 REST API that it needs, not through KFP's SDK: that one
gives no call a time limit, retries for half a minute while it is made, keeps a file in the home
folder, and takes a login page for an empty list, after which a second run would be started.

What it assumes, and tests against a stand-in only:

* The pipeline has been uploaded under its name; its newest version is the one to run.
* A run's display name is `<pipeline>-<key>`, and a list filtered by it shows runs of every state,
  archived ones included. A run that was deleted is forgotten.
* A run that was created is in the list at once: the API server reads what it has written.

KFP makes no name unique. Two submitters at the same moment can start two runs of a key; the second
one to take the request on the ledger ends in its first step.
"""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from mlplatform.contracts.retrain import RunState
from mlplatform.errors import NotFoundError, ServiceError, shorten
from mlplatform.settings import KubeflowSettings

_API: Final = "/apis/v2beta1"
_EQUALS: Final = 1
"""Of the operations in KFP's filter.proto, as its own client writes it."""
_MOST_BYTES: Final = 10_000
"""Of an error's text."""
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
    """

    def __init__(self, settings: KubeflowSettings) -> None:
        self._settings = settings
        cafile = settings.ca_file or None
        secure = settings.endpoint.startswith("https://")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if secure:
            try:
                context = ssl.create_default_context(cafile=cafile)
            except OSError as error:
                raise ServiceError(
                    f"the certificates in {cafile} cannot be read: {shorten(error)}; set "
                    f"{settings.variable('ca_file')} to a PEM file"
                ) from error
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

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
        pipeline_id = self._pipeline(pipeline)
        body: dict[str, Any] = {
            "display_name": name,
            "experiment_id": self._experiment(),
            "pipeline_version_reference": {
                "pipeline_id": pipeline_id,
                "pipeline_version_id": self._newest_version(pipeline, pipeline_id),
            },
            "runtime_config": {"parameters": {**parameters, "request": key}},
        }
        if self._settings.service_account:
            body["service_account"] = self._settings.service_account
        return self._text(self._call("POST", "/runs", body=body), "run_id")

    def state(self, run: str) -> RunState:
        """Return how a run is; unknown: it was deleted.

        Raises:
            ServiceError: The API failed, or is out of reach.
        """
        try:
            found = self._call("GET", f"/runs/{quote(run, safe='')}")
        except NotFoundError:
            return "unknown"
        return _ENDED.get(str(found.get("state")), "running")

    def _carries(self, name: str) -> str | None:
        """Return the oldest run of that name, whatever became of it."""
        query = {"sort_by": "created_at asc", **_named(name), **self._of_namespace()}
        runs = self._list("/runs", "runs", query)
        mine = (run for run in runs if run.get("display_name") == name)
        return next((self._text(run, "run_id") for run in mine), None)

    def _pipeline(self, name: str) -> str:
        own = self._of_namespace()
        for place in (own, {}) if own else ({},):  # one of all namespaces serves as well
            if found := self._list("/pipelines", "pipelines", {**_named(name), **place}):
                return self._text(found[0], "pipeline_id")
        raise NotFoundError(
            f"no pipeline is called {name} at {self._settings.endpoint}: upload the file that "
            "`make compile` writes under that name"
        )

    def _newest_version(self, name: str, pipeline_id: str) -> str:
        query = {"sort_by": "created_at desc", "page_size": "1"}
        path = f"/pipelines/{quote(pipeline_id, safe='')}/versions"
        versions = self._list(path, "pipeline_versions", query)
        if not versions:
            raise NotFoundError(f"the pipeline {name} has no version: upload one")
        return self._text(versions[0], "pipeline_version_id")

    def _experiment(self) -> str:
        """Return the id of the experiment that runs are shown under; it is made if need be."""
        name = self._settings.experiment
        query = {**_named(name), **self._of_namespace()}
        if found := self._list("/experiments", "experiments", query):
            return self._text(found[0], "experiment_id")
        try:
            body = {"display_name": name, **self._of_namespace()}
            return self._text(self._call("POST", "/experiments", body=body), "experiment_id")
        except _ConflictError:  # another submitter was faster
            found = self._list("/experiments", "experiments", query)
            return self._text(found[0] if found else {}, "experiment_id")

    def _of_namespace(self) -> dict[str, str]:
        """Return what a multi-user installation wants to be told; a single-user one refuses it."""
        return {"namespace": self._settings.namespace} if self._settings.namespace else {}

    def _list(self, path: str, name: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return a list of the API's; it leaves out one that is empty."""
        found = self._call("GET", f"{path}?{urlencode(query)}").get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self._failed(f"GET {path}", f"it names no list of {name}")
        return found

    def _text(self, found: Mapping[str, Any], name: str) -> str:
        value = found.get(name)
        if not isinstance(value, str) or not value:
            raise self._failed(name, "the answer does not hold it")
        return value

    def _call(self, method: str, path: str, *, body: object = None) -> dict[str, Any]:
        """Return the JSON object that the API answers; a redirect, to a login say, is an error."""
        what = f"{method} {path.partition('?')[0]}"
        headers = {"Accept": "application/json", **self._authorization()}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        url = f"{self._settings.endpoint}{_API}{path}"
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 (http_url)
        try:
            with self._opener.open(request, timeout=self._settings.timeout_seconds) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(what, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(what, error) from error
        except ValueError as error:
            raise self._failed(what, "the answer is no JSON, a login page perhaps") from error
        if not isinstance(found, dict):
            raise self._failed(what, "the answer is no JSON object")
        return found

    def _authorization(self) -> dict[str, str]:
        file = self._settings.token_file
        if not file:
            return {}
        try:
            return {"Authorization": f"Bearer {Path(file).read_text(encoding='utf-8').strip()}"}
        except (OSError, ValueError) as error:
            raise ServiceError(
                f"the token for {self._settings.endpoint} cannot be read from {file}: "
                f"{shorten(error)}; mount it, or set {self._settings.variable('token_file')}"
            ) from error

    def _refused(self, what: str, error: urllib.error.HTTPError) -> ServiceError:
        try:
            said = error.read(_MOST_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        failed = self._failed(what, f"HTTP {error.code} {error.reason} {said}")
        kind = _KINDS.get(_code(said), ServiceError)
        return kind(str(failed))

    def _failed(self, what: str, why: object) -> ServiceError:
        return ServiceError(
            f"{what} of Kubeflow Pipelines at {self._settings.endpoint} failed: {shorten(why)}. "
            "Is the API server running, and may this account start runs?"
        )


class _ConflictError(ServiceError):
    """There is an object of that name already."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect to be the error that it is: no call of the API has one."""

    def redirect_request(self, *_arguments: Any) -> None:
        """Return no request to follow it with."""
        return


_KINDS: Final[dict[object, type[ServiceError]]] = {5: NotFoundError, 6: _ConflictError}
"""By gRPC's code (NOT_FOUND, ALREADY_EXISTS): what stands in front of the API answers 404 too."""


def _code(said: str) -> object:
    try:
        found = json.loads(said)
    except ValueError:
        return None
    return found.get("code") if isinstance(found, dict) else None


def _named(name: str) -> dict[str, str]:
    """Return the query for objects of exactly this name (KFP's filter.proto, as JSON)."""
    equal = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    return {"filter": json.dumps({"predicates": [equal]})}
