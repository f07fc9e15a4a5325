"""What the larger profiles install beside the chart: pinned, and by which command lines."""

import re
from pathlib import Path
from typing import Any, cast

import pytest

from deploy import kubeflow, upstream
from deploy.target import Target
from deploy.upstream import ANNOTATION, COMPONENTS, EXTERNAL_SECRETS, Component, installed, needed
from mlplatform.clients.kubernetes import Cluster, Kind, Object
from mlplatform.errors import SettingsError

TARGET = Target("kind-mlplatform")


class Kinds:
    """A cluster that knows some kinds, and keeps what it is told of its namespace."""

    def __init__(self, *kinds: str) -> None:
        self.kinds, self.told = kinds, list[Object]()

    def find(self, _kind: Kind, name: str) -> Object | None:
        conditions = [{"type": "Established", "status": "True"}]
        return {"status": {"conditions": conditions}} if name in self.kinds else None

    def get(self, _kind: Kind, name: str) -> Object:
        return {"metadata": {"name": name}}

    def patch(self, _kind: Kind, _name: str, body: Object) -> None:
        self.told.append(body)


def cluster(*kinds: str) -> Cluster:
    return cast("Cluster", Kinds(*kinds))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Command lines, in their order, instead of running them."""
    lines: list[str] = []

    def call(*words: str, **_: Any) -> str:
        lines.append(" ".join(words))
        return ""

    monkeypatch.setattr(upstream, "call", call)
    monkeypatch.setattr(kubeflow, "call", call)
    monkeypatch.setattr(kubeflow, "FOLDER", tmp_path)
    return lines


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
    assert all(one.version in line for line in lines if " wait --for" not in line)


@pytest.mark.parametrize("one", COMPONENTS, ids=lambda c: c.name)
def test_each_command_names_the_cluster_that_is_meant(one: Component) -> None:
    for line in (*one.install(TARGET), *one.uninstall(TARGET)):
        named = {"helm": "--kube-context", "kubectl": "--context"}[line[0]]
        assert "kind-mlplatform" == line[line.index(named) + 1]


def test_kubeflows_kinds_are_there_before_its_objects_and_it_answers_after_them() -> None:
    first, wait, second, answers = component("kubeflow").install(TARGET)

    root = "build/cluster/kubeflow/mlplatform/2.17.0"
    assert f"{root}/cluster-scoped-resources.yaml" == first[-1]
    assert ("crd/scheduledworkflows.kubeflow.org", "wait") == (wait[-1], wait[3])
    assert f"{root}/env-platform-agnostic.yaml" == second[-1]
    assert ("deployment/ml-pipeline", "mlplatform") == (answers[-1], answers[-2])


def test_kubeflow_is_removed_in_the_reverse_order_after_its_runs(called: list[str]) -> None:
    upstream.remove(cluster("workflows.argoproj.io"), TARGET, component("kubeflow"))

    runs, first, second = (line for line in called if " delete " in line)
    assert runs.startswith("kubectl --context kind-mlplatform delete --ignore-not-found workflows")
    assert "platform-agnostic" in first
    assert "cluster-scoped-resources" in second


def test_kubeflow_is_installed_in_the_platforms_namespace_wherever_that_is() -> None:
    lines = component("kubeflow").install(Target("kind-mlplatform", "other"))

    assert all("/other/" in line[-1] for line in lines if "apply" in line)


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


def test_kubeflow_that_does_not_fit_is_neither_applied_nor_noted(
    called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(version: str, namespace: str) -> None:
        raise SettingsError(f"{version} does not fit into the namespace {namespace}")

    monkeypatch.setattr(kubeflow, "write", refused)
    found = Kinds()

    with pytest.raises(SettingsError, match="does not fit into the namespace mlplatform"):
        upstream.ensure(cast("Cluster", found), TARGET, component("kubeflow"))

    assert ([], []) == (called, found.told)


def test_kubeflow_of_an_administrator_stays_and_it_is_said_what_it_must_do(
    called: list[str],
) -> None:
    said = upstream.ensure(
        cluster("scheduledworkflows.kubeflow.org"), TARGET, component("kubeflow")
    )

    assert "runs have to be pods of this namespace" in said
    assert [] == called


@pytest.mark.parametrize("kinds", [(), ("workflows.argoproj.io",)])
def test_kubeflow_that_was_begun_and_knows_no_runs_yet_is_removed_too(
    called: list[str], kinds: tuple[str, ...]
) -> None:
    upstream.remove(cluster(*kinds), TARGET, component("kubeflow"))

    ended = [line for line in called if "delete --ignore-not-found workflows.argoproj.io" in line]
    assert len(kinds) == len(ended)
    assert 2 == sum("delete --ignore-not-found -f" in line for line in called)


def test_what_was_installed_is_removed_as_it_was_without_the_internet(called: list[str]) -> None:
    version = component("kubeflow").version
    for part in kubeflow.PARTS:
        file = kubeflow.manifest(version, TARGET.namespace, part)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("", encoding="utf-8")

    upstream.remove(cluster(), TARGET, component("kubeflow"))

    assert not any("kustomize" in line for line in called)
