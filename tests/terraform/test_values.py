"""From Terraform's outputs to the chart's values, the objects before it, the secrets' addresses."""

from typing import Any

from deploy import infra_secrets, infra_values

OUTPUTS: dict[str, Any] = {
    "environment": "prod",
    "region": "us-east-1",
    "network": {
        "cidr": "10.21.0.0/16",
        "data_cidrs": ["10.21.240.0/24", "10.21.241.0/24", "10.21.242.0/24"],
    },
    "buckets": {"artifacts": "the-artifacts", "offline": "the-offline"},
    "files": {"file_system_id": "fs-1", "access_point_id": "fsap-2"},
    "database": {"host": "db.example.com", "port": 5432, "master_secret_arn": "arn:master"},
    "redis": {
        "host": "redis.example.com",
        "port": 6379,
        "users": {"gateway": "mlplatform-prod-gateway"},
    },
    "gpu": {
        "node_selector": {"mlplatform.dev/nodes": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
}


def test_managed_services_take_the_place_of_the_charts_own() -> None:
    found = infra_values.values(OUTPUTS, "PEM")

    assert not found["redis"]["enabled"]
    assert not found["postgres"]["enabled"]
    assert found["redis"]["managed"] == {"cidrs": OUTPUTS["network"]["data_cidrs"], "port": 6379}
    assert found["registry"]["artifacts"]["s3"] == "s3://the-artifacts/registry"
    assert found["externalSecrets"]["prefix"] == "mlplatform-prod/"
    assert found["externalSecrets"]["signingPublicKey"] == "PEM"


def test_values_hold_no_secret() -> None:
    text = str(infra_values.values(OUTPUTS, "PEM")) + str(
        infra_values.objects(OUTPUTS, "mlplatform", "image@sha256:0")
    )

    assert "://gateway:" not in text
    assert "PRIVATE KEY" not in text


def test_gpu_pods_are_placed_on_tainted_nodes() -> None:
    found = infra_values.gpu_values(OUTPUTS)

    assert found["triton"]["tolerations"] == OUTPUTS["gpu"]["tolerations"]
    assert found["ray"]["worker"]["nodeSelector"] == {"mlplatform.dev/nodes": "gpu"}


def test_the_shared_folder_outlives_its_claim() -> None:
    objects = infra_values.objects(OUTPUTS, "mlplatform", "image@sha256:0")
    [volume] = [one for one in objects if one["kind"] == "PersistentVolume"]
    [claim] = [one for one in objects if one["kind"] == "PersistentVolumeClaim"]

    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["csi"]["volumeHandle"] == "fs-1::fsap-2"
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]


def test_redis_is_reached_over_tls_as_the_environments_user() -> None:
    given = {"MLPLATFORM_REDIS_URL": "redis://gateway:pass@mlplatform-redis:6379/0"}
    found = infra_secrets.managed(given, OUTPUTS)

    assert found == {
        "MLPLATFORM_REDIS_URL": "rediss://mlplatform-prod-gateway:pass@redis.example.com:6379/0"
    }


def test_postgresql_is_reached_over_tls() -> None:
    given = {
        "MLPLATFORM_LEDGER_URL": "postgresql+psycopg://ledger:p@mlplatform-postgres:5432/ledger"
    }
    found = infra_secrets.managed(given, OUTPUTS)

    assert found == {
        "MLPLATFORM_LEDGER_URL": (
            "postgresql+psycopg://ledger:p@db.example.com:5432/ledger?sslmode=require"
        )
    }


def test_what_is_no_address_stays_as_it_is() -> None:
    given = {"auth_token": "abc", "signing.pem": "-----BEGIN"}

    assert infra_secrets.managed(given, OUTPUTS) == given
