"""How a task is placed on a cluster: image, resources, node, timeout, configuration, secrets, data.

All pipelines place their tasks here, so that none is given more than it needs. It decides nothing
about the order of tasks.

KFP gives all pods of a run one account (`mlplatform-pipeline`) and hardens their containers by
itself: no privileges, no capabilities, the runtime's seccomp profile. What a task may reach is
bounded by the secrets that it is given here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from kfp import dsl, kubernetes

from mlplatform.settings import (
    ArchiveSettings,
    ComputeSettings,
    DataSettings,
    LedgerSettings,
    PipelineSettings,
    PlatformSettings,
    RegistrySettings,
    SigningSettings,
)

_CONFIGURATION: Final = (
    PlatformSettings.variable("environment"),
    PlatformSettings.variable("clock_shift_seconds"),
    DataSettings.variable("root"),
    ArchiveSettings.variable("root"),
    RegistrySettings.variable("tracking_uri"),
    SigningSettings.variable("public_key"),
)
"""Keys of the ConfigMap `mlplatform`, written by the chart: the variables' own names."""

_DATA: Final = ("mlplatform-data", "/data")
"""The volume claim of the data root, and where it is mounted; the settings name folders in it."""
_KEYS: Final = "/var/run/mlplatform/signing"
_PRIVATE_KEY: Final = "mlplatform.dev/signing-private-key"
_USER: Final = 10001
"""Whom all of the platform's containers run as; the files of the volume are theirs."""


class Secret(NamedTuple):
    """A Secret whose keys are the variables that it fills."""

    name: str
    keys: tuple[str, ...]


LEDGER: Final = Secret("mlplatform-ledger", (LedgerSettings.variable("url"),))
REGISTRY: Final = Secret(
    "mlplatform-registry-trainer",
    (RegistrySettings.variable("username"), RegistrySettings.variable("password")),
)


def place(
    task: dsl.PipelineTask,
    settings: PipelineSettings,
    *,
    cpu: str,
    memory: str,
    retries: int = 0,
    secrets: Sequence[Secret] = (),
) -> None:
    """Set image, resources, node, timeout, configuration and data of a task.

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
    kubernetes.set_security_context(task, _USER, _USER, run_as_non_root=True)
    kubernetes.use_config_map_as_env(task, "mlplatform", {key: key for key in _CONFIGURATION})
    for secret in secrets:
        kubernetes.use_secret_as_env(task, secret.name, {key: key for key in secret.keys})
    kubernetes.mount_pvc(task, *_DATA)
    # Scratch: the image's own files may be mounted read-only.
    kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit="2Gi")  # noqa: S108  # a pod's own
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


def train_on_a_cluster(task: dsl.PipelineTask) -> None:
    """Tell a task that training has a Ray cluster of its own."""
    task.set_env_variable(ComputeSettings.variable("ray"), "job")


def give_shared_memory(task: dsl.PipelineTask) -> None:
    """Mount what Ray keeps its objects in; a container has 64 MiB of it otherwise."""
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", "1Gi")  # noqa: S108  # a pod's own


def give_signing_key(task: dsl.PipelineTask, settings: PipelineSettings) -> None:
    """Mount the private key, and say where; no other task can read it."""
    kubernetes.use_secret_as_volume(task, settings.signing_secret, f"{_KEYS}/private")
    # By way of an annotation: a variable of the task itself would count on one machine as well.
    kubernetes.add_pod_annotation(task, _PRIVATE_KEY, f"{_KEYS}/private/signing.pem")
    variable = SigningSettings.variable("private_key")
    kubernetes.use_field_path_as_env(task, variable, f"metadata.annotations['{_PRIVATE_KEY}']")


def give_public_key(task: dsl.PipelineTask) -> None:
    """Mount the public key, by which the champion is verified before it is loaded."""
    kubernetes.use_config_map_as_volume(task, "mlplatform-signing", f"{_KEYS}/public")
