"""How a task is placed on a cluster: image, resources, node, timeout, configuration, secrets.

All pipelines place their tasks here, so that none is given more than it needs. It decides nothing
about the order of tasks.
"""

from collections.abc import Mapping
from types import MappingProxyType

from kfp import dsl, kubernetes

from mlplatform.settings import PipelineSettings

_KEYS = "/var/run/mlplatform/signing"

_CONFIGURATION = {
    "environment": "MLPLATFORM_ENVIRONMENT",
    "data-root": "MLPLATFORM_DATA_ROOT",
    "archive-root": "MLPLATFORM_ARCHIVE_ROOT",
    "registry-uri": "MLPLATFORM_REGISTRY_TRACKING_URI",
    "signing-private-key": "MLPLATFORM_SIGNING_PRIVATE_KEY",
    "signing-public-key": "MLPLATFORM_SIGNING_PUBLIC_KEY",
}
"""Keys of the ConfigMap `mlplatform`, written by the chart, and the settings that they fill."""

LEDGER = {"ledger-url": "MLPLATFORM_LEDGER_URL"}
REGISTRY = {
    "registry-username": "MLPLATFORM_REGISTRY_USERNAME",
    "registry-password": "MLPLATFORM_REGISTRY_PASSWORD",
}
"""Keys of the Secret `mlplatform` and the settings that they fill, by service."""


def place(
    task: dsl.PipelineTask,
    settings: PipelineSettings,
    *,
    cpu: str,
    memory: str,
    retries: int = 0,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Set image, resources, node, timeout and configuration of a task.

    Tasks that talk to services or hold a node for long are retried. Validation and the join are
    not: a rule that fails on the data fails again. A task is given the secrets of the services that
    it speaks to and no others.
    """
    task.set_container_image(settings.image)
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    task.set_caching_options(enable_caching=False)  # steps read the data root, not only inputs
    if retries:
        task.set_retry(num_retries=retries, backoff_duration="10s", backoff_factor=2.0)
    kubernetes.set_timeout(task, settings.timeout_seconds)
    kubernetes.use_config_map_as_env(task, "mlplatform", _CONFIGURATION)
    if secrets:
        kubernetes.use_secret_as_env(task, "mlplatform", dict(secrets))
    for key, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, key, value)


def accelerate(task: dsl.PipelineTask, settings: PipelineSettings) -> None:
    """Ask for GPUs and tolerate the taint that keeps other work off their nodes."""
    if settings.gpu_count:
        task.set_accelerator_type(settings.gpu_resource)
        task.set_accelerator_limit(settings.gpu_count)
        kubernetes.add_toleration(
            task, key=settings.toleration_key, operator="Exists", effect="NoSchedule"
        )


def give_signing_key(task: dsl.PipelineTask, settings: PipelineSettings) -> None:
    """Mount the key pair; no other task can read it."""
    kubernetes.use_secret_as_volume(task, settings.signing_secret, f"{_KEYS}/private")


def give_public_key(task: dsl.PipelineTask) -> None:
    """Mount the public key, by which the champion is verified before it is loaded."""
    kubernetes.use_config_map_as_volume(task, "mlplatform-signing", f"{_KEYS}/public")
