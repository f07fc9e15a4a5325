"""Serving on GPU nodes, as far as the scheduler and the preflight go: nothing computes on one."""

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from mlplatform.clients.kubernetes import NODES, Object
from tests.cluster.installation import Installation
from tests.cluster.plans import ENDLESS
from tests.cluster.test_faults import sound_copy, under_load
from tests.cluster.values import HEAT, ON_GPUS
from tests.cluster.waiting import wait

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
_GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def node(platform: Installation) -> Iterator[str]:
    """The cluster's node, with two GPUs and the taint that keeps other work away from them."""
    if not os.environ.get("OFFER_GPUS"):
        pytest.skip("set OFFER_GPUS to a command that gives the node as many as its argument says")
    (name,) = (item["metadata"]["name"] for item in platform.cluster.list(NODES))
    _offer(2)
    yield name
    platform.cluster.patch(NODES, name, {"spec": {"taints": None}})
    _offer(0)


def test_servers_are_placed_on_the_tainted_node_while_there_are_gpus_for_them(
    platform: Installation, node: str
) -> None:
    platform.at(HEAT).deploy(ON_GPUS)
    copy = sound_copy(platform)
    platform.ask(plan=ENDLESS, version=copy)
    platform.cluster.patch(NODES, node, {"spec": {"taints": [TAINT]}})
    with under_load(platform):
        platform.until("shadow", version=copy)

    asking = [pod for pod in platform.pods("triton") if _gpus(pod)]
    assert {node} == {pod["spec"]["nodeName"] for pod in asking}
    assert str(copy) in {pod["metadata"]["labels"]["mlplatform.dev/version"] for pod in asking}


def test_a_version_that_finds_no_free_gpu_is_refused_before_its_first_request(
    platform: Installation, node: str
) -> None:
    platform.ask(order={"id": 1, "action": "abort", "reason": "the next one is looked at"})
    platform.until("rolled_back")
    platform.cluster.patch(NODES, node, {"spec": {"taints": None}})
    taken = len([pod for pod in platform.pods("triton") if _gpus(pod)])
    _offer(taken)

    copy = sound_copy(platform)
    platform.ask(version=copy)

    wait(lambda: "GPU" in str(platform.status), 240, lambda: str(platform.status.get("message")))
    versions = {
        pod["metadata"]["labels"]["mlplatform.dev/version"] for pod in platform.pods("triton")
    }
    assert str(copy) not in versions
    assert "verifying" == platform.status["phase"]


def _offer(count: int) -> None:
    command = [*shlex.split(os.environ["OFFER_GPUS"]), str(count)]
    subprocess.run(command, check=True, capture_output=True)


def _gpus(pod: Object) -> int:
    wanted = [c["resources"].get("limits", {}).get(_GPU, 0) for c in pod["spec"]["containers"]]
    return sum(map(int, wanted))
