"""Training on a Ray cluster: `python -m pipelines.ray_training --usecase NAME --exchange FOLDER`.

What a RayJob runs on its head. It finds the training set in the folder and leaves the models
there; step and RayJob mount the same volume. Where Ray is comes from the variable that Ray gives
to its jobs; without it a cluster is started in this process, as on one machine.
"""

import argparse
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlplatform.clients.ray_job import RayJobs
from mlplatform.contracts import Candidate
from mlplatform.settings import ComputeSettings
from pipelines import artifacts

LOG: Final = "log.txt"
_ADDRESS: Final = "RAY_ADDRESS"
"""Ray's own name; set for every job that is submitted to a cluster."""


class Exchange:
    """The folder that a step and its RayJob share.

    Args:
        root: Data root, on the volume that both mount.
        run: Id of the run.
    """

    def __init__(self, root: str, run: str) -> None:
        self.folder = Path(root) / "exchange" / run

    @property
    def log(self) -> Path:
        """Lines of the training."""
        return self.folder / LOG

    def give(self, training_set: Path) -> None:
        """Put a training set there, in place of whatever an earlier attempt left."""
        self.clear()
        shutil.copytree(training_set, self.folder / "training_set")

    def take(self, models: Path) -> tuple[Candidate, ...]:
        """Copy the models to a folder and return them.

        Raises:
            DataError: There are none.
        """
        shutil.copytree(self.folder / "models", models, dirs_exist_ok=True)
        return artifacts.read_candidates(models)

    def clear(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def train_remotely(
    jobs: RayJobs, root: str, usecase: str, run: str, training_set: Path, models: Path
) -> tuple[Candidate, ...]:
    """Train on a Ray cluster of its own and return the candidates, in folder `models`.

    Args:
        jobs: Runs it.
        root: Data root.
        usecase: Its name.
        run: Id of the run.
        training_set: Folder with it.
        models: Folder for the models.

    Raises:
        ServiceError: The RayJob failed; its lines are in the log of this step.
        DataError: It left no models.
    """
    exchange = Exchange(root, run)
    exchange.give(training_set)
    try:
        command = ["python", "-m", "pipelines.ray_training", "--usecase", usecase]
        command += ["--exchange", str(exchange.folder)]
        jobs.run(run, "train", command, exchange.log)
        return exchange.take(models)
    finally:
        exchange.clear()


def main(arguments: list[str] | None = None) -> int:
    """Train; return 0, or 1 when it failed. What happened is in the folder's log."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.ray_training", description=__doc__)
    parser.add_argument("--usecase", required=True, metavar="NAME")
    parser.add_argument("--exchange", required=True, type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    with (options.exchange / LOG).open("w", encoding="utf-8", buffering=1) as file:
        handler = logging.StreamHandler(file)
        logger = logging.getLogger("mlplatform")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            _train(options.usecase, options.exchange)
        except Exception:  # noqa: BLE001  # the boundary: the step that waits reads the file
            traceback.print_exc(file=file)
            return 1
        finally:
            logger.removeHandler(handler)
    return 0


def _train(usecase: str, folder: Path) -> None:
    from feature_repo import catalog
    from pipelines.steps.train import train

    models = folder / "models"
    data = artifacts.read_training_set(folder / "training_set")
    # Trials on other nodes leave their files where the driver finds them.
    scratch = folder / "trials"
    scratch.mkdir(parents=True, exist_ok=True)
    cpus = _connected() if _ADDRESS in os.environ else ComputeSettings.load().cpus
    candidates = train(catalog.spec(usecase), data, models, cpus, scratch)
    artifacts.write_candidates(models, candidates)


def _connected() -> int:
    """Connect to the cluster that runs this job; return its CPUs."""
    import ray

    start: Callable[..., object] = ray.init
    start(log_to_driver=False, logging_level=logging.ERROR)
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


if __name__ == "__main__":
    sys.exit(main())
