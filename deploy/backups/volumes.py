"""The volumes: packed and unpacked by a pod of our own that mounts nothing else and ends by itself.

It is made like the Deployment that uses the volume: the same image, by digest, the same security
context, on the same node where that is needed. So what the namespace admits of the one it admits of
the other, and a volume that only one node may mount is mounted there.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.backups import pod_script
from deploy.backups.manifest import described
from deploy.backups.shell import Shell
from deploy.namespaces import labels
from deploy.target import Target
from mlplatform.clients.kubernetes import DEPLOYMENTS, NODES, PODS, Cluster, Object
from mlplatform.errors import DataError, NotFoundError, ServiceError

COMPONENT: Final = "backup"
_CONTAINER: Final = "backup"
_ROOT: Final = "/volume"
_LIFE_SECONDS: Final = 7200
"""After which such a pod ends although nobody has removed it."""
_START_SECONDS: Final = 180.0
_GONE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5
_ATTEMPTS: Final = 3
"""To pack a volume: files vanish where small ones are merged, at most every ten minutes."""
_HOST: Final = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Volume:
    """A volume of the platform."""

    part: str
    deployment: str
    """That mounts it."""
    volume: str
    """Its name there."""
    folders: tuple[str, ...] = ()
    """That are copied; none: all."""


DATA: Final = Volume(
    "data", "mlplatform-archiver", "data", ("predictions", "monitoring", "features/raw")
)
"""What was answered, what was found, what was read from the sources. Features are computed again
from the raw events, journals of runs are on the ledger."""
ARTIFACTS: Final = Volume("artifacts", "mlplatform-registry", "artifacts")


class MountedVolume:
    """A volume, by way of a pod that mounts it.

    Args:
        shell: Into that pod.
        volume: Which.
    """

    def __init__(self, shell: Shell, volume: Volume) -> None:
        self._shell, self._volume = shell, volume

    def pack(self, file: Path) -> int:
        """Copy it to a file; return the number of files in it.

        Raises:
            ServiceError: Files vanish whenever it is tried, or the pod was taken away.
        """
        trouble = ""
        for _ in range(_ATTEMPTS):
            try:
                said = self._run("pack", *self._volume.folders, into=file).err
                wanted = _last_json(said)
            except (ServiceError, DataError) as error:
                trouble = str(error)
                continue
            if described(file) == (wanted["size"], wanted["sha256"]):
                return int(wanted["files"])
            trouble = f"{file.stat().st_size} of {wanted['size']} bytes arrived"
        raise ServiceError(
            f"the volume {self._volume.part} could not be copied: {trouble}; run it again"
        )

    def unpack(self, file: Path, sha256: str) -> None:
        """Unpack a file beside what is there.

        Raises:
            ServiceError: The volume is full, or not all of the file arrived.
        """
        arrived = _last_json(self._run("unpack", given=file).out)
        if arrived["sha256"] != sha256:
            raise ServiceError(
                f"{arrived['size']} of {file.stat().st_size} bytes of {file.name} arrived; nothing "
                "was replaced: run it again"
            )

    def swap(self, name: str) -> None:
        """Move what was unpacked to its place; may be repeated.

        Args:
            name: Of the restore; what was there is kept under it.

        Raises:
            ServiceError: The volume cannot be written.
        """
        self._run("swap", name, *self._volume.folders)

    def files(self) -> int:
        """Return how many files it holds; raises ServiceError where it cannot be read."""
        return int(self._run("count", *self._volume.folders).out)

    def _run(self, what: str, *more: str, **streams: Any) -> Any:
        source = Path(pod_script.__file__).read_text(encoding="utf-8")
        first = (_ROOT, *more)
        return self._shell.run("python", "-c", source, what, *first, **streams)


def is_there(cluster: Cluster, volume: Volume) -> bool:
    """Return whether the platform keeps this on a volume; a bucket is none.

    Raises:
        ServiceError: The API server is away.
    """
    deployment = cluster.find(DEPLOYMENTS, volume.deployment)
    return deployment is not None and _claim(deployment, volume) is not None


@contextlib.contextmanager
def mounted(cluster: Cluster, target: Target, volume: Volume) -> Iterator[MountedVolume]:
    """Give a volume for the length of a block.

    Raises:
        NotFoundError: The platform has no such volume.
        ServiceError: The pod that mounts it does not start.
    """
    deployment = cluster.get(DEPLOYMENTS, volume.deployment)
    claim = _claim(deployment, volume)
    if claim is None:
        raise NotFoundError(f"{volume.deployment} mounts no volume {volume.volume}")
    body = pod(deployment, volume, claim, _node(cluster, claim))
    name = body["metadata"]["name"]
    _remove(cluster, name)
    cluster.create(PODS, body)
    try:
        _wait_until_running(cluster, name)
        yield MountedVolume(Shell(target, name, _CONTAINER), volume)
    finally:
        cluster.delete(PODS, name)


def pod(deployment: Object, volume: Volume, claim: str, host: str) -> Object:
    """Return the pod that mounts a volume as a Deployment does.

    Args:
        deployment: Which is copied from.
        volume: Which.
        claim: The volume of the Deployment's pods.
        host: Node on which it is mounted now; empty: on none.
    """
    template = deployment["spec"]["template"]["spec"]
    container = template["containers"][0]
    spec = {
        name: template[name]
        for name in ("securityContext", "imagePullSecrets", "nodeSelector", "tolerations")
        if name in template
    }
    if host:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), _HOST: host}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"mlplatform-backup-{volume.part}", "labels": labels(COMPONENT)},
        "spec": spec
        | {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": _CONTAINER,
                    "image": container["image"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", str(_LIFE_SECONDS)],
                    "securityContext": container["securityContext"],
                    "resources": {
                        "requests": {"cpu": "20m", "memory": "32Mi"},
                        "limits": {"cpu": "1", "memory": "256Mi"},
                    },
                    "volumeMounts": [{"name": "volume", "mountPath": _ROOT}],
                }
            ],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


def _claim(deployment: Object, volume: Volume) -> Any:
    for found in deployment["spec"]["template"]["spec"].get("volumes", []):
        if found["name"] == volume.volume and "persistentVolumeClaim" in found:
            return found["persistentVolumeClaim"]["claimName"]
    return None


def _node(cluster: Cluster, claim: str) -> str:
    """Return the host name of a node on which a pod mounts a claim now; empty: none does."""
    for found in cluster.list(PODS):
        claims = (
            item.get("persistentVolumeClaim", {}).get("claimName")
            for item in found["spec"].get("volumes", [])
        )
        if found.get("status", {}).get("phase") == "Running" and claim in claims:
            node = cluster.get(NODES, found["spec"]["nodeName"])
            return str(node["metadata"].get("labels", {}).get(_HOST, ""))
    return ""


def _wait_until_running(cluster: Cluster, name: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        status = cluster.get(PODS, name).get("status", {})
        if status.get("phase") == "Running":
            return
        if time.monotonic() > deadline or status.get("phase") == "Failed":
            said = status.get("message") or status.get("conditions") or "it is not scheduled"
            raise ServiceError(f"the pod {name} does not start: {said}; `make doctor` looks closer")
        time.sleep(_POLL_SECONDS)


def _remove(cluster: Cluster, name: str) -> None:
    """Remove what a command that was killed has left."""
    if not cluster.delete(PODS, name):
        return
    deadline = time.monotonic() + _GONE_SECONDS
    while cluster.find(PODS, name) is not None:
        if time.monotonic() > deadline:
            raise ServiceError(f"the pod {name} of an earlier command does not end; delete it")
        time.sleep(_POLL_SECONDS)


def _last_json(said: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise DataError("the pod did not say what it has copied; run it again") from error
    return found
