"""Kubeflow Pipelines in the platform's namespace: what is changed of it, and what is refused.

The objects are written like those of its manifests, which come from the internet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import kubeflow
from deploy.kubeflow import IMAGES, fitted, obstacles, overlay
from mlplatform.errors import SettingsError

OWN = "shop"


def workload(**container: Any) -> dict[str, Any]:
    one = {"name": "server", "image": "ghcr.io/kubeflow/kfp-api-server:2.17.0", **container}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ml-pipeline", "namespace": OWN},
        "spec": {"template": {"spec": {"containers": [one]}}},
    }


def pod(body: dict[str, Any]) -> Any:
    return body["spec"]["template"]["spec"]


def first(body: dict[str, Any]) -> Any:
    return pod(body)["containers"][0]


def of_kind(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "one"}, **more}


def test_the_overlay_moves_a_pinned_version_to_the_platforms_namespace() -> None:
    found = yaml.safe_load(overlay("2.17.0", OWN, "env/platform-agnostic"))

    assert found["namespace"] == OWN
    (resource,) = found["resources"]
    assert resource.startswith("github.com/kubeflow/pipelines/manifests/kustomize/env/platform-ag")
    assert "?ref=2.17.0" in resource


@pytest.mark.parametrize("kind", ["Namespace", "NetworkPolicy"])
def test_what_the_platform_says_for_its_namespace_is_not_taken_from_kubeflow(kind: str) -> None:
    assert [] == fitted([of_kind(kind)], OWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seaweedfs.kubeflow", "seaweedfs.shop"),
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888", None),
        ('endpoint: "minio-service.kubeflow:9000"', 'endpoint: "minio-service.shop:9000"'),
        ("pipelines.kubeflow.org/v2_component", "pipelines.kubeflow.org/v2_component"),
        ("ghcr.io/kubeflow/kfp-driver:2.17.0", "ghcr.io/kubeflow/kfp-driver:2.17.0"),
    ],
)
def test_addresses_in_texts_follow_and_names_of_kubeflow_stay(
    text: str, expected: str | None
) -> None:
    (found,) = fitted([of_kind("ConfigMap", data={"text": text})], OWN)

    assert (expected or "http://ml-pipeline.shop.svc.cluster.local:8888") == found["data"]["text"]


def test_rights_go_to_the_accounts_of_the_platforms_namespace() -> None:
    subjects = [
        {"kind": "ServiceAccount", "name": "a", "namespace": "kubeflow"},
        {"kind": "ServiceAccount", "name": "b"},
        {"kind": "ServiceAccount", "name": "c", "namespace": "kube-system"},
    ]
    (found,) = fitted([of_kind("ClusterRoleBinding", subjects=subjects)], OWN)

    assert [OWN, OWN, "kube-system"] == [one["namespace"] for one in found["subjects"]]


def test_what_its_pods_do_not_say_becomes_what_pod_security_demands() -> None:
    (found,) = fitted([workload()], OWN)

    assert [] == obstacles([found], OWN)
    assert obstacles([workload()], OWN)


def test_what_its_pods_do_say_stays() -> None:
    security = {"runAsUser": 999, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    (found,) = fitted([workload(securityContext=security)], OWN)

    assert first(found)["securityContext"] == security | {"allowPrivilegeEscalation": False}
    assert [] == obstacles([found], OWN)


def test_tasks_run_as_the_owner_of_the_data_claim() -> None:
    told = [{"name": "DEFAULT_SECURITY_CONTEXT_RUN_AS_USER", "valueFrom": {}}, {"name": "LOG"}]
    (found,) = fitted([workload(env=told)], OWN)

    env = {one["name"]: one.get("value") for one in first(found)["env"]}
    assert len(env) == len(first(found)["env"])
    assert env == {
        "LOG": None,
        "DEFAULT_SECURITY_CONTEXT_RUN_AS_USER": "10001",
        "DEFAULT_SECURITY_CONTEXT_RUN_AS_GROUP": "10001",
        "DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT": "true",
    }


@pytest.mark.parametrize(("asked", "limit"), [("500Mi", "1Gi"), ("2Gi", "2Gi")])
def test_no_limit_is_below_what_a_container_asks_for(asked: str, limit: str) -> None:
    (found,) = fitted([workload(resources={"requests": {"memory": asked}})], OWN)

    assert limit == first(found)["resources"]["limits"]["memory"]


def test_a_container_that_says_nothing_does_not_ask_for_its_limit() -> None:
    limits = {"limits": {"memory": "64Mi"}}
    silent, bounded = (fitted([workload(resources=one)], OWN)[0] for one in ({}, limits))

    assert {"memory": "64Mi", "cpu": "20m"} == first(silent)["resources"]["requests"]
    assert {"cpu": "20m"} == first(bounded)["resources"]["requests"]
    assert limits["limits"] | {"cpu": "1"} == first(bounded)["resources"]["limits"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p.update(hostNetwork=True), "shares a namespace of its node"),
        (lambda p: p.update(volumes=[{"hostPath": {}}]), "mounts a folder of its node"),
        (lambda p: p["containers"][0].update(image="evil/kfp:1"), "has an image that is not"),
        (lambda p: p["containers"][0].update(ports=[{"hostPort": 1}]), "takes a port of the node"),
        (lambda p: p["containers"][0]["securityContext"].update(runAsUser=0), "as root"),
        (lambda p: p["containers"][0]["securityContext"].update(privileged=True), "its rights"),
        (lambda p: p["containers"][0]["securityContext"].update(capabilities={}), "leaves server"),
        (lambda p: p["securityContext"].update(seccompProfile={}), "without seccomp"),
        (lambda p: p["securityContext"].update(runAsNonRoot=False), "as root"),
    ],
)
def test_what_the_namespace_would_refuse_is_named(change: Callable[[Any], None], why: str) -> None:
    (body,) = fitted([workload()], OWN)
    change(pod(body))

    (found,) = obstacles([body], OWN)
    assert found.startswith("Deployment ml-pipeline ")
    assert why in found


def test_an_object_of_another_namespace_is_named() -> None:
    body = {"kind": "ConfigMap", "metadata": {"name": "one", "namespace": "kubeflow"}}

    assert ["ConfigMap one is of the namespace kubeflow"] == obstacles([body], OWN)


def test_the_chart_allows_the_same_images() -> None:
    for profile in ("full", "gpu"):
        text = Path(f"helm/mlplatform/ci/{profile}-values.yaml").read_text(encoding="utf-8")
        assert [*IMAGES] == yaml.safe_load(text)["admissionPolicies"]["allowedImages"]


def test_nothing_is_left_for_kubectl_when_a_part_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = workload(securityContext={"privileged": True})
    monkeypatch.setattr(kubeflow, "FOLDER", tmp_path)
    monkeypatch.setattr(kubeflow, "call", lambda *_, **__: yaml.safe_dump(body))

    with pytest.raises(SettingsError, match="ml-pipeline lets server raise its rights"):
        kubeflow.write("2.17.0", OWN)

    assert not any(kubeflow.manifest("2.17.0", OWN, part).exists() for part in kubeflow.PARTS)


def test_what_fits_is_left_for_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow, "FOLDER", tmp_path)
    monkeypatch.setattr(kubeflow, "call", lambda *_, **__: yaml.safe_dump(workload()))

    kubeflow.write("2.17.0", OWN)

    for part in kubeflow.PARTS:
        text = kubeflow.manifest("2.17.0", OWN, part).read_text(encoding="utf-8")
        assert [] == obstacles([*yaml.safe_load_all(text)], OWN)
