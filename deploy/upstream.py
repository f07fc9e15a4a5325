"""What the profiles `full` and `gpu` need beside the chart, each in the one version that we know.

They come from their own makers' manifests and charts, and are not installed where the cluster has
them already: an administrator's Prometheus stays as it is. Only Kubeflow Pipelines is changed, to
fit into the platform's namespace (`deploy/kubeflow.py`). What these commands have installed is
written on that namespace: `make destroy` removes that, and nothing else.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from deploy import kubeflow
from deploy.custom_resources import DEFINITIONS, established
from deploy.programs import call
from deploy.target import Profile, Target
from mlplatform.clients.kubernetes import NAMESPACES, Cluster, Object
from mlplatform.errors import ServiceError

ANNOTATION: Final = "mlplatform.dev/upstream"
"""On the namespace: names of what was installed beside it, separated by commas."""
_SECONDS: Final = 900.0
"""Kubeflow Pipelines pulls some three gigabytes."""
_RUNS: Final = "workflows.argoproj.io"
"""What a run of Kubeflow Pipelines is to Kubernetes."""


@dataclass(frozen=True)
class Component:
    """One of them."""

    name: str
    version: str
    namespace: str
    """Empty: the platform's."""
    definition: str
    """A CRD by which one sees that it is there."""
    remark: str = ""
    """What to know about one that an administrator has installed."""
    chart: str = ""
    release: str = ""
    """Of Helm, for a chart."""
    repository: str = ""
    """Of the chart."""
    settings: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Values of the chart; none is a secret."""

    def install(self, target: Target) -> list[tuple[str, ...]]:
        """Return the command lines that install it, in their order."""
        if not self.chart:
            kinds, objects = self._manifests(target)
            kubectl = ("kubectl", "--context", target.context)
            found = "--for=condition=established"
            return [
                # By the server: kubectl's own apply notes a kind in an annotation, which is too
                # small for Argo's.
                (*kubectl, "apply", "--server-side", "--force-conflicts", "-f", kinds),
                (*kubectl, "wait", found, "--timeout=60s", f"crd/{self.definition}"),
                (*kubectl, "apply", "-f", objects),
                (
                    *kubectl, "wait", "--for=condition=available", f"--timeout={_SECONDS:.0f}s",
                    "--namespace", self.place(target), "deployment/ml-pipeline",
                ),
            ]  # fmt: skip
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
        if not self.chart:
            kubectl = ("kubectl", "--context", target.context)
            delete = (*kubectl, "delete", "--ignore-not-found")
            kinds, objects = self._manifests(target)
            return [(*delete, "-f", objects), (*delete, "-f", kinds)]
        return [
            (
                "helm", "uninstall", self.release, "--ignore-not-found", "--wait",
                "--kube-context", target.context, "--namespace", self.namespace,
            )
        ]  # fmt: skip

    def place(self, target: Target) -> str:
        """Return the namespace that it is in."""
        return self.namespace or target.namespace

    def _manifests(self, target: Target) -> tuple[str, str]:
        kinds, objects = (
            str(kubeflow.manifest(self.version, self.place(target), part))
            for part in kubeflow.PARTS
        )
        return kinds, objects


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
        namespace="",
        definition="scheduledworkflows.kubeflow.org",
        remark="its runs have to be pods of this namespace: values pipeline.kubeflow say where",
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
        SettingsError: It does not fit into the platform's namespace.
        ServiceError: It cannot be installed.
    """
    found = cluster.find(DEFINITIONS, component.definition)
    own = installed(cluster.get(NAMESPACES, target.namespace))
    if found is not None and established(found) and component not in own:
        said = f"the cluster has it already: {component.definition}"
        return f"{said}; {component.remark}" if component.remark else said
    if not component.chart:
        kubeflow.write(component.version, component.place(target))
    # Before it is begun: a killed run is removed, or gone on with, as well.
    names = ",".join(c.name for c in COMPONENTS if c in own or c == component)
    annotated = {"metadata": {"annotations": {ANNOTATION: names}}}
    cluster.patch(NAMESPACES, target.namespace, annotated)
    _run(component.install(target))
    return f"{component.version} in namespace {component.place(target)}"


def remove(cluster: Cluster, target: Target, component: Component) -> str:
    """Remove a component that these commands have installed; return what was done, in words.

    Raises:
        ServiceError: It cannot be removed.
    """
    if not component.chart:
        # The manifests are those that were installed, where this machine still has them.
        if not kubeflow.written(component.version, component.place(target)):
            kubeflow.write(component.version, component.place(target))
        if cluster.find(DEFINITIONS, _RUNS) is not None:
            # First, while there is a controller that takes its mark from their pods.
            _run([_ending_runs(target)])
    _run(component.uninstall(target))
    return f"{component.version} removed from namespace {component.place(target)}"


def _ending_runs(target: Target) -> tuple[str, ...]:
    delete = ("kubectl", "--context", target.context, "delete", "--ignore-not-found")
    return (*delete, _RUNS, "--all", "--namespace", target.namespace)


def _run(lines: list[tuple[str, ...]]) -> None:
    for program, *arguments in lines:
        try:
            call(program, *arguments, timeout_seconds=_SECONDS + 60)
        except ServiceError as error:
            raise ServiceError(f"{error}; the same command goes on from here") from error
