"""The training pipeline: validate, build, train, evaluate, gate, register.

Read it top to bottom: it is the whole first half of the loop. The same compiled file runs on one
machine (`pipelines/local_run.py`) and on Kubeflow.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kfp import dsl, kubernetes

from mlplatform.settings import PipelineSettings
from pipelines.components import data, model
from pipelines.components.record import record

NAME = "training"


def training_pipeline(settings: PipelineSettings) -> Any:
    """Return the pipeline with its tasks placed as `settings` say."""

    @dsl.pipeline(name=NAME, description="Validate, join, train, gate and register a model.")
    def pipeline(usecase: str, as_of: str) -> None:
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        outcome = record(usecase=usecase, run_id=run)
        retries = settings.retries
        _place(outcome, settings, cpu="500m", memory="1Gi", retries=retries, secrets=_LEDGER)

        with dsl.ExitHandler(outcome, name="ledger"):
            checked = data.validate(usecase=usecase, as_of=as_of, run_id=run)
            _place(checked, settings, cpu="1", memory="4Gi", secrets=_LEDGER)

            built = data.build_training_set(usecase=usecase, as_of=as_of, run_id=run)
            built.after(checked)
            _place(built, settings, cpu="2", memory="8Gi")
            training_set = built.outputs["training_set"]

            trained = model.train(usecase=usecase, run_id=run, training_set=training_set)
            _place(trained, settings, cpu="2", memory="8Gi", retries=retries)
            _accelerate(trained, settings)
            models = trained.outputs["models"]

            measured = model.evaluate(
                usecase=usecase, run_id=run, training_set=training_set, models=models
            )
            _place(measured, settings, cpu="1", memory="4Gi", retries=retries, secrets=_REGISTRY)
            _give_public_key(measured)
            evaluation = measured.outputs["evaluation"]

            gates = model.gate(usecase=usecase, run_id=run, models=models, evaluation=evaluation)
            _place(gates, settings, cpu="500m", memory="1Gi")

            with dsl.If(gates.outputs["Output"] == "accepted", name="accepted"):
                registered = model.register(
                    usecase=usecase,
                    run_id=run,
                    training_set=training_set,
                    models=models,
                    evaluation=evaluation,
                    gates=gates.outputs["report"],
                )
                _place(
                    registered,
                    settings,
                    cpu="500m",
                    memory="2Gi",
                    retries=settings.retries,
                    secrets=_REGISTRY,
                )
                _give_signing_key(registered, settings)
                _give_public_key(registered)

    return pipeline


def _place(
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


def _accelerate(task: dsl.PipelineTask, settings: PipelineSettings) -> None:
    """Ask for GPUs and tolerate the taint that keeps other work off their nodes."""
    if settings.gpu_count:
        task.set_accelerator_type(settings.gpu_resource)
        task.set_accelerator_limit(settings.gpu_count)
        kubernetes.add_toleration(
            task, key=settings.toleration_key, operator="Exists", effect="NoSchedule"
        )


def _give_signing_key(task: dsl.PipelineTask, settings: PipelineSettings) -> None:
    """Mount the key pair; no other task can read it."""
    kubernetes.use_secret_as_volume(task, settings.signing_secret, f"{_KEYS}/private")


def _give_public_key(task: dsl.PipelineTask) -> None:
    """Mount the public key, by which the champion is verified before it is loaded."""
    kubernetes.use_config_map_as_volume(task, "mlplatform-signing", f"{_KEYS}/public")


_KEYS = "/var/run/mlplatform/signing"

_CONFIGURATION = {
    "environment": "MLPLATFORM_ENVIRONMENT",
    "data-root": "MLPLATFORM_DATA_ROOT",
    "registry-uri": "MLPLATFORM_REGISTRY_TRACKING_URI",
    "signing-private-key": "MLPLATFORM_SIGNING_PRIVATE_KEY",
    "signing-public-key": "MLPLATFORM_SIGNING_PUBLIC_KEY",
}
"""Keys of the ConfigMap `mlplatform`, written by the chart, and the settings that they fill."""

_LEDGER = {"ledger-url": "MLPLATFORM_LEDGER_URL"}
_REGISTRY = {
    "registry-username": "MLPLATFORM_REGISTRY_USERNAME",
    "registry-password": "MLPLATFORM_REGISTRY_PASSWORD",
}
"""Keys of the Secret `mlplatform` and the settings that they fill, by service."""
