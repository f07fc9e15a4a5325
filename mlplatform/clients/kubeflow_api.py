"""The REST API of Kubeflow Pipelines: v2beta1 calls as JSON, and what a refusal means.

The one adapter beneath those who start runs (`kubeflow`) and who upload pipelines
(`kubeflow_pipelines`). It does not go through KFP's SDK: that one gives no call a time limit,
retries for half a minute while it is made, keeps a file in the home folder, and takes a login page
for an empty list, after which a second run would be started.
"""

import http.client
import json
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from mlplatform.errors import NotFoundError, ServiceError, shorten
from mlplatform.settings import KubeflowSettings

_API: Final = "/apis/v2beta1"
_EQUALS: Final = 1
"""Of the operations in KFP's filter.proto, as its own client writes it."""
_MOST_BYTES: Final = 10_000
"""Of an error's text."""
PAGE: Final = "200"
"""Objects of one answer; the API's default is 20."""


class ConflictError(ServiceError):
    """There is an object of that name already."""


class KubeflowApi:
    """Calls of the API; each is made once and has a time limit.

    Args:
        settings: Where the API is.

    Raises:
        ServiceError: The certificates that it is checked with cannot be read.
    """

    def __init__(self, settings: KubeflowSettings) -> None:
        self.settings = settings
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

    @property
    def of_namespace(self) -> dict[str, str]:
        """Return what a multi-user installation wants to be told; a single-user one refuses it."""
        return {"namespace": self.settings.namespace} if self.settings.namespace else {}

    def pipeline(self, name: str) -> str | None:
        """Return the id of a pipeline; one of all namespaces serves as well. Raises as `call`."""
        own = self.of_namespace
        for place in (own, {}) if own else ({},):
            if found := self.list("/pipelines", "pipelines", {**named(name), **place}):
                return self.text(found[0], "pipeline_id")
        return None

    def experiment(self) -> str:
        """Return the id of the experiment that runs are shown under; it is made if need be."""
        name = self.settings.experiment
        query = {**named(name), **self.of_namespace}
        if found := self.list("/experiments", "experiments", query):
            return self.text(found[0], "experiment_id")
        try:
            body = {"display_name": name, **self.of_namespace}
            return self.text(self.call("POST", "/experiments", body=body), "experiment_id")
        except ConflictError:  # another submitter was faster
            found = self.list("/experiments", "experiments", query)
            return self.text(found[0] if found else {}, "experiment_id")

    def list(self, path: str, name: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return a list of the API's; it leaves out one that is empty. Raises as `call`."""
        found = self.call("GET", f"{path}?{urlencode(query)}").get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self._failed(f"GET {path}", f"it names no list of {name}")
        return found

    def text(self, found: Mapping[str, Any], name: str) -> str:
        """Return a text of an answer; raises ServiceError where it does not hold it."""
        value = found.get(name)
        if not isinstance(value, str) or not value:
            raise self._failed(name, "the answer does not hold it")
        return value

    def call(
        self, method: str, path: str, *, body: object = None, file: bytes | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that the API answers; a redirect, to a login say, is an error.

        Args:
            method: Of HTTP.
            path: Below the API's root, with its query.
            body: Sent as JSON.
            file: Sent as an upload in its place.

        Raises:
            NotFoundError: There is no such object.
            ConflictError: There is one of that name.
            ServiceError: The API failed, or is out of reach; whether it did it is then unknown.
        """
        what = f"{method} {path.partition('?')[0]}"
        headers = {"Accept": "application/json", **self._authorization()}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        if file is not None:
            data, headers["Content-Type"] = _form(file)
        url = f"{self.settings.endpoint}{_API}{path}"
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 (http_url)
        try:
            with self._opener.open(request, timeout=self.settings.timeout_seconds) as answer:
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
        file = self.settings.token_file
        if not file:
            return {}
        try:
            return {"Authorization": f"Bearer {Path(file).read_text(encoding='utf-8').strip()}"}
        except (OSError, ValueError) as error:
            raise ServiceError(
                f"the token for {self.settings.endpoint} cannot be read from {file}: "
                f"{shorten(error)}; mount it, or set {self.settings.variable('token_file')}"
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
            f"{what} of Kubeflow Pipelines at {self.settings.endpoint} failed: {shorten(why)}. "
            "Is the API server running, and may this account start runs?"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect to be the error that it is: no call of the API has one."""

    def redirect_request(self, *_arguments: Any) -> None:
        """Return no request to follow it with."""
        return


def _form(file: bytes) -> tuple[bytes, str]:
    """Return a file as the form that uploads are, and the form's content type."""
    boundary = uuid.uuid4().hex
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="uploadfile"; filename="pipeline.yaml"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (
        head.encode() + file + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


_KINDS: Final[dict[object, type[ServiceError]]] = {5: NotFoundError, 6: ConflictError}
"""By gRPC's code (NOT_FOUND, ALREADY_EXISTS): what stands in front of the API answers 404 too."""


def _code(said: str) -> object:
    try:
        found = json.loads(said)
    except ValueError:
        return None
    return found.get("code") if isinstance(found, dict) else None


def named(name: str) -> dict[str, str]:
    """Return the query for objects of exactly this name (KFP's filter.proto, as JSON)."""
    equal = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    return {"filter": json.dumps({"predicates": [equal]})}
