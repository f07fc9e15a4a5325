"""Kubeflow Pipelines for one platform: its own manifests, fitted to the platform's namespace.

A single-user installation runs pipelines where it is itself, and their tasks need what is in the
platform's namespace: the data claim, the Secrets, the accounts. So it is installed there, and obeys
what holds there. kustomize moves its manifests; what kustomize cannot reach is done on the rendered
objects: addresses inside of texts, Pod Security, limits. The result is checked before the cluster
sees any of it, because another version may ship what does not fit.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from deploy.checks import pod_of
from deploy.programs import call
from deploy.quantities import quantity
from deploy.values import FOLDER
from mlplatform.clients.kubernetes import Object
from mlplatform.errors import SettingsError

PARTS: Final = ("cluster-scoped-resources", "env/platform-agnostic")
"""Of its manifests, in their order; not `env/dev`, which sets every image to the tag `master`."""
IMAGES: Final = (
    "ghcr.io/kubeflow/kfp-",
    "quay.io/argoproj/workflow-controller:",
    "quay.io/argoproj/argoexec:",
    "gcr.io/tfx-oss-public/ml_metadata_store_server:",
    "chrislusf/seaweedfs:",
    "mysql:",
    "alpine:",
)
"""Beginnings of the images that it names by tag; the chart's values allow the same ones."""
USER: Final = 10001
"""Who tasks run as: the owner of the data claim. Kubeflow takes it from its installation alone."""
_HOME: Final = "kubeflow"
"""The namespace that its manifests were written for."""
_ROOT: Final = "github.com/kubeflow/pipelines/manifests/kustomize"
_SECONDS: Final = 300
_ELSEWHERE: Final = frozenset({"Namespace", "NetworkPolicy"})
"""What the platform says for its namespace itself: Pod Security, and who reaches whom."""
_ADDRESS: Final = re.compile(rf"\b([a-z][a-z0-9-]*)\.{_HOME}(?=[:/\"'\s,]|\.svc\b|$)")
_BOUNDS: Final = MappingProxyType({"memory": ("64Mi", "1Gi"), "cpu": ("20m", "1")})
"""What a container asks for, and gets at most, that says nothing."""


def manifest(version: str, namespace: str, part: str) -> Path:
    """Return where the objects of a part are written, for kubectl."""
    return FOLDER / "kubeflow" / namespace / version / f"{part.replace('/', '-')}.yaml"


def written(version: str, namespace: str) -> bool:
    """Return whether the objects of all parts are there, for kubectl."""
    return all(manifest(version, namespace, part).exists() for part in PARTS)


def overlay(version: str, namespace: str, part: str) -> str:
    """Return the kustomization that moves a part to a namespace."""
    return yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": namespace,
            "resources": [f"{_ROOT}/{part}?ref={version}&timeout={_SECONDS}s"],
        }
    )


def write(version: str, namespace: str) -> None:
    """Render all parts for a namespace, check them, and leave them for kubectl.

    Raises:
        SettingsError: The version does not fit into the namespace, with every reason.
        ServiceError: kubectl cannot fetch or render them.
    """
    ready: dict[Path, list[Object]] = {}
    for part in PARTS:
        file = manifest(version, namespace, part)
        folder = file.with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        text = overlay(version, namespace, part)
        (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
        rendered = call("kubectl", "kustomize", str(folder), timeout_seconds=_SECONDS + 60)
        ready[file] = fitted([b for b in yaml.safe_load_all(rendered) if b], namespace)
    reasons = [why for bodies in ready.values() for why in obstacles(bodies, namespace)]
    if reasons:
        raise SettingsError(
            f"Kubeflow Pipelines {version} does not fit into the namespace {namespace}, so nothing "
            f"of it was installed: {'; '.join(reasons)}. Change deploy/kubeflow.py, or take "
            "another version in deploy/upstream.py"
        )
    for file, bodies in ready.items():
        file.write_text(yaml.safe_dump_all(bodies), encoding="utf-8")


def fitted(bodies: list[Object], namespace: str) -> list[Object]:
    """Return rendered objects as they are installed in a namespace."""
    return [
        _fit(_texts(body, lambda text: _ADDRESS.sub(rf"\1.{namespace}", text)), namespace)
        if body["kind"] != "CustomResourceDefinition"
        else body
        for body in bodies
        if body["kind"] not in _ELSEWHERE
    ]


def _fit(body: Object, namespace: str) -> Object:
    for subject in body.get("subjects") or ():
        if subject["kind"] == "ServiceAccount" and subject.get("namespace", _HOME) == _HOME:
            subject["namespace"] = namespace
    pod = pod_of(body)
    if pod is None:
        return body
    security = pod.setdefault("securityContext", {})
    security.setdefault("runAsNonRoot", True)
    security.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    for container in _containers(pod):
        own = container.setdefault("securityContext", {})
        own.setdefault("allowPrivilegeEscalation", False)
        own.setdefault("capabilities", {}).setdefault("drop", ["ALL"])
        _bound(container)
    if (body["kind"], body["metadata"]["name"]) == ("Deployment", "ml-pipeline"):
        for container in pod["containers"]:
            _run_as(container)
    return body


def _bound(container: Object) -> None:
    """Give limits where there are none: the namespace's default is below what some of them ask."""
    resources = container.setdefault("resources", {})
    asked = resources.setdefault("requests", {})
    limits = resources.setdefault("limits", {})
    for name, (little, much) in _BOUNDS.items():
        if name in limits:
            continue
        known = asked.setdefault(name, little)  # or it would be the limit
        limits[name] = known if quantity(known) > quantity(much) else much


def _run_as(container: Object) -> None:
    names = {f"DEFAULT_SECURITY_CONTEXT_RUN_AS_{who}": str(USER) for who in ("USER", "GROUP")}
    names["DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT"] = "true"
    others = [one for one in container.get("env") or () if one["name"] not in names]
    container["env"] = others + [{"name": name, "value": value} for name, value in names.items()]


def obstacles(bodies: list[Object], namespace: str) -> list[str]:
    """Return why objects may not be installed in a namespace; nothing: they may."""
    found: list[str] = []
    for body in bodies:
        who = f"{body['kind']} {body['metadata']['name']}"
        if body["metadata"].get("namespace", namespace) != namespace:
            found.append(f"{who} is of the namespace {body['metadata']['namespace']}")
        pod = pod_of(body)
        found += [f"{who} {why}" for why in (_forbidden(pod) if pod is not None else ())]
    return found


def _forbidden(pod: Object) -> Iterator[str]:
    """Yield what Pod Security `restricted`, or the chart's policy of images, refuses."""
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares a namespace of its node"
    if any("hostPath" in volume for volume in pod.get("volumes") or ()):
        yield "mounts a folder of its node"
    for container in _containers(pod):
        yield from _refused(container, pod.get("securityContext") or {})


def _refused(container: Object, of_pod: Object) -> Iterator[str]:
    name, own = container["name"], container.get("securityContext") or {}
    security = {"allowPrivilegeEscalation": True, "capabilities": {}} | of_pod | own
    dropped, added = (set(security["capabilities"].get(key) or ()) for key in ("drop", "add"))
    raises = security.get("privileged") or security["allowPrivilegeEscalation"]
    profile = (security.get("seccompProfile") or {}).get("type")
    image = container["image"]
    checks = {
        f"lets {name} raise its rights": not raises,
        f"runs {name} as root": security.get("runAsNonRoot") and security.get("runAsUser") != 0,
        f"leaves {name} its capabilities": "ALL" in dropped,
        f"gives {name} capabilities": added <= {"NET_BIND_SERVICE"},
        f"runs {name} without seccomp": profile in {"RuntimeDefault", "Localhost"},
        f"takes a port of the node for {name}": not any(
            port.get("hostPort") for port in container.get("ports") or ()
        ),
        f"has an image that is not allowed: {image}": image.startswith(IMAGES)
        or "@sha256:" in image,
    }
    yield from (why for why, well in checks.items() if not well)


def _containers(pod: Object) -> list[Object]:
    return [*pod["containers"], *(pod.get("initContainers") or ())]


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with every text in it changed."""
    if isinstance(value, dict):
        return {key: _texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
