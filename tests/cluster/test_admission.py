"""What the API server accepts of the chart, and what it refuses beside it.

Every object of every profile is asked for as a dry run in a namespace with Pod Security
"restricted" and with the chart's own admission policies in force; every pod once more as a pod,
because Pod Security only warns of what makes pods.
"""

import copy
from collections.abc import Iterator
from typing import Any, Final

import pytest

from mlplatform.clients.kubernetes import DEPLOYMENTS, PODS, Cluster, Object
from mlplatform.errors import ServiceError
from tests.cluster.chart_namespace import (
    ELSEWHERE,
    KINDS,
    acting_as,
    applied,
    restricted_namespace,
)
from tests.cluster.waiting import wait
from tests.helm.chart import PROFILES, needs_helm, pods, render, templates

pytestmark = needs_helm

DIGEST: Final = "sha256:" + "5e" * 32
IMAGE: Final = f"registry.example.com/a@{DIGEST}"
REPLICA_SETS: Final = "kube-system:replicaset-controller"
RESTRICTED: Final = {
    "securityContext": {
        "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}
    },
    "containers": [],
}  # fmt: skip
CONFINED: Final = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SERVES: Final = {"app.kubernetes.io/component": "triton"}


def container(image: str, name: str = "a") -> Object:
    return {"name": name, "image": image, "securityContext": CONFINED}


def pod(*images: str, first: str = "", **metadata: Any) -> Object:
    spec = RESTRICTED | {"containers": [container(one, f"c{n}") for n, one in enumerate(images)]}
    if first:
        spec["initContainers"] = [container(first, "first")]
    body = {"name": "probe", **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": body, "spec": spec}


def workload(kind: str, template: Object) -> Object:
    """Return an object of a kind that makes pods of this one."""
    labels = {"app": "probe", **template["metadata"].get("labels", {})}
    inner = {"metadata": template["metadata"] | {"labels": labels}, "spec": template["spec"]}
    inner["metadata"].pop("name", None)
    spec: Object = {"template": inner}
    if kind in {"Deployment", "StatefulSet"}:
        spec |= {"selector": {"matchLabels": {"app": "probe"}}, "replicas": 0}
    if kind == "StatefulSet":
        spec["serviceName"] = "probe"
    if kind in {"Job", "CronJob"}:
        inner["spec"] = inner["spec"] | {"restartPolicy": "Never"}
    if kind == "CronJob":
        spec = {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": spec}}
    version = KINDS[kind].version
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "probe"}, "spec": spec}


@pytest.fixture(scope="module")
def namespace() -> Iterator[Cluster]:
    """With the accounts, classes and policies of the profile `full`, in force."""
    with restricted_namespace() as cluster:
        objects = render("gpu", {"admissionPolicies": ALLOWED}, namespace=cluster.namespace)
        kinds = ("ServiceAccount", "Role", "RoleBinding", "PriorityClass")
        applied(cluster, objects, *kinds)
        applied(cluster, objects, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        wait(lambda: bool(refusal(cluster, pod("a:latest"))), 60, lambda: "no policy is in force")
        with acting_as(cluster, REPLICA_SETS) as controller:
            wait(lambda: bool(refusal(controller, pod(IMAGE, labels=SERVES))), 60)
        yield cluster


ALLOWED: Final = {"allowedImages": ["ghcr.io/kubeflow/kfp-driver:2.17.0"]}


def refusal(cluster: Cluster, body: Object) -> str:
    """Return what is said against an object; empty: nothing."""
    try:
        cluster.create(KINDS[body["kind"]], body, dry_run=True)
    except ServiceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("profile", PROFILES)
def test_every_object_of_a_profile_is_accepted(profile: str, namespace: Cluster) -> None:
    objects = render(profile, namespace=namespace.namespace)
    servers = [
        _labelled(one)
        for one in templates(objects).values()
        if one["kind"] in {"Deployment", "Service"}
    ]

    for found in objects:
        if found["kind"] not in ELSEWHERE:
            namespace.apply(KINDS[found["kind"]], found, "mlplatform-tests-dry", dry_run=True)
    with acting_as(namespace, f"{namespace.namespace}:mlplatform-operator") as operator:
        assert ["", ""] == [refusal(operator, found) for found in servers]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pod_of_a_profile_is_accepted_where_pod_security_is_restricted(
    profile: str, namespace: Cluster
) -> None:
    refused = {}
    with acting_as(namespace, REPLICA_SETS) as controller:
        for found in pods(render(profile, namespace=namespace.namespace)):
            spec = {"restartPolicy": "Always", **found.spec}
            annotations = {**found.annotations}
            if "mlplatform.dev/model-digest" in annotations:  # which the operator fills in
                annotations["mlplatform.dev/model-digest"] = DIGEST
            metadata = {"name": "probe", "labels": {**found.labels}, "annotations": annotations}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            if said := refusal(controller, body):
                refused[found.owner] = said

    assert {} == refused


def _labelled(template: Object) -> Object:
    """Return a template as the operator completes it."""
    made = copy.deepcopy(template)
    made["metadata"]["name"] = "triton-flight-delay-v1-5e5e5e5e"
    if made["kind"] == "Deployment":
        made["spec"]["template"]["metadata"]["annotations"] = {
            "mlplatform.dev/model-digest": DIGEST
        }
    return made


def test_pod_security_refuses_what_is_not_confined(namespace: Cluster) -> None:
    body = pod(IMAGE)
    body["spec"] = body["spec"] | {"hostNetwork": True}

    assert "violates PodSecurity" in refusal(namespace, body)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param("registry.example.com/a:v1", id="a tag"),
        pytest.param("a", id="nothing at all"),
        pytest.param("a:latest", id="the latest"),
        pytest.param(f"registry.example.com/a@{DIGEST[:-1]}", id="a digest cut short"),
        pytest.param("ghcr.io/kubeflow/kfp-launcher:2.17.0", id="another than the allowed one"),
        pytest.param(
            "evil.example.com/ghcr.io/kubeflow/kfp-driver:2.17.0", id="allowed, elsewhere"
        ),
    ],
)
def test_an_image_that_can_be_moved_is_refused(image: str, namespace: Cluster) -> None:
    said = refusal(namespace, pod(image))

    assert "Name images by digest" in said or "invalid reference format" in said
    assert image in said


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(pod(IMAGE, "a:v1"), id="the second container"),
        pytest.param(pod(IMAGE, first="a:v1"), id="an init container"),
        *(
            pytest.param(workload(kind, pod("a:v1")), id=kind)
            for kind in ("Deployment", "StatefulSet", "Job", "CronJob")
        ),
    ],
)
def test_it_is_refused_wherever_it_is(body: Object, namespace: Cluster) -> None:
    assert "Name images by digest" in refusal(namespace, body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(pod(IMAGE, first=IMAGE), id="by digest"),
        pytest.param(pod(f"registry.example.com/a:v1@{DIGEST}"), id="a tag beside the digest"),
        pytest.param(pod("ghcr.io/kubeflow/kfp-driver:2.17.0"), id="one that values allow"),
        *(
            pytest.param(workload(kind, pod(IMAGE)), id=kind)
            for kind in ("Deployment", "StatefulSet", "Job", "CronJob")
        ),
    ],
)
def test_images_by_digest_are_accepted(body: Object, namespace: Cluster) -> None:
    assert "" == refusal(namespace, body)


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param({}, id="none"),
        pytest.param({"mlplatform.dev/model-digest": ""}, id="empty"),
        pytest.param({"mlplatform.dev/model-digest": "5e" * 32}, id="no algorithm"),
        pytest.param({"mlplatform.dev/model-digest": DIGEST[:-2]}, id="cut short"),
        pytest.param({"mlplatform.dev/model-digest": DIGEST.upper()}, id="in capitals"),
    ],
)
@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_a_model_server_that_does_not_say_its_model_is_refused(
    kind: str, annotations: dict[str, str], namespace: Cluster
) -> None:
    body = pod(IMAGE, labels=SERVES, annotations=annotations)
    account = REPLICA_SETS if kind == "Pod" else f"{namespace.namespace}:mlplatform-operator"
    with acting_as(namespace, account) as cluster:
        said = refusal(cluster, body if kind == "Pod" else workload(kind, body))

    assert "a model server says which model it serves" in said


def test_a_model_server_is_made_by_the_operator_and_by_nobody_else(namespace: Cluster) -> None:
    body = pod(IMAGE, labels=SERVES, annotations={"mlplatform.dev/model-digest": DIGEST})
    made = workload("Deployment", body)

    assert "model servers are made by the operator" in refusal(namespace, made)
    assert "model servers are made by the operator" in refusal(namespace, body)
    with acting_as(namespace, f"{namespace.namespace}:mlplatform-operator") as operator:
        assert "" == refusal(operator, made)


def test_a_pod_that_runs_is_not_made_a_model_server_afterwards(namespace: Cluster) -> None:
    namespace.create(DEPLOYMENTS, workload("Deployment", pod(IMAGE)))
    metadata = {"labels": SERVES, "annotations": {"mlplatform.dev/model-digest": DIGEST}}
    change = {"spec": {"template": {"metadata": metadata}}}

    with pytest.raises(ServiceError, match="model servers are made by the operator"):
        namespace.patch(DEPLOYMENTS, "probe", change)


def test_other_namespaces_are_left_alone(namespace: Cluster) -> None:
    body = pod("a:latest", namespace="default")

    assert namespace.create(PODS, body, dry_run=True)["metadata"]["namespace"] == "default"
