"""Why a server's pod does not run, and whether that may pass."""

from typing import Any

import pytest

from serving.operator.pods import runs, trouble
from tests.unit.serving.operator.objects import pod

THERE = {"metadata": {"name": "triton"}, "status": {}}
UNSCHEDULED = [
    {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: 1 Insufficient memory"}
]


def container(name: str, state: dict[str, Any], last: dict[str, Any] | None = None) -> Any:
    return {"name": name, "state": state, "lastState": last or {}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        pytest.param(
            {"conditions": UNSCHEDULED},
            "no node takes its pod: 0/1 nodes: 1 Insufficient memory",
            "waits",
            id="no node",
        ),
        pytest.param(
            {"initContainerStatuses": [container("export", ended(1, "the digest differs"))]},
            "container export: the digest differs",
            "final",
            id="refused",
        ),
        pytest.param(
            {
                "initContainerStatuses": [
                    container("export", waiting("CrashLoopBackOff"), ended(1, "the digest differs"))
                ]
            },
            "container export: the digest differs",
            "final",
            id="refused, and tried again",
        ),
        pytest.param(
            {"initContainerStatuses": [container("export", ended(75, "MLflow is away"))]},
            "container export: MLflow is away",
            "stuck",
            id="the registry is away",
        ),
        pytest.param(
            {"initContainerStatuses": [container("export", ended(137, "", "OOMKilled"))]},
            "container export: OOMKilled",
            "stuck",
            id="out of memory",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container("triton", waiting("ImagePullBackOff", "no such tag"))
                ]
            },
            "container triton: ImagePullBackOff: no such tag",
            "stuck",
            id="no image yet",
        ),
        pytest.param(
            {"containerStatuses": [container("triton", waiting("InvalidImageName", "a b"))]},
            "container triton: InvalidImageName: a b",
            "final",
            id="no image ever",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container("triton", waiting("CrashLoopBackOff"), ended(2, "no such backend"))
                ]
            },
            "container triton: CrashLoopBackOff: no such backend",
            "stuck",
            id="it crashes",
        ),
        pytest.param(
            {"initContainerStatuses": [container("export", {"running": {}})]},
            "its pod starts",
            "starts",
            id="it exports",
        ),
        pytest.param(
            {"initContainerStatuses": [container("export", ended(0, reason="Completed"))]},
            "its pod starts",
            "starts",
            id="it has exported",
        ),
    ],
)
def test_a_pod_that_does_not_run_says_why(status: dict[str, Any], text: str, kind: str) -> None:
    found = trouble(THERE, [pod(phase="Pending", **status)])

    assert (text, kind) == (found.text, found.kind)


def test_the_newest_pod_is_the_one_that_counts() -> None:
    old = pod(phase="Pending", conditions=UNSCHEDULED)
    new = pod(phase="Pending")
    new["metadata"]["creationTimestamp"] = "2026-03-01T13:00:00Z"

    assert "its pod starts" == trouble(THERE, [new, old]).text


def test_a_pod_that_may_not_be_made_is_no_pod_that_is_late() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    forbidden = {**THERE, "status": {"conditions": [condition]}}

    assert "no pod can be made: exceeded quota" == trouble(forbidden, []).text
    assert "its pod is not there yet" == trouble(THERE, []).text
    assert "its Deployment is not there yet" == trouble(None, []).text


def test_a_pod_that_is_going_is_not_asked_any_more() -> None:
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"

    assert (True, False, False) == (runs([pod()]), runs([going]), runs([pod(phase="Pending")]))
