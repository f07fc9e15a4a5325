"""`make doctor`: all that keeps the platform from running, before and after it is deployed.

It reads the cluster, this machine and the rendered chart, changes nothing, and says each thing that
is wrong with what to do about it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy import checks, registry_images, upstream, values
from deploy.checks import Finding
from deploy.custom_resources import DEFINITIONS
from deploy.helm import Helm
from deploy.namespaces import PART_OF, PLATFORM
from deploy.programs import call
from deploy.released import objects
from deploy.target import Profile, Target
from deploy.waiting import lines
from deploy.workloads import look
from mlplatform.clients.kubernetes import (
    NAMESPACES,
    NODES,
    PODS,
    VOLUME_CLAIMS,
    Cluster,
    Kind,
    Object,
)
from mlplatform.errors import PlatformError

_CLASSES: Final = Kind("storage.k8s.io/v1", "storageclasses", namespaced=False)
_VOLUMES: Final = Kind("v1", "persistentvolumes", namespaced=False)
_INOTIFY: Final = Path("/proc/sys/fs/inotify")
_MARKS: Final = {"good": ("ok", "green"), "warning": ("note", "yellow"), "bad": ("BAD", "bold red")}
_OVER: Final = frozenset({"Succeeded", "Failed"})


class Doctor:
    """One look at everything.

    Args:
        target: Where.
        profile: That is, or is to be, deployed.
        own_values: The person's values, and those of the environment.
    """

    def __init__(self, target: Target, profile: Profile, own_values: tuple[Path, ...]) -> None:
        self._target, self._profile, self._own_values = target, profile, own_values
        self._cluster = Cluster.connect(target.namespace, target.context)

    def findings(self) -> Iterator[Finding]:
        """Yield what each check found.

        Raises:
            ServiceError: The API server is away.
        """
        yield from self._versions()
        yield checks.security(self._cluster.find(NAMESPACES, self._target.namespace))
        yield registry_images.check(values.IMAGES)
        yield from self._beside()
        if self._target.is_kind:
            yield from self._machine()
        yield from self._chart()

    def troubles(self) -> list[tuple[str, str]]:
        """Return what each workload and claim of the platform waits for, by name.

        Raises:
            ServiceError: The API server is away.
        """
        found = look(self._cluster)
        return lines(found, [workload for workload in found.workloads if not workload.well])

    def _versions(self) -> list[Finding]:
        import yaml

        kubectl = yaml.safe_load(call("kubectl", "version", "--client", "--output", "yaml"))
        client: str = kubectl["clientVersion"]["gitVersion"]
        helm = call("helm", "version", "--template", "{{.Version}}").strip()
        return checks.versions(self._cluster.server_version(), client, helm)

    def _beside(self) -> Iterator[Finding]:
        for component in upstream.needed(self._profile):
            there = self._cluster.find(DEFINITIONS, component.definition) is not None
            text = "there" if there else f"not there: `make deploy` installs {component.version}"
            yield Finding("good", component.name, text)

    def _machine(self) -> Iterator[Finding]:
        names = ("max_user_instances", "max_user_watches")
        paths = [_INOTIFY / name for name in names]
        if all(path.is_file() for path in paths):
            instances, watches = (int(path.read_text()) for path in paths)
            yield checks.inotify(instances, watches)

    def _chart(self) -> Iterator[Finding]:
        """Check what only the rendered chart can tell: room, GPUs, volumes."""
        try:
            files = values.files(self._profile, self._own_values)
            manifest = Helm(self._target).rendered(files, self._cluster.server_version())
            rendered = list(objects(manifest))
        except PlatformError as error:
            yield Finding("warning", "chart", str(error), "room and volumes were not checked")
            return
        specs = checks.pod_specs(rendered)
        nodes = self._cluster.list(NODES)
        yield checks.room(nodes, list(self._others()), specs)
        yield from checks.gpus(nodes, specs)
        yield self._claims(rendered)

    def _others(self) -> Iterator[Object]:
        """Yield the pods of others, which keep what they ask for."""
        for pod in self._cluster.list(PODS, everywhere=True):
            own = (pod["metadata"].get("labels") or {}).get(PART_OF) == PLATFORM
            here = pod["metadata"]["namespace"] == self._target.namespace
            if not (own and here) and pod.get("status", {}).get("phase") not in _OVER:
                yield pod

    def _claims(self, rendered: Iterable[Object]) -> Finding:
        claims = dict(_claims(rendered))
        there = self._cluster.list(VOLUME_CLAIMS)
        bound = [
            c["metadata"]["name"] for c in there if c.get("status", {}).get("phase") == "Bound"
        ]
        free = [v for v in self._cluster.list(_VOLUMES) if v["status"].get("phase") == "Available"]
        named = [spec.get("storageClassName", "") for spec in claims.values()]
        classes = self._cluster.list(_CLASSES)
        return checks.volumes(list(claims), bound, classes, free, named)


def _claims(rendered: Iterable[Object]) -> Iterator[tuple[str, Any]]:
    """Yield name and spec of each volume claim that a manifest makes."""
    for body in rendered:
        name = body["metadata"]["name"]
        if body["kind"] == "PersistentVolumeClaim":
            yield name, body["spec"]
        elif body["kind"] == "StatefulSet":
            for template in body["spec"].get("volumeClaimTemplates") or ():
                for number in range(int(body["spec"].get("replicas", 1))):
                    yield f"{template['metadata']['name']}-{name}-{number}", template["spec"]


def show(console: Console, findings: Iterable[Finding]) -> bool:
    """Print what was found; return whether the platform can run so."""
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    good = True
    for finding in findings:
        word, style = _MARKS[finding.level]
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n{finding.advice}", style="dim")
        table.add_row(Text(word, style=style), Text(finding.name, style="cyan"), text)
        good = good and not finding.bad
    console.print(table)
    return good


def run(console: Console, doctor: Doctor) -> bool:
    """Look at everything and print it; return whether all is well.

    Raises:
        ServiceError: The API server is away.
    """
    good = show(console, doctor.findings())
    troubles = doctor.troubles()
    if troubles:
        console.print(Text("\nwhat waits:", style="bold"))
        for name, text in troubles:
            console.print(Text.assemble((f"  {name}", "cyan"), f": {text}"), soft_wrap=True)
    elif good:
        console.print("\nnothing waits")
    return good and not troubles
