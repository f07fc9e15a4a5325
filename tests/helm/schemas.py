"""What the schema of each rendered kind says, down to unknown fields.

Kubernetes' own kinds are checked against the published schemas of the version that we install on,
ModelRollouts against our definition of them. For kinds of others (KubeRay, Prometheus, External
Secrets) no schema is at hand: the fields that we rely on are listed here.
"""

from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # ships no types
import kubernetes_validate
import yaml

from tests.helm.chart import CHART, Object

VERSION: Final = "1.34"
OURS: Final = "mlplatform.dev/v1alpha1"

TEXT: Final = {"type": "string", "minLength": 1}
SELECTOR: Final = {"type": "object", "required": ["matchLabels"], "additionalProperties": False,
                   "properties": {"matchLabels": {"type": "object"}}}  # fmt: skip
OTHERS: Final[dict[str, Any]] = {
    "monitoring.coreos.com/v1 ServiceMonitor": {
        "required": ["selector", "endpoints"],
        "additionalProperties": False,
        "properties": {
            "selector": SELECTOR,
            "namespaceSelector": {
                "additionalProperties": False,
                "properties": {"matchNames": {"type": "array", "items": TEXT}},
            },
            "targetLabels": {"type": "array", "items": TEXT},
            "endpoints": {
                "type": "array",
                "items": {
                    "additionalProperties": False,
                    "properties": {
                        "port": TEXT,
                        "path": TEXT,
                        "interval": TEXT,
                        "honorLabels": {"type": "boolean"},
                    },
                },
            },
        },
    },
    "monitoring.coreos.com/v1 PrometheusRule": {
        "required": ["groups"],
        "additionalProperties": False,
        "properties": {
            "groups": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "required": ["name", "rules"],
                    "additionalProperties": False,
                    "properties": {
                        "name": TEXT,
                        "interval": TEXT,
                        "rules": {
                            "type": "array",
                            "items": {
                                "required": ["expr"],
                                "additionalProperties": False,
                                "properties": {
                                    "alert": TEXT,
                                    "record": TEXT,
                                    "expr": TEXT,
                                    "for": TEXT,
                                    "keep_firing_for": TEXT,
                                    "labels": {"additionalProperties": {"type": "string"}},
                                    "annotations": {"additionalProperties": {"type": "string"}},
                                },
                            },
                        },
                    },
                },
            }
        },
    },
    "external-secrets.io/v1 ExternalSecret": {
        "required": ["secretStoreRef", "target", "data"],
        "additionalProperties": False,
        "properties": {
            "refreshInterval": TEXT,
            "secretStoreRef": {
                "required": ["name", "kind"],
                "additionalProperties": False,
                "properties": {
                    "name": TEXT,
                    "kind": {"enum": ["SecretStore", "ClusterSecretStore"]},
                },
            },
            "target": {
                "additionalProperties": False,
                "properties": {"name": TEXT, "creationPolicy": {"enum": ["Owner"]}},
            },
            "data": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "additionalProperties": False,
                    "required": ["secretKey", "remoteRef"],
                    "properties": {
                        "secretKey": TEXT,
                        "remoteRef": {
                            "additionalProperties": False,
                            "properties": {"key": TEXT, "property": TEXT},
                        },
                    },
                },
            },
        },
    },
    "ray.io/v1 RayJob": {
        "required": ["entrypoint", "rayClusterSpec", "shutdownAfterJobFinishes"],
        "additionalProperties": False,
        "properties": {
            "entrypoint": {"type": "string"},
            "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
            "backoffLimit": {"type": "integer"},
            "activeDeadlineSeconds": {"type": "integer"},
            "ttlSecondsAfterFinished": {"type": "integer"},
            "shutdownAfterJobFinishes": {"const": True},
            "submitterPodTemplate": {"type": "object"},
            "rayClusterSpec": {
                "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
                "additionalProperties": False,
                "properties": {
                    "rayVersion": TEXT,
                    "authOptions": {
                        "additionalProperties": False,
                        "required": ["mode", "secretName"],
                        "properties": {"mode": {"const": "token"}, "secretName": TEXT},
                    },
                    "headGroupSpec": {
                        "additionalProperties": False,
                        "required": ["rayStartParams", "template"],
                        "properties": {
                            "serviceType": TEXT,
                            "rayStartParams": {"additionalProperties": {"type": "string"}},
                            "template": {"type": "object"},
                        },
                    },
                    "workerGroupSpecs": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "additionalProperties": False,
                            "required": ["groupName", "rayStartParams", "template"],
                            "properties": {
                                "groupName": TEXT,
                                "replicas": {"type": "integer"},
                                "minReplicas": {"type": "integer"},
                                "maxReplicas": {"type": "integer"},
                                "rayStartParams": {"type": "object"},
                                "template": {"type": "object"},
                            },
                        },
                    },
                },
            },
        },
    },
}
"""By version and kind, the `spec`; pods in it are checked as pods."""


def check(found: Object) -> None:
    """Refuse an object that its kind's schema refuses.

    Raises:
        ValidationError: Of the schema.
    """
    kind = f"{found['apiVersion']} {found['kind']}"
    if found["apiVersion"] == OURS:
        # The dialect of OpenAPI 3.0.
        jsonschema.validate(found, model_rollout(), cls=jsonschema.Draft4Validator)
    elif kind in OTHERS:
        jsonschema.validate(found["spec"], {"type": "object"} | OTHERS[kind])
        for template in _pods(found["spec"]):
            check({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {}, "template": template})
    else:
        kubernetes_validate.validate(found, VERSION, strict=True)


def _pods(spec: Any) -> list[Object]:
    cluster = spec.get("rayClusterSpec")
    if not cluster:
        return []
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


def model_rollout() -> Any:
    definition = yaml.safe_load((CHART / "crds" / "modelrollouts.yaml").read_text(encoding="utf-8"))
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]
