"""The process of a pipeline's run: started in its own group, shown while it lives, ended whole.

Steps are processes of that group, so nothing of a run outlives whoever waits for it here.
"""

import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from local.progress import Progress
from pipelines import process_group

_PATIENCE_SECONDS: Final = 5.0
"""Time for interrupted steps to end by themselves."""


def follow(
    progress: Progress,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    held: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """Run a command to its end, showing what its steps say.

    Args:
        progress: Where the steps' lines are shown.
        command: What to run.
        environment: Its environment.
        log: File for all of its output.
        held: Open files that the process keeps open as long as it lives.

    Returns:
        The exit code and the last lines of the output.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=tuple(held),
    )
    try:
        tail = progress.follow(process, log)
        return process.wait(), tail
    finally:
        _end_group(process)


def _end_group(process: "subprocess.Popen[str]") -> None:
    """End the steps that an interrupted run left: the group is asked, given time, then killed."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other may change handlers
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A second Ctrl-C must not stop the cleaning up.
            before[kind] = signal.signal(kind, signal.SIG_IGN)
    try:
        process_group.end(process, _PATIENCE_SECONDS)
    finally:
        if process.stdout is not None:
            process.stdout.close()
        for kind, handler in before.items():
            signal.signal(kind, handler)
