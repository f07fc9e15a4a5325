"""Replicas of the operator die, sleep and take over in the middle of a rollout."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from mlplatform.clients.kubernetes import DEPLOYMENTS, LEASES, MODEL_ROLLOUTS, PODS
from tests.cluster.operator.conftest import rollout
from tests.cluster.operator.stage import Operator, Stage
from tests.loop.small_platform import USECASE

PLAN = {"shadow_hours": 0, "weights": [0.2], "soak_hours": 0, "min_exposure": 1_000_000}
"""Goes on by hand alone: nobody makes requests."""
LEASE = "mlplatform-operator"


def holder(stage: Stage) -> str:
    found = stage.cluster.find(LEASES, LEASE)
    return "" if found is None else str(found["spec"]["holderIdentity"]).partition("_")[0]


def leads(stage: Stage, operator: Operator) -> Callable[[], bool]:
    return lambda: holder(stage) == operator.log.stem.replace("operator", "replica")


def at_rest(stage: Stage) -> bool:
    progress = [one for one in stage.status["conditions"] if one["type"] == "Progressing"]
    return progress[0]["status"] == "False" and len(stage.status["servers"]) == 1


def state(stage: Stage) -> tuple[object, ...]:
    """Return what a replica could have changed."""
    status = stage.status
    return status["rollout"], status["leader"], pods(stage), stage.route


def recorded(stage: Stage, version: int) -> int:
    """Return how many decisions on a version are on the ledger."""
    return len(stage.ledger.entries(USECASE, "rollout", str(version)))


def pods(stage: Stage) -> dict[str, str]:
    """Return the uid of each server's pod, by the server."""
    labels = {"app.kubernetes.io/component": "triton"}
    return {
        pod["metadata"]["labels"]["app.kubernetes.io/instance"]: pod["metadata"]["uid"]
        for pod in stage.cluster.list(PODS, labels)
        if not pod["metadata"].get("deletionTimestamp")
    }


@pytest.fixture(scope="module", autouse=True)
def served(stage: Stage) -> None:
    """The first version serves."""
    stage.cluster.create(MODEL_ROLLOUTS, rollout(plan=PLAN))
    with stage.operator():
        stage.until(stage.phase("serving"))


@pytest.mark.parametrize("phase", ["verifying", "canary", "soak"])
def test_a_killed_operator_goes_on_where_it_was(stage: Stage, phase: str) -> None:
    with stage.operator() as killed:
        stage.until(leads(stage, killed))
        version = stage.register(-0.01)
        stage.until(stage.phase("verifying", "canary"))
        if phase != "verifying":
            stage.until(stage.phase("canary"))
        if phase == "soak":
            stage.order("promote")
            stage.until(stage.phase("soak"))
        before = pods(stage)
        killed.process.kill()
        killed.process.wait()

    with stage.operator() as heir:
        stage.until(leads(stage, heir))
        stage.until(stage.phase("soak" if phase == "soak" else "canary"))
        still = pods(stage)
        if phase != "soak":
            stage.order("promote")
            stage.until(stage.phase("soak"))
        stage.order("promote")
        stage.until(stage.phase("promoted"))
        stage.until(lambda: stage.servers() == {f"triton-flight-delay-v{version}"})

    assert before.items() <= still.items()
    assert version == stage.status["champion"]
    rows = stage.ledger.entries(USECASE, "rollout", str(version))
    assert ["started", "verifying", "verified", "forced", "forced"] == [
        row.decision.verdict for row in rows
    ]
    assert 0 < stage.ledger.verify()


def test_a_standby_takes_over_and_who_wakes_up_does_nothing(stage: Stage) -> None:
    with stage.operator() as sleeper:
        stage.until(leads(stage, sleeper))
        with stage.operator() as standby:
            version = stage.register(-0.01)
            stage.until(stage.phase("canary"))
            # A process that is stopped in the middle of a writing keeps SQLite's lock.
            stage.until(lambda: recorded(stage, version) == 3)
            time.sleep(2)
            os.kill(sleeper.process.pid, signal.SIGSTOP)
            stage.until(leads(stage, standby))
            stage.order("rollback", reason="a drill")
            stage.until(stage.phase("rolled_back"))
            stage.until(lambda: at_rest(stage) and len(pods(stage)) == 1)
            before = state(stage)
            os.kill(sleeper.process.pid, signal.SIGCONT)
            stage.until(lambda: "has lost the lease" in sleeper.said)
            time.sleep(2)
            after = state(stage)
            assert leads(stage, standby)()
        # The standby has left the lease: whoever slept leads again.
        stage.until(leads(stage, sleeper))

    assert before == after
    assert version == stage.status["rollout"]["challenger"]["version"]
    assert "Traceback" not in sleeper.said + standby.said


def test_an_operator_that_is_asked_to_end_leaves_the_lease_at_once(stage: Stage) -> None:
    with stage.operator() as first:
        stage.until(leads(stage, first))
    assert "" == holder(stage)

    began = time.monotonic()
    with stage.operator() as second:
        stage.until(leads(stage, second))
        took = time.monotonic() - began
        token = stage.status["leader"]["token"]
        stage.until(lambda: stage.status["leader"]["token"] > token)

    assert 0 == first.process.returncode
    assert took < 6  # less than the lease would have lasted


def test_a_server_that_somebody_deleted_comes_back(stage: Stage) -> None:
    with stage.operator() as operator:
        stage.until(leads(stage, operator))
        stage.until(lambda: stage.status["servers"][0]["state"] == "ready")
        (name,) = pods(stage)
        before = pods(stage)
        stage.cluster.delete(DEPLOYMENTS, name)
        stage.until(lambda: pods(stage).get(name, before[name]) != before[name])

    assert "Traceback" not in operator.said
