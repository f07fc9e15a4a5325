"""The training pipeline: validate, build, train, evaluate, gate, register.

Read it top to bottom: it is the whole first half of the loop. The same compiled file runs on one
machine (`pipelines/local_run.py`) and on Kubeflow.
"""

from typing import Any

from kfp import dsl

from mlplatform.settings import PipelineSettings
from pipelines.components import data, model
from pipelines.components.record import record
from pipelines.placement import (
    LEDGER,
    REGISTRY,
    accelerate,
    give_public_key,
    give_shared_memory,
    give_signing_key,
    place,
    train_on_a_cluster,
)

NAME = "training"


def training_pipeline(settings: PipelineSettings) -> Any:
    """Return the pipeline with its tasks placed as `settings` say."""

    @dsl.pipeline(name=NAME, description="Validate, join, train, gate and register a model.")
    def pipeline(usecase: str, as_of: str = "", request: str = "") -> None:
        """Train a use case's model.

        Args:
            usecase: A folder under usecases/.
            as_of: The time that the run looks from, in UTC, e.g. 2014-01-02T00:00:00Z; empty: the
                platform's time when the run begins.
            request: Key of the retraining request to answer; empty where a person starts the run.
        """
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        outcome = record(usecase=usecase, run_id=run)
        retries = settings.retries
        place(outcome, settings, cpu="500m", memory="1Gi", retries=retries, secrets=[LEDGER])
        if settings.ray == "job":
            train_on_a_cluster(outcome)  # whose leftovers it removes

        with dsl.ExitHandler(outcome, name="ledger"):
            checked = data.validate(usecase=usecase, as_of=as_of, run_id=run, request=request)
            place(checked, settings, cpu="1", memory="4Gi", secrets=[LEDGER])

            built = data.build_training_set(usecase=usecase, as_of=as_of, run_id=run)
            built.after(checked)
            place(built, settings, cpu="2", memory="8Gi", secrets=[LEDGER])  # reviews lie beside it
            training_set = built.outputs["training_set"]

            trained = model.train(usecase=usecase, run_id=run, training_set=training_set)
            if settings.ray == "job":  # the task waits, and its cluster works
                place(trained, settings, cpu="250m", memory="1Gi", retries=retries)
                train_on_a_cluster(trained)
            else:
                place(trained, settings, cpu="2", memory="8Gi", retries=retries)
                accelerate(trained, settings)
                give_shared_memory(trained)
            models = trained.outputs["models"]

            measured = model.evaluate(
                usecase=usecase, run_id=run, training_set=training_set, models=models
            )
            place(measured, settings, cpu="1", memory="4Gi", retries=retries, secrets=[REGISTRY])
            give_public_key(measured)
            evaluation = measured.outputs["evaluation"]

            gates = model.gate(usecase=usecase, run_id=run, models=models, evaluation=evaluation)
            place(gates, settings, cpu="500m", memory="1Gi")

            with dsl.If(gates.outputs["Output"] == "accepted", name="accepted"):
                registered = model.register(
                    usecase=usecase,
                    run_id=run,
                    training_set=training_set,
                    models=models,
                    evaluation=evaluation,
                    gates=gates.outputs["report"],
                )
                place(
                    registered,
                    settings,
                    cpu="500m",
                    memory="2Gi",
                    retries=retries,
                    secrets=[REGISTRY],
                )
                give_signing_key(registered, settings)
                give_public_key(registered)

    return pipeline
