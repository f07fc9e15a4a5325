"""What is true of the files without an account: format, validity, security, the house's rules."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.terraform.clouds import CHECKOV, ENVIRONMENTS, ROOT, environment, uv

pytestmark = pytest.mark.timeout(900)
TERRAFORM = ROOT / "terraform"
MODULES = sorted(path.name for path in (TERRAFORM / "modules").iterdir())


def terraform(folder: Path, state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = environment(state)
    given["TF_DATA_DIR"] = str(state / f"data-{folder.name}")
    return subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_files_have_terraforms_own_format(tmp_path: Path) -> None:
    done = terraform(TERRAFORM, tmp_path, "fmt", "-check", "-recursive", "-diff")

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_valid_with_the_locked_provider(name: str, tmp_path: Path) -> None:
    folder = TERRAFORM / "envs" / name
    made = terraform(
        folder, tmp_path, "init", "-backend=false", "-input=false", "-lockfile=readonly"
    )
    assert made.returncode == 0, made.stderr
    done = terraform(folder, tmp_path, "validate", "-json")

    assert json.loads(done.stdout)["diagnostics"] == []


@pytest.mark.parametrize("name", ["cluster", "data", "gpu", "identity", "network"])
def test_a_module_keeps_its_promises(name: str, tmp_path: Path) -> None:
    # In a copy: the environments' locks count, and a module gets none.
    folder = shutil.copytree(TERRAFORM / "modules" / name, tmp_path / name)
    made = terraform(folder, tmp_path, "init", "-backend=false", "-input=false")
    assert made.returncode == 0, made.stderr
    done = terraform(folder, tmp_path, "test", "-no-color")

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    options = ["--directory", str(TERRAFORM), "--framework", "terraform", "--output", "json"]
    done = subprocess.run(
        [uv(), "tool", "run", CHECKOV, *options],
        cwd=tmp_path,
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    found = json.loads(done.stdout)
    failed = [f"{one['check_id']} {one['resource']}" for one in found["results"]["failed_checks"]]

    assert failed == []
    assert found["summary"]["passed"] > 200


def test_each_skipped_check_has_a_reason() -> None:
    for path in TERRAFORM.rglob("*.tf"):
        for line in path.read_text().splitlines():
            if "checkov:skip" in line:
                reason = line.split(":", 3)[-1]

                assert re.search(r"checkov:skip=CKV2?_AWS_\d+:", line), path
                assert len(reason.split()) >= 6, f"{path}: {line}"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_the_five_files(name: str) -> None:
    found = {path.name for path in (TERRAFORM / "modules" / name).iterdir()}

    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"} <= found


@pytest.mark.parametrize("kind", ["variable", "output"])
def test_everything_that_crosses_a_border_is_described(kind: str) -> None:
    for path in TERRAFORM.rglob(f"{kind}s.tf"):
        for block in re.split(rf'^{kind} "', path.read_text(), flags=re.MULTILINE)[1:]:
            name = block.split('"')[0]

            assert re.search(r'^  description = ".+"$', block, re.MULTILINE), f"{path}: {name}"
            if kind == "variable":
                assert re.search(r"^  type +=", block, re.MULTILINE), f"{path}: {name}"


def test_environments_have_the_same_outputs() -> None:
    dev, prod = (TERRAFORM / "envs" / name / "outputs.tf" for name in ENVIRONMENTS)

    assert dev.read_text() == prod.read_text()
