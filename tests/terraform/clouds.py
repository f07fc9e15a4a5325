"""An AWS on loopback (moto), and the commands of the infrastructure in a copy of the repository."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
STUBS: Final = "tests.terraform.moto_stubs"
MOTO: Final = "moto[server]==5.2.5"
CHECKOV: Final = "checkov==3.3.30"
ENVIRONMENTS: Final = ("dev", "prod")
TFVARS: Final = """\
administrator_arns  = { platform = "arn:aws:iam::123456789012:role/platform" }
public_access_cidrs = ["203.0.113.0/24"]
alarm_emails        = ["platform@example.com"]
github_repository   = "example/platform"
"""
_START_SECONDS: Final = 120.0
"""The first start fetches moto."""


def uv() -> str:
    """Return uv, by which programs outside of the lock are run at a pinned version."""
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".bootstrap" / "bin"))
    if found is None:
        pytest.skip("uv is not on PATH: `make setup` installs it")
    return found


def environment(folder: Path, endpoint: str = "") -> dict[str, str]:
    """Return the environment of a command: no credentials of this machine, no AWS but `endpoint`.

    Where providers come from is what Terraform's own configuration says, its registry without one;
    TF_PLUGIN_MIRROR names a folder that has them, for these tests alone.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TF_"))}
    configuration = os.environ.get("TF_CLI_CONFIG_FILE", "")
    mirror = os.environ.get("TF_PLUGIN_MIRROR")
    if mirror:
        written = folder / "terraform.rc"
        text = 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n'
        written.write_text(text % mirror)
        configuration = str(written)
    if configuration:
        kept["TF_CLI_CONFIG_FILE"] = configuration
    return {
        **kept,
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "KUBECONFIG": str(folder / "no-kubeconfig"),
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "loopback",
        "AWS_SECRET_ACCESS_KEY": "loopback",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",  # a call that moto does not know fails at once
        "AWS_ENDPOINT_URL": endpoint or "http://127.0.0.1:9",
    }


class Cloud:
    """One environment in an account of its own on loopback.

    Args:
        name: dev or prod.
        folder: In which a copy of `terraform/` is made.
        endpoint: Of moto.
    """

    def __init__(self, name: str, folder: Path, endpoint: str) -> None:
        self.name, self.folder, self.endpoint = name, folder, endpoint
        unwanted = shutil.ignore_patterns(".terraform", "*.tfplan", "terraform.tfvars")
        shutil.copytree(ROOT / "terraform", folder / "terraform", ignore=unwanted)
        (folder / "helm").symlink_to(ROOT / "helm")
        self.root = folder / "terraform" / "envs" / name
        self.write_variables(TFVARS)
        images = folder / "build" / "cluster" / "images.yaml"
        images.parent.mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "helm" / "images.yaml", images)
        self.environment = environment(folder, endpoint)

    def write_variables(self, text: str) -> None:
        (self.root / "terraform.tfvars").write_text(text)

    def run(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the infrastructure, as `make infra-...` does."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.infra", command, self.name, *more],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    def terraform(self, *arguments: str) -> str:
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout

    def outputs(self) -> Mapping[str, Any]:
        found = json.loads(self.terraform("output", "-json"))
        return {name: one["value"] for name, one in found.items()}

    def client(self, service: str) -> Any:
        import boto3  # type: ignore[import-untyped]

        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id="loopback",
            aws_secret_access_key="loopback",  # noqa: S106 (moto takes any)
        )


@contextmanager
def moto(written: Path) -> Iterator[str]:
    """Start moto with its stubs and return its address; it ends with the block.

    Args:
        written: Where its log goes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [uv(), "run", "--no-project", "--isolated", "--with", MOTO, "python"]
    with written.open("w") as log:
        process = subprocess.Popen(
            [*command, "-m", STUBS, "--port", str(port)],
            cwd=ROOT,
            # AWS's own policies: attaching one that does not exist fails, as it would there.
            env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true", "PYTHONPATH": "."},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                said = written.read_text()[-500:]
                pytest.fail(f"moto did not start: {said}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()
