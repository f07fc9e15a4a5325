"""The workflows as values, and the tools that check them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.conftest import ROOT

GITHUB: Final = ROOT / ".github"
WORKFLOWS: Final = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS: Final = sorted((GITHUB / "actions").glob("*/action.yml"))
_FOLDER: Final = "import sysconfig; print(sysconfig.get_path('scripts'))"
NAMES: Final = [path.stem for path in WORKFLOWS]


@dataclass(frozen=True)
class Job:
    """One job of one workflow."""

    workflow: str
    name: str
    body: Mapping[str, Any]

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        return list(self.body.get("steps", []))

    @property
    def calls(self) -> bool:
        """Whether it is a call of another workflow, which has the steps."""
        return "uses" in self.body

    def __str__(self) -> str:
        return f"{self.workflow}:{self.name}"


def read(name: str) -> dict[str, Any]:
    """Return a workflow; `on`, which YAML takes for a truth value, has its name back."""
    body: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows" / f"{name}.yml").read_text())
    body["on"] = body.pop(True)
    return body


def jobs() -> list[Job]:
    return [
        Job(name, key, body)
        for name in NAMES
        for key, body in read(name)["jobs"].items()
    ]  # fmt: skip


def steps() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every step with the place where it is."""
    for job in jobs():
        for step in job.steps:
            yield str(job), step
    for path in ACTIONS:
        for step in yaml.safe_load(path.read_text())["runs"]["steps"]:
            yield path.parent.name, step


def targets(text: str) -> set[str]:
    """Return the targets of the make commands in a text."""
    return set(re.findall(r"\bmake ([a-z][a-z-]*)", text))


def uv() -> str:
    """Return uv, or skip the test."""
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".bootstrap" / "bin"))
    if found is None:
        pytest.skip("uv is not on PATH: it runs the checker")
    return found


@cache
def program(package: str, name: str) -> Path:
    """Return a program that a package brings; skip the test where the package cannot be had."""
    offered = subprocess.run(
        [uv(), "tool", "run", "--quiet", "--from", package, "python", "-c", _FOLDER],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    if offered.returncode:
        pytest.skip(f"{package} cannot be had: {offered.stderr.strip()[-200:]}")
    return Path(offered.stdout.strip()) / name


def installed(module: str, version: str) -> Path:
    """Return a program built from its Go module, once; skip the test without go."""
    go = shutil.which("go")
    folder = ROOT / "build" / "tools" / f"{module.rsplit('/', 1)[1]}-{version}"
    program = folder / module.rsplit("/", 1)[1]
    if program.is_file():
        return program
    if go is None:
        pytest.skip(f"go is not on PATH: it builds {module}")
    made = subprocess.run(
        [go, "install", f"{module}@{version}"],
        env={**os.environ, "GOBIN": str(folder), "GOFLAGS": ""},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"{module} {version} cannot be built: {made.stderr.strip()[-200:]}")
    return program
