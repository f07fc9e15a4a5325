"""Bring pipelines to a cluster, and start them: `python -m pipelines.submit upload|run|schedule`.

The composition root of the submitter. Each command looks at what is there and changes what is
missing or different, so it may be repeated. `upload` gives Kubeflow the compiled pipelines, each
version under a name made of commit and content. `run` starts a pipeline under a key: a second run
of a key is not started. Where MLPLATFORM_MONITORING_ORCHESTRATOR is `job` it makes a Job.
`schedule` makes one recurring run for each use case whose spec has `monitoring.schedule_days`,
which is switched off unless MLPLATFORM_KUBEFLOW_SCHEDULED says that Kubeflow keeps the schedule: as
a rule the trigger does, because a run that it does not know of counts in no cooldown and no budget.
"""

import argparse
import hashlib
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from feature_repo import catalog
from mlplatform.contracts import UseCase
from mlplatform.errors import PlatformError
from mlplatform.settings import (
    KubeflowSettings,
    MonitoringSettings,
    PipelineSettings,
    PlatformSettings,
)
from pipelines import times
from pipelines.compile import compile_all

if TYPE_CHECKING:
    from mlplatform.clients.kubeflow_pipelines import Recurring

TRAINING: Final = "training"
_BY_HAND: Final = "by-hand"
"""Begins the key of a run that a person asks for without one; the time follows."""
_DIGITS: Final = 12
"""Of commit and digest in a version's name: as many as `git` shows of a commit."""


class Orchestrator(Protocol):
    """Starts pipelines by name, one run for each key."""

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        """Start a run that carries the key, unless one does; return the run's id."""
        ...


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: Of the pipeline.
        content: The file that Kubeflow gets.
        version: Made of commit and content: equal packages of one commit have one name.
    """

    name: str
    content: bytes
    version: str


def packages(settings: PipelineSettings, commit: str) -> tuple[Package, ...]:
    """Compile all pipelines.

    Args:
        settings: How tasks are placed.
        commit: Of the running code.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = [(path.stem, path.read_bytes()) for path in compile_all(Path(folder), settings)]
    return tuple(
        Package(
            name,
            content,
            f"{commit[:_DIGITS]}-{hashlib.sha256(content).hexdigest()[:_DIGITS]}",
        )
        for name, content in found
    )


def start(
    orchestrator: Orchestrator, usecase: str, pipeline: str, as_of: str, key: str
) -> tuple[str, str]:
    """Start a pipeline under a key; return the key and the run's id.

    Args:
        orchestrator: Runs it.
        usecase: Its name.
        pipeline: Its name.
        as_of: The time that it looks from; empty: the platform's, when it begins.
        key: What it is known by; empty: one is made from the time.

    Raises:
        PlatformError: There is no such use case, `as_of` is no time, or it could not be started.
    """
    catalog.spec(usecase)
    key = key or f"{_BY_HAND}-{datetime.now(UTC):%Y%m%dt%H%M%S}"
    moment = {"as_of": times.moment(as_of).isoformat()} if as_of else {}
    return key, orchestrator.submit(pipeline, {"usecase": usecase, **moment}, key)


def upload(_: argparse.Namespace) -> None:
    """Upload what is compiled from this code."""
    from mlplatform.clients.kubeflow_pipelines import KubeflowPipelines

    kubeflow, commit = (
        KubeflowPipelines(KubeflowSettings.load()),
        PlatformSettings.load().git_commit,
    )
    for package in packages(PipelineSettings.load(), commit):
        text = f"Compiled from commit {commit}."
        name, new = kubeflow.upload(package.name, package.version, package.content, text)
        _say(f"{package.name}: version {name} {'uploaded' if new else 'is the newest already'}")


def run(options: argparse.Namespace) -> None:
    """Start a run, unless there is one of the key."""
    orchestrator = _orchestrator(options)
    key, name = start(
        orchestrator, options.usecase, options.pipeline, options.as_of or "", options.key or ""
    )
    _say(f"{options.usecase}: {options.pipeline} under key {key} is run {name}")


def schedule(options: argparse.Namespace) -> None:
    """Make the recurring runs what the specs say."""
    from mlplatform.clients.kubeflow_pipelines import KubeflowPipelines

    settings = KubeflowSettings.load()
    kubeflow = KubeflowPipelines(settings)
    for usecase in options.usecase or catalog.names():
        name = f"{TRAINING}-{usecase}"
        wanted = _recurring(name, catalog.spec(usecase), enabled=settings.scheduled)
        change = kubeflow.schedule(name, wanted, datetime.now(UTC))
        how = "none" if wanted is None else "on" if wanted.enabled else "off: the trigger keeps it"
        _say(f"{usecase}: recurring run {name}: {how}, {change}")


def _recurring(name: str, spec: UseCase, *, enabled: bool) -> "Recurring | None":
    from mlplatform.clients.kubeflow_pipelines import Recurring

    days = spec.monitoring.schedule_days
    if days is None:
        return None
    return Recurring(
        name=name,
        pipeline=TRAINING,
        parameters={"usecase": spec.name},
        every=timedelta(days=days),
        enabled=enabled,
        description=f"Every {days:g} days, from monitoring.schedule_days of {spec.name}.",
    )


def _orchestrator(options: argparse.Namespace) -> Orchestrator:
    if (options.to or MonitoringSettings.load().orchestrator) == "job":
        from mlplatform.clients.kubernetes import Cluster
        from mlplatform.clients.kubernetes_jobs import JobOrchestrator

        return JobOrchestrator(Cluster.connect(options.namespace, options.context), None)
    from mlplatform.clients.kubeflow import KubeflowOrchestrator

    return KubeflowOrchestrator(KubeflowSettings.load())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except PlatformError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.submit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    uploading = commands.add_parser("upload", help="give Kubeflow the pipelines of this code")
    uploading.set_defaults(command=upload)

    running = commands.add_parser("run", help="start a pipeline under a key")
    running.add_argument("--usecase", required=True, metavar="NAME", help="whose")
    running.add_argument("--pipeline", default=TRAINING, metavar="NAME", help="(%(default)s)")
    running.add_argument(
        "--as-of", metavar="TIME", help="that it looks from; default: the platform's time"
    )
    running.add_argument(
        "--key", type=_key, help="a second run of it is not started; default: from the time"
    )
    running.add_argument(
        "--to", choices=("kubeflow", "job"), help="default: MLPLATFORM_MONITORING_ORCHESTRATOR"
    )
    running.add_argument("--namespace", default="", help="of the platform, for a Job")
    running.add_argument("--context", default="", help="of kubeconfig, for a Job")
    running.set_defaults(command=run)

    scheduling = commands.add_parser("schedule", help="make recurring runs what the specs say")
    scheduling.add_argument(
        "--usecase", action="append", metavar="NAME", help="may be repeated; default: all"
    )
    scheduling.set_defaults(command=schedule)
    return parser


def _key(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError("write a-z, 0-9 and - only: it becomes a part of names")
    return text


if __name__ == "__main__":
    sys.exit(main())
