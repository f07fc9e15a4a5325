"""The chart as its users meet it: rendered by Helm, read as objects."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

Object = dict[str, Any]

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "helm" / "mlplatform"
IMAGES: Final = Path(__file__).with_name("images.yaml")
PROFILES: Final = ("minimal", "full", "gpu")
NAMESPACE: Final = "mlplatform"
KUBERNETES: Final = "1.34.0"
"""The version that charts are rendered for: helm by itself takes the one that it was built with."""

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast one, where PyYAML was built with it."""

needs_helm: Final = pytest.mark.skipif(
    shutil.which("helm") is None, reason="helm is not on PATH: install Helm 3.14 or newer"
)


class ChartRefusedError(Exception):
    """Helm, the schema or the chart refused the values."""


@dataclass(frozen=True)
class Pod:
    """A pod that an object of the chart makes, or has made by somebody else."""

    owner: str
    """Kind and name of the object; for templates, of the ConfigMap, with the kind in it."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Object
    replicas: int

    @property
    def containers(self) -> list[Object]:
        """All of them, those that run before the others first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def render(
    profile: str,
    values: Mapping[str, Any] | None = None,
    *,
    without_image: str = "",
    namespace: str = NAMESPACE,
) -> list[Object]:
    """Return the objects of a release.

    Args:
        profile: Whose values, of `ci/`; empty: the chart's defaults alone.
        values: On top of them.
        without_image: Role whose image is not named.
        namespace: Of the release.

    Raises:
        ChartRefusedError: The values are refused; the message is Helm's.
    """
    text = rendered(profile, values, without_image=without_image, namespace=namespace)
    return [found for found in yaml.load_all(text, _Loader) if found]


def rendered(
    profile: str,
    values: Mapping[str, Any] | None = None,
    *,
    without_image: str = "",
    namespace: str = NAMESPACE,
) -> str:
    """Return what `helm template` prints; arguments and refusals as for `render`."""
    given = dict(values or {})
    images = {name: one for name, one in _images().items() if name != without_image}
    given["images"] = images | given.get("images", {})
    return _template(profile, yaml.safe_dump(given), namespace)


@functools.cache
def _template(profile: str, values: str, namespace: str) -> str:
    files = [] if not profile else ["-f", str(CHART / "ci" / f"{profile}-values.yaml")]
    command = [
        "helm", "template", "mlplatform", str(CHART), "--namespace", namespace,
        "--kube-version", KUBERNETES, *files, "-f", "-",
    ]  # fmt: skip
    # A person's own settings of Helm are not the chart's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELM")}
    done = subprocess.run(
        command, input=values, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise ChartRefusedError(done.stderr)
    return done.stdout


def _images() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(IMAGES.read_text(encoding="utf-8"))["images"]
    return found


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Return the objects of a kind by name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def named(objects: list[Object], kind: str, name: str) -> Object:
    """Return one object."""
    return of_kind(objects, kind)[name]


def templates(objects: list[Object]) -> dict[str, Object]:
    """Return the objects that others make out of ConfigMaps, by where they lie."""
    found = {}
    for name in ("mlplatform-triton", "mlplatform-ray"):
        config_map = of_kind(objects, "ConfigMap").get(name)
        for key, text in (config_map or {"data": {}})["data"].items():
            found[f"{name}/{key}"] = yaml.load(text, _Loader)  # noqa: S506 (the safe one)
    return found


def pods(objects: list[Object]) -> Iterator[Pod]:
    """Return every pod that a release can lead to."""
    for found in objects:
        name = f"{found['kind']} {found['metadata']['name']}"
        match found["kind"]:
            case "Deployment" | "Job":
                yield _pod(name, found["spec"]["template"], found["spec"].get("replicas", 1))
            case "StatefulSet":
                yield _with_claims(_pod(name, found["spec"]["template"], 1), found)
            case "CronJob":
                yield _pod(name, found["spec"]["jobTemplate"]["spec"]["template"], 1)
    for where, found in templates(objects).items():
        if found["kind"] == "Deployment":
            yield _pod(where, found["spec"]["template"], found["spec"]["replicas"])
        if found["kind"] == "RayJob":
            cluster = found["spec"]["rayClusterSpec"]
            yield _pod(f"{where} submitter", found["spec"]["submitterPodTemplate"], 1)
            yield _pod(f"{where} head", cluster["headGroupSpec"]["template"], 1)
            for group in cluster["workerGroupSpecs"]:
                name = f"{where} {group['groupName']}"
                yield _pod(name, group["template"], group["replicas"])


def _with_claims(pod: Pod, found: Object) -> Pod:
    """Return a StatefulSet's pod with the volumes that are made for it."""
    claims = [one["metadata"]["name"] for one in found["spec"]["volumeClaimTemplates"]]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    spec = pod.spec | {"volumes": [*pod.spec["volumes"], *volumes]}
    return replace(pod, spec=spec, replicas=found["spec"]["replicas"])


def _pod(owner: str, found: Object, replicas: int) -> Pod:
    metadata = found.get("metadata", {})
    return Pod(
        owner,
        metadata.get("labels", {}),
        metadata.get("annotations", {}),
        found["spec"],
        replicas,
    )
