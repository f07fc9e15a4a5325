"""Whether a server fits on the GPUs that are there, and in words why it does not."""

from typing import Any

import pytest

from mlplatform.clients.kubernetes import Object
from serving.operator import gpu
from tests.unit.serving.operator.objects import GPU, deployment, node, pod

TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


def refusal(nodes: list[Object], pods: list[Object], **spec: Any) -> str:
    return gpu.refusal(deployment(**spec), nodes, pods)


def test_a_server_without_gpus_fits_wherever_the_scheduler_says() -> None:
    assert "" == refusal([], [], gpus=0)
    assert "" == refusal([], [], replicas=0)


@pytest.mark.parametrize(
    ("nodes", "pods", "spec"),
    [
        pytest.param([node()], [], {}, id="an empty node"),
        pytest.param([node()], [pod()], {"gpus": 1}, id="beside the champion"),
        pytest.param([node("a", 1), node("b", 1)], [pod(node="a")], {}, id="on the other node"),
        pytest.param([node(gpus=1)], [pod(phase="Succeeded")], {}, id="a pod that is over"),
        pytest.param([node(gpus=1)], [pod(gpus=0)], {}, id="a pod without GPUs"),
        pytest.param([node(gpus=1)], [pod(node="other")], {}, id="a pod elsewhere"),
        pytest.param([node(gpus=4)], [], {"gpus": 2, "replicas": 2}, id="two pods"),
    ],
)
def test_what_is_free_is_enough(
    nodes: list[Object], pods: list[Object], spec: dict[str, Any]
) -> None:
    assert "" == refusal(nodes, pods, **spec)


@pytest.mark.parametrize(
    ("nodes", "pods", "spec", "words"),
    [
        pytest.param([], [], {}, "no node of the cluster has any", id="no node"),
        pytest.param([node(gpus=0)], [], {}, "no node of the cluster has any", id="no GPU"),
        pytest.param(
            [node()],
            [pod("v3"), pod("other")],
            {},
            "node one has 0 of 2 free (other has 1, v3 has 1)",
            id="the surge does not fit",
        ),
        pytest.param(
            [node("a", 1), node("b", 1)], [], {"gpus": 2}, "too few are free", id="split in two"
        ),
        pytest.param(
            [node(gpus=3)], [], {"gpus": 2, "replicas": 2}, "for each of 2 pods", id="two pods"
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_who_has_what(
    nodes: list[Object], pods: list[Object], spec: dict[str, Any], words: str
) -> None:
    assert words in refusal(nodes, pods, **spec)


def test_the_greediest_init_container_counts_as_well() -> None:
    greedy = {"initContainers": [{"name": "i", "resources": {"limits": {GPU: "3"}}}]}

    assert f"it needs 3 {GPU}" in refusal([node()], [], **greedy)


def test_a_part_of_a_gpu_is_a_resource_of_its_own() -> None:
    part = "nvidia.com/mig-1g.5gb"
    asked = deployment(gpus=0)
    asked["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {part: 1}}
    there = node()
    assert f"it needs 1 {part}, and no node" in gpu.refusal(asked, [there], [])

    there["status"]["allocatable"][part] = "7"
    assert "" == gpu.refusal(asked, [there], [])


@pytest.mark.parametrize(
    ("kept", "spec", "words"),
    [
        ({"taints": [TAINT]}, {}, "has the taint nvidia.com/gpu=present:NoSchedule"),
        (
            {"labels": {"pool": "cpu"}},
            {"nodeSelector": {"pool": "gpu"}},
            "lacks the label pool=gpu",
        ),
        ({"unschedulable": True}, {}, "is cordoned"),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, {}, "is not ready"),
        (
            {"labels": {gpu.MEMORY_LABEL: "16384"}},
            {"annotations": {gpu.MEMORY_ANNOTATION: "24000"}},
            "has GPUs of 16384 MiB, and the server needs 24000 MiB",
        ),
    ],
    ids=["a taint", "a label", "cordoned", "not ready", "memory"],
)
def test_a_node_that_may_not_be_used_is_named_with_the_reason(
    kept: dict[str, Any], spec: dict[str, Any], words: str
) -> None:
    said = refusal([node(**kept)], [], **spec)

    assert "may not go to any node that has them: one " in said
    assert words in said


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": GPU, "operator": "Exists"},
        {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
        {"key": GPU, "value": "present"},
        {"operator": "Exists"},
    ],
    ids=str,
)
def test_a_taint_that_is_tolerated_is_no_obstacle(toleration: dict[str, str]) -> None:
    assert "" == refusal([node(taints=[TAINT])], [], tolerations=[toleration])


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": GPU, "value": "another"},
        {"key": "other", "operator": "Exists"},
        {"key": GPU, "operator": "Exists", "effect": "NoExecute"},
    ],
    ids=str,
)
def test_a_toleration_of_something_else_does_not_help(toleration: dict[str, str]) -> None:
    assert "has the taint" in refusal([node(taints=[TAINT])], [], tolerations=[toleration])


def test_a_taint_that_only_prefers_is_no_obstacle() -> None:
    soft = {**TAINT, "effect": "PreferNoSchedule"}

    assert "" == refusal([node(taints=[soft])], [])


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["a100", "h100"], True),
        ("In", ["t4"], False),
        ("NotIn", ["h100"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_the_templates_affinity_counts(operator: str, values: list[str], fits: bool) -> None:
    rule = {"key": "gpu", "operator": operator, "values": values}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    said = refusal([node(labels={"gpu": "h100"})], [], affinity={"nodeAffinity": required})

    assert fits == (said == "")
