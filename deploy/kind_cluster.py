"""`make cluster`: a Kubernetes cluster in containers of this machine, with a registry beside it.

As kind's documents make it (https://kind.sigs.k8s.io/docs/user/local-registry/): the registry is a
container of its own on the loopback address, and containerd of each node is told that its name
`localhost:5001` means that container. Running it again makes what is missing.
"""

from collections.abc import Callable
from typing import Final

from deploy.programs import call, find
from deploy.progress import Progress
from mlplatform.errors import ServiceError, SettingsError

CLUSTER: Final = "mlplatform"
"""kind calls its context kind-mlplatform."""
REGISTRY: Final = "mlplatform-registry"
PORT: Final = 5001
"""On the loopback address; 5000 is often taken."""
ADDRESS: Final = f"localhost:{PORT}"
_NODE_IMAGE: Final = (
    "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
)
"""Of kind 0.30: one minor version for all, which the chart is tested against."""
_REGISTRY_IMAGE: Final = "docker.io/library/registry:3"
_NETWORK: Final = "kind"
_CERTIFICATES: Final = "/etc/containerd/certs.d"
_SECONDS: Final = 600.0
"""The node's image is a gigabyte."""
CONFIGURATION: Final = f"""\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    image: {_NODE_IMAGE}
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "{_CERTIFICATES}"
"""
_HOSTS: Final = f"""\
[host."http://{REGISTRY}:5000"]
"""
_HOSTING: Final = f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: "{ADDRESS}"
    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
"""
_TOOLS: Final = ("docker", "podman", "nerdctl")
_PROVIDER: Final = "KIND_EXPERIMENTAL_PROVIDER"
"""By which kind is told of another tool than docker."""

Call = Callable[..., str]
"""As `programs.call`."""


class KindCluster:
    """The cluster of this machine.

    Args:
        tool: docker, podman or nerdctl.
        run: Calls programs; tests give another one.
    """

    def __init__(self, tool: str = "docker", run: Call = call) -> None:
        if tool not in _TOOLS:
            raise SettingsError(f"CONTAINER_TOOL is {tool!r}: kind works with {', '.join(_TOOLS)}")
        self._tool, self._run = tool, run

    def check(self) -> str:
        """Check that kind and the container tool are there; return their versions.

        Raises:
            SettingsError: One is not installed, or the container tool's service does not run.
        """
        for name in ("kind", "kubectl", self._tool):
            find(name)
        try:
            self._run(self._tool, "info")
        except ServiceError as error:
            raise SettingsError(
                f"{self._tool} is installed and does not answer: start its service, or use another "
                f"one with CONTAINER_TOOL=: {error}"
            ) from error
        return self._kind("version").strip()

    def ensure_registry(self) -> str:
        """Make the registry, or start it again; return what was done."""
        state = self._state(REGISTRY)
        if state == "true":
            return f"{ADDRESS} runs"
        if state == "false":
            self._run(self._tool, "start", REGISTRY)
            return f"{ADDRESS} started again"
        self._run(
            self._tool, "run", "--detach", "--restart=always", "--name", REGISTRY,
            "--publish", f"127.0.0.1:{PORT}:5000", _REGISTRY_IMAGE, timeout_seconds=_SECONDS,
        )  # fmt: skip
        return f"{ADDRESS} made"

    def ensure_cluster(self) -> str:
        """Make the cluster unless it is there; return what was done."""
        if CLUSTER in self._kind("get", "clusters").split():
            return f"{CLUSTER} is there"
        self._kind(
            "create", "cluster", "--name", CLUSTER, "--config", "-", "--wait", "120s",
            given=CONFIGURATION,
        )  # fmt: skip
        return f"{CLUSTER} made, its context is kind-{CLUSTER}"

    def connect(self) -> str:
        """Let the nodes find the registry under its name; return what was done."""
        networks = self._run(
            self._tool, "inspect", "--format", "{{json .NetworkSettings.Networks}}", REGISTRY
        )
        if f'"{_NETWORK}"' not in networks:
            self._run(self._tool, "network", "connect", _NETWORK, REGISTRY)
        nodes = self._kind("get", "nodes", "--name", CLUSTER).split()
        folder = f"{_CERTIFICATES}/{ADDRESS}"
        for node in nodes:
            self._run(self._tool, "exec", node, "mkdir", "-p", folder)
            self._run(
                self._tool, "exec", "--interactive", node, "cp", "/dev/stdin",
                f"{folder}/hosts.toml", given=_HOSTS,
            )  # fmt: skip
        self._run("kubectl", "--context", f"kind-{CLUSTER}", "apply", "-f", "-", given=_HOSTING)
        return f"{len(nodes)} nodes pull {ADDRESS}".replace("1 nodes pull", "1 node pulls")

    def remove(self) -> str:
        """Remove the cluster and the registry with its images; return what was done."""
        self._kind("delete", "cluster", "--name", CLUSTER)
        if self._state(REGISTRY):
            self._run(self._tool, "rm", "--force", "--volumes", REGISTRY)
        return f"{CLUSTER} and its registry removed"

    def _state(self, container: str) -> str:
        """Return whether a container runs: true, false, or nothing where there is none."""
        try:
            found = self._run(self._tool, "inspect", "--format", "{{.State.Running}}", container)
        except ServiceError:
            return ""
        return found.strip()

    def _kind(self, *arguments: str, given: str | None = None) -> str:
        settings = {} if self._tool == "docker" else {_PROVIDER: self._tool}
        return self._run(
            "kind", *arguments, given=given, settings=settings, timeout_seconds=_SECONDS
        )


def make(progress: Progress, cluster: KindCluster) -> None:
    """Make the cluster with its registry.

    Raises:
        SettingsError: A program is not installed.
        ServiceError: One of them failed.
    """
    progress.step("programs", cluster.check)
    progress.step("registry", cluster.ensure_registry)
    progress.step("cluster", cluster.ensure_cluster)
    progress.step("nodes", cluster.connect)
    progress.say("next", f"`make images REGISTRY={ADDRESS}`, then `make deploy`")
