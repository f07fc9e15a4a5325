"""Keeps the real servers of one machine running: started, watched, restarted, ended.

A program is healthy when its own `ready` says so, which asks for a real answer (a golden
inference, a PING), not for an open port. One that exits, or that has given no answer for its
patience, is killed with its process group and started again, after a pause that doubles while it
keeps failing. Every group ends with the `with` block, however the block ends. If we are killed
ourselves, the kernel sends SIGTERM to each program that we started.

It refuses a program that does not come up the first time, and a port that somebody else holds:
those are mistakes, not faults.
"""

import contextlib
import ctypes
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from local.processes import end_group, refuse_taken, tail
from mlplatform.errors import ServiceError, shorten

_LOG: Final = logging.getLogger("mlplatform.local")
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 30.0
"""After it has been healthy for this long the next pause is the first one again."""
_POLL_SECONDS: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(frozen=True)
class Program:
    """How to run one server and how to see that it works."""

    name: str
    command: list[str]
    log: Path
    """Its output is appended here."""
    ready: Callable[[], bool]
    """Asks for a real answer; takes about a second at most and never raises."""
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    """None: this process's own."""
    patience_seconds: float = 3.0
    """Without an answer for this long it is killed and started again."""
    start_seconds: float = 60.0
    """Longest wait for its first answer."""
    check_seconds: float = 0.5
    """Pause between two questions."""
    stop_seconds: float = 10.0
    """Time to end by itself after SIGTERM before it is killed."""
    port: int | None = None
    """Port of the loopback address that it listens on; must be free when it is started first."""


class Handle:
    """One supervised program; made by `Supervisor.start`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.restarts = 0
        self._stopping = threading.Event()
        self._healthy = threading.Event()
        self._healthy_since = 0.0
        self._process = _spawn(program)
        self._thread = threading.Thread(
            target=self._watch, name=f"supervise {program.name}", daemon=True
        )

    @property
    def pid(self) -> int:
        """Process id of the running program, or of the last one."""
        return self._process.pid

    @property
    def healthy(self) -> bool:
        """Whether its last answer was a good one."""
        return self._healthy.is_set()

    def wait_ready(self, seconds: float) -> bool:
        """Return whether it is healthy within this time."""
        return self._healthy.wait(seconds)

    def stop(self) -> None:
        """End it: SIGTERM, time to end by itself, SIGKILL for its whole group."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        end_group(self._process, self.program.stop_seconds)
        self._healthy.clear()

    def begin(self) -> None:
        """Wait for the first answer, then watch.

        Raises:
            ServiceError: It ended or did not answer in time; the end of its log is in the message.
        """
        program, deadline = self.program, time.monotonic() + self.program.start_seconds
        while True:
            answers, status = _ready(program), self._process.poll()
            if answers and status is None:
                break
            if status is not None or time.monotonic() > deadline:
                end_group(self._process, 0)
                what = "did not answer in time" if status is None else f"ended with {status}"
                raise ServiceError(
                    f"{program.name} {what} while starting; the end of {program.log}:\n"
                    + tail(program.log)
                )
            time.sleep(_POLL_SECONDS)
        self._is_healthy()
        self._thread.start()

    def _is_healthy(self) -> None:
        if not self._healthy.is_set():
            self._healthy_since = time.monotonic()
            self._healthy.set()

    def _watch(self) -> None:
        pause, started = _FIRST_PAUSE_SECONDS, time.monotonic()
        while self._must_restart(started):
            if self._healthy.is_set() and time.monotonic() - self._healthy_since > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._healthy.clear()
            end_group(self._process, 0)  # what is left of its group: a stub, a stopped process
            _LOG.warning("%s is gone: started again in %.1f s", self.program.name, pause)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            started = time.monotonic()
            try:
                self._process = _spawn(self.program)
            except (ServiceError, OSError) as error:  # no memory, no descriptors: try again
                _LOG.warning("%s cannot be started: %s", self.program.name, shorten(error))
            else:
                self.restarts += 1

    def _must_restart(self, started: float) -> bool:
        """Return True when the program must be started again, False when we are stopping."""
        answered, program = started, self.program
        patience = max(program.start_seconds, program.patience_seconds)  # until the first answer
        if self._healthy.is_set():
            patience = program.patience_seconds
        while not self._stopping.is_set():
            if self._process.poll() is not None:
                return True
            if _ready(program):
                answered, patience = time.monotonic(), program.patience_seconds
                self._is_healthy()
            elif time.monotonic() - answered > patience:
                return True
            else:
                self._healthy.clear()
            pause = program.check_seconds if self._healthy.is_set() else _POLL_SECONDS
            self._wait_for_exit(pause)
        return False

    def _wait_for_exit(self, seconds: float) -> None:
        """Sleep, but notice an exit or a stop at once."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._stopping.wait(min(_POLL_SECONDS, seconds)):
                return


class Supervisor:
    """All supervised programs of one process; a context manager that ends them."""

    def __init__(self) -> None:
        self._handles: list[Handle] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _undisturbed(), contextlib.ExitStack() as stack:
            for handle in self._handles:  # unwound in reverse: the last started needs the first
                stack.callback(handle.stop)

    def start(self, program: Program) -> Handle:
        """Start a program, wait for its first good answer, and watch it from then on.

        Raises:
            ServiceError: It ended or did not answer in time; the end of its log is in the message.
        """
        program.log.parent.mkdir(parents=True, exist_ok=True)
        if program.port is not None:
            refuse_taken(program.port, program.name)
        handle = Handle(program)
        self._handles.append(handle)  # from here on it ends with us, whatever happens
        handle.begin()
        return handle


def _ready(program: Program) -> bool:
    try:
        return program.ready()
    except Exception:  # noqa: BLE001 (whatever it is: no good answer; the watch must go on)
        return False


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C stop the stopping."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(kind, signal.SIG_IGN) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _spawn(program: Program) -> "subprocess.Popen[bytes]":
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, where it is safe

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    try:
        with program.log.open("ab") as log:
            return subprocess.Popen(
                program.command,
                cwd=program.cwd,
                env=None if program.env is None else dict(program.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own group: Ctrl-C reaches us, and we end the group
                preexec_fn=die_with_parent,  # noqa: PLW1509 (one call into the kernel)
            )
    except OSError as error:
        raise ServiceError(
            f"{program.name} cannot be started: {program.command[0]}: {shorten(error)}"
        ) from error
