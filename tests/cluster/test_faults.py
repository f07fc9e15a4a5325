"""What breaks in a cluster, under load: no request is lost, and rollouts end as they would have."""

import contextlib
import os
import shlex
import subprocess
import threading
import uuid
from collections.abc import Iterator

import polars as pl
import pytest

from feature_repo import predictions
from tests.cluster.clients import Answers, load, requests
from tests.cluster.installation import USECASE, Installation
from tests.cluster.plans import QUICK
from tests.cluster.values import HEAT
from tests.cluster.volumes import folder_of
from tests.cluster.waiting import wait

PER_SECOND = 30
UNDISTURBED = ["started", "verifying", "verified", "canary", "canary", "soak", "promoted"]

Seen = list[tuple[Answers, str]]


@contextlib.contextmanager
def under_load(platform: Installation) -> Iterator[Answers]:
    """Clients of their own, of flights that nobody has asked for before."""
    prefix = uuid.uuid4().hex
    bodies = requests(platform.code, HEAT, lambda: platform.now, prefix)
    with load(platform.gateway, platform.path, bodies, PER_SECOND) as answers:
        yield answers


def sound_copy(platform: Installation) -> int:
    """Register a copy of what serves, which differs in its bytes alone; return its number."""
    champion, tag = platform.status["champion"], uuid.uuid4().hex[:8]
    said = platform.drill("copy_version", f"register-{tag}", USECASE, str(champion), "sound", tag)
    return int(said.strip().rpartition(" ")[2])


def verdicts(platform: Installation, version: int) -> list[str]:
    return [row.verdict for row in platform.decisions("rollout", str(version))]


def test_the_operator_is_killed_in_each_phase_of_a_rollout(
    platform: Installation, seen: Seen
) -> None:
    version = sound_copy(platform)
    killed: list[str] = []
    over = threading.Event()

    def kill_in_each_phase() -> None:
        while not over.wait(0.3):
            status = platform.status
            place = f"{status.get('phase')} {status.get('step', '')}".strip()
            mine = status.get("challenger") == version
            if not mine or status["phase"] == "promoted" or place in killed:
                continue
            killed.append(place)
            for pod in platform.pods("operator"):
                platform.kill(pod["metadata"]["name"])

    killer = threading.Thread(target=kill_in_each_phase)
    with under_load(platform) as answers:
        platform.ask(plan=QUICK, version=version)
        killer.start()
        try:
            platform.until("promoted", version=version, seconds=900)
        finally:
            over.set()
            killer.join()

    seen.append((answers, f"promoted; killed in: {', '.join(killed)}"))
    assert {"verifying", "shadow", "canary", "soak"} <= {place.split()[0] for place in killed}
    assert verdicts(platform, version) == UNDISTURBED
    assert (0, 0) == (answers.lost, answers.refused)


def test_all_gateways_are_replaced(platform: Installation, seen: Seen) -> None:
    with under_load(platform) as answers:
        before = set(platform.ready("gateway"))
        platform.kubectl("rollout", "restart", "deployment/mlplatform-gateway")
        wait(lambda: len(new := set(platform.ready("gateway"))) > 1 and not new & before, 240)
        wait(lambda: not before & _all(platform, "gateway"), 240)

    seen.append((answers, "every gateway is another one"))
    assert (0, 0) == (answers.lost, answers.refused)


def test_the_model_server_is_killed(platform: Installation, seen: Seen) -> None:
    champion = platform.status["champion"]
    with under_load(platform) as answers:
        (pod,) = platform.ready("triton")
        platform.kill(pod)
        wait(lambda: bool(_by_rules(answers)), 60, lambda: "nobody noticed")
        wait(lambda: bool(platform.ready("triton")), 240)
        wait(lambda: {champion} == _newest(answers), 120, lambda: str(_newest(answers)))

    seen.append((answers, "the model answers again"))
    assert (0, 0) == (answers.lost, answers.refused)


def test_redis_is_killed(platform: Installation, seen: Seen) -> None:
    with under_load(platform) as answers:
        (pod,) = platform.ready("redis")
        platform.kill(pod)
        wait(lambda: pod not in platform.ready("redis"), 60)
        wait(lambda: bool(platform.ready("redis")), 240)
        wait(lambda: not _degraded(answers), 120)

    seen.append((answers, "features are whole again, each answer is in the archive once"))
    assert (0, 0) == (answers.lost, answers.refused)
    asked = {scored.request_id for _, scored in answers.scored}
    wait(lambda: asked <= set(_logged(platform)), 120)
    logged = [name for name in _logged(platform) if name in asked]
    assert len(asked) == len(logged)


def test_the_api_server_is_restarted_during_a_rollout(platform: Installation, seen: Seen) -> None:
    command = os.environ.get("RESTART_API_SERVER", "")
    if not command:
        pytest.skip("set RESTART_API_SERVER to a command that does it")
    version = sound_copy(platform)

    with under_load(platform) as answers:
        platform.ask(plan=QUICK, version=version)
        platform.until("shadow", "canary", version=version, seconds=300)
        subprocess.run(shlex.split(command), check=True, capture_output=True, timeout=300)
        platform.until("promoted", version=version, seconds=900)

    seen.append((answers, "promoted"))
    assert verdicts(platform, version) == UNDISTURBED
    assert (0, 0) == (answers.lost, answers.refused)


def _all(platform: Installation, component: str) -> set[str]:
    found = platform.kubectl(
        "get", "pods", "-l", f"app.kubernetes.io/component={component}", "-o", "name"
    )
    return {name.partition("/")[2] for name in found.split()}


def _by_rules(answers: Answers) -> int:
    return sum(scored.fallback for _, scored in answers.scored[-PER_SECOND:])


def _newest(answers: Answers) -> set[int]:
    """Return which versions gave the answers of the last seconds."""
    return {scored.version for _, scored in answers.scored[-3 * PER_SECOND :]}


def _degraded(answers: Answers) -> int:
    return sum(scored.degraded or scored.fallback for _, scored in answers.scored[-PER_SECOND:])


def _logged(platform: Installation) -> list[str]:
    """Return the request ids of the archive, the shadow's left out."""
    root = folder_of(platform.cluster, "mlplatform-data") / "predictions"
    rows = predictions.read(root, USECASE, columns=["request_id", "arm"])
    return rows.filter(pl.col("arm") != "shadow")["request_id"].to_list()
