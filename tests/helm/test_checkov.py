"""Checkov finds nothing in what a profile runs; what it is told to leave out says why."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.helm.chart import CHART, NAMESPACE, PROFILES, ROOT, needs_helm, pods, render, templates

pytestmark = needs_helm

VERSION: Final = "3.3.30"
"""Not a dependency of ours: it would hold back half of them."""
PRIVILEGED: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged", "namespace": NAMESPACE},
    "spec": {
        "containers": [{"name": "a", "image": "a:latest", "securityContext": {"privileged": True}}]
    },
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Findings as (file, check, object), of all profiles and of a pod that is as bad as can be."""
    uv = shutil.which("uv") or shutil.which(ROOT / ".bootstrap" / "bin" / "uv")
    if uv is None:
        pytest.skip("uv is not on PATH, which brings checkov: `make setup`")
    command = [uv, "tool", "run", f"checkov=={VERSION}"]
    if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"checkov {VERSION} is neither in uv's cache nor in reach")
    folder = tmp_path_factory.mktemp("checkov")
    for profile in PROFILES:
        _write(folder / f"{profile}.yaml", _made(profile))
    _write(folder / "bad.yaml", [PRIVILEGED])
    done = subprocess.run(
        [*command, "--config-file", str(CHART / ".checkov.yaml"), "--directory", str(folder),
         "--output", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 1000
    return [
        (Path(one["file_path"]).stem, one["check_id"], one["resource"])
        for one in found["results"]["failed_checks"]
    ]


def _made(profile: str) -> list[dict[str, Any]]:
    """Return a release's objects, and what the operator and KubeRay make of its templates."""
    objects = render(profile)
    made = []
    for name, found in templates(objects).items():
        if found["kind"] != "RayJob":
            made.append(found | {"metadata": found["metadata"] | {"namespace": NAMESPACE}})
            continue
        for pod in pods(objects):
            if pod.owner.startswith(name):
                metadata = {"name": pod.owner.split()[-1], "namespace": NAMESPACE}
                body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}
                made.append(body)
    return [*objects, *made]


def _write(path: Path, objects: list[dict[str, Any]]) -> None:
    path.write_text(yaml.safe_dump_all(objects), encoding="utf-8")


@pytest.mark.timeout(900)  # the first time it is fetched
def test_checkov_finds_nothing_in_a_profile(failed: list[tuple[str, str, str]]) -> None:
    assert [] == [one for one in failed if one[0] != "bad"]


@pytest.mark.timeout(900)
def test_checkov_finds_what_is_wrong_with_a_privileged_pod(
    failed: list[tuple[str, str, str]],
) -> None:
    found = {check for file, check, _ in failed if file == "bad"}

    assert {"CKV_K8S_16", "CKV_K8S_20", "CKV_K8S_14", "CKV_K8S_43"} <= found


def test_each_check_that_is_left_out_has_its_reason_above_it() -> None:
    lines = (CHART / ".checkov.yaml").read_text(encoding="utf-8").splitlines()
    skipped = [number for number, line in enumerate(lines) if line.strip().startswith("- CKV")]

    assert skipped
    assert all(lines[number - 1].strip().startswith(("#", "- CKV")) for number in skipped)
