"""How many pods of each workload are ready, and what holds the others up."""

from typing import Any

import pytest

from deploy.workloads import Look, looked, refusal
from mlplatform.clients.kubernetes import Object
from tests.unit.deploy.objects import deployment, event, pod, unscheduled


def look(
    *bodies: Object,
    pods: tuple[Object, ...] = (),
    events: tuple[Object, ...] = (),
    claims: tuple[Object, ...] = (),
) -> Look:
    found: dict[str, list[Object]] = {"Deployment": [], "StatefulSet": [], "Job": []}
    for body in bodies:
        found[body["kind"]].append(body)
    return looked(found, pods, events, claims)


def job(name: str = "mlplatform-registry-setup", **status: Any) -> Object:
    annotations = {"meta.helm.sh/release-name": "mlplatform"}
    return {
        "kind": "Job",
        "metadata": {"name": name, "labels": {}, "annotations": annotations},
        "spec": {"completions": 1},
        "status": status,
    }


def claim(phase: str = "Pending", name: str = "", **spec: Any) -> Object:
    return {
        "metadata": {"name": name or "mlplatform-data"},
        "spec": spec,
        "status": {"phase": phase},
    }


def test_a_workload_whose_pods_are_ready_is_well() -> None:
    assert () == look(deployment(ready=1)).waiting()


def test_a_workload_says_why_its_own_pods_do_not_run() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu."
    found = look(deployment(), pods=(unscheduled(message),))

    (workload,) = found.waiting()
    assert ["gateway-abc"] == [held.name for held in workload.held]


def test_pods_of_another_workload_are_not_its_own() -> None:
    other = unscheduled("0/1 nodes are available: 1 Insufficient cpu.", owner=("Job", "training"))

    (workload,) = look(deployment(), pods=(other,)).waiting()
    assert () == workload.held


def test_pods_of_the_revision_before_do_not_count_as_ready() -> None:
    body = deployment(ready=2, replicas=2)
    body["status"]["updatedReplicas"] = 1

    (workload,) = look(body).waiting()
    assert (1, 2) == (workload.ready, workload.desired)


def test_a_spec_that_its_controller_has_not_seen_is_not_ready() -> None:
    body = deployment(ready=1)
    body["metadata"]["generation"] = 2

    assert 1 == len(look(body).waiting())


def test_a_component_can_be_left_out() -> None:
    assert () == look(deployment()).waiting(without=["gateway"])


def test_what_was_made_at_run_time_is_not_waited_for() -> None:
    body = deployment("triton-flight-delay-v1-0123abcd")
    body["metadata"]["annotations"] = {}

    assert () == look(body).waiting()


def test_a_job_is_well_when_it_has_succeeded() -> None:
    assert () == look(job(succeeded=1)).waiting()


def test_a_job_that_has_given_up_says_so() -> None:
    condition = {"type": "Failed", "status": "True", "message": "it reached its backoff limit"}

    (workload,) = look(job(conditions=[condition])).waiting()
    assert "it reached its backoff limit" == workload.failed


def test_jobs_of_a_cronjob_are_its_own_matter() -> None:
    body = job()
    body["metadata"]["ownerReferences"] = [{"kind": "CronJob", "name": "mlplatform-judge"}]

    assert () == look(body).workloads


def test_pods_that_are_never_made_say_who_refuses_them() -> None:
    said = 'pods "redis-0" is forbidden: exceeded quota: mlplatform, requested: cpu=2'
    body = deployment() | {"kind": "StatefulSet"}
    found = look(body, events=(event("StatefulSet", "mlplatform-gateway", "FailedCreate", said),))

    (workload,) = found.waiting()
    assert "the quota refuses its pods: mlplatform, requested: cpu=2" in str(workload.held[0])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "Pod Security refuses its pods: runAsNonRoot != true",
        ),
        (
            "ValidatingAdmissionPolicy 'mlplatform-images' denied request: named by a tag",
            "an admission policy refuses its pods: 'mlplatform-images' denied request",
        ),
        ("webhook says no", "its pods are refused: webhook says no"),
    ],
)
def test_each_refusal_is_said_in_words(message: str, words: str) -> None:
    assert words in str(refusal(message))


def test_a_claim_without_a_class_says_how_it_could_get_a_volume() -> None:
    (held,) = look(claims=(claim(),)).claims

    assert "volume claim mlplatform-data" == held.name
    assert "no default storage class" in str(held.trouble)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("WaitForFirstConsumer", "it is made when its first pod is placed"),
        ("ProvisioningFailed", "its volume cannot be made: out of disks"),
    ],
)
def test_a_claim_says_what_its_class_says(reason: str, words: str) -> None:
    said = event("PersistentVolumeClaim", "mlplatform-data", reason, "out of disks")

    (held,) = look(claims=(claim(storageClassName="fast"),), events=(said,)).claims
    assert words == str(held.trouble)


def test_a_bound_claim_waits_for_nothing() -> None:
    assert () == look(claims=(claim("Bound"),)).claims


def test_a_pod_that_is_well_holds_nothing_up() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])

    (workload,) = look(deployment(ready=1, replicas=2), pods=(ready,)).waiting()
    assert () == workload.held
