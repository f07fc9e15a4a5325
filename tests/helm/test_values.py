"""Each value that can be set has an effect, and each default is one that the schema takes."""

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml

from tests.helm.chart import CHART, IMAGES, needs_helm, rendered

pytestmark = needs_helm

PUBLIC: Final = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
PATHS: Final[dict[str, dict[str, Any]]] = {
    "gateway.autoscaling.maxReplicas": {"gateway": {"autoscaling": {"enabled": True}}},
    "gateway.autoscaling.cpuPercent": {"gateway": {"autoscaling": {"enabled": True}}},
    "priorityClasses.existing": {"priorityClasses": {"create": False}},
    "redis.managed": {"redis": {"enabled": False, "managed": {"cidrs": ["10.0.0.0/24"]}}},
    "postgres.managed": {"postgres": {"enabled": False, "managed": {"cidrs": ["10.0.0.0/24"]}}},
    "registry.artifacts": {"registry": {"artifacts": {"s3": "s3://bucket"}}},
    "monitor.webhook": {"monitor": {"webhook": {"secretName": "chat"}}},
    "triton.gpuResource": {"triton": {"gpus": 1}, "operator": {"gpuPreflight": True}},
    "triton.gpuMemoryMiB": {"triton": {"gpus": 1}, "operator": {"gpuPreflight": True}},
    "externalSecrets": {
        "externalSecrets": {
            "enabled": True, "store": {"name": "vault"}, "signingPublicKey": PUBLIC,
        }
    },
    "serviceMonitors": {"serviceMonitors": {"enabled": True}},
    "pipeline.kubeflow": {"profile": "full", "ray": {"enabled": True}},
    "ray": {"profile": "full", "ray": {"enabled": True}},
}  # fmt: skip
"""What has to be on for a value to count, by the beginning of its path; the longest one holds."""

OTHERWISE: Final[dict[str, Any]] = {
    "profile": {"profile": "full", "ray": {"enabled": True}},
    "ray.enabled": {"profile": "full", "ray": {"enabled": True}},
    "redis.enabled": PATHS["redis.managed"],
    "postgres.enabled": PATHS["postgres.managed"],
    "triton.gpus": PATHS["triton.gpuResource"],
    "externalSecrets.enabled": PATHS["externalSecrets"],
    "externalSecrets.signingPublicKey": {"externalSecrets": {"signingPublicKey": PUBLIC + PUBLIC}},
    "redis.resources.requests.memory": {
        "redis": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}}}
    },
    "triton.resources.requests.memory": {
        "triton": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}}}
    },
    "usecases": {"usecases": [{"name": "parcel_delay"}]},
    "imagePullSecrets": {"imagePullSecrets": [{"name": "pull"}]},
    "registry.artifacts.s3": {"registry": {"artifacts": {"s3": "s3://other"}}},
    "registry.artifacts.endpoint": {"registry": {"artifacts": {"endpoint": "https://s3.example.com"}}},
    "images": {},
}  # fmt: skip
"""Another value, where it cannot be guessed from the default."""
OTHERWISE["redis.resources.limits.memory"] = OTHERWISE["redis.resources.requests.memory"]
OTHERWISE["triton.resources.limits.memory"] = OTHERWISE["triton.resources.requests.memory"]

SWITCHES: Final = {
    "profile", "ray.enabled", "redis.enabled", "postgres.enabled", "triton.gpus",
    "externalSecrets.enabled", "serviceMonitors.enabled", "registry.artifacts.s3",
}  # fmt: skip
"""Compared with the defaults: what they switch on is on in PATHS."""

GUESSES: Final[dict[str, Any]] = {
    "settings.environment": "prod",
    "triton.target": "server",
    "gateway.service.type": "NodePort",
    "redis.fsync": "always",
    "redis.maxMemory": "100mb",
    "externalSecrets.store.kind": "ClusterSecretStore",
    "externalSecrets.refreshInterval": "2h",
    "pipeline.kubeflow.endpoint": "https://kfp.example.com",
    "ray.version": "2.61.0",
    "serviceMonitors.interval": "15s",
}


BY_NAME: Final[dict[str, Any]] = {
    "schedule": "1 2 * * *",
    "cpu": "3",
    **dict.fromkeys(("memory", "size", "spillSize", "sharedMemory"), "5Gi"),
    "cidrs": ["192.0.2.0/24"],
    "ports": [8443],
    "accessModes": ["ReadWriteMany"],
    "tolerations": [{"key": "special", "operator": "Exists"}],
    "callers": [{"team": "shop"}],
    "allowedHosts": ["mlflow.example.com"],
    "allowedImages": ["registry.example.com/"],
    "extra": {"MLPLATFORM_REGISTRY_TIMEOUT_SECONDS": "10"},
    "hard": {"pods": "7"},
}
"""The same, by the last part of its path."""


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values and not path.endswith((".hard", ".dns", ".prometheus")):
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, values


def defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def another(path: str, default: Any) -> dict[str, Any]:
    """Return values in which this one is not its default."""
    if path in OTHERWISE:
        return copy.deepcopy(OTHERWISE[path])
    name = path.rsplit(".", maxsplit=1)[-1]
    value: Any = GUESSES.get(path, BY_NAME.get(name))
    if value is None and isinstance(default, bool):
        value = not default
    elif value is None and isinstance(default, int):
        value = default + 1
    elif value is None:
        value = "another" if isinstance(default, str) else {"another": "value"}
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return {key: merged(one.get(key), other.get(key, one.get(key))) for key in keys}
    return other


def needed(path: str) -> dict[str, Any]:
    found = [start for start in PATHS if path == start or path.startswith(f"{start}.")]
    return copy.deepcopy(PATHS[max(found, key=len)]) if found else {}


@pytest.mark.parametrize("component", sorted(defaults()))
def test_every_value_changes_what_is_rendered(component: str) -> None:
    without_effect = []
    for path, default in leaves(defaults()[component], component):
        if path == "images":
            continue
        before = {} if path in SWITCHES else needed(path)
        after = merged(before, another(path, default))
        if rendered("", before) == rendered("", after):
            without_effect.append(path)

    assert [] == without_effect


def test_every_image_is_used() -> None:
    roles = yaml.safe_load(IMAGES.read_text(encoding="utf-8"))["images"]
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    assert roles.keys() == schema["properties"]["images"]["properties"].keys()
    for role in roles:
        profile = "gpu" if role in {"triton-gpu", "ray"} else "minimal"
        other = {"repository": "elsewhere.example.com/one", "digest": "sha256:" + "1" * 64}
        assert rendered(profile) != rendered(profile, {"images": {role: other}}), role


def test_the_defaults_are_what_the_schema_takes_and_every_key_of_it_has_one() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(defaults(), schema)

    assert schema["properties"].keys() - {"global"} == defaults().keys()
    for name, part in schema["properties"].items():
        if "properties" in part and name not in {"images", "global"}:
            assert part["properties"].keys() == defaults()[name].keys(), name


def test_every_key_is_explained() -> None:
    """A block has a comment above it; inside, whatever its name does not say."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    plain = [
        line
        for before, line in pairwise(lines)
        if line[:1].isalpha() and not before.startswith("#")
    ]

    assert [] == plain
