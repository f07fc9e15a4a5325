"""Serving on GPU nodes, as far as the scheduler and the preflight go: nothing computes on one."""

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from mlplatform.clients.kubernetes import NODES, Object
from tests.cluster.installation import Installation
from tests.cluster.plans import QUICK
from tests.cluster.test_faults import sound_copy, under_load
from tests.cluster.values import HEAT, ON_GPUS
from tests.cluster.waiting import wait

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
_GPU = "nvidia.com/gpu"
_VERSION = "mlplatform.dev/version"


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


def test_a_server_is_placed_on_the_tainted_node_that_has_a_gpu_for_it(
    platform: Installation, node: str
) -> None:
    platform.at(HEAT).deploy(ON_GPUS)
    copy = sound_copy(platform)
    platform.cluster.patch(NODES, node, {"spec": {"taints": [TAINT]}})

    with under_load(platform):
        platform.ask(plan=QUICK, version=copy)
        platform.until("promoted", version=copy, seconds=600)

    (pod,) = platform.pods("triton", **{_VERSION: str(copy)})
    assert (node, 1) == (pod["spec"]["nodeName"], _gpus(pod))


def test_a_version_that_finds_no_free_gpu_beside_the_champion_waits_and_says_so(
    platform: Installation, node: str
) -> None:
    platform.cluster.patch(NODES, node, {"spec": {"taints": None}})
    copy = sound_copy(platform)
    _offer(1)  # the champion's
    champion = platform.status["champion"]

    with under_load(platform) as answers:
        platform.ask(version=copy)
        wait(lambda: "too few are free" in platform.status["message"], 240)

    assert [] == platform.pods("triton", **{_VERSION: str(copy)})
    assert "verifying" == platform.status["phase"]
    assert champion == platform.status["champion"]
    assert (0, 0) == (answers.lost, answers.refused)
    platform.order("abort")
    platform.until("rolled_back", version=copy)


def _offer(count: int) -> None:
    command = [*shlex.split(os.environ["OFFER_GPUS"]), str(count)]
    subprocess.run(command, check=True, capture_output=True)


def _gpus(pod: Object) -> int:
    wanted = [c["resources"].get("limits", {}).get(_GPU, 0) for c in pod["spec"]["containers"]]
    return sum(map(int, wanted))
