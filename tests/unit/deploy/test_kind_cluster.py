"""The cluster of this machine: made once, whatever of it was there."""

import io
from typing import Any

import pytest
import yaml
from rich.console import Console

from deploy import kind_cluster
from deploy.kind_cluster import CONFIGURATION, KindCluster, make
from deploy.progress import Progress
from mlplatform.errors import ServiceError, SettingsError


class Programs:
    """Stands for kind, kubectl and docker: what they were called with, and what they answer."""

    def __init__(self, **answers: str | Exception) -> None:
        self.answers = answers
        self.lines: list[str] = []
        self.given: list[str] = []

    def __call__(self, name: str, *arguments: str, **more: Any) -> str:
        line = " ".join([name, *arguments])
        self.lines.append(line)
        self.given += [more["given"]] if more.get("given") else []
        for part, answer in self.answers.items():
            if part in line:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return ""

    def called(self, start: str) -> list[str]:
        return [line for line in self.lines if line.startswith(start)]


@pytest.fixture(autouse=True)
def all_programs_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind_cluster, "find", "/usr/bin/{}".format)


def run(programs: Programs, tool: str = "docker") -> None:
    make(Progress(Console(file=io.StringIO())), KindCluster(tool, programs))


def test_a_bare_machine_gets_a_registry_and_a_cluster_that_finds_it() -> None:
    programs = Programs(State=ServiceError("no such container"), nodes="mlplatform-control-plane")

    run(programs)

    assert 1 == len(programs.called("docker run"))
    assert "127.0.0.1:5001:5000" in programs.called("docker run")[0]
    assert 1 == len(programs.called("kind create cluster --name mlplatform"))
    assert ["docker network connect kind mlplatform-registry"] == programs.called("docker network")
    hosts = "docker exec --interactive mlplatform-control-plane cp /dev/stdin "
    assert [f"{hosts}/etc/containerd/certs.d/localhost:5001/hosts.toml"] == programs.called(hosts)
    assert '[host."http://mlplatform-registry:5000"]\n' in programs.given


def test_what_is_there_is_left_alone() -> None:
    programs = Programs(State="true", clusters="mlplatform\n", Networks='{"kind":{}}')

    run(programs)

    assert [] == programs.called("docker run")
    assert [] == programs.called("kind create")
    assert [] == programs.called("docker network")


def test_a_registry_that_was_stopped_is_started_again() -> None:
    programs = Programs(State="false", clusters="mlplatform\n")

    run(programs)

    assert ["docker start mlplatform-registry"] == programs.called("docker start")


def test_containerd_is_told_where_registries_are_described() -> None:
    (patch,) = yaml.safe_load(CONFIGURATION)["containerdConfigPatches"]

    assert 'config_path = "/etc/containerd/certs.d"' in patch


def test_a_container_tool_that_does_not_answer_is_said() -> None:
    with pytest.raises(SettingsError, match="docker is installed and does not answer"):
        run(Programs(info=ServiceError("Cannot connect to the Docker daemon")))


def test_a_container_tool_that_kind_does_not_know_is_refused() -> None:
    with pytest.raises(SettingsError, match="CONTAINER_TOOL is 'lxc': kind works with docker"):
        KindCluster("lxc")


def test_the_cluster_goes_with_its_registry() -> None:
    programs = Programs(State="true")

    KindCluster("podman", programs).remove()

    assert ["kind delete cluster --name mlplatform"] == programs.called("kind")
    assert ["podman rm --force --volumes mlplatform-registry"] == programs.called("podman rm")
