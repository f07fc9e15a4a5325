"""From the chart's template to the objects of one version's server.

The template is the ConfigMap `mlplatform-triton`: `deployment.yaml` and `service.yaml`, complete
but for what tells versions apart. Set here are names, labels, selectors, the digest's annotation,
the owner, and the arguments that name the version to the init container `export`. Nothing of a
running server is ever changed: another version, or another digest, has another name.

It refuses a template that lacks a part that is set.
"""

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from mlplatform.clients.kubernetes import Object
from mlplatform.contracts.rollout import Version
from mlplatform.errors import SettingsError, shorten

COMPONENT: Final[Mapping[str, str]] = MappingProxyType(
    {"app.kubernetes.io/part-of": "mlplatform", "app.kubernetes.io/component": "triton"}
)
"""Labels of all model servers."""
USECASE: Final = "mlplatform.dev/usecase"
VERSION: Final = "mlplatform.dev/version"
INSTANCE: Final = "app.kubernetes.io/instance"
DIGEST: Final = "mlplatform.dev/model-digest"
EXPORT: Final = "export"
"""Name of the init container that fetches and verifies the model."""

_DIGITS: Final = 8
"""Of the digest in a name; the whole digest is an annotation."""


@dataclass(frozen=True, slots=True)
class Template:
    """What all servers have in common."""

    deployment: Object
    service: Object


def parse(config_map: Object) -> Template:
    """Return the template in a ConfigMap.

    Raises:
        SettingsError: It is not complete; says what is missing.
    """
    name, data = config_map["metadata"]["name"], config_map.get("data") or {}
    found = [_yaml(name, key, data.get(key, "")) for key in ("deployment.yaml", "service.yaml")]
    template = Template(*found)
    try:
        containers = template.deployment["spec"]["template"]["spec"]["initContainers"]
        ports = template.service["spec"]["ports"]
    except (KeyError, TypeError) as error:
        raise SettingsError(
            f"ConfigMap {name} is no template of a model server: it has no {error}; upgrade the "
            "chart"
        ) from error
    if not ports or not any(container.get("name") == EXPORT for container in containers):
        raise SettingsError(
            f"ConfigMap {name} is no template of a model server: it needs an init container "
            f"{EXPORT!r} and a Service with a port; upgrade the chart"
        )
    return template


def _yaml(name: str, key: str, text: str) -> Object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        raise SettingsError(f"{key} of ConfigMap {name} is no YAML: {shorten(error)}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"ConfigMap {name} has no {key}: upgrade the chart")
    return found


def server_name(usecase: str, version: Version) -> str:
    """Return the name of a version's Deployment and Service."""
    dashed, digest = usecase.replace("_", "-"), version.digest.removeprefix("sha256:")
    return f"triton-{dashed}-v{version.version}-{digest[:_DIGITS]}"


def of_usecase(usecase: str) -> dict[str, str]:
    """Return the labels of all servers of a use case."""
    return {**COMPONENT, USECASE: usecase.replace("_", "-")}


def of_version(usecase: str, version: Version) -> dict[str, str]:
    """Return the labels of one version's server and its pods."""
    return {
        **of_usecase(usecase),
        VERSION: str(version.version),
        INSTANCE: server_name(usecase, version),
    }


def deployment(template: Template, usecase: str, version: Version, owner: Object) -> Object:
    """Return the Deployment of a version.

    Args:
        template: Of all.
        usecase: Whose version it is.
        version: By number and content.
        owner: The ModelRollout, with which it is garbage collected.
    """
    made = copy.deepcopy(template.deployment)
    labels = of_version(usecase, version)
    digest = f"sha256:{version.digest.removeprefix('sha256:')}"
    _mark(made, server_name(usecase, version), labels, owner)
    made["metadata"].setdefault("annotations", {})[DIGEST] = digest
    made["spec"]["selector"] = {"matchLabels": labels}
    pods = made["spec"]["template"]
    metadata = pods.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), DIGEST: digest}
    for container in pods["spec"]["initContainers"]:
        if container["name"] == EXPORT:
            container["args"] = [
                *(container.get("args") or []),
                "--usecase", usecase, "--version", str(version.version),
                "--digest", version.digest,
            ]  # fmt: skip
    return made


def service(template: Template, usecase: str, version: Version, owner: Object) -> Object:
    """Return the Service of a version; arguments as for `deployment`."""
    made = copy.deepcopy(template.service)
    labels = of_version(usecase, version)
    _mark(made, server_name(usecase, version), labels, owner)
    made["spec"]["selector"] = labels
    return made


def port(template: Template) -> int:
    """Return the port on which servers answer: the one named `http`, or the first."""
    ports: list[Any] = template.service["spec"]["ports"]
    return int(next((p for p in ports if p.get("name") == "http"), ports[0])["port"])


def _mark(made: Object, name: str, labels: Mapping[str, str], owner: Object) -> None:
    metadata = made.setdefault("metadata", {})
    metadata["name"] = name
    metadata.pop("namespace", None)  # the operator's own
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["ownerReferences"] = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
        }
    ]
