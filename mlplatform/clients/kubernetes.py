"""The Kubernetes API, by kind and name: JSON objects in, JSON objects out.

One thin adapter for all who speak to a cluster: the operator, the orchestrators, the commands. It
knows how objects are reached and what a refusal means, and nothing of what they say. Objects are
plain dictionaries as `kubectl get -o json` shows them: a manifest, a template of the chart and an
answer have the same shape.

Each call has a time limit and is made once: whoever calls decides whether to ask again.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from mlplatform.errors import NotFoundError, ServiceError, StaleError, shorten

Object = dict[str, Any]
"""One object of the API."""

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_SECONDS: Final = (3.0, 15.0)
"""Longest wait for a connection and for an answer; an API server that works takes milliseconds."""
_MISSING: Final = 404
_CONFLICT: Final = 409
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_POD_NAMESPACE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class Kind(NamedTuple):
    """A kind of object: where the API keeps it."""

    version: str
    """`v1`, or group and version: `apps/v1`."""
    plural: str
    namespaced: bool = True

    @property
    def root(self) -> str:
        """The path under which the version lies."""
        return f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"


PODS: Final = Kind("v1", "pods")
SERVICES: Final = Kind("v1", "services")
SECRETS: Final = Kind("v1", "secrets")
CONFIG_MAPS: Final = Kind("v1", "configmaps")
VOLUME_CLAIMS: Final = Kind("v1", "persistentvolumeclaims")
EVENTS: Final = Kind("v1", "events")
NODES: Final = Kind("v1", "nodes", namespaced=False)
NAMESPACES: Final = Kind("v1", "namespaces", namespaced=False)
DEPLOYMENTS: Final = Kind("apps/v1", "deployments")
STATEFUL_SETS: Final = Kind("apps/v1", "statefulsets")
JOBS: Final = Kind("batch/v1", "jobs")
CRON_JOBS: Final = Kind("batch/v1", "cronjobs")
LEASES: Final = Kind("coordination.k8s.io/v1", "leases")
MODEL_ROLLOUTS: Final = Kind("mlplatform.dev/v1alpha1", "modelrollouts")
RAY_JOBS: Final = Kind("ray.io/v1", "rayjobs")


class Contexts(NamedTuple):
    """What kubeconfig knows."""

    names: tuple[str, ...]
    current: str
    """Empty: none is chosen."""


def contexts() -> Contexts:
    """Return the contexts of kubeconfig; none where there is no kubeconfig.

    Raises:
        ServiceError: It cannot be read.
    """
    from kubernetes.config import kube_config

    try:
        # The package's own list fails where no context is the current one.
        config = kube_config.KubeConfigMerger(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).config
        values = {} if config is None else config.value
        names = tuple(str(context["name"]) for context in values.get("contexts") or ())
    except Exception as error:  # YAML's errors are of another package
        raise ServiceError(
            f"kubeconfig cannot be read: {shorten(error)}; check the file that KUBECONFIG names"
        ) from error
    return Contexts(names, str(values.get("current-context") or ""))


class Cluster:
    """One cluster, seen from one namespace; safe to share between threads.

    Args:
        api: An `ApiClient` of the kubernetes package.
        namespace: Of all namespaced objects, where a call names no other.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api, self.namespace = api, namespace

    @classmethod
    def connect(cls, namespace: str = "", context: str = "") -> Self:
        """Return the cluster that this process runs in, or the one that kubeconfig names.

        Args:
            namespace: Empty: the pod's own, or the one of kubeconfig's context.
            context: Of kubeconfig; empty: the current one.

        Raises:
            ServiceError: There is neither a pod's account nor a usable kubeconfig.
        """
        from kubernetes import client, config

        configuration = client.Configuration()
        configuration.retries = False
        try:
            if context:
                raise config.ConfigException("a context was named")  # noqa: TRY301
            config.load_incluster_config(client_configuration=configuration)
            own = _POD_NAMESPACE
        except config.ConfigException:
            own = ""
            try:
                config.load_kube_config(context=context or None, client_configuration=configuration)
                if not namespace:
                    found, current = config.list_kube_config_contexts()
                    chosen = next((c for c in found if c["name"] == context), current)
                    namespace = chosen["context"].get("namespace", "default")
            except (config.ConfigException, OSError, KeyError, TypeError) as error:
                raise ServiceError(
                    f"no cluster is known here: {shorten(error)}; set KUBECONFIG, or make a "
                    "cluster with `make cluster`"
                ) from error
        if not namespace:
            namespace = Path(own).read_text(encoding="utf-8").strip()
        return cls(client.ApiClient(configuration), namespace)

    @property
    def address(self) -> str:
        """Of the API server."""
        return str(self._api.configuration.host)

    def get(self, kind: Kind, name: str, *, namespace: str = "") -> Object:
        """Return an object.

        Raises:
            NotFoundError: There is none of that name, or the cluster does not know the kind.
            ServiceError: The API server is away, or refuses.
        """
        return self._call("GET", self._path(kind, namespace, name))

    def find(self, kind: Kind, name: str, *, namespace: str = "") -> Object | None:
        """Return an object, or None where there is none; raises ServiceError as `get`."""
        try:
            return self.get(kind, name, namespace=namespace)
        except NotFoundError:
            return None

    def list(
        self,
        kind: Kind,
        labels: Mapping[str, str] = _NONE,
        *,
        namespace: str = "",
        everywhere: bool = False,
        fields: str = "",
    ) -> list[Object]:
        """Return the objects that carry the labels.

        Args:
            kind: Of what kind.
            labels: Names and values that all of them carry.
            namespace: Other than the cluster's own.
            everywhere: In all namespaces.
            fields: A field selector besides, e.g. `spec.nodeName=a`.

        Raises:
            NotFoundError: The cluster does not know the kind.
            ServiceError: The API server is away, or refuses.
        """
        path = f"{kind.root}/{kind.plural}" if everywhere else self._path(kind, namespace)
        query = {}
        if labels:
            query["labelSelector"] = ",".join(f"{name}={value}" for name, value in labels.items())
        if fields:
            query["fieldSelector"] = fields
        found: list[Object] = self._call("GET", path, query=query).get("items", [])
        return found

    def create(self, kind: Kind, body: Object, *, dry_run: bool = False) -> Object:
        """Make an object.

        Raises:
            StaleError: There is one of that name.
            ServiceError: The API server is away, or refuses the object.
        """
        path = self._path(kind, body["metadata"].get("namespace", ""))
        query = {"dryRun": "All"} if dry_run else {}
        return self._call("POST", path, body=body, query=query)

    def replace(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        """Replace an object that has the body's `metadata.resourceVersion`.

        Raises:
            StaleError: It is another one by now; nothing was written.
            NotFoundError: It is gone.
            ServiceError: The API server is away, or refuses the object.
        """
        metadata = body["metadata"]
        path = self._path(kind, metadata.get("namespace", ""), metadata["name"], subresource)
        return self._call("PUT", path, body=body)

    def apply(self, kind: Kind, body: Object, manager: str, *, dry_run: bool = False) -> Object:
        """Make an object, or make the fields that the body has so (server-side apply).

        Args:
            kind: Of what kind.
            body: With `apiVersion`, `kind` and `metadata.name`.
            manager: To whom the fields belong from now on.
            dry_run: Have it checked, admission included, and write nothing.

        Raises:
            ServiceError: The API server is away, or refuses the object.
        """
        metadata = body["metadata"]
        path = self._path(kind, metadata.get("namespace", ""), metadata["name"])
        query = {"fieldManager": manager, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        # The client writes JSON under this name as well, and JSON is YAML.
        return self._call("PATCH", path, body=body, query=query, content=_APPLY)

    def patch(
        self,
        kind: Kind,
        name: str,
        body: Object,
        *,
        namespace: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Merge fields into an object (JSON merge patch).

        With a `metadata.resourceVersion` in the body it is a compare-and-swap. With `dry_run` it is
        checked, admission included, and nothing is written.

        Raises:
            StaleError: The object has another resourceVersion.
            NotFoundError: It is gone.
            ServiceError: The API server is away, or refuses the object.
        """
        path = self._path(kind, namespace, name, subresource)
        query = {"dryRun": "All"} if dry_run else {}
        return self._call("PATCH", path, body=body, query=query, content=_MERGE)

    def delete(self, kind: Kind, name: str, *, namespace: str = "") -> bool:
        """Delete an object and, in the background, what it owns; return whether it was there.

        Raises:
            ServiceError: The API server is away, or refuses.
        """
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            self._call("DELETE", self._path(kind, namespace, name), body=body)
        except NotFoundError:
            return False
        return True

    def log(
        self, pod: str, container: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Yield the lines that a container has printed, and with `follow` those to come.

        Raises:
            ServiceError: The API server is away, the pod is gone, or it has not started.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        query = {"container": container, "follow": str(follow).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        path = self._path(PODS, "", pod, "log")
        try:
            answer = self._request("GET", path, query=query, raw=True)
            rest = b""
            for chunk in answer.stream(4096, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")
        except ApiException as error:
            raise _refused(f"GET {path}", error) from error
        except (HTTPError, OSError) as error:
            raise self._away(f"GET {path}", error) from error

    def kinds(self, group: str = "") -> tuple[Kind, ...]:
        """Return every kind whose objects this API server lists, in one version each.

        Args:
            group: Of those alone; empty: of all.

        Raises:
            ServiceError: The API server is away, or refuses.
        """
        groups = self._call("GET", "/apis")["groups"]
        found = []
        versions = (
            one["preferredVersion"]["groupVersion"] for one in groups if group in {"", one["name"]}
        )
        for version in versions if group else ("v1", *versions):
            # One whose own server is away (metrics, say) lists nothing now.
            with contextlib.suppress(ServiceError):
                there = self._call("GET", Kind(version, "").root)
                found += [
                    Kind(version, resource["name"], bool(resource["namespaced"]))
                    for resource in there["resources"]
                    if "list" in resource["verbs"] and "/" not in resource["name"]
                ]
        return tuple(found)

    def server_version(self) -> str:
        """Return the API server's version, e.g. v1.34.4; raises ServiceError where it is away."""
        return str(self._call("GET", "/version")["gitVersion"])

    def _path(self, kind: Kind, namespace: str, name: str = "", subresource: str = "") -> str:
        place = f"/namespaces/{namespace or self.namespace}" if kind.namespaced else ""
        parts = (part for part in (name, subresource) if part)
        return "/".join((f"{kind.root}{place}/{kind.plural}", *parts))

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] = _NONE,
        content: str = "application/json",
    ) -> Object:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            found: Object = self._request(method, path, body=body, query=query, content=content)
        except ApiException as error:
            raise _refused(f"{method} {path}", error) from error
        except (HTTPError, OSError, ValueError) as error:
            raise self._away(f"{method} {path}", error) from error
        return found

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] = _NONE,
        content: str = "application/json",
        raw: bool = False,
    ) -> Any:
        return self._api.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content},
            body=body,
            response_type=None if raw else "object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=not raw,
            _request_timeout=_SECONDS,
        )

    def _away(self, what: str, error: BaseException) -> ServiceError:
        return ServiceError(
            f"{what}: the Kubernetes API at {self.address} cannot be reached: {shorten(error)}"
        )


def _refused(what: str, error: Any) -> Exception:
    """Return what an API error means here, in the API server's words."""
    said = str(error.body or error.reason or "")
    with contextlib.suppress(ValueError, AttributeError):
        said = str(json.loads(said).get("message", said))
    text = f"{what}: {shorten(said)}"
    if error.status == _MISSING:
        return NotFoundError(text)
    if error.status == _CONFLICT:
        return StaleError(text)
    return ServiceError(f"{text} (HTTP {error.status})")
