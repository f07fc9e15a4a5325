"""The orchestrator of one machine: runs a compiled pipeline here, one run for each request.

A run takes its request on the ledger in its first step, so the ledger tells which run a request
has. Until then a locked file keeps others from starting a second one. The kernel opens the lock
when the last process that holds it is gone, however it went: the one that waits for the run, and
the run itself, which outlives it by a moment where that one is killed.
"""

import contextlib
import fcntl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from local.mlflow_server import mlflow_server
from local.pipeline_process import follow
from local.progress import Progress
from local.workspace import Workspace
from mlplatform.contracts.retrain import RunState, owner, ownership_key
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.ledger import Ledger
from mlplatform.settings import ComputeSettings, PipelineSettings
from pipelines.compile import compile_all

Command = Callable[[str, Mapping[str, str]], Sequence[str]]
"""From a pipeline's name and its parameters to the command that runs it."""

_STATES: Final[dict[str, RunState]] = {"registered": "succeeded", "rejected": "succeeded"}
"""By the verdict of a run that has ended; any other is a failure."""


class LocalOrchestrator:
    """Runs pipelines on this machine; `submit` waits until the run has ended.

    Args:
        workspace: Where they work.
        progress: Where their steps' lines are shown.
        registry_url: The MLflow server that steps speak to; None: one is started for each run.
        command: What is run; None: KFP's local runner on the compiled pipeline.
    """

    def __init__(
        self,
        workspace: Workspace,
        progress: Progress,
        registry_url: str | None = None,
        command: Command | None = None,
    ) -> None:
        self._workspace, self._progress = workspace, progress
        self._registry_url = registry_url
        self._command = self._compiled if command is None else command
        self._ledger = Ledger(workspace.ledger_url)

    def submit(self, pipeline: str, parameters: Mapping[str, str], key: str) -> str:
        """Start a run that carries the key, unless one does, and wait for it; return its id.

        Args:
            pipeline: Its name.
            parameters: Of the pipeline; it gets the key as `request` besides.
            key: Of the request.

        Raises:
            NotFoundError: No pipeline has that name.
            ServiceError: The run ended before it took the request, or another process is starting
                one; the ledger cannot be reached.
        """
        taken = ownership_key(parameters["usecase"], key)
        if (run := self._owner(taken)) is not None:
            return run
        with self._starting(key) as lock:
            if (run := self._owner(taken)) is None:  # nobody was faster
                code, tail = self._run(pipeline, {**parameters, "request": key}, lock)
                run = self._owner(taken)
        if run is None:
            raise ServiceError(
                f"the run of {pipeline} for request {key} ended with {code} before it took the "
                f"request; the end of {self._log}:\n" + "\n".join(tail)
            )
        return run

    def state(self, run: str) -> RunState:
        """Return how a run is; unknown: its processes are gone, and it left no row of its end.

        Raises:
            ServiceError: The ledger cannot be reached.
        """
        rows = (entry.decision for entry in self._ledger.entries(kind="retrain"))
        took = (row for row in rows if row.key == ownership_key(row.usecase, row.subject))
        lives = any(self._lives(row.subject) for row in took if owner(row) == run)
        # Read after the lock: who has let go of it has left the row of its end, or never will.
        ends = self._ledger.entries(kind="run", subject=run, limit=1)
        if ends:
            return _STATES.get(ends[0].decision.verdict, "failed")
        return "running" if lives else "unknown"

    def _owner(self, taken: str) -> str | None:
        """Return the run that has the request, if one does."""
        found = self._ledger.get(taken)
        return None if found is None else owner(found.decision)

    def _run(
        self, pipeline: str, parameters: Mapping[str, str], lock: int
    ) -> tuple[int, list[str]]:
        """Run a pipeline to its end; return the exit code and the last lines of its output."""
        with contextlib.ExitStack() as stack:
            url = (
                self._registry_url or stack.enter_context(mlflow_server(self._workspace.mlflow)).url
            )
            environment = self._workspace.environment(ComputeSettings.load(), url)
            command = self._command(pipeline, parameters)
            return follow(self._progress, command, environment, self._log, (lock,))

    def _compiled(self, pipeline: str, parameters: Mapping[str, str]) -> list[str]:
        packages = compile_all(self._workspace.packages, PipelineSettings.load())
        package = next((path for path in packages if path.stem == pipeline), None)
        if package is None:
            known = ", ".join(path.stem for path in packages)
            raise NotFoundError(f"no pipeline is called {pipeline}; there are {known}")
        command = [sys.executable, "-m", "pipelines.local_run", str(package)]
        command += ["--usecase", parameters["usecase"]]
        for name, value in parameters.items():
            command += ["--set", f"{name}={value}"]
        return [*command, "--pipeline-root", str(self._workspace.root / "artifacts")]

    @contextlib.contextmanager
    def _starting(self, key: str) -> Iterator[int]:
        """Give the locked file of a request, for the run to hold as well."""
        path = self._lock(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            if not _locked(file, fcntl.LOCK_EX):
                raise ServiceError(
                    f"another process runs request {key} and the run has not taken it yet: ask "
                    "again in a moment"
                )
            yield file.fileno()

    def _lives(self, key: str) -> bool:
        """Return whether a process holds the file of a request."""
        try:
            with self._lock(key).open() as file:
                return not _locked(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def _lock(self, key: str) -> Path:
        return self._workspace.root / "requests" / f"{key}.lock"

    @property
    def _log(self) -> Path:
        return self._workspace.root / "retraining.log"


def _locked(file: IO[str], kind: int) -> bool:
    """Lock a file without waiting; return False where another process holds it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
