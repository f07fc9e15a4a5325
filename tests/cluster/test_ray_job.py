"""A step's RayJob on a real API server. KubeRay is played: the test writes its status."""

import importlib.metadata
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    NAMESPACES,
    RAY_JOBS,
    Cluster,
    Kind,
    Object,
)
from mlplatform.clients.ray_job import RayJobs, job_name
from mlplatform.errors import NotFoundError, ServiceError, StaleError
from tests.cluster.waiting import wait

CRDS = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
NAMESPACE, CRD = "dev-pipelines", "rayjobs.ray.io"
RUN, STEP = "a-run", "train"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITION: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": CRD, "labels": {"app.kubernetes.io/part-of": NAMESPACE}},
    "spec": {
        "group": "ray.io",
        "scope": "Namespaced",
        "names": {"plural": "rayjobs", "singular": "rayjob", "kind": "RayJob"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": ANYTHING},
                "subresources": {"status": {}},
            }
        ],
    },
}
TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "training"},
    "spec": {"rayClusterSpec": {"rayVersion": importlib.metadata.version("ray")}},
}
FINALIZER = "ray.io/rayjob-finalizer"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A namespace that knows RayJobs, with the chart's manifest in it."""
    cluster = Cluster.connect(NAMESPACE)
    _make(cluster, NAMESPACES, {"metadata": {"name": NAMESPACE}})
    ours = _make(cluster, CRDS, DEFINITION)
    wait(lambda: cluster.list(RAY_JOBS) == [], 30)
    data = {"rayjob.yaml": json.dumps(TEMPLATE)}
    _make(cluster, CONFIG_MAPS, {"metadata": {"name": "mlplatform-ray"}, "data": data})
    yield cluster
    if ours:
        cluster.delete(CRDS, CRD)
    cluster.delete(NAMESPACES, NAMESPACE)


def _make(cluster: Cluster, kind: Kind, body: Object) -> bool:
    try:
        cluster.create(kind, body)
    except StaleError:
        return False
    return True


def play(cluster: Cluster, status: Object, log: Path) -> threading.Thread:
    """Let KubeRay work on the next RayJob, and end it with a status."""

    def work() -> None:
        name = job_name(RUN, STEP)
        wait(lambda: not _deleted(cluster, name), 30)
        cluster.patch(RAY_JOBS, name, {"metadata": {"finalizers": [FINALIZER]}})
        busy = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
        cluster.patch(RAY_JOBS, name, {"status": busy}, subresource="status")
        log.write_text("a line of the work\n")
        cluster.patch(RAY_JOBS, name, {"status": status}, subresource="status")
        wait(lambda: _deleted(cluster, name), 30)
        time.sleep(0.5)  # it takes the cluster's pods away first
        cluster.patch(RAY_JOBS, name, {"metadata": {"finalizers": []}})

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _deleted(cluster: Cluster, name: str) -> bool:
    found = cluster.find(RAY_JOBS, name)
    return found is None or "deletionTimestamp" in found["metadata"]


def test_a_rayjob_is_made_followed_and_taken_away(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    kuberay = play(cluster, good, tmp_path / "log")
    jobs = RayJobs(cluster, poll_seconds=0.1, seen_seconds=30)
    with caplog.at_level("INFO", "mlplatform.ray"):
        jobs.run(RUN, STEP, ["python", "-m", "work"], tmp_path / "log")
    kuberay.join()

    assert "a line of the work" in caplog.messages
    wait(lambda: cluster.list(RAY_JOBS) == [], 30)


def test_a_rayjob_that_fails_is_taken_away_as_well_and_the_next_attempt_waits_for_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    bad = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
    jobs = RayJobs(cluster, poll_seconds=0.1, seen_seconds=30)
    for _ in range(2):  # the second one begins while the first one's cluster is being removed
        kuberay = play(cluster, bad, tmp_path / "log")
        with pytest.raises(ServiceError, match="is Failed: FAILED, AppFailed"):
            jobs.run(RUN, STEP, ["python", "-m", "work"], tmp_path / "log")
        if _ == 1:
            kuberay.join()
    wait(lambda: cluster.list(RAY_JOBS) == [], 30)


def test_a_cluster_without_kuberay_is_told_from_one_without_a_manifest(
    cluster: Cluster, tmp_path: Path
) -> None:
    elsewhere = RayJobs(Cluster.connect("default"))

    with pytest.raises(NotFoundError, match="no ConfigMap mlplatform-ray in namespace default"):
        elsewhere.run(RUN, STEP, ["x"], tmp_path / "log")
    assert [] == cluster.list(RAY_JOBS)
