"""What the larger profiles install beside the chart: pinned, and by which command lines."""

import re

import pytest

from deploy.target import Target
from deploy.upstream import ANNOTATION, COMPONENTS, EXTERNAL_SECRETS, Component, installed, needed

TARGET = Target("kind-mlplatform")


def component(name: str) -> Component:
    return next(c for c in COMPONENTS if c.name == name)


def test_a_laptop_needs_nothing_beside_the_chart() -> None:
    assert () == needed("minimal")


def test_the_larger_profiles_need_kubeflow_kuberay_and_prometheus() -> None:
    assert ["kubeflow", "kuberay", "prometheus"] == [c.name for c in needed("full")]
    assert needed("full") == needed("gpu")


def test_secrets_from_a_store_need_its_reader_in_every_profile() -> None:
    assert (EXTERNAL_SECRETS,) == needed("minimal", external_secrets=True)
    assert COMPONENTS == needed("full", external_secrets=True)


@pytest.mark.parametrize("one", COMPONENTS, ids=lambda c: c.name)
def test_each_is_pinned_to_one_version_wherever_it_is_named(one: Component) -> None:
    lines = [" ".join(line) for line in one.install(TARGET)]

    assert re.fullmatch(r"\d+\.\d+\.\d+", one.version)
    assert all(one.version in line for line in lines if " wait " not in line)


@pytest.mark.parametrize("one", COMPONENTS, ids=lambda c: c.name)
def test_each_command_names_the_cluster_that_is_meant(one: Component) -> None:
    for line in (*one.install(TARGET), *one.uninstall(TARGET)):
        named = {"helm": "--kube-context", "kubectl": "--context"}[line[0]]
        assert "kind-mlplatform" == line[line.index(named) + 1]


def test_kubeflows_kinds_are_there_before_its_objects() -> None:
    first, wait, second = component("kubeflow").install(TARGET)

    root = "github.com/kubeflow/pipelines/manifests/kustomize"
    assert f"{root}/cluster-scoped-resources?ref=2.17.0" == first[-1]
    assert ("crd/applications.app.k8s.io", "wait") == (wait[-1], wait[3])
    assert f"{root}/env/platform-agnostic?ref=2.17.0" == second[-1]


def test_kubeflow_is_removed_in_the_reverse_order() -> None:
    first, second = component("kubeflow").uninstall(TARGET)

    assert "platform-agnostic" in first[-1]
    assert "cluster-scoped-resources" in second[-1]


def test_prometheus_takes_up_the_platforms_monitors_and_has_no_default_password() -> None:
    (line,) = component("prometheus").install(TARGET)

    assert "prometheus.prometheusSpec.serviceMonitorSelectorNilUsesHelmValues=false" in line
    assert "grafana.enabled=false" in line
    assert "kube-prometheus-stack" in line


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        (None, []),
        ({}, []),
        ({ANNOTATION: "kuberay,kubeflow"}, ["kubeflow", "kuberay"]),
        ({ANNOTATION: "something-else"}, []),
    ],
)
def test_what_was_installed_is_read_from_the_namespace(
    annotations: dict[str, str] | None, names: list[str]
) -> None:
    namespace = {"metadata": {"annotations": annotations}}

    assert names == [c.name for c in installed(namespace)]


def test_without_a_namespace_nothing_was_installed() -> None:
    assert () == installed(None)
