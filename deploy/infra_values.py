"""Helm values that follow from Terraform's outputs, and what is applied before the release.

Pure: outputs in, values out, the same bytes for the same outputs. Nothing here is a secret; the
outputs hold addresses and names only.
"""

from collections.abc import Mapping
from typing import Any, Final

Outputs = Mapping[str, Any]
"""Of `terraform output -json`, by name, without their types."""

STORE: Final = "mlplatform"
"""The ClusterSecretStore through which External Secrets reads Secrets Manager."""
CLAIM: Final = "mlplatform-data"
"""The claim of the folder that pods share."""
_MASTER: Final = "mlplatform-database-master"
_OWNER: Final = 10001
"""User and group of all our containers, and of the shared folder."""


def outputs(found: Mapping[str, Any]) -> Outputs:
    """Return the values in what `terraform output -json` printed."""
    return {name: one["value"] for name, one in found.items()}


def values(given: Outputs, public_key: str) -> dict[str, Any]:
    """Return the chart's values of an environment.

    Args:
        given: Terraform's outputs.
        public_key: With which models are verified, in PEM.
    """
    found: dict[str, Any] = {
        "settings": {"environment": given["environment"]},
        "storage": {"data": {"existingClaim": CLAIM, "accessModes": ["ReadWriteMany"]}},
        "redis": {"enabled": False, "managed": _managed(given, given["redis"]["port"])},
        "postgres": {"enabled": False, "managed": _managed(given, given["database"]["port"])},
        "registry": {"artifacts": {"s3": f"s3://{given['buckets']['artifacts']}/registry"}},
        "externalSecrets": {
            "enabled": True,
            "store": {"name": STORE, "kind": "ClusterSecretStore"},
            "prefix": f"mlplatform-{given['environment']}/",
            "signingPublicKey": public_key,
        },
        # Nodes and the API server's interfaces; the internet is not needed.
        "networkPolicies": {
            "apiServer": {"cidrs": [given["network"]["cidr"]], "ports": [443]},
        },
    }
    if given["environment"] == "prod":
        found["gateway"] = {"leaveSeconds": 15}  # what a load balancer takes to let a pod go
    return found


def gpu_values(given: Outputs) -> dict[str, Any]:
    """Return what the profile `gpu` needs besides: on which nodes, in spite of which taints."""
    place = {
        "nodeSelector": given["gpu"]["node_selector"],
        "tolerations": given["gpu"]["tolerations"],
    }
    return {"triton": place, "ray": {"worker": place}}


def objects(given: Outputs, namespace: str, database_image: str) -> list[dict[str, Any]]:
    """Return what is applied before the release: the folder, the store of secrets, databases.

    Args:
        given: Terraform's outputs.
        namespace: Of the platform.
        database_image: With `psql` in it, by digest.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
        *_folder(given["files"], namespace),
        _store(given["region"]),
        *_databases(
            given["database"], f"mlplatform-{given['environment']}", namespace, database_image
        ),
    ]


def _managed(given: Outputs, port: int) -> dict[str, Any]:
    return {"cidrs": list(given["network"]["data_cidrs"]), "port": port}


def _folder(files: Mapping[str, str], namespace: str) -> list[dict[str, Any]]:
    name = f"{namespace}-data"
    size, modes = (
        {"storage": "100Gi"},
        ["ReadWriteMany"],
    )  # EFS has no size; Kubernetes asks for one
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "mlplatform"}},
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "storageClassName": "",
            # Whatever happens to the claim, the files stay: Terraform owns them.
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"name": CLAIM, "namespace": namespace},
            "mountOptions": ["tls"],
            "csi": {
                "driver": "efs.csi.aws.com",
                "volumeHandle": f"{files['file_system_id']}::{files['access_point_id']}",
            },
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": namespace},
        "spec": {
            "accessModes": modes,
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": size},
        },
    }
    return [volume, claim]


def _store(region: str) -> dict[str, Any]:
    # Without `auth`: the controller's own Pod Identity, which may read these entries and no other.
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ClusterSecretStore",
        "metadata": {"name": STORE},
        "spec": {"provider": {"aws": {"service": "SecretsManager", "region": region}}},
    }


def _secret(name: str, namespace: str, entry: str, keys: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "secretStoreRef": {"name": STORE, "kind": "ClusterSecretStore"},
            "target": {"name": name, "creationPolicy": "Owner"},
            "data": [
                {"secretKey": key, "remoteRef": {"key": entry, "property": part}}
                for key, part in keys.items()
            ],
        },
    }


def _databases(
    database: Mapping[str, Any], prefix: str, namespace: str, image: str
) -> list[dict[str, Any]]:
    """Return the Job that makes roles and databases; it runs again without harm."""
    passwords = {key: key for key in ("LEDGER_PASSWORD", "REGISTRY_PASSWORD")}
    variables = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, secret, key in (
            ("PGUSER", _MASTER, "username"),
            ("PGPASSWORD", _MASTER, "password"),
            *((key, "mlplatform-postgres", key) for key in passwords),
        )
    ]
    fixed = {
        "PGHOST": database["host"],
        "PGPORT": str(database["port"]),
        "PGDATABASE": "postgres",
        "PGSSLMODE": "require",
    }
    container = {
        "name": "databases",
        "image": image,
        "command": ["sh", "-c", _SCRIPT],
        "env": [*variables, *({"name": key, "value": value} for key, value in fixed.items())],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 (in a container)
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        # A Job cannot be changed: another image is another Job.
        "metadata": {"name": f"mlplatform-databases-{image[-8:]}", "namespace": namespace},
        "spec": {
            "ttlSecondsAfterFinished": 3600,
            "backoffLimit": 6,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": _OWNER,
                        "runAsGroup": _OWNER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                }
            },
        },
    }
    return [
        _secret(
            _MASTER,
            namespace,
            database["master_secret_arn"],
            {"username": "username", "password": "password"},
        ),
        _secret("mlplatform-postgres", namespace, f"{prefix}/mlplatform-postgres", passwords),
        job,
    ]


_ROLES: Final = r"""\getenv ledger_password LEDGER_PASSWORD
\getenv registry_password REGISTRY_PASSWORD
SET createrole_self_grant = 'set, inherit';
SELECT format('CREATE ROLE %I LOGIN', name)
FROM (VALUES ('ledger'), ('registry')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE ledger PASSWORD :'ledger_password';
ALTER ROLE registry PASSWORD :'registry_password';
SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('ledger', 'ledger'), ('registry', 'registry'), ('registry_auth', 'registry'))
    AS wanted (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', name)
FROM (VALUES ('ledger'), ('registry'), ('registry_auth')) AS wanted (name)
\gexec
"""
"""Roles, databases and passwords. The first user of RDS is no superuser: it makes roles that it may
then make databases for."""
_SCRIPT: Final = f"psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 <<'END'\n{_ROLES}END\n"
