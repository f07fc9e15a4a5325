"""A whole run in one pod: `python -m pipelines.job --usecase NAME [--as-of TIME] [--request KEY]`.

The composition root of the Job that trains where no Kubeflow is installed. It hands the pipeline
that Kubeflow would get to KFP's local runner; steps are processes of this pod and their lines are
on its stdout. It exits with 0 when the pipeline succeeded, whether or not a gate let the model
pass, with 1 when it failed, with 2 when it cannot be started, and with 143 when it was asked to
end: only then is it to be started again.

A pod that was evicted may be: the run's id is the Job's name, so the next pod of the Job finds the
request its own and starts over, with an empty journal, at the same `--as-of`. A run that is on the
ledger as ended is not repeated.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlplatform.contracts.retrain import run_name
from mlplatform.errors import PlatformError
from mlplatform.ledger import Ledger
from mlplatform.settings import (
    ComputeSettings,
    DataSettings,
    LedgerSettings,
    PipelineSettings,
    PlatformSettings,
)
from pipelines import process_group, times
from pipelines.compile import compile_all
from pipelines.journal import Journal

_GOOD: Final = ("registered", "rejected")
"""Verdicts of runs that did what they were to do."""
_INTERRUPTED: Final = 143
"""128 + SIGTERM, as a process that the signal ended is reported."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        as_of = options.as_of or PlatformSettings.load().clock().isoformat()
        times.moment(as_of)
        name = options.run or run_name(
            "training", options.usecase, options.request or _digits(as_of)
        )
        return run(options.usecase, as_of, options.request, name)
    except PlatformError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    except process_group.InterruptedRunError as signal:
        sys.stderr.write(f"{signal}: all steps have ended; the run is not finished\n")
        return _INTERRUPTED


def run(usecase: str, as_of: str, request: str, name: str) -> int:
    """Run the training pipeline to its end and return the exit code.

    Args:
        usecase: Its name.
        as_of: The time that the run looks from.
        request: Key of the request that it answers; empty: none.
        name: The run's id; the same for each pod of one Job.

    Raises:
        PlatformError: It cannot be started.
        InterruptedRunError: This process was asked to end.
    """
    ended = Ledger(LedgerSettings.load().url).entries(usecase, "run", subject=name, limit=1)
    if ended:
        verdict, reason = ended[0].decision.verdict, ended[0].decision.reason
        _say(f"run {name} has ended already: {verdict}: {reason}")
        return 0 if verdict in _GOOD else 1
    Journal(DataSettings.load().root, usecase, name).clear()
    _say(f"run {name}: {usecase} as of {as_of}, request {request or 'of a person'}")
    with tempfile.TemporaryDirectory(prefix="run-") as scratch:
        package, *_ = compile_all(Path(scratch), PipelineSettings.load())
        command = [sys.executable, "-m", "pipelines.local_run", str(package)]
        command += ["--usecase", usecase, "--as-of", as_of, "--set", f"request={request}"]
        command += ["--run", name, "--pipeline-root", f"{scratch}/artifacts"]
        code = process_group.run(command, _environment(os.environ))
    return 0 if code == 0 else 1


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the steps: their libraries use the cores that the Job has."""
    threads = str(ComputeSettings.load().cpus)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    return dict.fromkeys(names, threads) | {"PYTHONUNBUFFERED": "1"} | dict(own)


def _digits(as_of: str) -> str:
    """Return a time as part of a run's name."""
    return f"{times.moment(as_of):%Y%m%dt%H%M%S}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.job", description=__doc__)
    parser.add_argument("--usecase", required=True, metavar="NAME", help="whose model")
    parser.add_argument(
        "--as-of", metavar="TIME",
        help="that training looks from, e.g. 2014-01-02T00:00:00Z; default: the platform's time",
    )  # fmt: skip
    parser.add_argument("--request", default="", metavar="KEY", help="of the request it answers")
    parser.add_argument(
        "--run", type=_name, metavar="NAME",
        help="the run's id: the Job's name; default: made from the request, or the time",
    )  # fmt: skip
    return parser


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError("write the name of a Job: a-z, 0-9 and -, at most 63")
    return text


if __name__ == "__main__":
    sys.exit(main())
