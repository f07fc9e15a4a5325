"""What the profiles `full` and `gpu` need beside the chart, each in the one version that we know.

They come from their own makers' manifests and charts, unchanged, and are not installed where the
cluster has them already: an administrator's Prometheus stays as it is. What these commands have
installed is written on the platform's namespace: `make destroy` removes that, and nothing else.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from deploy.custom_resources import DEFINITIONS, established
from deploy.programs import call
from deploy.target import Profile, Target
from mlplatform.clients.kubernetes import NAMESPACES, Cluster, Object
from mlplatform.errors import ServiceError

ANNOTATION: Final = "mlplatform.dev/upstream"
"""On the namespace: names of what was installed beside it, separated by commas."""
_SECONDS: Final = 900.0
"""Kubeflow Pipelines pulls some three gigabytes."""
_KFP: Final = "github.com/kubeflow/pipelines/manifests/kustomize"


@dataclass(frozen=True)
class Component:
    """One of them."""

    name: str
    version: str
    namespace: str
    definition: str
    """A CRD by which one sees that it is there."""
    chart: str = ""
    release: str = ""
    """Of Helm, for a chart."""
    repository: str = ""
    """Of the chart."""
    manifests: tuple[str, ...] = ()
    """For kubectl's kustomize, in their order; the first ones make the definition."""
    settings: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Values of the chart; none is a secret."""

    def install(self, target: Target) -> list[tuple[str, ...]]:
        """Return the command lines that install it, in their order."""
        kubectl = ("kubectl", "--context", target.context)
        if self.manifests:
            lines: list[tuple[str, ...]] = []
            for number, path in enumerate(self.manifests):
                lines.append((*kubectl, "apply", "-k", f"{path}?ref={self.version}"))
                if number == 0:
                    wait = "--for=condition=established"
                    lines.append(
                        (*kubectl, "wait", wait, "--timeout=60s", f"crd/{self.definition}")
                    )
            return lines
        settings = [
            part for key, value in self.settings.items() for part in ("--set", f"{key}={value}")
        ]
        return [
            (
                "helm", "upgrade", self.release, self.chart, "--install",
                "--repo", self.repository, "--version", self.version,
                "--kube-context", target.context, "--namespace", self.namespace,
                "--create-namespace", "--wait", "--timeout", f"{_SECONDS:.0f}s", *settings,
            )
        ]  # fmt: skip

    def uninstall(self, target: Target) -> list[tuple[str, ...]]:
        """Return the command lines that remove it, in their order."""
        if self.manifests:
            return [
                (
                    "kubectl", "--context", target.context, "delete", "--ignore-not-found",
                    "-k", f"{path}?ref={self.version}",
                )
                for path in reversed(self.manifests)
            ]  # fmt: skip
        return [
            (
                "helm", "uninstall", self.release, "--ignore-not-found", "--wait",
                "--kube-context", target.context, "--namespace", self.namespace,
            )
        ]  # fmt: skip


EXTERNAL_SECRETS: Final = Component(
    name="external-secrets",
    version="2.9.0",
    namespace="external-secrets",
    definition="externalsecrets.external-secrets.io",
    chart="external-secrets",
    release="external-secrets",  # its account has this name, which the cloud knows
    repository="https://charts.external-secrets.io",
)
COMPONENTS: Final = (
    EXTERNAL_SECRETS,
    Component(
        name="kubeflow",
        # From 2.17 on, for its UI's proxy answered whoever asked (CVE-2026-54745).
        version="2.17.0",
        namespace="kubeflow",
        definition="applications.app.k8s.io",
        # Not `env/dev`, which sets every image to the tag `master`.
        manifests=(f"{_KFP}/cluster-scoped-resources", f"{_KFP}/env/platform-agnostic"),
    ),
    Component(
        name="kuberay",
        version="1.7.0",
        namespace="kuberay-operator",
        definition="rayjobs.ray.io",
        chart="kuberay-operator",
        release="kuberay-operator",
        repository="https://ray-project.github.io/kuberay-helm/",
    ),
    Component(
        name="prometheus",
        version="88.4.0",
        namespace="monitoring",
        definition="servicemonitors.monitoring.coreos.com",
        chart="kube-prometheus-stack",
        release="prometheus",  # what the chart's monitors are labelled with
        repository="https://prometheus-community.github.io/helm-charts",
        settings=MappingProxyType(
            {
                # Any namespace's monitors and rules, not only those that carry its release's label.
                "prometheus.prometheusSpec.serviceMonitorSelectorNilUsesHelmValues": "false",
                "prometheus.prometheusSpec.ruleSelectorNilUsesHelmValues": "false",
                # Dashboards are not what the alerts need, and its password would have a default.
                "grafana.enabled": "false",
            }
        ),
    ),
)
"""All of them, in the order in which they are installed."""


def needed(profile: Profile, *, external_secrets: bool = False) -> tuple[Component, ...]:
    """Return what is needed beside the chart.

    Args:
        profile: Of the chart.
        external_secrets: Whether Secrets come from a store.
    """
    return tuple(
        component
        for component in COMPONENTS
        if (external_secrets if component == EXTERNAL_SECRETS else profile != "minimal")
    )


def installed(namespace: Object | None) -> tuple[Component, ...]:
    """Return what these commands have installed beside a platform."""
    annotations = ((namespace or {}).get("metadata") or {}).get("annotations") or {}
    names = annotations.get(ANNOTATION, "").split(",")
    return tuple(component for component in COMPONENTS if component.name in names)


def ensure(cluster: Cluster, target: Target, component: Component) -> str:
    """Install a component where the cluster has none; return what was done, in words.

    Raises:
        ServiceError: It cannot be installed.
    """
    found = cluster.find(DEFINITIONS, component.definition)
    own = installed(cluster.get(NAMESPACES, target.namespace))
    if found is not None and established(found) and component not in own:
        return f"the cluster has it already: {component.definition}"
    # Before it is begun: a killed run is removed, or gone on with, as well.
    names = ",".join(c.name for c in COMPONENTS if c in own or c == component)
    annotated = {"metadata": {"annotations": {ANNOTATION: names}}}
    cluster.patch(NAMESPACES, target.namespace, annotated)
    _run(component.install(target))
    return f"{component.version} in namespace {component.namespace}"


def remove(target: Target, component: Component) -> str:
    """Remove a component that these commands have installed; return what was done, in words.

    Raises:
        ServiceError: It cannot be removed.
    """
    _run(component.uninstall(target))
    return f"{component.version} removed from namespace {component.namespace}"


def _run(lines: list[tuple[str, ...]]) -> None:
    for program, *arguments in lines:
        try:
            call(program, *arguments, timeout_seconds=_SECONDS + 60)
        except ServiceError as error:
            raise ServiceError(f"{error}; the same command goes on from here") from error
