"""Every rendered object is what its kind's schema says."""

from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # ships no types
import kubernetes_validate
import pytest

from tests.helm.chart import PROFILES, needs_helm, render, templates
from tests.helm.schemas import check

pytestmark = needs_helm

EVERYTHING: Final[dict[str, Any]] = {
    "externalSecrets": {
        "enabled": True,
        "store": {"name": "vault", "kind": "ClusterSecretStore"},
        "prefix": "prod/",
        "signingPublicKey": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    },
    "monitor": {"webhook": {"secretName": "chat"}},
    "registry": {"artifacts": {"s3": "s3://models", "endpoint": "https://s3.example.com"}},
    "imagePullSecrets": [{"name": "pull"}],
    "gateway": {"service": {"type": "LoadBalancer", "annotations": {"a": "b"}}},
}


@pytest.mark.parametrize(
    ("profile", "values"),
    [
        *(pytest.param(profile, {}, id=profile) for profile in PROFILES),
        pytest.param("full", EVERYTHING, id="full with every option"),
    ],
)
def test_every_object_is_what_its_schema_says(profile: str, values: dict[str, Any]) -> None:
    objects = render(profile, values)

    for found in [*objects, *templates(objects).values()]:
        check(found)


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "RayJob", "ModelRollout"])
def test_an_unknown_field_is_found(kind: str) -> None:
    objects = render("full")
    found = next(one for one in [*templates(objects).values(), *objects] if one["kind"] == kind)
    broken = {**found, "spec": {**found["spec"], "replica": "three"}}
    if kind == "ModelRollout":  # the API server prunes what it does not know
        broken = {**found, "spec": {"version": "three"}}

    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(broken)


def test_pods_inside_of_a_ray_job_are_looked_into() -> None:
    job = templates(render("full"))["mlplatform-ray/rayjob.yaml"]
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    head["spec"]["containers"][0]["imagee"] = "x"

    with pytest.raises(kubernetes_validate.ValidationError):
        check(job)
