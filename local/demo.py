"""`make demo`: the loop on one machine, with real parts and no cluster.

The composition root. It stands a month before the end of the source: it lands the raw events up to
there, starts a real MLflow server, compiles the training pipeline, runs that file with KFP's local
runner and shows what the steps say. Then it serves the registered model and replays the month that
follows as live traffic. It leaves `summary.json`, `report.html` and `replay.json` in its folder. A
run whose data, code and spec have not changed since the last one says so and trains nothing.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import polars as pl
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_repo import catalog, ingest
from local.live_report import write_live_report
from local.mlflow_server import mlflow_server
from local.progress import Progress
from local.replayed import run_replay, tell
from local.report import write_report
from local.summary import OVERHEAD, Summary, evaluations
from local.workspace import Workspace
from mlplatform.errors import NotFoundError, PlatformError
from mlplatform.ledger import Ledger
from mlplatform.settings import ComputeSettings, PipelineSettings
from mlplatform.signing import create_key_pair
from pipelines.compile import compile_all
from pipelines.identity import run_identity
from pipelines.journal import Journal

_ENDED: Final = ("registered", "rejected")
"""Verdicts of runs that would end the same way if nothing has changed."""

REPLAY_DAYS: Final = 31
"""The month that the model has not seen."""

_UI_PORT: Final = 5000
"""MLflow's usual port, for `make ui`; a run takes a free one, so that nothing is in its way."""

_PATIENCE_SECONDS: Final = 5.0
"""Time for interrupted steps to end by themselves."""


def main() -> None:
    """Read the command line, run, and end with 0 unless the run failed."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    parser.add_argument("--as-of", type=moment_of, help="time the run looks from, UTC; default: "
                        "--replay-days before the newest label of the source is known")  # fmt: skip
    parser.add_argument("--replay-days", type=float, default=REPLAY_DAYS, help="days after it that "
                        "are replayed as live traffic; 0: only train (%(default)s)")  # fmt: skip
    parser.add_argument("--rate", type=float, default=200, help="requests/s (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("build/demo"), help="folder to work in")
    parser.add_argument("--ui", action="store_true", help="only serve the MLflow UI, until Ctrl-C")
    parser.add_argument("--port", type=int, default=_UI_PORT, help="port of --ui (%(default)s)")
    options = parser.parse_args()
    console = Console()
    interrupts()
    try:
        workspace = Workspace(options.root)
        if options.ui:
            _serve_ui(console, workspace, options.port)
            return
        with workspace.lock():
            good = _loop(console, workspace, options)
    except PlatformError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nstopped; every process that was started has been ended")
        sys.exit(130)
    sys.exit(0 if good else 1)


def _loop(console: Console, workspace: Workspace, options: argparse.Namespace) -> bool:
    """Train, then serve and replay; return whether everything held."""
    code, progress = catalog.load(options.usecase), Progress(console)
    days = options.replay_days
    moment = options.as_of or default_moment(code, days)
    summary = run(console, progress, workspace, code, moment)
    if summary.verdict == "failed" or not days:
        return summary.verdict != "failed"
    console.print()
    try:
        found = run_replay(
            console, progress, workspace, code, moment, days=days, per_second=options.rate
        )
    except NotFoundError as error:  # no candidate has passed its gates yet: that is an answer
        console.print(Text(f"nothing to serve: {error}"), soft_wrap=True)
        return summary.verdict == "rejected"
    workspace.replay_summary.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_live_report(workspace.live_report, found, pl.read_parquet(workspace.answers))
    console.print()
    tell(console, found)
    console.print(f"report {workspace.live_report}", highlight=False)
    console.print(f"{progress.seconds:.0f} s in all; `make serve` leaves the servers running")
    return found.good


def run(
    console: Console,
    progress: Progress,
    workspace: Workspace,
    code: catalog.UseCaseCode,
    moment: datetime,
) -> Summary:
    """Run the loop's training half once and leave summary and report.

    Raises:
        PlatformError: something outside the pipeline's steps went wrong.
    """
    usecase = code.spec.name
    title = Text.assemble((usecase, "bold"), f": {code.spec.goal.ml_objective}\n")
    console.print(title, soft_wrap=True)
    data_root, ledger = str(workspace.data), Ledger(workspace.ledger_url)

    landed = ingest.land(usecase, data_root, moment)
    new = ", ".join(f"{rows:,} {table}" for table, rows in landed.items())
    progress.say("land", f"new raw rows up to {moment:%Y-%m-%d %H:%M} UTC: {new}")
    identity = run_identity(code.folder, f"{data_root}/raw/{usecase}", moment)
    if (earlier := _same_run(workspace, ledger, usecase, identity)) is not None:
        progress.say("unchanged", f"data, spec and code are those of run {earlier}: nothing to do")
        summary = _earlier(workspace, earlier) or _read_back(workspace, ledger, usecase, earlier)
        summary = summary.model_copy(update={"unchanged": True})
    else:
        summary = _train(progress, workspace, ledger, usecase, moment)
    summary.write(workspace.summary)
    journal = Journal(data_root, usecase, summary.run).read()
    write_report(workspace.report, summary, evaluations(journal), code.spec.goal.business)
    _tell(console, workspace, summary)
    return summary


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
        summary = Summary.model_validate_json(workspace.summary.read_bytes())
    except (OSError, ValidationError):
        return None
    return summary if summary.run == run else None


def default_moment(code: catalog.UseCaseCode, days: float) -> datetime:
    """Return the time `days` before the newest label of the source is known, at most now."""
    now = datetime.now(UTC)
    labels = code.labels(code.read(datetime.fromtimestamp(0, UTC), now))
    known = labels["label_timestamp"].max()
    newest = min(now, known) if isinstance(known, datetime) else now
    return newest - timedelta(days=days)


def _same_run(workspace: Workspace, ledger: Ledger, usecase: str, identity: str) -> str | None:
    """Return the id of the last run if it was made from the same and came to an end."""
    last = ledger.last(usecase, "run")
    if last is None or last.decision.verdict not in _ENDED:
        return None
    if not (workspace.mlflow / "mlflow.db").exists():
        return None  # the registry that the run spoke to is gone
    same = last.decision.evidence.get("identity") == identity
    return last.decision.subject if same else None


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
    process = subprocess.Popen(
        command,
        env=workspace.environment(ComputeSettings.load(), registry_url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        tail = progress.follow(process, log)
        process.wait()
    finally:
        _end_group(process)
    new = sorted(_runs(workspace, usecase) - before)
    if not new:
        raise PlatformError(
            f"the pipeline ended with {process.returncode} before its first step; the end of "
            f"{log}:\n" + "\n".join(tail)
        )
    return new[-1]


def _runs(workspace: Workspace, usecase: str) -> set[str]:
    folder = workspace.data / "runs" / usecase
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _end_group(process: "subprocess.Popen[str]") -> None:
    """End the steps that an interrupted run left: the group is asked, given time, then killed."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)  # a second Ctrl-C must not stop the cleaning up
    try:
        os.killpg(process.pid, signal.SIGINT)  # Python's own: steps run their `finally`
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # a leader that ended stays in the group until it is waited for
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        process.wait()
        interrupts()


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
    decisions = tuple(row for row in rows if row.evidence.get("run") == run)
    if not decisions or decisions[-1].kind != "run":
        raise PlatformError(
            f"run {run} is not on the ledger: its exit handler did not end; "
            f"see {workspace.root / 'pipeline.log'}"
        )
    page = urlsplit(str(journal.get("register", {}).get("registry_url", ""))).fragment
    url = f"http://127.0.0.1:{_UI_PORT}/#{page}"
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
    table.add_row("summary", str(workspace.summary))
    table.add_row("report", str(workspace.report))
    if summary.model:
        table.add_row("MLflow UI", f"{summary.registry_url} after `make ui`")
    console.print()
    console.print(table)


def _serve_ui(console: Console, workspace: Workspace, port: int) -> None:
    """Serve what the runs registered until Ctrl-C."""
    with mlflow_server(workspace.mlflow, port=port) as server:
        console.print(f"MLflow UI at {server.url}; Ctrl-C ends it")
        signal.pause()


def moment_of(text: str) -> datetime:
    """Return a time of the command line, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def interrupts() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end us in order: what was started is ended."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, _interrupt)  # a background shell starts us with SIGINT ignored


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
