"""Why a pod does not run, in words that say what to do."""

from typing import Any

import pytest

from deploy.pods import explain
from deploy.scheduling import request
from deploy.troubles import Trouble
from mlplatform.clients.kubernetes import Object
from tests.unit.deploy.objects import IMAGE, event, pod, unscheduled, waiting


def said(body: Object, *events: Object) -> str:
    return "; ".join(map(str, explain(body, events)))


def test_a_pod_that_is_well_is_no_trouble() -> None:
    assert () == explain(pod(conditions=[{"type": "Ready", "status": "True"}]))


def test_a_pod_that_has_done_its_work_is_no_trouble() -> None:
    assert () == explain(pod(phase="Succeeded", conditions=[{"type": "Ready", "status": "False"}]))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(
            "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: "
            "1 No preemption victims found for incoming pod.",
            "1 node with too little memory left (it asks for 4.0 GiB): free some, add a node, or "
            "ask for less in the values",
            id="memory",
        ),
        pytest.param(
            "0/3 nodes are available: 3 Insufficient cpu.",
            "3 nodes with too little CPU left (it asks for 2)",
            id="cpu",
        ),
        pytest.param(
            "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate",
            "2 nodes with too little GPU left (it asks for 1)",
            id="gpu",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present}.",
            "1 node with the taint nvidia.com/gpu: present, which the pod does not tolerate",
            id="taint",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: }.",
            "1 node with the taint dedicated, which",
            id="taint without a value",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "1 node without the labels of its node selector (pool=ml)",
            id="selector",
        ),
        pytest.param(
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            "a volume claim of it is not bound",
            id="unbound claim",
        ),
        pytest.param(
            '0/1 nodes are available: persistentvolumeclaim "mlplatform-data" not found.',
            "the volume claim mlplatform-data does not exist: deploy again",
            id="missing claim",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) were unschedulable.",
            "1 node cordoned: `kubectl uncordon` the node",
            id="cordoned",
        ),
        pytest.param(
            "0/1 nodes are available: 1 Too many pods.",
            "1 node with all the pods that fit",
            id="too many pods",
        ),
        pytest.param(
            "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
            "its volume is on another node than those with room (2 nodes)",
            id="volume elsewhere",
        ),
        pytest.param(
            "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.",
            "2 nodes where its spread allows no other of its kind",
            id="spread",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) are haunted.",
            "no node takes it: 0/1 nodes are available: 1 node(s) are haunted.",
            id="never seen before",
        ),
    ],
)
def test_an_unscheduled_pod_says_what_each_node_lacks(message: str, words: str) -> None:
    body = unscheduled(message, requests={"memory": "4Gi", "cpu": "2", "nvidia.com/gpu": "1"})

    assert words in said(body)


def test_several_reasons_are_all_said() -> None:
    message = (
        "0/3 nodes are available: 1 Insufficient memory, 2 node(s) had untolerated taint "
        "{node-role.kubernetes.io/control-plane: }. preemption: 0/3 nodes are available: "
        "3 Preemption is not helpful for scheduling."
    )

    assert 2 == len(explain(unscheduled(message)))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("failed to resolve: not found", f"the image {IMAGE} is not in its registry: push it"),
        ("pull access denied, authorization failed", "the registry refuses to give"),
        ("http: server gave HTTP response to HTTPS client", "the node does not trust"),
        ("dial tcp 10.0.0.1:443: i/o timeout", "the node cannot reach the registry"),
        ("something else", "cannot be pulled: something else"),
    ],
)
def test_an_image_that_cannot_be_pulled_says_why(message: str, words: str) -> None:
    body = pod(phase="Pending", containers=[waiting("ErrImagePull", message)])

    assert words in said(body)


def test_backing_off_says_the_cause_that_an_event_had() -> None:
    body = pod(phase="Pending", containers=[waiting("ImagePullBackOff", "Back-off pulling image")])
    before = event("Pod", "gateway-abc", "Failed", "manifest unknown")

    assert "is not in its registry" in said(body, before)


def test_a_missing_secret_is_named() -> None:
    message = 'secret "mlplatform-ledger" not found'
    body = pod(phase="Pending", containers=[waiting("CreateContainerConfigError", message)])

    assert 'cannot be made: secret "mlplatform-ledger" not found: deploy again' in said(body)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            {"reason": "Error", "exitCode": 1, "message": "the ledger cannot be reached"},
            "its container gateway has ended 3 times with status 1: the ledger cannot be reached",
        ),
        ({"reason": "OOMKilled", "exitCode": 137}, "it needed more memory than its limit"),
    ],
)
def test_a_container_that_crashes_says_its_last_words(last: dict[str, Any], words: str) -> None:
    status = waiting("CrashLoopBackOff", restartCount=3, lastState={"terminated": last})

    assert words in said(pod(containers=[status]))


def test_an_init_container_that_refuses_says_its_message() -> None:
    refused = {
        "name": "export",
        "state": {"terminated": {"exitCode": 1, "message": "the signature is of another key"}},
    }

    assert (
        "its init container export has failed with status 1: the signature is of another key: see "
        "its log"
    ) == said(pod(phase="Pending", init=[refused]))


def test_an_evicted_pod_says_what_the_node_ran_out_of() -> None:
    body = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")

    assert "it was evicted: The node was low on resource: memory." in said(body)


def test_a_volume_that_cannot_be_mounted_is_said_while_it_starts() -> None:
    mount = event("Pod", "gateway-abc", "FailedMount", 'secret "mlplatform-signing" not found')

    assert 'a volume cannot be mounted: secret "mlplatform-signing"' in said(
        pod(phase="Pending"), mount
    )


def test_a_pod_that_is_not_ready_says_what_its_probe_hears() -> None:
    body = pod(conditions=[{"type": "Ready", "status": "False"}])
    probe = event("Pod", "gateway-abc", "Unhealthy", "Readiness probe failed: HTTP 503")

    assert "it runs and is not ready: Readiness probe failed: HTTP 503" == said(body, probe)


def test_a_job_that_runs_is_not_unready() -> None:
    body = pod(conditions=[{"type": "Ready", "status": "False"}], owner=("Job", "training"))

    assert "it runs" == said(body)


def test_the_newest_event_counts() -> None:
    body = pod(phase="Pending")
    old = event("Pod", "gateway-abc", "FailedMount", "no such volume", at="2026-01-01")
    new = event("Pod", "gateway-abc", "Pulling", "Pulling image", at="2026-01-02")

    assert "its image is being pulled" == said(body, old, new)


def test_advice_follows_what_is_wrong() -> None:
    assert "too dark: light a lamp" == str(Trouble("too dark", "light a lamp"))


def test_a_pod_asks_for_what_its_containers_ask_together_or_its_largest_init_container() -> None:
    def of(memory: str) -> dict[str, Any]:
        return {"resources": {"requests": {"memory": memory}}}

    spec = {"containers": [of("1Gi"), of("512Mi")], "initContainers": [of("2Gi"), of("1Gi")]}

    assert 2 * 1024**3 == request(spec, "memory")
