"""Components that read data: validate, build the training set."""

from kfp import dsl

from pipelines.components import BASE_IMAGE


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def validate(
    usecase: str, as_of: str, run_id: str, report: dsl.Output[dsl.Artifact], request: str = ""
) -> None:
    """Check raw events and labels; a broken rule, or another run of the request, ends this one."""
    from pipelines import tasks

    tasks.validate(usecase, as_of, run_id, report.path, request)


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def build_training_set(
    usecase: str, as_of: str, run_id: str, training_set: dsl.Output[dsl.Dataset]
) -> None:
    """Append new features to the offline store and join them to the matured labels."""
    from pipelines import tasks

    tasks.build_training_set(usecase, as_of, run_id, training_set.path)
