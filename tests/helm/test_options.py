"""What values bring about: managed services, a bucket, External Secrets, several use cases."""

from typing import Any

import pytest

from tests.helm.chart import (
    PROFILES,
    Object,
    named,
    needs_helm,
    of_kind,
    pods,
    render,
    rendered,
    templates,
)

pytestmark = needs_helm

TWO = {"usecases": [{"name": "flight_delay"}, {"name": "parcel_delay"}]}


def configuration(objects: list[Object]) -> dict[str, str]:
    found: dict[str, str] = named(objects, "ConfigMap", "mlplatform")["data"]
    return found


def variables(objects: list[Object], owner: str) -> dict[str, Any]:
    """Return the variables of the first container of a pod, with their values or sources."""
    (pod,) = (one for one in pods(objects) if one.owner == owner)
    return {
        one["name"]: one.get("value", one.get("valueFrom"))
        for one in pod.spec["containers"][0].get("env", [])
    }


def test_every_variable_that_a_pod_is_given_is_a_setting() -> None:
    from mlplatform.settings import CONCERNS

    known = {one.variable(field) for one in CONCERNS for field in one.model_fields}
    for profile in PROFILES:
        objects = render(profile)
        given = set(configuration(objects))
        for pod in pods(objects):
            given |= {one["name"] for c in pod.containers for one in c.get("env", [])}
        ours = {name for name in given if name.startswith("MLPLATFORM_")}

        assert {name for name in ours if not name.startswith("MLPLATFORM_ACCOUNT_")} <= known


@pytest.mark.parametrize("profile", PROFILES)
def test_the_settings_of_all_roles_are_accepted_by_the_platform(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlplatform.settings import CONCERNS

    for name, value in configuration(render(profile)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLPLATFORM_REGISTRY_PASSWORD", "a real one")

    for concern in CONCERNS:
        concern.load()


def test_settings_of_ones_own_reach_all_roles() -> None:
    values = {"settings": {"extra": {"MLPLATFORM_MONITORING_TICK_SECONDS": "5"}}}

    assert configuration(render("minimal", values))["MLPLATFORM_MONITORING_TICK_SECONDS"] == "5"


def test_a_shift_of_years_is_written_as_a_whole_number() -> None:
    values = {"settings": {"clockShiftSeconds": -413596800}}

    assert (
        "-413596800" == (configuration(render("minimal", values))["MLPLATFORM_CLOCK_SHIFT_SECONDS"])
    )


def test_pods_are_replaced_when_settings_change_and_only_then() -> None:
    def marks(values: dict[str, Any]) -> set[str]:
        return {
            pod.annotations["mlplatform.dev/configuration"]
            for pod in pods(render("minimal", values))
            if "mlplatform.dev/configuration" in pod.annotations
        }

    plain, shifted = marks({}), marks({"settings": {"clockShiftSeconds": 60}})

    assert len(plain) == 1
    assert plain.isdisjoint(shifted)
    assert plain == marks({"gateway": {"replicas": 5}})


def test_a_trigger_starts_jobs_without_kubeflow_and_runs_with_it() -> None:
    orchestrators = {
        profile: configuration(render(profile))["MLPLATFORM_MONITORING_ORCHESTRATOR"]
        for profile in PROFILES
    }

    assert {"minimal": "job", "full": "kubeflow", "gpu": "kubeflow"} == orchestrators


def test_runs_of_kubeflow_are_pods_of_this_namespace_where_it_has_users() -> None:
    multi, single = (
        configuration(render("full", {"pipeline": {"kubeflow": {"multiUser": yes}}}))
        for yes in (True, False)
    )

    assert multi["MLPLATFORM_KUBEFLOW_NAMESPACE"] == "mlplatform"
    assert multi["MLPLATFORM_KUBEFLOW_TOKEN_FILE"].startswith("/var/run/secrets/kubeflow/")
    assert not {"MLPLATFORM_KUBEFLOW_NAMESPACE", "MLPLATFORM_KUBEFLOW_TOKEN_FILE"} & single.keys()


def test_a_training_job_is_a_template_that_never_starts_by_itself() -> None:
    job = named(render("minimal"), "CronJob", "mlplatform-training-flight-delay")

    assert job["spec"]["suspend"] is True
    assert "mlplatform-training-flight-delay" not in of_kind(render("full"), "CronJob")


def test_a_training_that_failed_is_not_repeated_and_one_that_was_evicted_is() -> None:
    job = named(render("minimal"), "CronJob", "mlplatform-training-flight-delay")
    spec = job["spec"]["jobTemplate"]["spec"]
    rules = spec["podFailurePolicy"]["rules"]

    assert ["Ignore", "FailJob"] == [rule["action"] for rule in rules]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert [1, 2] == rules[1]["onExitCodes"]["values"]
    names = [one["name"] for one in spec["template"]["spec"]["containers"]]
    assert rules[1]["onExitCodes"]["containerName"] in names


@pytest.mark.parametrize("profile", PROFILES)
def test_no_run_meets_another_of_its_own_and_a_late_one_still_starts(profile: str) -> None:
    for job in of_kind(render(profile), "CronJob").values():
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        assert job["spec"]["startingDeadlineSeconds"] >= 10
        assert job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
        assert job["spec"]["jobTemplate"]["spec"]["ttlSecondsAfterFinished"]


def test_each_use_case_has_its_own_and_shares_the_rest() -> None:
    objects = render("minimal", TWO)

    assert {"flight-delay", "parcel-delay"} == of_kind(objects, "ModelRollout").keys()
    assert {
        "mlplatform-materialize",
        *(
            f"mlplatform-{what}-{name}-delay"
            for what in ("judge", "training")
            for name in ("flight", "parcel")
        ),
    } == of_kind(objects, "CronJob").keys()
    for name in ("mlplatform-push", "mlplatform-trigger"):
        containers = named(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"]
        assert ["flight-delay", "parcel-delay"] == [one["name"] for one in containers]
    usecases = configuration(objects)["MLPLATFORM_GATEWAY_USECASES"]
    assert usecases == '["flight_delay","parcel_delay"]'
    (rule,) = (
        rule
        for rule in named(objects, "Role", "mlplatform-trigger")["rules"]
        if rule["resources"] == ["cronjobs"]
    )
    assert ["mlplatform-training-flight-delay", "mlplatform-training-parcel-delay"] == (
        rule["resourceNames"]
    )


def test_gateways_are_as_many_as_all_peaks_need_together() -> None:
    usecases = [
        {"name": "flight_delay", "gateway": {"replicas": 3}},
        {"name": "parcel_delay", "gateway": {"replicas": 2}},
    ]
    fixed, scaled = (render(profile, {"usecases": usecases}) for profile in ("minimal", "minimal"))

    assert named(fixed, "Deployment", "mlplatform-gateway")["spec"]["replicas"] == 5
    scaled = render(
        "minimal", {"usecases": usecases, "gateway": {"autoscaling": {"enabled": True}}}
    )
    scaler = named(scaled, "HorizontalPodAutoscaler", "mlplatform-gateway")
    assert 5 == scaler["spec"]["minReplicas"]
    # Or each upgrade would take back what the autoscaler has done.
    assert "replicas" not in named(scaled, "Deployment", "mlplatform-gateway")["spec"]


def test_the_least_number_of_gateways_holds_for_a_small_peak() -> None:
    usecases = [{"name": "flight_delay", "gateway": {"replicas": 1}}]
    objects = render("minimal", {"usecases": usecases})

    assert named(objects, "Deployment", "mlplatform-gateway")["spec"]["replicas"] == 2


def test_a_schedule_of_the_spec_wins_over_the_default() -> None:
    usecases = [{"name": "flight_delay", "judge": {"schedule": "7 3 * * *"}}]
    job = named(
        render("minimal", {"usecases": usecases}), "CronJob", "mlplatform-judge-flight-delay"
    )

    assert job["spec"]["schedule"] == "7 3 * * *"


def test_a_changed_setup_is_another_job_and_an_unchanged_one_is_not() -> None:
    def jobs(values: dict[str, Any]) -> set[str]:
        return set(of_kind(render("minimal", values), "Job"))

    image = {"repository": "registry.example.com/other", "digest": "sha256:" + "1" * 64}
    plain = jobs({})

    assert plain == jobs({"gateway": {"replicas": 4}})
    changed = jobs({"images": {"registry": image, "features": image}})
    assert plain.isdisjoint(changed)
    assert len(plain) == len(changed) == 2
    assert len(plain & jobs({"images": {"registry": image}})) == 1


def test_a_bucket_takes_the_place_of_the_volume_and_no_key_is_kept() -> None:
    account = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/registry"}
    values = {
        "registry": {
            "artifacts": {"s3": "s3://models/prod", "endpoint": "https://s3.example.com"},
            "serviceAccountAnnotations": account,
        }
    }
    objects = render("minimal", values)
    given = variables(objects, "Deployment mlplatform-registry")

    assert given["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://models/prod"
    assert given["MLFLOW_S3_ENDPOINT_URL"] == "https://s3.example.com"
    assert not any("AWS" in name for name in given)
    assert {"mlplatform-data"} == of_kind(objects, "PersistentVolumeClaim").keys()
    assert (
        account
        == (named(objects, "ServiceAccount", "mlplatform-registry")["metadata"]["annotations"])
    )


def test_the_registry_answers_by_exact_names_only() -> None:
    values = {"registry": {"allowedHosts": ["mlflow.example.com"]}}
    given = variables(render("minimal", values), "Deployment mlplatform-registry")
    hosts = given["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    assert {"mlplatform-registry:5000", "mlplatform-registry.mlplatform.svc:5000"} <= {*hosts}
    assert "mlflow.example.com" in hosts
    assert not any("*" in host for host in hosts)


def test_claims_of_ones_own_take_the_place_of_ours() -> None:
    values = {
        "storage": {"data": {"existingClaim": "lake"}, "artifacts": {"existingClaim": "models"}}
    }
    objects = render("minimal", values)
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods(objects)
        for volume in pod.spec["volumes"]
        if "persistentVolumeClaim" in volume and not pod.owner.startswith("StatefulSet")
    }

    assert not of_kind(objects, "PersistentVolumeClaim")
    assert {"lake", "models"} == claims


def test_external_secrets_bring_exactly_the_secrets_that_pods_read() -> None:
    from deploy.credentials import RECIPES

    values = {
        "externalSecrets": {
            "enabled": True,
            "store": {"name": "vault"},
            "prefix": "prod/",
            "signingPublicKey": "-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n",
        }
    }
    objects = render("full", values)
    found = {
        name: sorted(item["secretKey"] for item in one["spec"]["data"])
        for name, one in of_kind(objects, "ExternalSecret").items()
    }
    entries = {
        item["remoteRef"]["key"]
        for one in of_kind(objects, "ExternalSecret").values()
        for item in one["spec"]["data"]
    }

    assert {recipe.name: sorted(recipe.keys) for recipe in RECIPES} == found
    assert {f"prod/{name}" for name in found} == entries
    assert (
        "BEGIN PUBLIC KEY"
        in (named(objects, "ConfigMap", "mlplatform-signing")["data"]["signing.pub.pem"])
    )


def test_no_secret_is_rendered_and_none_has_a_default() -> None:
    for profile in PROFILES:
        assert not of_kind(render(profile), "Secret")
        assert "changeme" not in rendered(profile)


def test_every_secret_and_claim_that_a_pod_names_is_made_by_somebody() -> None:
    from deploy.credentials import RECIPES

    made = {recipe.name: set(recipe.keys) for recipe in RECIPES}
    for profile in PROFILES:
        objects = render(profile)
        maps = of_kind(objects, "ConfigMap").keys() | {"mlplatform-signing"}
        for pod in pods(objects):
            for container in pod.containers:
                for one in container.get("env", []):
                    reference = one.get("valueFrom", {}).get("secretKeyRef")
                    assert not reference or reference["key"] in made[reference["name"]]
                for source in container.get("envFrom", []):
                    assert source["configMapRef"]["name"] in maps
            for volume in pod.spec["volumes"]:
                assert volume.get("secret", {}).get("secretName", "mlplatform-ledger") in made
                assert volume.get("configMap", {}).get("name", "mlplatform") in maps


def test_alerts_lead_to_runbooks_where_they_can_be_read() -> None:
    prefix = "https://git.example.com/mlplatform/blob/main/"
    objects = render("full", {"serviceMonitors": {"runbookPrefix": prefix}})
    found = of_kind(objects, "PrometheusRule")
    runbooks = {
        rule["annotations"]["runbook_url"]
        for rules in found.values()
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }

    assert {"mlplatform-cluster", "mlplatform-flight-delay"} == set(found)
    assert runbooks
    assert all(one.startswith(f"{prefix}docs/operations.md#") for one in runbooks)


def test_prometheus_finds_a_service_behind_each_monitor() -> None:
    objects = render("full", {"serviceMonitors": {"labels": {"release": "mine"}}})
    services = [*of_kind(objects, "Service").values()]
    services.append(templates(objects)["mlplatform-triton/service.yaml"])
    monitors = of_kind(objects, "ServiceMonitor").values()

    assert len(monitors) == 3
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = (one for one in services if wanted <= one["metadata"]["labels"].items())
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert monitor["spec"]["endpoints"][0]["port"] in ports
        assert monitor["metadata"]["labels"]["release"] == "mine"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_service_leads_to_a_port_of_its_pods(profile: str) -> None:
    objects = render(profile)
    found = [
        *of_kind(objects, "Service").values(),
        templates(objects)["mlplatform-triton/service.yaml"],
    ]
    for service in found:
        wanted = service["spec"]["selector"].items()
        behind = [pod for pod in pods(objects) if wanted <= pod.labels.items()]
        ports = {
            port["name"] for pod in behind for c in pod.containers for port in c.get("ports", [])
        }

        assert behind, service["metadata"]["name"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@pytest.mark.parametrize("profile", PROFILES)
def test_workloads_do_not_select_each_others_pods(profile: str) -> None:
    objects = render(profile)
    for kind in ("Deployment", "StatefulSet"):
        for found in of_kind(objects, kind).values():
            wanted = found["spec"]["selector"]["matchLabels"].items()
            mine = f"{kind} {found['metadata']['name']}"
            assert [mine] == [pod.owner for pod in pods(objects) if wanted <= pod.labels.items()]


def test_nvidias_server_is_started_as_the_cpu_image_starts_itself() -> None:
    """No model control, no gRPC, no configuration that is guessed."""
    template = templates(render("gpu"))["mlplatform-triton/deployment.yaml"]
    (container,) = template["spec"]["template"]["spec"]["containers"]

    assert container["command"] == ["tritonserver"]
    assert {
        "--model-control-mode=none", "--allow-grpc=false", "--disable-auto-complete-config",
        "--model-repository=/models/repository",
    } <= {*container["args"]}  # fmt: skip
    assert "nvcr.io/nvidia/tritonserver@sha256:" in container["image"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_operator_can_make_a_server_of_the_template(profile: str) -> None:
    from mlplatform.contracts.rollout import Version
    from serving.operator import template as operator

    objects = render(profile)
    parsed = operator.parse(named(objects, "ConfigMap", "mlplatform-triton"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "b"}}
    made = operator.deployment(parsed, "flight_delay", Version(version=3, digest="ab" * 32), owner)
    export = made["spec"]["template"]["spec"]["initContainers"][0]

    assert 8000 == operator.port(parsed)
    assert (
        "sha256:" + "ab" * 32
        == (made["spec"]["template"]["metadata"]["annotations"]["mlplatform.dev/model-digest"])
    )
    assert ["--out", "/models", "--usecase", "flight_delay", "--version", "3"] == export["args"][
        2:8
    ]


def test_cluster_wide_objects_carry_the_namespaces_name_so_that_two_platforms_fit() -> None:
    kinds = ("PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
             "ClusterRole", "ClusterRoleBinding")  # fmt: skip
    for namespace in ("one", "two"):
        for found in render("gpu", namespace=namespace):
            if found["kind"] in kinds:
                assert found["metadata"]["name"].startswith(f"{namespace}-")
            else:
                assert found["metadata"]["namespace"] == namespace


def test_classes_of_an_administrator_are_used_and_none_is_made() -> None:
    values = {"priorityClasses": {"create": False, "existing": {"serving": "gold"}}}
    objects = render("minimal", values)
    classes = {pod.owner: pod.spec.get("priorityClassName") for pod in pods(objects)}

    assert not of_kind(objects, "PriorityClass")
    assert classes["Deployment mlplatform-gateway"] == "gold"
    assert classes["Deployment mlplatform-operator"] is None


def test_switched_off_is_not_there() -> None:
    values = {
        name: {"enabled": False} for name in ("networkPolicies", "admissionPolicies", "quota")
    }
    kinds = {found["kind"] for found in render("minimal", values)}

    assert not kinds & {
        "NetworkPolicy", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
        "ResourceQuota", "LimitRange",
    }  # fmt: skip
