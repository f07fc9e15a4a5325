"""Ports of this machine that lead to services of the cluster: `kubectl port-forward`, kept alive.

A forward ends when the pod that it was made to goes; it is made anew then, to whichever pod the
service has by now. Loopback only.
"""

import contextlib
import re
import selectors
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from deploy.programs import find
from deploy.target import Target
from mlplatform.errors import ServiceError, shorten

HOST: Final = "127.0.0.1"
_LISTENS: Final = re.compile(rf"Forwarding from {re.escape(HOST)}:(\d+)")
_START_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 1.0
"""Before it is made again; a service without a pod refuses at once."""


@dataclass(frozen=True)
class Service:
    """What a port leads to."""

    title: str
    name: str
    port: int
    path: str = "/"
    """Of the page that a person wants."""
    namespace: str = ""
    """Empty: the platform's."""
    local: int = 0
    """Port of this machine; 0: any."""


@contextlib.contextmanager
def forwarded(target: Target, service: Service) -> Iterator[str]:
    """Give the address of a service for the length of a block.

    Raises:
        ServiceError: The service has no pod that runs, or the port is taken.
    """
    process = _start(target, service)
    try:
        yield f"http://{HOST}:{_port(process, service)}"
    finally:
        _end(process)


class Kept:
    """A forward that is made again whenever it ends, until it is closed.

    Args:
        target: Where.
        service: To what; with a `local` port.
    """

    def __init__(self, target: Target, service: Service) -> None:
        self._target, self.service = target, service
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.trouble = "not connected yet"
        """Why it does not work now; empty: it does."""
        self._thread = threading.Thread(
            target=self._keep, name=f"forward {service.name}", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Address on this machine."""
        return f"http://{HOST}:{self.service.local}{self.service.path}"

    def close(self) -> None:
        """End it."""
        self._ended.set()
        with self._lock:
            if self._process is not None:
                _end(self._process)
        self._thread.join(_STOP_SECONDS)

    def _keep(self) -> None:
        while not self._ended.is_set():
            try:
                with self._lock:
                    if self._ended.is_set():
                        return
                    process = self._process = _start(self._target, self.service)
                _port(process, self.service)
                self.trouble = ""
                process.wait()
                self.trouble = "its pod went; connecting anew"
            except ServiceError as error:
                self.trouble = str(error)
            self._ended.wait(_PAUSE_SECONDS)


def _start(target: Target, service: Service) -> "subprocess.Popen[str]":
    command = [
        find("kubectl"), "--context", target.context,
        "--namespace", service.namespace or target.namespace,
        "port-forward", "--address", HOST,
        f"service/{service.name}", f"{service.local or ''}:{service.port}",
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C reaches us first, and we end it
    )


def _port(process: "subprocess.Popen[str]", service: Service) -> int:
    """Return the port on this machine, as soon as it leads somewhere."""
    said: list[str] = []
    stream = process.stdout
    if stream is None:
        raise ServiceError(f"kubectl's words on {service.name} cannot be read")
    deadline = time.monotonic() + _START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            line = stream.readline()
            if not line:
                break
            said.append(line)
            if found := _LISTENS.search(line):
                threading.Thread(target=_drain, args=(stream,), daemon=True).start()
                return int(found[1])
    _end(process)
    stream.close()
    raise ServiceError(
        f"no port leads to the service {service.name}: {shorten(' '.join(said) or 'no answer')}; "
        "has it a pod that runs?"
    )


def _drain(stream: IO[str]) -> None:
    """Read what it says of each connection: nobody wants to know, and it must not fill the pipe."""
    with stream:
        for _ in stream:
            pass


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
