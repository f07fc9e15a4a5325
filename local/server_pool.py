"""One Triton server for each model version on this machine, started and ended as a rollout asks.

A version has a thread of its own: it exports the version (fetched, signature and digest verified),
starts its server, waits until it gives the golden answers, and keeps it until the version is no
longer asked for. The thread lives as long as the server because the kernel ends a program with the
*thread* that started it (`supervisor`).

It refuses a version whose registered content is not what was asked for by digest. What was refused
stays refused until the version has been let go and is asked for anew; a registry that is away is
asked again.
"""

import dataclasses
import logging
import threading
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Final, Self

from local.processes import HOST, free_port
from local.supervisor import Handle, Program, Supervisor
from mlplatform.contracts import ServedModel, ServerStatus
from mlplatform.contracts.rollout import Version
from mlplatform.errors import NotFoundError, PlatformError, ServiceError, shorten
from serving.rollout.ports import Server
from serving.triton.export import Export

_LOG: Final = logging.getLogger("mlplatform.local")
_ABSENT: Final = Server(ServerStatus("absent"))
_PAUSE_SECONDS: Final = 1.0
"""Between two questions to a registry that is away."""
_STARTS: Final = 3
"""Attempts to start a server: a port may be taken in the moment after it was found free."""


class ServerPool:
    """The servers of this process; a context manager that ends them.

    Args:
        export: Fetches, verifies and writes one registered version, by number.
        program: How to serve an export: from the export, its port and its metrics port.
    """

    def __init__(
        self,
        export: Callable[[int], Export],
        program: Callable[[Export, int, int], Program],
    ) -> None:
        self._export, self._program = export, program
        self._lock = threading.Lock()
        self._kept: dict[Version, _Kept] = {}
        self._leaving: list[_Kept] = []
        """Those that are ending; the pool's end waits for them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ensure(())
        for kept in self._leaving:
            kept.join()

    def look(self, version: Version) -> Server:
        """Return how a version's server is.

        It is ready from its first golden answers on. One that dies later is started again by its
        supervisor at the same address; whether its version does harm meanwhile is for the
        evidence to say, and traffic must be free to go back to a version that was ready.
        """
        kept = self._kept.get(version)
        return _ABSENT if kept is None else kept.server

    def ensure(self, versions: Collection[Version]) -> None:
        """Begin to start the servers that are missing and stop all others; does not wait."""
        with self._lock:
            for version in self._kept.keys() - set(versions):
                kept = self._kept.pop(version)
                kept.let_go()
                self._leaving.append(kept)
            self._leaving = [kept for kept in self._leaving if kept.is_alive()]
            for version in versions:
                if version not in self._kept:
                    self._kept[version] = kept = _Kept(version, self._export, self._program)
                    kept.start()

    def handle(self, version: Version) -> Handle:
        """Return the supervised program of a version that is ready.

        Raises:
            NotFoundError: It has none, or not yet.
        """
        kept = self._kept.get(version)
        if kept is None or kept.handle is None:
            raise NotFoundError(f"version {version.version} has no server here that is ready")
        return kept.handle

    def wait(self, version: Version, seconds: float) -> ServedModel:
        """Return what a version that was asked for serves, once it is ready.

        Raises:
            ModelError: It was refused.
            ServiceError: Its server did not start, or not in time.
        """
        kept = self._kept[version]
        kept.decided.wait(seconds)
        server = kept.server
        if server.served is not None:
            return server.served
        if kept.error is not None:
            raise kept.error
        detail = server.status.detail or "it is still starting"
        raise ServiceError(
            f"the server of version {version.version} is not ready after {seconds:g} s: {detail}"
        )


class _Kept(threading.Thread):
    """One version's server, from the export to its end."""

    def __init__(
        self,
        version: Version,
        export: Callable[[int], Export],
        program: Callable[[Export, int, int], Program],
    ) -> None:
        super().__init__(name=f"server of version {version.version}", daemon=True)
        self.server = Server(ServerStatus("starting"))
        self.handle: Handle | None = None
        self.error: PlatformError | None = None
        self.decided = threading.Event()
        """Ready or failed."""
        self._version, self._export, self._program = version, export, program
        self._leave = threading.Event()

    def let_go(self) -> None:
        """End the server, also one that is starting; does not wait."""
        self._leave.set()

    def run(self) -> None:
        """Export, start, keep."""
        try:
            exported = self._exported()
            if exported is not None:
                self._serve(exported)
        except PlatformError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 (what a thread raises is seen by nobody)
            _LOG.exception("%s", self.name)
            self._failed(ServiceError(f"{self.name} cannot be started: {shorten(error)}"))

    def _exported(self) -> Export | None:
        """Return the version as it is served; None when it was let go meanwhile."""
        while not self._leave.is_set():
            try:
                exported = self._export(self._version.version)
            except NotFoundError:
                raise
            except ServiceError as error:
                if not self.server.status.detail:
                    _LOG.warning("%s waits: %s", self.name, error)
                self.server = Server(ServerStatus("starting", detail=str(error)))
                self._leave.wait(_PAUSE_SECONDS)
                continue
            exported.refuse_other(self._version.digest)
            return exported
        return None

    def _serve(self, exported: Export) -> None:
        with Supervisor() as supervisor:
            for attempt in range(1, _STARTS + 1):
                port = free_port()
                program = self._program(exported, port, free_port())
                try:
                    self.handle = supervisor.start(self._or_leaving(program))
                    break
                except ServiceError as error:
                    if self._leave.is_set():
                        return
                    if attempt == _STARTS:
                        raise
                    _LOG.warning("%s: %s; tried again", self.name, error)
            if self._leave.is_set():
                return
            url = f"http://{HOST}:{port}"
            self.server = Server(ServerStatus("ready", url), exported.served)
            self.decided.set()
            self._leave.wait()

    def _or_leaving(self, program: Program) -> Program:
        """Return the program with a start that is not waited for once it is let go."""
        ready = program.ready
        return dataclasses.replace(program, ready=lambda: self._leave.is_set() or ready())

    def _failed(self, error: PlatformError) -> None:
        _LOG.warning("%s failed: %s", self.name, error)
        self.error = error
        self.server = Server(ServerStatus("failed", detail=str(error)))
        self.decided.set()
