"""The registered model answers live traffic, and goes on when its servers do not."""

import json
import signal
import subprocess
import sys
from typing import Any

import polars as pl
import pytest

from feature_repo import predictions
from local.mlflow_server import mlflow_server
from local.replayed import Replayed
from tests.loop.platform_copy import Platform

pytestmark = pytest.mark.loop


@pytest.fixture(scope="module")
def replayed(registered: Platform) -> Platform:
    """The platform after half a day of live traffic; nobody had promoted a version before."""
    from mlflow import MlflowClient

    with mlflow_server(registered.root / "mlflow") as server:
        MlflowClient(server.url, server.url).delete_registered_model_alias(
            "flight_delay", "champion"
        )
    result = registered.demo(registered.summary.as_of, replay_days=0.5)
    assert result.returncode == 0, result.stdout + result.stderr
    return registered


@pytest.fixture(scope="module")
def outcome(replayed: Platform) -> Replayed:
    return Replayed.model_validate_json((replayed.root / "replay.json").read_bytes())


def test_every_request_is_answered_and_logged_once(outcome: Replayed) -> None:
    assert outcome.sent == outcome.answered > 200
    assert (0, 0) == (outcome.lost, outcome.refused)
    assert (0, 0, 0) == (outcome.unlogged, outcome.doubled, outcome.mislogged)


def test_the_model_answers_and_the_rules_are_not_needed(outcome: Replayed) -> None:
    assert outcome.fallback < 0.02 * outcome.sent
    assert 0 < outcome.positive < outcome.sent


def test_serving_saw_what_the_point_in_time_join_sees(outcome: Replayed) -> None:
    assert outcome.compared == outcome.equal > 200
    assert {} == outcome.differing


def test_the_log_holds_the_vector_and_the_time_of_each_hop(replayed: Platform) -> None:
    rows = predictions.read(replayed.root / "data" / "predictions", "flight_delay")
    data = replayed.summary.training_set
    assert data is not None

    assert {len(data.features)} == set(rows["features"].list.len().unique())
    assert rows["score"].is_between(0, 1).all()
    assert (rows["total_us"] >= rows["inference_us"]).all()
    assert rows.filter(pl.col("arm") == "champion").height > 0.98 * rows.height


def test_the_first_version_that_is_served_is_promoted_on_the_ledger(replayed: Platform) -> None:
    routes = [row for row in replayed.decisions() if row.kind == "route"]

    assert ["promoted"] == [row.verdict for row in routes]
    assert "no champion to compare it with" in routes[0].reason


def test_no_process_is_left_after_a_replay(replayed: Platform) -> None:
    assert [] == replayed.processes()


def test_faults_lose_no_request_and_the_platform_comes_back(replayed: Platform) -> None:
    result = replayed.python("-m", "bench.faults", "--root", str(replayed.root), "--seconds", "10")
    assert 0 == result.returncode, result.stdout + result.stderr
    found = json.loads((replayed.checkout / "build" / "bench" / "faults.json").read_text())

    for fault in found["faults"]:
        assert fault["sent"] == fault["answered"], fault
        assert fault["recovered_seconds"] is not None, fault
        if not fault["fault"].endswith("archiver"):
            assert fault["marked"] > 0, fault
    assert found["answered"] == found["archived_once"]
    assert [] == replayed.processes()


def test_make_serve_prints_a_request_that_works_and_ends_at_ctrl_c(replayed: Platform) -> None:
    command = [sys.executable, "-m", "local.serve", "--root", str(replayed.root), "--port", "0"]
    command += ["--as-of", replayed.summary.as_of]
    shown: list[str] = []
    with subprocess.Popen(
        command,
        cwd=replayed.checkout,
        env=replayed.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serve:
        try:
            assert serve.stdout is not None
            for line in serve.stdout:
                shown.append(line)
                if "Ctrl-C ends it" in line:
                    break
            (curl,) = [line for line in shown if line.startswith("curl -s ")]
            done = subprocess.run(
                ["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=20
            )
        finally:
            serve.send_signal(signal.SIGINT)
            serve.communicate(timeout=60)

    answer: dict[str, Any] = json.loads(done.stdout)
    assert ("flight_delay", "champion") == (answer["model"], answer["arm"])
    assert (False, False) == (answer["degraded"], answer["fallback"])
    assert 0 <= answer["score"] <= 1
    assert 0 == serve.returncode, "".join(shown)
    assert [] == replayed.processes()
