"""`make serve`: the servers of a use case on this machine, until Ctrl-C.

It goes on where the demonstration ended, or trains a model for the time that it looks from, and
prints a request that works. The online store holds the features of that time, so the request
carries it.
"""

import argparse
import shlex
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console

from feature_repo import catalog, ingest
from feature_repo import store as stores
from local.ending import STOPPED, status_of
from local.interrupts import interrupts
from local.moments import default_moment, moment_of
from local.progress import Progress
from local.serving import serving
from local.told import ended
from local.traffic import traffic
from local.training import run
from local.workspace import Workspace
from mlplatform.errors import PlatformError

_PORT: Final = 8080


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m local.serve", description=__doc__)
    parser.add_argument("--usecase", default="flight_delay", help="a folder under usecases/")
    parser.add_argument("--as-of", type=moment_of, help="time the servers stand at, UTC; default: "
                        "where the demo ended, or a quarter of the source's time")  # fmt: skip
    parser.add_argument("--root", type=Path, default=Path("build/demo"), help="folder to work in")
    parser.add_argument(
        "--port", type=int, default=_PORT, help="of the gateway; 0: a free one (%(default)s)"
    )
    options = parser.parse_args()
    console = Console()
    interrupts()

    def work() -> int:
        workspace = Workspace(options.root)
        with workspace.lock():
            _serve(console, workspace, options)
        return 0

    sys.exit(status_of(console, work, stopped=STOPPED, interrupted=0))  # Ctrl-C is how it ends


def _serve(console: Console, workspace: Workspace, options: argparse.Namespace) -> None:
    code, progress = catalog.load(options.usecase), Progress(console)
    moment = _moment(console, progress, workspace, code, options.as_of)
    body = next(traffic(code, moment, moment + timedelta(days=1)).bodies()).decode()
    console.print()
    with serving(workspace, code, moment, progress.say, port=options.port or None) as running:
        url = f"{running.url}/v1/{running.usecase}/score"
        console.print(f"\n{running.usecase} version {running.model.version} answers at {url}\n")
        header = shlex.quote("content-type: application/json")
        console.print(
            f"curl -s {url} -H {header} -d {shlex.quote(body)}\n", soft_wrap=True, highlight=False
        )
        console.print(f"{running.url}/openapi.json   {running.url}/metrics\n")
        console.print(
            "In another terminal, `make rollout VERSION=…` sends a version on its way and "
            "`make rollout-status` says how far it is.\nCtrl-C ends it"
        )
        signal.pause()


def _moment(
    console: Console,
    progress: Progress,
    workspace: Workspace,
    code: catalog.UseCaseCode,
    asked: datetime | None,
) -> datetime:
    """Return the time at which the servers stand, with a model to serve there.

    Where the demonstration's story has ended they go on; else a model is trained.
    """
    name = code.spec.name
    if asked is None and (end := ended(workspace.summary, name)) is not None:
        data = str(workspace.data)
        ingest.extend(name, stores.open_store(data), data, end)
        progress.say("start", f"the servers go on where the story ended, {end:%Y-%m-%d %H:%M} UTC")
        return end
    moment = asked or default_moment(code)
    summary = run(console, progress, workspace, code, moment)
    if summary.verdict == "failed":
        raise PlatformError(f"there is nothing to serve: {summary.reason}")
    return moment


if __name__ == "__main__":
    main()
