"""A run as a group of processes: started together, ended together.

KFP's local runner waits for its steps and passes no signal on, so a runner that is asked to end
would leave steps at work. Here they are one group: it is interrupted, given time, then killed.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Final

PATIENCE_SECONDS: Final = 20.0
"""Time for interrupted steps to end by themselves; Kubernetes kills 30 s after SIGTERM."""
_POLL_SECONDS: Final = 0.05


class InterruptedRunError(BaseException):
    """Somebody asked this process to end; no error of the platform, so that none is reported."""


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code; its output is this process's.

    To be called from the main thread.

    Raises:
        InterruptedRunError: SIGTERM or SIGINT came; all processes of the command are gone.
    """
    with _interruptible():
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return process.wait()
        finally:
            end(process, PATIENCE_SECONDS)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make the first signal an exception; those that follow do not stop the cleaning up."""
    kinds = (signal.SIGTERM, signal.SIGINT)

    def interrupt(number: int, _: FrameType | None) -> None:
        for kind in kinds:
            signal.signal(kind, signal.SIG_IGN)
        raise InterruptedRunError(signal.Signals(number).name)

    before = {kind: signal.signal(kind, interrupt) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def end(process: "subprocess.Popen[Any]", patience_seconds: float) -> None:
    """End what is left of a process's group: it is interrupted, given time, then killed.

    Args:
        process: Leads a group of its own.
        patience_seconds: Time for the others to end by themselves.
    """
    try:
        os.killpg(process.pid, signal.SIGINT)  # Python's own: steps run their `finally`
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            process.poll()  # a leader that ended stays in the group until it is waited for
            os.killpg(process.pid, 0)
            time.sleep(_POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        process.wait()
