"""The batch scoring pipeline: validate, score.

The same feature code, join and model as online serving, for rows that can wait. It lands the
source's events up to the window's end and refuses to score data that break the spec's rules.
Running it again with the same arguments changes nothing.
"""

from typing import Any

from kfp import dsl

from mlplatform.settings import PipelineSettings
from pipelines.components import batch_scoring, data
from pipelines.placement import LEDGER, REGISTRY, give_public_key, place

NAME = "batch_scoring"


def batch_scoring_pipeline(settings: PipelineSettings) -> Any:
    """Return the pipeline with its tasks placed as `settings` say."""

    @dsl.pipeline(name=NAME, description="Validate, then score a window with a registered model.")
    def pipeline(usecase: str, model: str, start: str, end: str, output: str) -> None:
        """Score a window.

        Args:
            usecase: Name of the use case.
            model: Version number or alias (champion, challenger) of its registered model.
            start: First event time that is scored, like 2013-12-01T00:00:00Z.
            end: First event time that is left out.
            output: Folder for the scores and their manifest, in it one folder for each use case,
                version and window; on the shared volume of the data root.
        """
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        checked = data.validate(usecase=usecase, as_of=end, run_id=run)
        place(checked, settings, cpu="1", memory="4Gi", secrets=[LEDGER])

        scored = batch_scoring.batch_score(
            usecase=usecase, run_id=run, model=model, start=start, end=end, output=output
        )
        scored.after(checked)
        retries = settings.retries
        place(scored, settings, cpu="2", memory="8Gi", retries=retries, secrets=[REGISTRY])
        give_public_key(scored)

    return pipeline
