"""What may keep the platform from running, found before it is tried."""

from typing import Any

import pytest

from deploy.checks import (
    Finding,
    gpus,
    inotify,
    pod_specs,
    room,
    security,
    tolerates,
    versions,
    volumes,
)
from deploy.namespaces import wanted
from mlplatform.clients.kubernetes import Object
from tests.unit.deploy.objects import node, pod

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def spec(**requests: str) -> Object:
    named = {name.replace("gpu", "nvidia.com/gpu"): value for name, value in requests.items()}
    return {"containers": [{"resources": {"requests": named}}]}


def by_name(found: list[Finding], name: str) -> Finding:
    return next(finding for finding in found if finding.name == name)


@pytest.mark.parametrize(
    ("server", "level"), [("v1.29.9", "bad"), ("v1.30.0", "good"), ("v1.34.4-eks-1", "good")]
)
def test_an_api_server_that_is_too_old_for_the_chart_is_bad(server: str, level: str) -> None:
    assert level == by_name(versions(server, server, "v3.19.0"), "kubernetes").level


@pytest.mark.parametrize(
    ("client", "level"), [("v1.33.0", "good"), ("v1.35.1", "good"), ("v1.31.0", "warning")]
)
def test_a_client_may_be_one_minor_version_away(client: str, level: str) -> None:
    assert level == by_name(versions("v1.34.4", client, "v3.19.0"), "kubectl").level


@pytest.mark.parametrize(("helm", "bad"), [("v3.13.3", True), ("v3.14.0", False), ("v4.0", False)])
def test_a_helm_that_cannot_ask_the_server_is_bad(helm: str, bad: bool) -> None:
    assert bad == by_name(versions("v1.34.4", "v1.34.4", helm), "helm").bad


def test_room_is_what_other_pods_leave() -> None:
    others = [pod(requests={"cpu": "1500m", "memory": "1Gi"})]

    found = room([node(cpu="2", memory="8Gi")], others, [spec(cpu="600m", memory="1Gi")])

    assert found.bad
    assert (
        "0.6 of 0.5 CPUs free and 1.0 GiB of 7.0 GiB free on 1 node: too little CPUs" in found.text
    )


def test_a_cordoned_node_has_no_room() -> None:
    closed = node()
    closed["spec"]["unschedulable"] = True

    assert room([closed], [], [spec(cpu="1m")]).bad


def test_enough_room_is_good() -> None:
    assert "good" == room([node()], [], [spec(cpu="1", memory="4Gi")]).level


def test_a_manifest_counts_replicas_jobs_templates_and_the_second_server_of_a_rollout() -> None:
    def workload(kind: str, **fields: Any) -> Object:
        return {"kind": kind, "metadata": {"name": "x"}, "spec": fields}

    template: Object = {"spec": {"containers": []}}
    triton = {
        "kind": "ConfigMap",
        "metadata": {"name": "mlplatform-triton"},
        "data": {"deployment.yaml": "spec: {template: {spec: {containers: []}}}"},
    }
    found = pod_specs(
        [
            workload("Deployment", replicas=2, template=template),
            workload("StatefulSet", template=template),
            workload("Job", template=template),
            workload("CronJob", jobTemplate={"spec": {"template": template}}),
            workload("Service"),
            triton,
        ]
    )

    assert 2 + 1 + 1 + 1 + 2 == len(found)


def test_a_platform_without_gpus_needs_none() -> None:
    assert [Finding("good", "gpus", "none needed")] == gpus([node()], [spec(cpu="1")])


def test_fewer_gpus_than_a_rollout_needs_are_bad() -> None:
    (found,) = gpus([node(gpus=1)], [spec(gpu="1")] * 2)

    assert found.bad
    assert "2 needed, 1 there" == found.text


def test_a_taint_that_its_pods_do_not_tolerate_is_named() -> None:
    found = gpus([node(gpus=2, taints=[TAINT])], [spec(gpu="1")])

    assert "carries the taint nvidia.com/gpu=present:NoSchedule" in found[-1].text


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "value": "absent"}, False),
        ({"key": "nvidia.com/gpu"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "dedicated", "operator": "Exists"}, False),
    ],
)
def test_a_toleration_is_read_as_the_scheduler_reads_it(
    toleration: dict[str, str], tolerated: bool
) -> None:
    assert tolerated == tolerates({"tolerations": [toleration]}, TAINT)


@pytest.mark.parametrize(
    ("instances", "watches", "level"),
    [(512, 524288, "good"), (128, 524288, "warning"), (512, 65536, "warning")],
)
def test_inotifys_limits_are_those_that_kind_asks_for(
    instances: int, watches: int, level: str
) -> None:
    assert level == inotify(instances, watches).level


def storage_class(name: str, *, default: bool = False) -> Object:
    annotation = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotation}}


def test_claims_without_a_default_class_and_without_volumes_are_bad() -> None:
    found = volumes(["data", "artifacts"], [], [storage_class("slow")], [], ["", ""])

    assert found.bad
    assert "2 claims, 0 volumes and no default storage class" == found.text


@pytest.mark.parametrize(
    ("classes", "available", "named"),
    [
        pytest.param([storage_class("slow", default=True)], 0, [""], id="default class"),
        pytest.param([storage_class("fast")], 0, ["fast"], id="class named"),
        pytest.param([], 1, [""], id="volume waits"),
    ],
)
def test_claims_that_will_find_a_volume_are_good(
    classes: list[Object], available: int, named: list[str]
) -> None:
    waiting = [{"metadata": {"name": "pv"}, "spec": {}}] * available

    assert "good" == volumes(["data"], [], classes, waiting, named).level


def test_a_class_that_does_not_exist_is_bad() -> None:
    found = volumes(["data"], [], [storage_class("slow", default=True)], [], ["fats"])

    assert "there is no storage class fats" == found.text


def test_claims_that_are_bound_need_nothing() -> None:
    assert "good" == volumes(["data"], ["data"], [], [], [""]).level


def test_a_namespace_without_its_labels_is_a_warning() -> None:
    assert "warning" == security({"metadata": {"name": "own", "labels": {}}}).level
    assert "good" == security(wanted("own")).level
