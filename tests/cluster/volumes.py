"""Local volumes for a cluster that makes none: a default StorageClass, and folders behind it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mlplatform.clients.kubernetes import NODES, Cluster, Kind

STORAGE_CLASSES: Final = Kind("storage.k8s.io/v1", "storageclasses", namespaced=False)
VOLUMES: Final = Kind("v1", "persistentvolumes", namespaced=False)

_NAME: Final = "mlplatform-test"
_DEFAULT: Final = "storageclass.kubernetes.io/is-default-class"
_COUNT: Final = 8
_USER: Final = 10001
"""As whom the platform's containers run; local volumes are not given to a pod's group."""


@contextlib.contextmanager
def volumes(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Offer volumes for the length of the block, unless the cluster has a class of its own.

    Args:
        cluster: Where.
        folder: Of this machine, which must then be the cluster's only node.
    """
    for found in cluster.list(STORAGE_CLASSES):
        annotations = found["metadata"].get("annotations", {})
        if annotations.get(_DEFAULT) == "true" and found["metadata"]["name"] != _NAME:
            yield
            return
    (node,) = (item["metadata"]["name"] for item in cluster.list(NODES))
    cluster.apply(STORAGE_CLASSES, _storage_class(), "tests")
    made = []
    for number in range(_COUNT):
        path = folder / str(number)
        path.mkdir(parents=True)
        for parent in (path, *path.parents):
            if parent.is_relative_to(folder.parent):
                parent.chmod(0o755)
        os.chown(path, _USER, _USER)
        body = _volume(f"{_NAME}-{number}", path, node)
        cluster.delete(VOLUMES, body["metadata"]["name"])
        _gone(cluster, body["metadata"]["name"])
        cluster.create(VOLUMES, body)
        made.append(body["metadata"]["name"])
    try:
        yield
    finally:
        for name in made:
            cluster.delete(VOLUMES, name)
        cluster.delete(STORAGE_CLASSES, _NAME)
        shutil.rmtree(folder, ignore_errors=True)


def folder_of(cluster: Cluster, claim: str) -> Path:
    """Return the folder behind a claim that is bound to one of these volumes."""
    from mlplatform.clients.kubernetes import VOLUME_CLAIMS

    name = cluster.get(VOLUME_CLAIMS, claim)["spec"]["volumeName"]
    return Path(cluster.get(VOLUMES, name)["spec"]["local"]["path"])


def _gone(cluster: Cluster, name: str) -> None:
    from tests.cluster.waiting import wait

    wait(lambda: cluster.find(VOLUMES, name) is None, 60, lambda: f"{name} is still there")


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": _NAME, "annotations": {_DEFAULT: "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _volume(name: str, path: Path, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _NAME,
            "local": {"path": str(path)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {
                                    "key": "kubernetes.io/hostname",
                                    "operator": "In",
                                    "values": [node],
                                }
                            ]
                        }
                    ]
                }
            },
        },
    }
