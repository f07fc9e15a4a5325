"""The whole loop inside a cluster: deployed by one command, on real flights, a test for each act.

The tests of this file tell one story and run in its order.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from mlplatform.clients.kubernetes import DEPLOYMENTS
from tests.cluster.clients import Answers, load, requests
from tests.cluster.installation import NAME, USECASE, Installation
from tests.cluster.plans import QUICK, UNSEEN
from tests.cluster.values import HEAT, VALUES
from tests.cluster.volumes import folder_of
from tests.cluster.waiting import wait
from tests.conftest import ROOT

PER_SECOND = 50


def test_one_command_leads_from_an_empty_cluster_to_a_served_prediction(
    platform: Installation, record_property: Callable[[str, object], None]
) -> None:
    record_property("seconds to a served prediction", round(platform.seconds))
    said = " ".join(platform.said.split())
    assert re.search("prediction .*'version': 1,.*'degraded': False, 'fallback': False", said), said
    assert ["registered"] == [row.verdict for row in platform.decisions("run")]
    assert 1 == platform.status["champion"]


def test_a_second_deployment_changes_nothing(platform: Installation) -> None:
    def generations() -> dict[str, int]:
        found = platform.cluster.list(DEPLOYMENTS)
        return {item["metadata"]["name"]: item["metadata"]["generation"] for item in found}

    before, pods = generations(), set(platform.ready("gateway"))

    platform.deploy(VALUES)

    assert before == generations()
    assert pods == set(platform.ready("gateway"))


def test_hot_days_are_found_as_drift_and_start_a_run_that_registers_a_version(
    platform: Installation, tmp_path: Path
) -> None:
    platform.at(HEAT).deploy(VALUES)
    platform.job("mlplatform-materialize", "materialize-at-the-start")
    answers = _replayed(platform, HEAT, HEAT + timedelta(days=2), tmp_path)
    assert 0 == answers.filter(pl.col("status") != 200).height
    platform.at(HEAT + timedelta(days=2, minutes=10)).deploy(VALUES)

    platform.ask(plan=QUICK)  # of the rollout that follows by itself

    platform.job(f"mlplatform-judge-{NAME}", "judge-the-hot-days")

    found = platform.decisions("monitor")
    assert "input_drift" in {row.verdict for row in found}, found
    wait(lambda: len(platform.decisions("run")) > 1, 900, lambda: _retraining(platform))
    run = platform.decisions("run")[-1]
    platform.ended(run.subject, 120)  # the run is the Job
    assert "registered" == run.verdict


def test_the_new_version_takes_over_under_load(
    platform: Installation, seen: list[tuple[Answers, str]]
) -> None:
    bodies = requests(platform.code, HEAT, lambda: platform.now, "canary")

    with load(platform.gateway, platform.path, bodies, PER_SECOND) as answers:
        platform.until("promoted", version=2, seconds=600)

    seen.append((answers, f"answers by version: {answers.by_version}"))
    assert (0, 0) == (answers.lost, answers.refused)
    assert {1, 2} <= set(answers.by_version)
    wait(lambda: ["2"] == _versions(platform), 60, lambda: str(_versions(platform)))


def test_a_broken_version_is_rolled_back_under_load(
    platform: Installation, seen: list[tuple[Answers, str]]
) -> None:
    platform.drill("copy_version", "register-broken", USECASE, "2", "broken", "loop")
    bodies = requests(platform.code, HEAT, lambda: platform.now, "broken")

    with load(platform.gateway, platform.path, bodies, PER_SECOND) as answers:
        platform.ask(plan=UNSEEN, version=3)
        platform.until("rolled_back", version=3, seconds=600)

    seen.append((answers, f"answers by version: {answers.by_version}"))
    verdicts = [row.verdict for row in platform.decisions("rollout", "3")]
    assert "harm" == verdicts[-1]
    assert (0, 0) == (answers.lost, answers.refused)
    assert answers.by_version[3] < answers.by_version[2]


def test_kubectl_tells_the_story(platform: Installation) -> None:
    shown = platform.kubectl("get", "modelrollouts")

    assert NAME in shown
    assert "rolled_back" in shown


def _replayed(platform: Installation, start: datetime, end: datetime, folder: Path) -> pl.DataFrame:
    """Live through past days: features as they became known, requests at their own times."""
    out = folder / "answers.parquet"
    command = [
        sys.executable, "-m", "local.replay", "--usecase", USECASE,
        "--start", start.isoformat(), "--end", end.isoformat(), "--rate", "100",
        "--gateway", platform.gateway,
        "--redis", platform.secret("mlplatform-redis-features", "MLPLATFORM_REDIS_URL"),
        "--data-root", str(folder_of(platform.cluster, "mlplatform-data") / "features"),
        "--out", str(out),
    ]  # fmt: skip
    asked = f'{{"until": "{end.isoformat()}"}}\n'
    done = subprocess.run(
        command, cwd=ROOT, input=asked, capture_output=True, text=True, check=False, timeout=600
    )
    assert 0 == done.returncode, done.stderr
    return pl.read_parquet(out)


def _versions(platform: Installation) -> list[str]:
    """Return the versions that have a server."""
    return [pod["metadata"]["labels"]["mlplatform.dev/version"] for pod in platform.pods("triton")]


def _retraining(platform: Installation) -> str:
    pods = platform.pods("training")
    said = platform.kubectl("logs", "deployment/mlplatform-trigger", "--tail=30")
    return f"{said}\n{[(pod['metadata']['name'], pod['status'].get('phase')) for pod in pods]}"
