"""Importing a pure package loads no heavy SDK, writes nothing and sets nothing up.

A module that is cheap to import can be imported everywhere: in a component's shell, in a worker,
in a test. Add a package to `PURE` when it promises the same.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PURE = (
    "mlplatform.contracts",
    "mlplatform.spec",
    "mlplatform.settings",
    "mlplatform.ledger",
    "mlplatform.errors",
    "mlplatform.canonical",
    "mlplatform.clients",
    "mlplatform.signing",
    "feature_repo.profile",
    "pipelines.steps",
    "pipelines.models",
    "pipelines.tasks",
    "pipelines.journal",
    "serving.rollout",
    "monitoring",
)

HEAVY = ("kfp", "ray", "mlflow", "kubernetes", "feast", "great_expectations", "evidently")

PROGRAM = """
import importlib, json, logging, os, pkgutil, sys, threading
package, heavy = sys.argv[1], sys.argv[2:]
import polars  # sets its allocator's variable, whoever imports it
before = dict(os.environ)
names = [package]
path = getattr(importlib.import_module(package), "__path__", [])
for found in pkgutil.walk_packages(path, package + "."):
    importlib.import_module(found.name)
    names.append(found.name)
print(json.dumps({
    "names": names,
    "heavy": sorted(set(heavy) & set(sys.modules)),
    "environment": dict(os.environ) == before,
    "handlers": len(logging.getLogger().handlers) + len(logging.getLogger("mlplatform").handlers),
    "threads": threading.active_count(),
}))
"""


def imported(package: str, folder: Path, root: Path) -> dict[str, Any]:
    """Import a package with all its modules in a fresh interpreter; return what it then holds."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", PROGRAM, package, *HEAVY],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("package", PURE)
def test_importing_a_pure_package_has_no_effect(package: str, tmp_path: Path, root: Path) -> None:
    found = imported(package, tmp_path, root)

    assert [] == found["heavy"]
    assert found["environment"]
    assert found["handlers"] == 0
    assert found["threads"] == 1
    assert [] == list(tmp_path.iterdir())
    assert package in found["names"]


@pytest.mark.parametrize("sdk", ["kubernetes"])
def test_a_heavy_import_would_be_seen(sdk: str, tmp_path: Path, root: Path) -> None:
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text(f"import {sdk}\n")

    assert [sdk] == imported("planted", tmp_path, Path(f"{root}:{tmp_path}"))["heavy"]
