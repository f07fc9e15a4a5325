"""The search on Ray Tune: all trials, one CPU each, results in the order of the plans.

Ray decides where and when a trial runs, never what it tries (`search.plans` drew that) nor which
one wins. Plain trainables: a model here fits on one core in seconds, so parallelism between
trials beats parallelism inside one.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlplatform import errors
from mlplatform.contracts import Metric
from mlplatform.contracts.usecase.training import Training
from mlplatform.errors import ModelError, PlatformError, shorten
from pipelines.models.kind import Rows
from pipelines.steps import trial
from pipelines.steps.calibration import Sigmoid
from pipelines.steps.ray_session import session
from pipelines.steps.search import Plan
from pipelines.steps.trial import Trial

_log = logging.getLogger("mlplatform.train")

_NATIVE = "native"
"""The model's file in a trial's checkpoint."""


def run_all(
    plans: Sequence[Plan],
    train: Rows,
    validation: Rows,
    training: Training,
    north_star: Metric,
    cpus: int,
    scratch_parent: Path | None = None,
) -> tuple[Trial, ...]:
    """Run each plan and return its trial, in the order of the plans.

    Ctrl-C ends the search and closes Ray.

    Args:
        plans: What to try.
        train: Rows to fit on; put into Ray's object store once.
        validation: Rows to stop early, calibrate and score on.
        training: Seed, rounds, imbalance and calibration of the spec.
        north_star: Metric that a trial is scored by.
        cpus: Trials at a time.
        scratch_parent: Folder for the files of trials; None: one of this machine.

    Raises:
        PlatformError: What a trial raised on purpose (SpecError, DataError), as it was.
        ModelError: A trial failed in another way.
    """
    with session(cpus, scratch_parent) as scratch:
        from ray import tune

        configurations = [asdict(plan) for plan in _slowest_first(plans)]
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    _trainable,
                    train=train,
                    validation=validation,
                    training=training,
                    north_star=north_star,
                ),
                {"cpu": 1},
            ),
            param_space={"plan": tune.grid_search(configurations)},
            tune_config=tune.TuneConfig(max_concurrent_trials=cpus, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(scratch),
                name="trials",
                verbose=0,
                failure_config=tune.FailureConfig(fail_fast=True),
                stop=_refusal_ends_all(),
                callbacks=[_progress(north_star)],
            ),
        )
        results = tuner.fit()
        for error in results.errors:
            raise ModelError(f"a trial failed: {shorten(error)}") from error
        for result in results:
            if result.metrics and "refused" in result.metrics:
                raise _platform_error(result.metrics)
        done = {
            (result.config["plan"]["kind"], result.config["plan"]["number"]): _trial(result)
            for result in results
        }
    return tuple(done[plan.kind, plan.number] for plan in plans)


def _slowest_first(plans: Sequence[Plan]) -> list[Plan]:
    """The baseline is quick: started last, it fills the gap that the slow trials leave."""
    return sorted(plans, key=lambda plan: plan.role == "baseline")


def _trainable(
    config: dict[str, Any], train: Rows, validation: Rows, training: Training, north_star: Metric
) -> None:
    from ray import tune

    try:
        done = trial.run(Plan(**config["plan"]), train, validation, training, north_star)
    except PlatformError as error:
        # As a result and not as a crash, so that the driver can raise it as it was.
        tune.report({"refused": type(error).__name__, "message": str(error)})
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _NATIVE).write_bytes(done.native)
        metrics = {
            "score": done.score,
            "rounds": done.rounds,
            "seconds": done.seconds,
            "slope": done.calibration.slope,
            "intercept": done.calibration.intercept,
        }
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def _platform_error(metrics: dict[str, Any]) -> PlatformError:
    kind: type[PlatformError] = getattr(errors, metrics["refused"])
    return kind(metrics["message"])


def _trial(result: Any) -> Trial:
    with result.checkpoint.as_directory() as folder:
        native = (Path(folder) / _NATIVE).read_bytes()
    metrics = result.metrics
    return Trial(
        native=native,
        rounds=int(metrics["rounds"]),
        calibration=Sigmoid(metrics["slope"], metrics["intercept"]),
        score=float(metrics["score"]),
        seconds=float(metrics["seconds"]),
    )


def _progress(north_star: Metric) -> Any:
    """Return a callback that tells each finished trial in one line.

    It is a JSON logger as well: Tune reads its results back from those files, and warns of each
    trial that has none.
    """
    from ray.tune.logger import JsonLoggerCallback

    class Progress(JsonLoggerCallback):  # type: ignore[misc]  # Ray ships no types
        def log_trial_end(self, trial: Any, failed: bool = False) -> None:  # noqa: FBT001, FBT002 - Ray's signature
            super().log_trial_end(trial, failed)
            result, plan = trial.last_result or {}, trial.config["plan"]
            if "score" in result:
                _log.info(
                    "%s %d/%d: validation %s %.4f, %d rounds, %.1f s",
                    plan["kind"],
                    plan["number"],
                    plan["of"],
                    north_star,
                    result["score"],
                    result["rounds"],
                    result["seconds"],
                )

        def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
            del info
            for each in trials:  # a refusal ends the others, whose files Tune leaves open
                super().log_trial_end(each)

    return Progress()


def _refusal_ends_all() -> Any:
    """Return a stopper that ends the search at the first refused plan."""
    from ray import tune

    class Refused(tune.Stopper):  # type: ignore[misc]  # Ray ships no types
        def __init__(self) -> None:
            self.seen = False

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            del trial_id
            self.seen = self.seen or "refused" in result
            return False

        def stop_all(self) -> bool:
            return self.seen

    return Refused()
