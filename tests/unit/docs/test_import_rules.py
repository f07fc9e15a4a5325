"""The import rules fail when they are broken: each plant is one forbidden import."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLANTS = {
    "sideways": ("serving/scorer.py", "from pipelines import journal", "Imports go down only"),
    "upwards": (
        "mlplatform/planted.py",
        "from feature_repo import catalog",
        "Imports go down only",
    ),
    "stage to local": ("pipelines/steps/planted.py", "import local", "Imports go down only"),
    "use case to ledger": (
        "usecases/flight_delay/planted.py",
        "from mlplatform import ledger",
        "A use case needs nothing",
    ),
    "mlflow in a step": ("pipelines/steps/planted.py", "import mlflow", "MLflow is spoken to"),
    "kfp in a step": ("pipelines/steps/planted.py", "import kfp", "KFP stays"),
    "feast in a stage": ("pipelines/planted.py", "import feast", "Feast stays"),
    "redis in a stage": ("serving/planted.py", "import redis", "Redis is spoken to"),
    "data frames in the gateway": (
        "serving/gateway/planted.py",
        "from feature_repo import store",
        "The gateway loads neither",
    ),
}


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("lint-imports"))
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run(
        [program, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def checkout(
    copy_repository: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return copy_repository(tmp_path_factory.mktemp("checkout"))


def test_the_rules_hold_without_a_plant(checkout: Path) -> None:
    result = lint(checkout)

    assert 0 == result.returncode, result.stdout


@pytest.mark.parametrize("plant", PLANTS)
def test_a_forbidden_import_breaks_its_rule(checkout: Path, plant: str) -> None:
    name, statement, rule = PLANTS[plant]
    file = checkout / name
    file.write_text(f'"""Planted."""\n\n{statement}\n')
    try:
        result = lint(checkout)
    finally:
        file.unlink()

    assert 1 == result.returncode
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    assert any(rule in line for line in broken), result.stdout
