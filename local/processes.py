"""What every program of one machine needs: a free port, an end of its group, its last words."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

from mlplatform.errors import ServiceError, shorten

HOST: Final = "127.0.0.1"
"""Nothing here listens on any other address."""
_KILL_SECONDS: Final = 10.0
"""The kernel takes no longer to end a killed process."""
_TAIL_LINES: Final = 15


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def refuse_taken(port: int, name: str) -> None:
    """Refuse a port that somebody else answers on: we would take the stranger for our program.

    Raises:
        ServiceError: It is taken, or may not be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServiceError(
                f"port {port} on {HOST} cannot be used for {name} ({error.strerror}): stop the "
                "process that holds it, or choose another port"
            ) from error


def end_group(process: "subprocess.Popen[Any]", patience_seconds: float) -> None:
    """End a process and its group: SIGTERM, time to end by itself, SIGKILL for all that is left.

    Args:
        process: Leads its group: it was started with `start_new_session`.
        patience_seconds: From SIGTERM to SIGKILL; 0: it is killed at once.
    """
    kinds = [(signal.SIGTERM, patience_seconds)] if patience_seconds else []
    for kind, patience in (*kinds, (signal.SIGKILL, _KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the leader may have left in its group


def tail(log: Path) -> str:
    """Return the last lines of a log, for a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"  {shorten(line)}" for line in lines)
