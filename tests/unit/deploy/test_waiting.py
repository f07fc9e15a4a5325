"""Waiting for the workloads: what is said meanwhile, and how it ends."""

import io
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from deploy.progress import Progress
from deploy.troubles import Trouble
from deploy.waiting import wait
from deploy.workloads import Held, Look, Workload
from mlplatform.errors import ServiceError


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds


def workload(
    ready: int = 0, said: str = "", *, name: str = "gateway", failed: str = ""
) -> Workload:
    held = (Held("pod", Trouble(said)),) if said else ()
    return Workload("Deployment", name, name, ready, 1, held, failed)


def run(looks: Iterator[Look], **options: object) -> tuple[str, str]:
    console = Console(file=io.StringIO(), width=200)
    clock = Clock()
    last: list[Look] = []

    def look() -> Look:
        last[:] = [next(looks, *last)]
        return last[0]

    wait_for: Callable[..., str] = wait
    done = wait_for(
        Progress(console), look, timeout_seconds=60, now=clock.now, pause=clock.pause, **options
    )
    assert isinstance(console.file, io.StringIO)
    return done, console.file.getvalue()


def looks(*workloads: Workload, times: int = 1) -> list[Look]:
    return [Look(workloads, ())] * times


def test_nothing_is_said_where_all_is_ready_at_once() -> None:
    assert ("1 workloads are ready", "") == run(iter(looks(workload(1))))


def test_a_pod_that_starts_at_once_is_not_worth_a_line() -> None:
    _, said = run(iter([*looks(workload(said="it is starting"), times=3), *looks(workload(1))]))

    assert "" == said


def test_each_reason_is_said_once() -> None:
    slow = looks(workload(said="its image is being pulled"), times=20)
    _, said = run(iter([*slow, *looks(workload(1))]))

    assert 1 == said.count("gateway: its image is being pulled")
    assert 1 == said.count("ready")


def test_what_passes_quickly_is_not_said() -> None:
    changes = [
        *looks(workload(said="its image is being pulled"), times=10),
        *looks(workload(said="it is starting"), times=3),
        *looks(workload(said="it runs and is not ready"), times=10),
        *looks(workload(1)),
    ]
    _, said = run(iter(changes))

    assert "it is starting" not in said


def test_a_new_reason_is_said_again() -> None:
    changes = [
        *looks(workload(said="its image is being pulled"), times=10),
        *looks(workload(said="it runs and is not ready"), times=10),
        *looks(workload(1)),
    ]
    _, said = run(iter(changes))

    assert "it runs and is not ready" in said


def test_when_the_time_is_up_it_says_what_is_missing() -> None:
    with pytest.raises(ServiceError, match=r"not ready within 60 s:\n  gateway: no room"):
        run(iter(looks(workload(said="no room"))))


def test_a_job_that_has_given_up_is_not_waited_for() -> None:
    setup = workload(said="wrong password", name="setup", failed="backoff limit")

    with pytest.raises(ServiceError, match=r"the Job setup has given up: backoff limit \(wrong"):
        run(iter(looks(setup)))


def test_a_component_that_is_left_out_may_take_its_time() -> None:
    done, _ = run(iter(looks(workload(), workload(1, name="redis"))), without=["gateway"])

    assert "1 workloads are ready" == done


def test_claims_without_a_volume_are_said() -> None:
    unbound = Held("volume claim data", Trouble("no volume fits it"))
    slow = [Look((workload(said="a volume claim is not bound"),), (unbound,))] * 10
    _, said = run(iter([*slow, *looks(workload(1))]))

    assert "volume claim data: no volume fits it" in said
