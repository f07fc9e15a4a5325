"""`make batch-score`: scores for a window of predictions that can wait, on this machine.

The composition root of batch scoring: a real MLflow server over what `make demo` registered, the
compiled pipeline, KFP's local runner. By default it scores the last day that the demo lived
through. It refuses a use case without a registered version.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import JsonValue, ValidationError
from rich.console import Console

from feature_repo import catalog
from local.ending import STOPPED, status_of
from local.interrupts import interrupts
from local.mlflow_server import mlflow_server
from local.moments import default_moment, moment_of
from local.progress import Progress
from local.summary import Summary
from local.told import ended
from local.training import run_pipeline
from local.workspace import Workspace
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Window
from mlplatform.errors import DataError, NotFoundError, PlatformError
from mlplatform.settings import PipelineSettings, RegistrySettings
from pipelines import batch_scoring
from pipelines.compile import compile_all
from pipelines.journal import Journal
from pipelines.steps.batch_score import BatchScores

_ALIASES: Final = ("champion", "challenger")
_DAY: Final = timedelta(days=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, score, and end with 0 unless it failed."""
    options = parser().parse_args(arguments)
    console = Console()
    interrupts()

    def work() -> int:
        workspace = Workspace(options.root)
        with workspace.lock():
            scores, manifest = _score(console, workspace, options)
        console.print(
            f"\n{scores.rows:,} rows scored by version {scores.version}, {scores.acted:,} at or "
            f"above {scores.threshold:g}\nscores   {manifest.with_name(scores.file)}\n"
            f"manifest {manifest}",
            soft_wrap=True,
            highlight=False,
        )
        return 0

    if status := status_of(console, work, stopped=STOPPED):
        sys.exit(status)


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    made = argparse.ArgumentParser(prog="python -m local.batch_score", description=__doc__)
    made.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    made.add_argument("--start", type=moment_of, help="first event time that is scored, UTC; "
                      "default: a day before the end")  # fmt: skip
    made.add_argument("--end", type=moment_of, help="first event time that is left out, UTC; "
                      "default: a day after --start, else when the demo ended")  # fmt: skip
    made.add_argument("--model", help="version or alias; default: the champion, while there is "
                      "none the challenger")  # fmt: skip
    made.add_argument("--root", type=Path, default=Path("build/demo"), help="where the demo worked")
    made.add_argument("--out", type=Path, help="folder for the scores; default: <root>/scores")
    return made


def window(
    start: datetime | None, end: datetime | None, workspace: Workspace, code: catalog.UseCaseCode
) -> Window:
    """Return the window to score: what was given, and a day for what was not.

    Raises:
        DataError: Its end is not after its start.
    """
    if end is None:
        end = _demo_moment(workspace, code) if start is None else start + _DAY
    start = end - _DAY if start is None else start
    if end <= start:
        raise DataError(
            f"the window ends {end:%Y-%m-%d %H:%M} UTC, which is not after its start "
            f"{start:%Y-%m-%d %H:%M}: choose a later --end"
        )
    return Window(start=start, end=end)


def _demo_moment(workspace: Workspace, code: catalog.UseCaseCode) -> datetime:
    """Return where the demo's story ended; else the time that its training looked from."""
    if (end := ended(workspace.summary, code.spec.name)) is not None:
        return end
    try:
        summary = Summary.model_validate_json(workspace.run_summary.read_bytes())
    except (OSError, ValidationError):
        return default_moment(code)
    same = summary.usecase == code.spec.name
    return moment_of(summary.as_of) if same else default_moment(code)


def _score(
    console: Console, workspace: Workspace, options: argparse.Namespace
) -> tuple[BatchScores, Path]:
    """Run the pipeline; return the manifest and where it is."""
    code, progress = catalog.load(options.usecase), Progress(console)
    name = code.spec.name
    wanted = window(options.start, options.end, workspace, code)
    out = (options.out or workspace.root / "scores").absolute()
    with mlflow_server(workspace.mlflow) as server:
        progress.say("start", f"MLflow server at {server.url}")
        model = options.model or _registered(server.url, name)
        progress.say("start", f"{model} of {name}, {wanted.start:%Y-%m-%d %H:%M} to "
                     f"{wanted.end:%Y-%m-%d %H:%M} UTC")  # fmt: skip
        packages = compile_all(workspace.packages, PipelineSettings.load())
        (package,) = (path for path in packages if path.stem == batch_scoring.NAME)
        values = {
            "model": model,
            "start": wanted.start.isoformat(),
            "end": wanted.end.isoformat(),
            "output": str(out),
        }
        arguments = [part for item in values.items() for part in ("--set", "=".join(item))]
        log = workspace.root / f"{batch_scoring.NAME}.log"
        ran = run_pipeline(progress, workspace, package, name, arguments, server.url, log)
    journal = Journal(str(workspace.data), name, ran).read()
    scores = found(journal, log)
    return scores, manifest_of(scores, out)


def _registered(registry_url: str, name: str) -> str:
    """Return the alias of the version that serves, or that may."""
    registry = Registry(RegistrySettings(tracking_uri=registry_url))
    for alias in _ALIASES:
        if registry.by_alias(name, alias) is not None:
            return alias
    raise NotFoundError(f"no version of {name} is registered: run `make demo` first")


def found(journal: dict[str, dict[str, JsonValue]], log: Path) -> BatchScores:
    """Return what a run scored.

    Raises:
        PlatformError: A step failed; says which and why.
    """
    for step, record in journal.items():
        if "error" in record:
            raise PlatformError(f"{step.replace('_', ' ')} failed: {record['error']}")
    if "scores" not in journal.get("batch_score", {}):
        raise PlatformError(f"the pipeline ended before it had scored: see {log}")
    return BatchScores.model_validate(journal["batch_score"]["scores"])


def manifest_of(scores: BatchScores, out: Path) -> Path:
    """Return the manifest among those of the same version.

    Raises:
        DataError: It is not there any more.
    """
    folder = out / scores.usecase / f"v{scores.version}"
    for path in sorted(folder.glob("*/manifest.json")):
        if BatchScores.model_validate_json(path.read_bytes()) == scores:
            return path
    raise DataError(f"the manifest is not in {folder}: somebody has removed it; score again")


if __name__ == "__main__":
    main()
