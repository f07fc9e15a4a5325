"""Every pod that a profile can lead to: how it is confined, what it may take, how it is probed."""

import re
from typing import Any

import pytest

from tests.helm.chart import PROFILES, Pod, needs_helm, pods, render
from tests.helm.quantities import number, requested

pytestmark = needs_helm

LISTENS = {"gateway", "operator", "triton", "redis", "postgres", "registry", "metrics"}
"""Containers that are asked for something."""
WITH_TOKEN = {"minimal": {"mlplatform-operator", "mlplatform-trigger"}}
OPERATOR_ALONE = {"mlplatform-operator"}


def cases() -> list[Any]:
    return [
        pytest.param(pod, id=f"{profile}: {pod.owner}")
        for profile in PROFILES
        for pod in pods(render(profile))
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pod" in metafunc.fixturenames:
        import shutil

        metafunc.parametrize("pod", cases() if shutil.which("helm") else [])


def test_it_meets_pod_security_restricted(pod: Pod) -> None:
    spec = pod.spec

    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}
    assert {"RuntimeDefault"} == {spec["securityContext"]["seccompProfile"]["type"]}
    assert spec["securityContext"]["runAsNonRoot"] is True
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    assert all(volume.keys() & allowed for volume in spec["volumes"])
    for container in pod.containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_it_runs_as_one_user_who_writes_to_volumes_only(pod: Pod) -> None:
    assert pod.spec["securityContext"]["fsGroup"] == 10001
    for container in pod.containers:
        context = container["securityContext"]
        assert (10001, 10001) == (context["runAsUser"], context["runAsGroup"])
        assert context["readOnlyRootFilesystem"] is True
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108


def test_it_is_named_by_digest(pod: Pod) -> None:
    for container in pod.containers:
        assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])


def test_its_containers_say_what_they_need_and_may_take(pod: Pod) -> None:
    for container in pod.containers:
        resources = container["resources"]
        for resource in ("cpu", "memory"):
            assert 0 < number(resources["requests"][resource])
            assert number(resources["requests"][resource]) <= number(resources["limits"][resource])


def test_what_lies_in_its_memory_or_on_its_node_is_limited(pod: Pod) -> None:
    for volume in pod.spec["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"], volume["name"]
            in_memory = volume["emptyDir"].get("medium") == "Memory"
            limit = max(number(c["resources"]["limits"]["memory"]) for c in pod.spec["containers"])
            assert not in_memory or number(volume["emptyDir"]["sizeLimit"]) < limit


def test_it_has_an_account_of_its_own_and_no_variables_of_services(pod: Pod) -> None:
    assert pod.spec["serviceAccountName"].startswith("mlplatform-")
    assert pod.spec["enableServiceLinks"] is False


def test_its_class_says_who_gives_way(pod: Pod) -> None:
    assert re.fullmatch("mlplatform-(serving|control|training)", pod.spec["priorityClassName"])


def test_what_listens_has_three_probes_that_ask_different_questions(pod: Pod) -> None:
    for container in pod.spec["containers"]:
        assert bool(container.get("ports")) == (container["name"] in LISTENS)
        if not container.get("ports"):
            continue
        started, ready, lives = (
            container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")
        )
        assert started["failureThreshold"] * started["periodSeconds"] >= 60
        assert all(probe["timeoutSeconds"] >= 3 for probe in (started, ready, lives))
        # A restart is the last resort: it takes longer than to be taken out of the Service.
        patience = [p.get("failureThreshold", 3) * p["periodSeconds"] for p in (ready, lives)]
        assert patience[0] <= patience[1]
        assert ready != lives or container["name"] == "registry"


def test_secrets_are_named_and_never_written_down(pod: Pod) -> None:
    for container in pod.containers:
        for variable in container.get("env", []):
            secret = re.search("PASSWORD|SECRET_KEY|LEDGER_URL|REDIS_URL|STORE_URI|WEBHOOK|TOKEN",
                               variable["name"])  # fmt: skip
            assert not secret or "secretKeyRef" in variable.get("valueFrom", {})
        assert all("configMapRef" in source for source in container.get("envFrom", []))


@pytest.mark.parametrize("profile", PROFILES)
def test_only_who_asks_the_api_has_a_token(profile: str) -> None:
    found = {
        pod.spec["serviceAccountName"]
        for pod in pods(render(profile))
        if pod.spec["automountServiceAccountToken"]
    }

    assert WITH_TOKEN.get(profile, OPERATOR_ALONE) == found


@pytest.mark.parametrize("profile", ["full", "gpu"])
def test_the_trigger_shows_kubeflow_for_many_a_token_for_nothing_else(profile: str) -> None:
    objects = render(profile, {"pipeline": {"kubeflow": {"multiUser": True}}})
    (trigger,) = (pod for pod in pods(objects) if pod.owner.endswith("-trigger"))
    (token,) = (
        source["serviceAccountToken"]
        for volume in trigger.spec["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
    )

    assert token["audience"] == "pipelines.kubeflow.org"
    assert token["expirationSeconds"] <= 3600


@pytest.mark.parametrize("profile", PROFILES)
def test_only_registration_holds_the_private_key(profile: str) -> None:
    found = {
        pod.owner
        for pod in pods(render(profile))
        for volume in pod.spec["volumes"]
        if volume.get("secret", {}).get("secretName") == "mlplatform-signing"
    }

    assert (["CronJob mlplatform-training-flight-delay"] if profile == "minimal" else []) == [
        *found
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_only_who_writes_data_may(profile: str) -> None:
    writers = set()
    for pod in pods(render(profile)):
        for container in pod.containers:
            for mount in container["volumeMounts"]:
                if mount["name"] == "data" and not mount.get("readOnly"):
                    writers.add(pod.labels["app.kubernetes.io/component"])

    trainer = "training" if profile == "minimal" else "ray"
    assert {"archiver", "features", "monitor", "redis", "postgres", trainer} == writers


@pytest.mark.parametrize("profile", PROFILES)
def test_each_role_is_given_its_own_secrets_and_no_others(profile: str) -> None:
    found: dict[str, set[str]] = {}
    for pod in pods(render(profile)):
        for container in pod.containers:
            mine = found.setdefault(
                f"{pod.labels['app.kubernetes.io/component']}/{_of(container)}", set()
            )
            mine |= {
                variable["valueFrom"]["secretKeyRef"]["name"].removeprefix("mlplatform-")
                for variable in container.get("env", [])
                if "secretKeyRef" in variable.get("valueFrom", {})
            }

    expected = {
        "gateway/gateway": {"redis-gateway"},
        "archiver/archiver": {"redis-archiver"},
        "operator/operator": {"ledger", "redis-operator", "registry-operator"},
        "triton/export": {"registry-monitor"},
        "triton/triton": set(),
        "redis/redis": {"redis-gateway"},
        "postgres/postgres": {"postgres"},
        "registry/registry": {"registry-server", "registry-admin"},
        "registry-setup/setup": {
            "registry-admin", "registry-trainer", "registry-operator", "registry-monitor"
        },
        "features/flight-delay": {"redis-features"},
        "monitor/judge": {"ledger", "registry-monitor"},
        "trigger/flight-delay": {"ledger"},
        "metrics/metrics": {"ledger"},
    }  # fmt: skip
    if profile == "minimal":
        expected["training/pipeline"] = {"ledger", "registry-trainer"}
    else:
        expected |= {
            f"ray/{name}": set() for name in ("ray-job-submitter", "ray-head", "ray-worker")
        }
    assert expected == found


def _of(container: Any) -> str:
    return str(container["name"])


def test_a_gateway_has_longer_to_leave_than_it_needs() -> None:
    (gateway,) = (pod for pod in pods(render("minimal")) if pod.owner.endswith("-gateway"))
    (container,) = gateway.spec["containers"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    draining = int(variables["MLPLATFORM_GATEWAY_DRAIN_SECONDS"])

    assert gateway.spec["terminationGracePeriodSeconds"] > leaving + draining + 1


def test_a_laptop_holds_everything_at_once() -> None:
    """Two servers of a rollout, a training, and every CronJob beside what always runs."""
    total = {"cpu": 0.0, "memory": 0.0}
    for pod in pods(render("minimal")):
        count = 2 if pod.owner.startswith("mlplatform-triton") else pod.replicas
        for resource in total:
            total[resource] += count * requested(pod.spec, resource)

    assert total["cpu"] <= 2.0, total
    assert total["memory"] <= number("6Gi"), total


def test_the_quota_of_a_laptop_is_the_laptop() -> None:
    (quota,) = (one for one in render("minimal") if one["kind"] == "ResourceQuota")

    assert quota["spec"]["hard"]["requests.cpu"] == "2"
    assert quota["spec"]["hard"]["requests.memory"] == "6Gi"


def test_gpus_are_asked_for_where_they_compute_and_their_taint_is_tolerated_there_alone() -> None:
    for pod in pods(render("gpu")):
        asks = any("nvidia.com/gpu" in c["resources"]["limits"] for c in pod.containers)
        tolerates = any(one["key"] == "nvidia.com/gpu" for one in pod.spec.get("tolerations", []))

        assert asks == tolerates, pod.owner
        assert asks == (
            pod.owner in {"mlplatform-triton/deployment.yaml", "mlplatform-ray/rayjob.yaml workers"}
        )
