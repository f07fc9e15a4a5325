"""A Deployment and a Service for each version, made and deleted as asked; none answers here."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlplatform.clients.kubernetes import DEPLOYMENTS, PODS, SERVICES, Cluster, Object
from mlplatform.contracts import ServedModel
from mlplatform.contracts.rollout import Version
from mlplatform.errors import ModelError, ServiceError, StaleError
from serving.operator import template
from serving.operator.checked import Surroundings
from serving.operator.servers import ClusterServers, addresses
from serving.operator.template import Template
from serving.triton.export import Export
from serving.triton.golden import Golden
from tests.cluster.operator.stage import IMAGE
from tests.unit.serving.rollout.world import served

USECASE = "flight_delay"
ONE, TWO = Version(version=1, digest="1" * 64), Version(version=2, digest="2" * 64)
TIGHT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(name: str, script: str = "") -> Object:
    script = script or "import time; time.sleep(3600)"
    return {
        "name": name,
        "image": IMAGE,
        "command": ["python3", "-c", script],
        "securityContext": TIGHT,
    }


class Lock:
    """A lease that is held until it is lost."""

    def __init__(self) -> None:
        self.lost = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        if self.lost:
            raise StaleError("another replica drives now")
        yield


class Place:
    """What the servers are made of; a test changes it before it asks for one."""

    def __init__(self, cluster: Cluster, owner: Object) -> None:
        self.cluster, self.owner, self.lock = cluster, owner, Lock()
        self.pod: dict[str, Any] = {
            "terminationGracePeriodSeconds": 0,
            "initContainers": [container("export", "pass")],
            "containers": [container("triton")],
        }
        self.replicas = 0
        """Where nobody asks for a pod, none is waited for."""
        self.refusal: Exception | None = None
        self.start_seconds = 600.0
        self.gate = threading.Event()
        self.gate.set()
        self.made: list[ClusterServers] = []

    def template(self) -> Template:
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {"replicas": self.replicas, "template": {"spec": self.pod}},
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {"ports": [{"name": "http", "port": 8000}]},
        }
        return Template(deployment, service)

    def export(self, version: int) -> Export:
        self.gate.wait(20)
        if self.refusal is not None:
            raise self.refusal
        model: ServedModel = served(Version(version=version, digest=str(version) * 64))
        return Export(Path(), Path(), model, Golden(rows=((1.0,),), answers=(0.5,)))

    def servers(self) -> ClusterServers:
        """Return new ones, of what is known now."""
        around = Surroundings(
            self.cluster,
            USECASE,
            self.export,
            addresses(self.cluster, self.template, "ip"),
            self.start_seconds,
        )
        found = ClusterServers(around, self.template, lambda: self.owner, self.lock)
        self.made.append(found)
        return found

    def there(self) -> set[int]:
        """Return the versions that have both, a Deployment and a Service."""
        labels = template.of_usecase(USECASE)
        both = (self.cluster.list(kind, labels) for kind in (DEPLOYMENTS, SERVICES))
        first, second = (
            {int(one["metadata"]["labels"][template.VERSION]) for one in found} for found in both
        )
        return first & second


@pytest.fixture
def place(cluster: Cluster, made: Object) -> Iterator[Place]:
    found = Place(cluster, made)
    yield found
    found.lock.lost = False
    for servers in found.made:
        servers.remove()


@pytest.fixture
def servers(place: Place) -> ClusterServers:
    return place.servers()


def ensured(servers: ClusterServers, place: Place, *versions: Version) -> None:
    """Ask as a driver does, again and again, until the servers are there."""
    wanted = {version.version for version in versions}

    def there() -> bool:
        servers.ensure(versions)
        return place.there() == wanted

    wait(there)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def detail(servers: ClusterServers, version: Version) -> str:
    return servers.look(version).status.detail


def test_a_server_is_made_when_its_model_was_verified_and_not_before(
    place: Place, servers: ClusterServers
) -> None:
    assert "absent" == servers.look(ONE).status.state
    place.gate.clear()
    servers.ensure((ONE,))
    servers.ensure((ONE,))
    assert ("starting", set()) == (servers.look(ONE).status.state, place.there())

    place.gate.set()
    ensured(servers, place, ONE)


def test_asking_again_changes_nothing_and_what_is_not_asked_for_goes(
    place: Place, servers: ClusterServers
) -> None:
    ensured(servers, place, ONE, TWO)
    name = template.server_name(USECASE, TWO)
    before = place.cluster.get(DEPLOYMENTS, name)["metadata"]["uid"]

    ensured(servers, place, TWO, ONE)
    ensured(servers, place, TWO)
    assert before == place.cluster.get(DEPLOYMENTS, name)["metadata"]["uid"]
    assert "absent" == servers.look(ONE).status.state


def test_another_operator_finds_the_servers_and_makes_none_anew(
    place: Place, servers: ClusterServers
) -> None:
    ensured(servers, place, ONE)
    name = template.server_name(USECASE, ONE)
    before = place.cluster.get(DEPLOYMENTS, name)["metadata"]["uid"]
    servers.stop()

    heir = place.servers()
    ensured(heir, place, ONE)
    heir.stop()
    assert before == place.cluster.get(DEPLOYMENTS, name)["metadata"]["uid"]


def test_who_has_lost_the_lease_deletes_nothing(place: Place, servers: ClusterServers) -> None:
    ensured(servers, place, ONE, TWO)
    place.lock.lost = True

    with pytest.raises(StaleError, match="another replica drives"):
        servers.ensure((ONE,))
    assert {1, 2} == place.there()


def test_a_model_that_is_refused_gets_no_server(place: Place, servers: ClusterServers) -> None:
    place.refusal = ModelError("the signature is not valid")
    servers.ensure((ONE,))
    wait(lambda: servers.look(ONE).status.state == "failed")

    servers.ensure((ONE,))
    assert ("the signature is not valid", set()) == (detail(servers, ONE), place.there())


def test_another_content_under_the_number_is_refused(place: Place, servers: ClusterServers) -> None:
    other = Version(version=1, digest="f" * 64)
    servers.ensure((other,))
    wait(lambda: servers.look(other).status.state == "failed")

    assert "the registry holds another model" in detail(servers, other)
    assert set() == place.there()


def test_a_registry_that_is_away_is_asked_again(place: Place, servers: ClusterServers) -> None:
    place.refusal = ServiceError("MLflow is away")
    servers.ensure((ONE,))
    wait(lambda: detail(servers, ONE) == "MLflow is away")
    assert "starting" == servers.look(ONE).status.state

    place.refusal = None
    ensured(servers, place, ONE)


def test_a_pod_that_no_node_takes_is_waited_for_with_the_schedulers_words(place: Place) -> None:
    place.replicas, place.start_seconds = 1, 3
    place.pod["nodeSelector"] = {"there-is": "none"}
    servers = place.servers()
    ensured(servers, place, ONE)
    wait(lambda: "no node takes its pod" in detail(servers, ONE))
    time.sleep(4)

    assert "node affinity/selector" in detail(servers, ONE)
    assert "starting" == servers.look(ONE).status.state


def test_a_pod_that_refuses_its_model_has_failed_with_its_last_words(
    place: Place, servers: ClusterServers
) -> None:
    place.replicas = 1
    said = "open('/dev/termination-log', 'w').write('the digest differs'); raise SystemExit(1)"
    place.pod["initContainers"] = [container("export", said)]
    ensured(servers, place, ONE)
    wait(lambda: servers.look(ONE).status.state == "failed")

    assert "container export: the digest differs" == detail(servers, ONE)


def test_a_pod_that_is_not_admitted_is_said_and_fails_in_the_end(place: Place) -> None:
    place.replicas, place.start_seconds = 1, 3
    place.pod["containers"][0].pop("securityContext")
    servers = place.servers()
    ensured(servers, place, ONE)
    wait(lambda: "no pod can be made" in detail(servers, ONE))
    wait(lambda: servers.look(ONE).status.state == "failed")

    assert "no pod can be made" in detail(servers, ONE)
    assert "violates PodSecurity" in detail(servers, ONE)


def test_a_server_without_golden_answers_is_not_ready(
    place: Place, servers: ClusterServers
) -> None:
    place.replicas = 1
    ensured(servers, place, ONE)
    wait(lambda: "does not give the golden answers" in detail(servers, ONE))

    assert "starting" == servers.look(ONE).status.state
    assert 1 == len(place.cluster.list(PODS, template.of_version(USECASE, ONE)))


def test_a_server_whose_gpus_are_not_there_is_not_made(
    place: Place, servers: ClusterServers
) -> None:
    place.replicas = 1
    place.pod["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 64}}
    servers.ensure((ONE,))
    wait(lambda: refused(servers))

    assert ("starting", set()) == (servers.look(ONE).status.state, place.there())


def test_everything_goes_when_the_use_case_does(place: Place, servers: ClusterServers) -> None:
    ensured(servers, place, ONE, TWO)

    servers.remove()
    assert (set(), {}) == (place.there(), servers.all())


def refused(servers: ClusterServers) -> bool:
    servers.ensure((ONE,))
    return "64 nvidia.com/gpu" in detail(servers, ONE)
