"""The component that scores a window."""

from kfp import dsl

from pipelines.components import BASE_IMAGE


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def batch_score(
    usecase: str,
    run_id: str,
    model: str,
    start: str,
    end: str,
    output: str,
    manifest: dsl.Output[dsl.Artifact],
) -> None:
    """Score the predictions from `start` to `end` with a registered model."""
    from pipelines import tasks

    tasks.batch_score(usecase, run_id, model, start, end, output, manifest.path)
