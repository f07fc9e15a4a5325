"""`make demo`: a model is built from real flights by real parts, once."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loop.platform_copy import AS_OF, Platform

pytestmark = pytest.mark.loop

CHANGE = """

def _warmer(raw: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return views.origin_weather(raw).with_columns(pl.col("temp") + 1000)


BATCH = {**BATCH, "origin_weather": _warmer}
"""
"""An existing feature, computed otherwise."""


def test_a_model_is_validated_trained_gated_and_registered(registered: Platform) -> None:
    summary = registered.summary

    assert "registered" == summary.verdict
    assert summary.validation is not None
    assert summary.validation.passed
    assert summary.model is not None
    assert (1, True) == (summary.model.version, summary.model.created)
    assert {"logistic_regression", "xgboost", "lightgbm"} == set(summary.metrics)
    steps = ["validate", "training_set", "train", "evaluate", "gate", "register"]
    assert steps == [name for name in summary.seconds if name in steps]


def test_every_decision_is_on_the_ledger_and_the_chain_holds(registered: Platform) -> None:
    kinds = [row.kind for row in registered.decisions() if row.subject or row.kind == "run"]

    made = {"validation", "training_set", "gate", "registration", "run"}
    assert made | {"route"} == set(kinds)  # the first version of all serves at once
    assert len(kinds) == registered.ledger.verify()


def test_a_feature_is_added_in_the_folder_of_the_use_case_alone(registered: Platform) -> None:
    data, winner = registered.summary.training_set, registered.summary.winner
    assert data is not None
    assert winner is not None
    run = registered.summary.run
    journal = registered.root / "data" / "runs" / "flight_delay" / run / "evaluate.json"
    best = json.loads(journal.read_text())["evaluations"][0]

    assert "fleet" == data.features[-1]
    assert "fleet" in best["importance"]
    assert "fleet" in {item["group"] for item in best["ablations"]}


def test_the_report_shows_what_happened_without_a_network(registered: Platform) -> None:
    page = (registered.root / "run.html").read_text()

    headings = ("Candidates on", "Gates", "Slices", "What the model leans on", "On the ledger")
    assert [] == [heading for heading in headings if heading not in page]
    assert '<script src="http' not in page
    assert '<link rel="stylesheet" href="http' not in page


def test_a_second_run_says_that_nothing_changed_and_adds_nothing(registered: Platform) -> None:
    before = files(registered.root / "data"), registered.decisions()
    result = registered.demo()

    assert 0 == result.returncode, result.stdout
    assert "data, spec and code are those of run" in result.stdout
    assert before == (files(registered.root / "data"), registered.decisions())
    assert registered.summary.unchanged
    assert registered.summary.model is not None


def test_no_process_is_left(registered: Platform) -> None:
    assert [] == registered.processes()


def test_a_changed_feature_is_computed_anew_and_the_next_model_meets_the_champion(
    registered: Platform,
) -> None:
    from local.mlflow_server import mlflow_server
    from mlplatform.clients.registry import Registry
    from mlplatform.settings import RegistrySettings

    with mlflow_server(registered.root / "mlflow") as server:
        Registry(RegistrySettings(tracking_uri=server.url)).set_alias("flight_delay", "champion", 1)
    before = registered.temperature()
    registered.append("features.py", CHANGE)
    result = registered.demo("2013-03-08T12:00:00Z")
    gates = registered.summary.gates

    assert 0 == result.returncode, result.stdout
    assert gates is not None
    (gate,) = [item for item in gates.results if item.gate == "not_worse_than_champion"]
    assert "champion flight_delay version 1" in gate.reason
    assert ("registered" if gates.passed else "rejected") == registered.summary.verdict

    after = registered.temperature()
    assert pytest.approx(before + 1000, abs=0.1) == after  # all its history, computed anew


def test_ctrl_c_ends_every_process_that_was_started(
    new_platform: Callable[[str], Platform],
) -> None:
    platform = new_platform("interrupted")
    demo = subprocess.Popen(
        [*platform.command, "--as-of", AS_OF],
        cwd=platform.checkout,
        env=platform.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    shown = []
    for line in demo.stdout:
        shown.append(line)
        if "trials on" in line:
            break
    demo.send_signal(signal.SIGINT)
    rest = demo.communicate(timeout=60)[0]

    assert 130 == demo.returncode, "".join(shown) + rest
    assert "every process that was started has been ended" in rest
    assert [] == platform.processes()


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
