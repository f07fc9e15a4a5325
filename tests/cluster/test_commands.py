"""What the commands do to a cluster besides the chart: in namespaces of their own."""

import json
import secrets
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy import credentials, custom_resources, helm, namespaces, registry_images, values
from deploy.differences import differences, refused
from deploy.forwards import Service, forwarded
from deploy.progress import Progress
from deploy.released import missing, remove_failed_jobs
from deploy.removing import Removal
from deploy.target import RELEASE, Target
from deploy.turns import NAME, alone
from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    Cluster,
    Object,
    contexts,
)
from mlplatform.clients.redis_protocol import Part
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.errors import ServiceError, SettingsError, StaleError
from serving.operator.lease import Lease
from tests.cluster.waiting import wait

_START_SECONDS = 300
"""A pod starts in seconds, and in minutes where everything else starts as well."""
_SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_POD = {
    "automountServiceAccountToken": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


@pytest.fixture
def target() -> Target:
    return Target(contexts().current, f"commands-{secrets.token_hex(3)}")


@pytest.fixture
def own(cluster: Cluster, target: Target) -> Iterator[Cluster]:
    """A namespace as the commands make it."""
    found = Cluster.connect(target.namespace, target.context)
    namespaces.ensure(found)
    yield found
    cluster.delete(NAMESPACES, target.namespace)


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(quiet=True))


def config_map(name: str, **data: str) -> Object:
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def stored(cluster: Cluster, name: str) -> dict[str, str]:
    data = cluster.get(SECRETS, name)["data"]
    return {key: b64decode(value).decode() for key, value in data.items()}


def test_a_namespace_is_made_once_and_mended_where_somebody_changed_it(own: Cluster) -> None:
    assert "is there" in namespaces.ensure(own)

    weak = {"pod-security.kubernetes.io/enforce": "privileged"}
    own.patch(NAMESPACES, own.namespace, {"metadata": {"labels": weak}})

    assert "labelled" in namespaces.ensure(own)
    assert () == namespaces.lacks(own.get(NAMESPACES, own.namespace))


def test_secrets_are_made_once(own: Cluster) -> None:
    credentials.ensure(own)
    before = credentials.read(own)

    assert "none was changed" in credentials.ensure(own)
    assert before == credentials.read(own)


def test_what_a_killed_run_left_out_is_made_and_the_rest_kept(own: Cluster) -> None:
    credentials.ensure(own)
    before = credentials.read(own)
    own.delete(SECRETS, "mlplatform-ledger")
    own.delete(CONFIG_MAPS, credentials.SIGNING)

    assert "1 Secrets made, 13 kept" in credentials.ensure(own)
    assert before == credentials.read(own)
    assert own.find(CONFIG_MAPS, credentials.SIGNING) is not None


def test_ones_own_secret_is_kept(own: Cluster) -> None:
    url = "postgresql+psycopg://me:mine@db.example:5432/ledger"
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mlplatform-ledger"},
        "stringData": {"MLPLATFORM_LEDGER_URL": url},
    }
    own.create(SECRETS, body)

    credentials.ensure(own)

    assert {"MLPLATFORM_LEDGER_URL": url} == stored(own, "mlplatform-ledger")


def test_a_public_key_of_another_pair_is_refused(own: Cluster) -> None:
    credentials.ensure(own)
    other = {"data": {credentials.PUBLIC: "-----BEGIN PUBLIC KEY-----\nother\n"}}
    own.patch(CONFIG_MAPS, credentials.SIGNING, other)

    with pytest.raises(SettingsError, match="another public key than that of the Secret"):
        credentials.ensure(own)


def test_the_kinds_are_served_when_they_were_made(own: Cluster) -> None:
    custom_resources.ensure(own)

    assert "modelrollouts.mlplatform.dev is there" == custom_resources.ensure(own)
    (wanted,) = custom_resources.wanted()
    name = wanted["metadata"]["name"]
    assert custom_resources.established(own.get(custom_resources.DEFINITIONS, name))


def test_only_one_command_changes_a_namespace(
    own: Cluster, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.turns._PATIENCE_SECONDS", 2.0)

    with alone(own, progress):
        held = own.get(LEASES, NAME)["spec"]["holderIdentity"]
        with pytest.raises(StaleError, match="changes the platform"), alone(own, progress):
            pass
        assert held == own.get(LEASES, NAME)["spec"]["holderIdentity"]

    with alone(own, progress):  # and the next one need not wait
        pass


def test_the_turn_of_a_command_that_was_killed_runs_out(own: Cluster, progress: Progress) -> None:
    assert Lease(own, NAME, "killed", 2).turn()

    with alone(own, progress):
        assert "killed" != own.get(LEASES, NAME)["spec"]["holderIdentity"]


def test_objects_that_somebody_deleted_are_missed(own: Cluster) -> None:
    own.create(CONFIG_MAPS, config_map("there"))
    manifest = "\n---\n".join(
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}" for name in ("there", "gone")
    )

    assert ["ConfigMap/gone"] == missing(own, manifest)


def test_only_jobs_of_the_release_that_have_given_up_are_removed(own: Cluster) -> None:
    image = registry_images.images(values.IMAGES)["redis"]
    for name, command, released in (
        ("failed", "false", True),
        ("done", "true", True),
        ("ours", "false", False),
    ):
        own.create(JOBS, _job(name, image, command, released=released))

    def ended() -> bool:
        jobs = own.list(JOBS)
        return all(
            any(c["type"] in {"Complete", "Failed"} for c in job["status"].get("conditions") or ())
            for job in jobs
        )

    wait(ended, _START_SECONDS)

    assert ["failed"] == remove_failed_jobs(own)
    wait(lambda: {"done", "ours"} == {job["metadata"]["name"] for job in own.list(JOBS)}, 30)


def test_a_change_that_the_api_server_refuses_is_known_before_it_is_tried(own: Cluster) -> None:
    def service(port: int, name: str = "s") -> Object:
        spec = {"ports": [{"port": port}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

    def found(after: Object) -> list[str]:
        return refused(own, differences(json.dumps(service(80)), json.dumps(after)))

    own.create(SERVICES, service(80))

    assert [] == found(service(81))
    assert [] == found(service(80, "new"))
    (said,) = found(service(123456))
    assert said.startswith("Service/s: ")
    assert ["s"] == [body["metadata"]["name"] for body in own.list(SERVICES)]
    assert 80 == own.get(SERVICES, "s")["spec"]["ports"][0]["port"]


def test_a_release_whose_helm_was_killed_is_gone_on_with(
    own: Cluster, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = _chart(tmp_path)
    monkeypatch.setattr(helm, "CHART", chart)
    command = ["helm", "install", RELEASE, str(chart), "--wait"]
    place = ["--kube-context", target.context, "--namespace", own.namespace]
    killed = subprocess.Popen([*command, *place], stdout=subprocess.DEVNULL)
    wait(lambda: own.find(CONFIG_MAPS, "ours") is not None, 60)
    killed.kill()
    killed.wait()
    release = helm.Helm(target).current()
    assert release is not None
    assert release.pending
    with pytest.raises(ServiceError, match="another operation"):
        helm.Helm(target).release([])

    helm.forget_pending(own, release)
    made = helm.Helm(target).release([])

    assert "deployed" == made.status
    assert made.equals(helm.Helm(target).planned([]))


def test_redis_lets_each_role_do_its_work_and_nothing_else(own: Cluster, target: Target) -> None:
    credentials.ensure(own)
    image = registry_images.images(values.IMAGES)["redis"]
    own.create(PODS, _redis(image))
    own.create(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "redis"},
            "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379}]},
        },
    )
    wait(lambda: _ready(own.get(PODS, "redis")), _START_SECONDS)

    with forwarded(target, Service("Redis", "redis", 6379)) as url:
        address = url.removeprefix("http://")

        def user(name: str) -> RedisSync:
            held = stored(own, f"mlplatform-redis-{name}")["MLPLATFORM_REDIS_URL"]
            return connect(held.replace("mlplatform-redis:6379", address))

        features, gateway, archiver, operator = map(
            user, ("features", "gateway", "archiver", "operator")
        )
        allowed: list[tuple[RedisSync, tuple[Part, ...]]] = [
            (features, ("WATCH", "packed:mlplatform:a:1")),
            (features, ("SETRANGE", "packed:mlplatform:a:1", 0, "v")),
            (features, ("HSET", b"\x02\x00keymlplatform", "f", "v")),
            (features, ("SCAN", 0)),
            (gateway, ("MGET", "packed:mlplatform:a:1")),
            (gateway, ("GET", "route:flight_delay")),
            (gateway, ("SET", "route:flight_delay:gateway:g", 1, "PX", 5000)),
            (gateway, ("XADD", "predictions:flight_delay", "*", "r", "row")),
            (archiver, ("XRANGE", "predictions:flight_delay", "-", "+")),
            (archiver, ("XDEL", "predictions:flight_delay", "1-1")),
            (operator, ("WATCH", "route:flight_delay")),
            (operator, ("SET", "route:flight_delay", "{}")),
            (operator, ("MGET", "route:flight_delay:gateway:g")),
        ]
        denied: list[tuple[RedisSync, tuple[Part, ...]]] = [
            (gateway, ("SETRANGE", "packed:mlplatform:a:1", 0, "poison")),
            (gateway, ("SET", "route:flight_delay", "{}")),
            (gateway, ("DEL", "predictions:flight_delay")),
            (gateway, ("EVAL", "return 1", 0)),
            (features, ("FLUSHALL",)),
            (features, ("SET", "route:flight_delay", "{}")),
            (features, ("CONFIG", "GET", "*")),
            (archiver, ("GET", "route:flight_delay")),
            (operator, ("GET", "packed:mlplatform:a:1")),
            (connect(f"redis://{address}/0"), ("PING",)),
        ]
        for who, command in allowed:
            who.execute(*command)
        for who, command in denied:
            with pytest.raises(ServiceError, match=r"NOPERM|NOAUTH"):
                who.execute(*command)


def test_destroying_leaves_nothing_and_other_platforms_alone(
    own: Cluster, target: Target, progress: Progress
) -> None:
    other = Cluster.connect(f"{target.namespace}-other", target.context)
    namespaces.ensure(other)
    try:
        custom_resources.ensure(own)
        credentials.ensure(own)

        Removal(target, progress).run()

        assert own.find(NAMESPACES, own.namespace) is None
        assert other.find(NAMESPACES, other.namespace) is not None
        (definition,) = custom_resources.wanted()
        name = definition["metadata"]["name"]
        assert other.find(custom_resources.DEFINITIONS, name) is not None
    finally:
        other.delete(NAMESPACES, other.namespace)


def test_destroying_twice_is_no_mistake(
    own: Cluster, target: Target, progress: Progress, cluster: Cluster
) -> None:
    keep = Cluster.connect(f"{target.namespace}-keep", target.context)
    namespaces.ensure(keep)  # so that no kind of others is removed
    try:
        Removal(target, progress).run()
        Removal(target, progress).run()
    finally:
        keep.delete(NAMESPACES, keep.namespace)

    assert cluster.find(NAMESPACES, own.namespace) is None


def test_a_namespace_of_others_is_not_removed(
    own: Cluster, target: Target, progress: Progress
) -> None:
    own.patch(NAMESPACES, own.namespace, {"metadata": {"labels": {namespaces.PART_OF: "shop"}}})

    with pytest.raises(ServiceError, match="was not made by `make deploy`"):
        Removal(target, progress).run()

    assert own.find(NAMESPACES, own.namespace) is not None


def _chart(folder: Path) -> Path:
    """A chart whose pod never starts, so that whoever waits for it waits."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "never"},
        "spec": {
            **_POD,
            "nodeSelector": {"no-such-node": "1"},
            "containers": [{"name": "x", "image": "x", "securityContext": _SECURE}],
        },
    }
    templates = folder / "chart" / "templates"
    templates.mkdir(parents=True)
    (templates / "objects.yaml").write_text(
        "\n---\n".join(map(json.dumps, (config_map("ours", key="value"), pod)))
    )
    about = {"apiVersion": "v2", "name": "small", "version": "0.1.0"}
    (folder / "chart" / "Chart.yaml").write_text(json.dumps(about))
    return folder / "chart"


def _ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _job(name: str, image: dict[str, str], command: str, *, released: bool) -> Object:
    annotations = {"meta.helm.sh/release-name": "mlplatform"} if released else {}
    container = {
        "name": "main",
        "image": f"{image['repository']}@{image['digest']}",
        "command": [command],
        "securityContext": _SECURE,
    }
    pod: dict[str, Any] = {**_POD, "restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def _redis(image: dict[str, str]) -> Object:
    acl = {"name": "acl", "secret": {"secretName": "mlplatform-redis-acl", "defaultMode": 0o440}}
    container = {
        "name": "redis",
        "image": f"{image['repository']}@{image['digest']}",
        "command": ["redis-server", "--aclfile", "/acl/users.acl", "--dir", "/data"],
        "securityContext": _SECURE,
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "acl", "mountPath": "/acl"},
            {"name": "data", "mountPath": "/data"},
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "redis", "labels": {"app": "redis"}},
        "spec": {
            **_POD,
            "containers": [container],
            "volumes": [acl, {"name": "data", "emptyDir": {}}],
        },
    }
