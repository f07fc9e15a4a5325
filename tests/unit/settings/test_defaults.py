"""Every promised default, and the page that documents them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlplatform.settings import CONCERNS, Settings
from mlplatform.settings.base import defaults
from mlplatform.settings.table import markdown

PROMISED: dict[str, dict[str, Any]] = {
    "PlatformSettings": {
        "environment": "local",
        "git_commit": "unknown",
        "clock_shift_seconds": 0,
    },
    "DataSettings": {"root": "build/demo/data"},
    "LedgerSettings": {"url": "sqlite:///build/demo/ledger.db"},
    "RegistrySettings": {
        "tracking_uri": "http://127.0.0.1:5000",
        "username": "mlplatform",
        "password": "changeme",
        "timeout_seconds": 30,
    },
    "SigningSettings": {
        "private_key": Path("build/demo/keys/signing.pem"),
        "public_key": Path("build/demo/keys/signing.pub.pem"),
    },
    "ComputeSettings": {"cpus": 2, "ray": "local"},
    "PipelineSettings": {
        "image": "mlplatform-python:dev",
        "signing_secret": "mlplatform-signing",
        "gpu_resource": "nvidia.com/gpu",
        "gpu_count": 0,
        "node_selector": {},
        "toleration_key": "nvidia.com/gpu",
        "ray": "local",
        "retries": 2,
        "timeout_seconds": 3600,
    },
    "KubeflowSettings": {
        "endpoint": "http://ml-pipeline.kubeflow.svc.cluster.local:8888",
        "namespace": "",
        "experiment": "retraining",
        "scheduled": False,
        "service_account": "",
        "token_file": "",
        "ca_file": "",
        "timeout_seconds": 20,
    },
    "RedisSettings": {"url": "redis://127.0.0.1:6379/0"},
    "GatewaySettings": {
        "host": "127.0.0.1",
        "port": 8080,
        "workers": 1,
        "usecases": ("flight_delay",),
        "spill": Path("build/demo/spill"),
        "drain_seconds": 20,
        "max_body_bytes": 1_048_576,
    },
    "ArchiveSettings": {"root": "build/demo/data/predictions", "every_seconds": 5},
    "MonitoringSettings": {
        "root": Path("build/demo/monitoring"),
        "pages": 14,
        "most_windows": 14,
        "orchestrator": "kubeflow",
        "tick_seconds": 30,
        "webhook_url": "",
        "webhook_token": "",
        "webhook_timeout_seconds": 3,
        "metrics_host": "127.0.0.1",
        "metrics_port": 9108,
    },
    "OperatorSettings": {
        "namespace": "",
        "identity": "",
        "lease": "mlplatform-operator",
        "lease_seconds": 15,
        "renew_seconds": 5,
        "template": "mlplatform-triton",
        "address": "name",
        "exports": Path("/tmp/exports"),  # noqa: S108 (as promised)
        "start_seconds": 600,
        "tick_seconds": 0.5,
        "registry_seconds": 5,
        "health_host": "0.0.0.0",  # noqa: S104 (as promised)
        "health_port": 8081,
    },
}


def test_every_default_is_the_promised_one() -> None:
    assert {concern.__name__: defaults(concern) for concern in CONCERNS} == PROMISED


@pytest.mark.parametrize("concern", CONCERNS, ids=lambda concern: concern.__name__)
def test_an_empty_environment_gives_the_defaults(concern: type[Settings]) -> None:
    shown = str(concern.load().model_dump())

    assert str(concern().model_dump()) == shown


@pytest.mark.parametrize("concern", CONCERNS, ids=lambda concern: concern.__name__)
def test_every_setting_is_described_as_a_sentence(concern: type[Settings]) -> None:
    for field in concern.model_fields.values():
        assert field.description is not None
        assert field.description.endswith(".")


def test_variables_differ_and_start_with_the_prefix() -> None:
    names = [concern.variable(field) for concern in CONCERNS for field in concern.model_fields]

    assert len(names) == len(set(names))
    assert all(name.startswith("MLPLATFORM_") for name in names)


def test_the_documentation_is_current(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text(encoding="utf-8")

    assert markdown() == page, "run python -m mlplatform.settings --out docs/settings.md"


def test_the_command_prints_the_page_whatever_the_environment_holds(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlplatform.settings"],
        cwd=root,
        env={"PATH": "", "MLPLATFORM_ENVIRONMENT": "nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert markdown() == done.stdout
