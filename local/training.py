"""The training half of the loop on one machine: land, start MLflow, run the compiled pipeline.

It runs the very file that a cluster runs, with KFP's local runner, and shows what the steps say. A
run whose data, code and spec have not changed since it was made says so and trains nothing.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_repo import catalog, feedback, ingest
from local.mlflow_server import mlflow_server
from local.pipeline_process import follow
from local.progress import Progress
from local.report import write_report
from local.summary import OVERHEAD, Summary, evaluations
from local.workspace import Workspace
from mlplatform.clients.registry import Registry
from mlplatform.errors import NotFoundError, PlatformError
from mlplatform.ledger import Ledger
from mlplatform.settings import ComputeSettings, PipelineSettings, RegistrySettings
from mlplatform.signing import create_key_pair
from pipelines.compile import compile_all
from pipelines.identity import run_identity
from pipelines.journal import Journal
from serving.rollout.first_champion import first_champion

_ENDED: Final = ("registered", "rejected")
"""Verdicts of runs that would end the same way if nothing has changed."""

UI_PORT: Final = 5000
"""MLflow's usual port, for `make mlflow-ui`; a run takes a free one, so nothing is in its way."""

_OF_OTHERS: Final = ("retrain", "rollout", "monitor")
"""Kinds of rows that speak of a run and are not its own."""


def run(
    console: Console,
    progress: Progress,
    workspace: Workspace,
    code: catalog.UseCaseCode,
    moment: datetime,
) -> Summary:
    """Run the loop's training half once and leave summary and report.

    The first version of all becomes the champion at once: there is nothing to compare it with.

    Raises:
        PlatformError: something outside the pipeline's steps went wrong.
    """
    usecase = code.spec.name
    data_root, ledger = str(workspace.data), Ledger(workspace.ledger_url)

    land(progress, workspace, usecase, moment)
    live = feedback.read(usecase, workspace.ledger_url, workspace.predictions, moment).digest
    identity = run_identity(code.folder, f"{data_root}/raw/{usecase}", moment, live)
    if (earlier := _same_run(workspace, ledger, usecase, identity)) is not None:
        progress.say("unchanged", f"data, spec and code are those of run {earlier}: nothing to do")
        summary = _earlier(workspace, earlier) or _read_back(workspace, ledger, usecase, earlier)
        summary = summary.model_copy(update={"unchanged": True})
    else:
        summary = _train(progress, workspace, ledger, usecase, moment)
    summary.write(workspace.run_summary)
    journal = Journal(data_root, usecase, summary.run).read()
    write_report(workspace.run_report, summary, evaluations(journal), code.spec.goal.business)
    _tell(console, workspace, summary)
    return summary


def land(progress: Progress, workspace: Workspace, usecase: str, moment: datetime) -> None:
    """Land the raw events up to a moment, and say what was new."""
    landed = ingest.land(usecase, str(workspace.data), moment)
    if any(landed.values()):
        new = ", ".join(f"{rows:,} {table}" for table, rows in landed.items())
        progress.say("land", f"new raw rows up to {moment:%Y-%m-%d %H:%M} UTC: {new}")


def _train(
    progress: Progress, workspace: Workspace, ledger: Ledger, usecase: str, moment: datetime
) -> Summary:
    """Start what the pipeline needs, run it, and put its summary together."""
    landed = progress.seconds
    if not workspace.keys[0].exists():
        workspace.keys[0].parent.mkdir(parents=True, exist_ok=True)
        create_key_pair(*workspace.keys)
    with mlflow_server(workspace.mlflow) as server:
        progress.say("start", f"MLflow server at {server.url}")
        package, *_ = compile_all(workspace.packages, PipelineSettings.load())
        progress.say("start", f"pipeline compiled to {package}")
        started = progress.seconds
        arguments = ["--as-of", moment.isoformat()]
        log = workspace.root / "pipeline.log"
        ran = run_pipeline(progress, workspace, package, usecase, arguments, server.url, log)
        with contextlib.suppress(NotFoundError):  # no candidate has passed its gates yet
            first_champion(Registry(RegistrySettings(tracking_uri=server.url)), ledger, usecase)
    seconds = {"land raw events": landed, "start MLflow, compile": started - landed}
    summary = _read_back(workspace, ledger, usecase, ran, seconds)
    steps = sum(summary.seconds[step] for step in summary.started)
    overhead = progress.seconds - started - steps
    update = {
        "seconds": summary.seconds | {OVERHEAD: overhead},
        "total_seconds": round(progress.seconds, 1),
    }
    return summary.model_copy(update=update)


def _earlier(workspace: Workspace, run: str) -> Summary | None:
    """Return the summary that an earlier run left, if it is still there and of that run."""
    try:
        summary = Summary.model_validate_json(workspace.run_summary.read_bytes())
    except (OSError, ValidationError):
        return None
    return summary if summary.run == run else None


def _same_run(workspace: Workspace, ledger: Ledger, usecase: str, identity: str) -> str | None:
    """Return the id of the last run that was made from the same and came to an end."""
    if not (workspace.mlflow / "mlflow.db").exists():
        return None  # the registry that the runs spoke to is gone
    for entry in reversed(ledger.entries(usecase=usecase, kind="run")):
        decision = entry.decision
        if decision.evidence.get("identity") == identity and decision.verdict in _ENDED:
            return decision.subject
    return None


def run_pipeline(
    progress: Progress,
    workspace: Workspace,
    package: Path,
    usecase: str,
    arguments: Sequence[str],
    registry_url: str,
    log: Path,
) -> str:
    """Run the compiled file in a process group of its own; return the id of the run.

    Raises:
        PlatformError: the process ended before its first step could leave a record.
    """
    before = _runs(workspace, usecase)
    command = [sys.executable, "-m", "pipelines.local_run", str(package)]
    command += ["--usecase", usecase, *arguments]
    command += ["--pipeline-root", str(workspace.root / "artifacts")]
    environment = workspace.environment(ComputeSettings.load(), registry_url)
    status, tail = follow(progress, command, environment, log)
    new = sorted(_runs(workspace, usecase) - before)
    if not new:
        raise PlatformError(
            f"the pipeline ended with {status} before its first step; the end of "
            f"{log}:\n" + "\n".join(tail)
        )
    return new[-1]


def _runs(workspace: Workspace, usecase: str) -> set[str]:
    folder = workspace.data / "runs" / usecase
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _read_back(
    workspace: Workspace,
    ledger: Ledger,
    usecase: str,
    run: str,
    seconds: Mapping[str, float] = MappingProxyType({}),
) -> Summary:
    """Put the summary of a run together from its journal and its rows on the ledger.

    Raises:
        PlatformError: the exit handler did not record the run.
    """
    journal = Journal(str(workspace.data), usecase, run).read()
    rows = [entry.decision for entry in ledger.entries(usecase=usecase)]
    mine = (row for row in rows if row.evidence.get("run") == run)
    decisions = tuple(row for row in mine if row.kind not in _OF_OTHERS)
    if not decisions or decisions[-1].kind != "run":
        raise PlatformError(
            f"run {run} is not on the ledger: its exit handler did not end; "
            f"see {workspace.root / 'pipeline.log'}"
        )
    page = urlsplit(str(journal.get("register", {}).get("registry_url", ""))).fragment
    url = f"http://127.0.0.1:{UI_PORT}/#{page}"
    return Summary.from_journal(journal, decisions, seconds=dict(seconds), registry_url=url)


def _tell(console: Console, workspace: Workspace, summary: Summary) -> None:
    """Print the outcome and where the rest is."""
    good = summary.verdict == "registered"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")  # an address is of use only whole
    table.add_row("verdict", Text(summary.verdict, style="bold green" if good else "bold red"))
    table.add_row("", Text(summary.reason))
    for name, metrics in summary.metrics.items():
        value = metrics["pr_auc"]
        mark = " ← winner" if name == summary.winner else ""
        text = f"{value.estimate:.4f}  [{value.low:.4f}, {value.high:.4f}]{mark}"
        table.add_row(f"PR-AUC {name}", Text(text))
    for gate in summary.gates.results if summary.gates else ():
        answer = "holds" if gate.passed else "BROKEN"
        table.add_row(Text(f"gate {gate.gate}"), Text(f"{answer}: {gate.reason}"))
    table.add_row("seconds", f"{summary.total_seconds:.0f}")
    table.add_row("summary", str(workspace.run_summary))
    table.add_row("report", str(workspace.run_report))
    if summary.model:
        table.add_row("MLflow UI", f"{summary.registry_url} after `make mlflow-ui`")
    console.print()
    console.print(table)
