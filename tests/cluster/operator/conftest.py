"""A namespace of its own for each file of tests, in the cluster of KUBECONFIG."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, NAMESPACES, Cluster, Kind, Object
from tests.cluster.operator.stage import Stage, staged
from tests.conftest import ROOT

_DEFINITIONS = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
_CRD = ROOT / "helm" / "mlplatform" / "crds" / "modelrollouts.yaml"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: set KUBECONFIG to the kubeconfig of one that may be written to")
    found = Cluster.connect(f"operator-{secrets.token_hex(3)}")
    body: Any = YAML(typ="safe", pure=True).load(_CRD.read_text(encoding="utf-8"))
    found.apply(_DEFINITIONS, body, "mlplatform-tests")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    found.create(
        NAMESPACES,
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": found.namespace, "labels": labels},
        },
    )
    yield found
    for left in found.list(MODEL_ROLLOUTS):  # whose operator may have been killed
        free = {"metadata": {"finalizers": None}}
        found.patch(MODEL_ROLLOUTS, left["metadata"]["name"], free)
    found.delete(NAMESPACES, found.namespace)


@pytest.fixture
def made(cluster: Cluster) -> Iterator[Object]:
    """The ModelRollout of the use case, new."""
    yield cluster.create(MODEL_ROLLOUTS, rollout())
    cluster.delete(MODEL_ROLLOUTS, "flight-delay")


def rollout(**spec: Any) -> Object:
    return {
        "apiVersion": "mlplatform.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": "flight-delay"},
        "spec": {"usecase": "flight_delay", **spec},
    }


@pytest.fixture(scope="module")
def stage(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root: Path = tmp_path_factory.mktemp("stage") / "root"
    with staged(cluster, root) as found:
        yield found
