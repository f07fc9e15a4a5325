"""The exit handler: whatever happened, the ledger knows."""

from kfp import dsl

from pipelines.components import BASE_IMAGE


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def record(usecase: str, run_id: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Write the decisions of this run to the ledger."""
    from pipelines import tasks

    tasks.record(usecase, run_id, status.state, status.error_message or "")
