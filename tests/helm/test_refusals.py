"""Values that cannot work are refused before anything reaches a cluster, with what to do."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import (
    CHART,
    IMAGES,
    KUBERNETES,
    PROFILES,
    ChartRefusedError,
    needs_helm,
    render,
)

pytestmark = needs_helm

DIGEST = "sha256:" + "0" * 64
MANAGED = {"enabled": False, "managed": {"cidrs": ["10.0.0.0/24"]}}


def refused(profile: str, values: dict[str, Any], without_image: str = "") -> str:
    with pytest.raises(ChartRefusedError) as caught:
        render(profile, values, without_image=without_image)
    return str(caught.value)


@pytest.mark.parametrize(
    ("profile", "values", "expected"),
    [
        pytest.param(
            "full", {"ray": {"enabled": False}}, "set ray.enabled: true, or profile: minimal",
            id="full without Ray",
        ),
        pytest.param(
            "minimal", {"ray": {"enabled": True}}, "set profile: full, or ray.enabled: false",
            id="minimal with Ray",
        ),
        pytest.param(
            "gpu", {"triton": {"gpus": 0}}, "set triton.target: server and triton.gpus: 1",
            id="gpu without GPUs",
        ),
        pytest.param(
            "gpu", {"triton": {"target": "embedded"}}, "set triton.target: server",
            id="gpu with the CPU's layout",
        ),
        pytest.param(
            "gpu", {"operator": {"gpuPreflight": False}}, "set operator.gpuPreflight: true",
            id="GPUs without a preflight",
        ),
        pytest.param(
            "full", {"gateway": {"replicas": 12}}, "at least 12 gateways are needed",
            id="more gateways than the autoscaler may make",
        ),
        pytest.param(
            "full",
            {"usecases": [{"name": "flight_delay", "gateway": {"replicas": 11}}]},
            "at least 11 gateways are needed",
            id="a peak that needs more gateways than the autoscaler may make",
        ),
        pytest.param(
            "minimal", {"redis": {"managed": {"cidrs": ["10.0.0.0/24"]}}}, "choose one",
            id="Redis of both kinds",
        ),
        pytest.param(
            "minimal", {"postgres": {"managed": {"cidrs": ["10.0.0.0/24"]}}}, "choose one",
            id="PostgreSQL of both kinds",
        ),
        pytest.param(
            "minimal", {"redis": {"enabled": False}}, "set where the managed service is",
            id="a managed Redis that nobody may reach",
        ),
        pytest.param(
            "minimal", {"postgres": {"enabled": False}}, "set where the managed service is",
            id="a managed PostgreSQL that nobody may reach",
        ),
        pytest.param(
            "minimal", {"redis": {"resources": {"requests": {"memory": "128Mi"}}}},
            "make them equal", id="Redis with less memory than its limit",
        ),
        pytest.param(
            "minimal", {"triton": {"resources": {"limits": {"memory": "1Gi"}}}},
            "make them equal", id="a model server with less memory than its limit",
        ),
        pytest.param(
            "minimal", {"redis": {"maxMemory": "150mb"}}, "leave a quarter of the limit",
            id="Redis without room for buffers",
        ),
        pytest.param(
            "minimal", {"redis": {"maxMemory": "1gb"}}, "leave a quarter of the limit",
            id="Redis beyond its limit",
        ),
        pytest.param(
            "minimal", {"settings": {"environment": "prod", "clockShiftSeconds": 60}},
            "set it to 0", id="a shifted clock in prod",
        ),
        pytest.param(
            "minimal", {"settings": {"extra": {"MLPLATFORM_REGISTRY_PASSWORD": "x"}}},
            "is a secret", id="a password among the settings",
        ),
        pytest.param(
            "minimal", {"settings": {"extra": {"MLPLATFORM_GATEWAY_WORKERS": "4"}}},
            "is set by the chart itself", id="a setting that a key of its own has",
        ),
        pytest.param(
            "minimal", {"usecases": [{"name": "flight_delay"}, {"name": "flight_delay"}]},
            "names flight_delay twice", id="a use case twice",
        ),
        pytest.param(
            "full", {"usecases": [{"name": "parcel_delay"}]},
            "python -m monitoring rules --usecase parcel_delay", id="alerts that were not made",
        ),
        pytest.param(
            "minimal", {"externalSecrets": {"enabled": True}}, "name the SecretStore",
            id="external secrets from nowhere",
        ),
        pytest.param(
            "minimal",
            {"externalSecrets": {"enabled": True, "store": {"name": "vault"}}},
            "set the public half", id="external secrets without the public key",
        ),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other_are_refused_with_advice(
    profile: str, values: dict[str, Any], expected: str
) -> None:
    assert expected in refused(profile, values)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"gatewey": {}}, id="a component that there is not"),
        pytest.param({"gateway": {"replica": 3}}, id="a misspelt key"),
        pytest.param({"gateway": {"resources": {"requests": {"cpus": "1"}}}}, id="deep inside"),
        pytest.param({"images": {"gatewey": {"repository": "a", "digest": DIGEST}}}, id="a role"),
        pytest.param({"images": {"gateway": {"repository": "a", "digest": "latest"}}}, id="a tag"),
        pytest.param({"images": {"gateway": {"tag": "v1"}}}, id="a tag beside the digest"),
        pytest.param({"profile": "tiny"}, id="a profile that there is not"),
        pytest.param({"usecases": []}, id="no use case"),
        pytest.param({"usecases": [{"name": "flight-delay"}]}, id="a name with dashes"),
        pytest.param({"usecases": [{"name": "a" * 30}]}, id="a name that objects cannot carry"),
        pytest.param({"monitor": {"schedule": "hourly"}}, id="a schedule that is none"),
        pytest.param({"registry": {"allowedHosts": ["*"]}}, id="any host"),
        pytest.param({"settings": {"environment": "local"}}, id="placeholders in a cluster"),
        pytest.param({"settings": {"extra": {"PATH": "/bin"}}}, id="a variable of somebody else"),
        pytest.param(
            {"externalSecrets": {"signingPublicKey": "-----BEGIN PRIVATE KEY-----"}},
            id="the private key among the values",
        ),
        pytest.param({"redis": {"maxMemory": "60%"}}, id="a size that Redis does not know"),
        pytest.param(
            {"storage": {"data": {"accessModes": ["ReadOnlyMany"]}}}, id="a volume to read only"
        ),
    ],
)
def test_the_schema_refuses(values: dict[str, Any]) -> None:
    assert "values don't meet the specifications of the schema" in refused("minimal", values)


def test_the_schema_is_closed_wherever_the_chart_reads_names() -> None:
    import json

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    assert [] == [where for where in _open(schema, "") if where not in _BY_NAME]


_BY_NAME = ("global", "usecases[].extra")
"""What Helm puts there itself."""


def _open(schema: Any, where: str) -> list[str]:
    found = []
    if isinstance(schema, dict):
        named = "properties" in schema
        if (
            schema.get("type") == "object"
            and named
            and schema.get("additionalProperties") is not False
        ):
            found.append(where)
        if schema.get("type") == "object" and not named and "additionalProperties" not in schema:
            found.append(where)
        for name, part in schema.get("properties", {}).items():
            found += _open(part, f"{where}.{name}".lstrip("."))
        found += _open(schema.get("items"), f"{where}[]")
        for name, part in schema.get("definitions", {}).items():
            found += _open(part, name)
    return found


def test_a_managed_store_is_no_conflict() -> None:
    objects = render("minimal", {"redis": MANAGED, "postgres": MANAGED})

    assert "StatefulSet" not in {found["kind"] for found in objects}


@pytest.mark.parametrize(
    ("profile", "role", "expected"),
    [
        pytest.param("minimal", "gateway", "images.gateway is not set: build", id="one of ours"),
        pytest.param("gpu", "triton-gpu", "look its digest up", id="NVIDIA's"),
    ],
)
def test_an_image_that_is_not_named_is_asked_for(profile: str, role: str, expected: str) -> None:
    assert expected in refused(profile, {}, without_image=role)


def test_a_profile_asks_for_no_image_that_it_does_not_use() -> None:
    assert render("minimal", without_image="triton-gpu")
    assert render("minimal", without_image="ray")
    assert render("gpu", without_image="triton")


def test_the_defaults_alone_ask_for_images() -> None:
    command = ["helm", "template", "mlplatform", str(CHART), "--kube-version", KUBERNETES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode
    assert "`make images`" in done.stderr


@pytest.mark.parametrize(
    ("profile", "values", "expected"),
    [
        pytest.param(
            "minimal", {"networkPolicies": {"enabled": False}}, "networkPolicies.enabled is false",
            id="an open network",
        ),
        pytest.param(
            "minimal", {"admissionPolicies": {"enabled": False}},
            "admissionPolicies.enabled is false", id="any image",
        ),
        pytest.param(
            "full", {"storage": {"data": {"accessModes": ["ReadWriteOnce"]}}},
            "have to run on one node", id="a volume of one node",
        ),
        pytest.param(
            "minimal", {"triton": {"gpus": 1}, "operator": {"gpuPreflight": True}},
            "compute on CPUs", id="GPUs that nothing uses",
        ),
    ],
)  # fmt: skip
def test_notes_warn_of_what_works_and_should_not_stay(
    profile: str, values: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    notes = _notes(tmp_path, profile, values)

    assert "WARNING" in notes
    assert expected in notes


@pytest.mark.parametrize("profile", PROFILES)
def test_notes_warn_of_nothing_in_a_profile(profile: str, tmp_path: Path) -> None:
    assert "WARNING" not in _notes(tmp_path, profile, {})


def _notes(folder: Path, profile: str, values: dict[str, Any]) -> str:
    """Return what Helm tells after an installation, by a ConfigMap in a copy of the chart."""
    copied = folder / "mlplatform"
    shutil.copytree(CHART, copied)
    shutil.copy(copied / "templates" / "NOTES.txt", copied / "files" / "notes")
    (copied / "templates" / "notes.yaml").write_text(
        'kind: ConfigMap\ndata: {notes: {{ tpl (.Files.Get "files/notes") . | toJson }} }\n',
        encoding="utf-8",
    )
    command = [
        "helm", "template", "mlplatform", str(copied), "--kube-version", KUBERNETES,
        "--show-only", "templates/notes.yaml", "-f", str(copied / f"ci/{profile}-values.yaml"),
        "-f", str(IMAGES), "-f", "-",
    ]  # fmt: skip
    done = subprocess.run(
        command, input=yaml.safe_dump(values), capture_output=True, text=True, check=True
    )
    return str(yaml.safe_load(done.stdout)["data"]["notes"])
