"""From the chart's template to one version's Deployment and Service."""

import copy
from typing import Any

import pytest

from mlplatform.clients.kubernetes import Object
from mlplatform.contracts.rollout import Version
from mlplatform.errors import SettingsError
from serving.operator import template
from serving.operator.template import Template

VERSION = Version(version=4, digest="abcdef01" * 8)
NAME = "triton-flight-delay-v4-abcdef01"
OWNER = {
    "apiVersion": "mlplatform.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": "flight-delay", "uid": "1-2"},
}
DEPLOYMENT = """
metadata:
  name: triton
  namespace: elsewhere
  labels: {app.kubernetes.io/name: mlplatform}
  annotations: {mlplatform.dev/model-digest: ""}
spec:
  selector: {matchLabels: {app.kubernetes.io/component: triton}}
  template:
    metadata:
      labels: {app.kubernetes.io/name: mlplatform}
      annotations: {other: kept}
    spec:
      initContainers:
        - {name: export, image: a, args: [--target, embedded]}
        - {name: second, image: b}
      containers: [{name: triton, image: c}]
"""
SERVICE = "spec: {ports: [{name: metrics, port: 8002}, {name: http, port: 8000}]}"


def config_map(**data: str) -> Object:
    known = {"deployment.yaml": DEPLOYMENT, "service.yaml": SERVICE}
    return {"metadata": {"name": "mlplatform-triton"}, "data": known | data}


@pytest.fixture
def found() -> Template:
    return template.parse(config_map())


def test_a_server_is_told_apart_from_all_others(found: Template) -> None:
    made = template.deployment(found, "flight_delay", VERSION, OWNER)
    labels = made["spec"]["template"]["metadata"]["labels"]

    assert NAME == made["metadata"]["name"]
    assert {
        "app.kubernetes.io/part-of": "mlplatform",
        "app.kubernetes.io/component": "triton",
        "app.kubernetes.io/instance": NAME,
        "mlplatform.dev/usecase": "flight-delay",
        "mlplatform.dev/version": "4",
    } == made["spec"]["selector"]["matchLabels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert "mlplatform" == labels["app.kubernetes.io/name"]
    assert "namespace" not in made["metadata"]


def test_a_pod_says_by_digest_which_model_it_serves(found: Template) -> None:
    made = template.deployment(found, "flight_delay", VERSION, OWNER)
    annotations = made["spec"]["template"]["metadata"]["annotations"]

    assert {"mlplatform.dev/model-digest": f"sha256:{VERSION.digest}", "other": "kept"} == (
        annotations
    )
    assert (
        f"sha256:{VERSION.digest}"
        == (made["metadata"]["annotations"]["mlplatform.dev/model-digest"])
    )


def test_the_init_container_is_told_the_version_and_the_others_nothing(found: Template) -> None:
    made = template.deployment(found, "flight_delay", VERSION, OWNER)
    first, second = made["spec"]["template"]["spec"]["initContainers"]

    assert [
        "--target", "embedded", "--usecase", "flight_delay", "--version", "4",
        "--digest", VERSION.digest,
    ] == first["args"]  # fmt: skip
    assert {"name": "second", "image": "b"} == second


def test_the_service_leads_to_this_server_alone(found: Template) -> None:
    made = template.service(found, "flight_delay", VERSION, OWNER)
    server = template.deployment(found, "flight_delay", VERSION, OWNER)

    assert NAME == made["metadata"]["name"]
    assert server["spec"]["selector"]["matchLabels"] == made["spec"]["selector"]
    assert 8000 == template.port(found)


def test_both_belong_to_the_model_rollout(found: Template) -> None:
    for make in (template.deployment, template.service):
        (owner,) = make(found, "flight_delay", VERSION, OWNER)["metadata"]["ownerReferences"]

        assert ("ModelRollout", "flight-delay", "1-2") == (
            owner["kind"], owner["name"], owner["uid"],
        )  # fmt: skip


def test_making_a_server_leaves_the_template_as_it_is(found: Template) -> None:
    before = copy.deepcopy(found)
    template.deployment(found, "flight_delay", VERSION, OWNER)
    template.service(found, "flight_delay", VERSION, OWNER)

    assert before == found


def test_another_content_under_the_same_number_is_another_server() -> None:
    other = VERSION.model_copy(update={"digest": "0" * 64})

    assert NAME != template.server_name("flight_delay", other)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"deployment.yaml": ""}, "has no deployment.yaml"),
        ({"service.yaml": "- a"}, "has no service.yaml"),
        ({"deployment.yaml": "a: [b"}, "deployment.yaml of ConfigMap mlplatform-triton is no YAML"),
        ({"deployment.yaml": "spec: {}"}, "has no 'template'"),
        ({"deployment.yaml": DEPLOYMENT.replace("name: export", "name: x")}, "init container"),
        ({"service.yaml": "spec: {ports: []}"}, "a Service with a port"),
    ],
    ids=["nothing", "a list", "no YAML", "no pod", "no init container", "no port"],
)
def test_a_template_that_lacks_a_part_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        template.parse(config_map(**data))
