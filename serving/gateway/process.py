"""Processes of the gateway: workers that share the port, how they start and how they end.

The first process reads the specs and forks the workers; it answers nothing itself. At SIGTERM it
first lets the workers say that they are going: /readyz turns 503 and every answer closes its
connection, while new ones are still taken, so that clients and load balancers move on without a
broken connection. Then the workers stop to accept, finish what is open, and drain the log.

The log does not wait for connections: a client that does not read its answer keeps one open for as
long as it likes. When no request is worked on any more a worker drains the log and takes back its
acknowledgement; a request that comes later is refused, for its row could not be kept. A worker
whose connections have not ended by then ends without them, which the status says.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import multiprocessing
import os
import resource
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from feature_repo.catalog import ServingCode
from mlplatform.clients.redis_link import RedisLink
from mlplatform.errors import ServiceError, shorten
from mlplatform.settings.serving import GatewaySettings
from serving.gateway import openapi
from serving.gateway.app import Application, Connection, Scope
from serving.gateway.features import FeatureStore
from serving.gateway.metrics import Metrics, forget_the_dead
from serving.gateway.service import UseCaseService
from serving.predictions.log import PredictionLog

_LEAVING_SECONDS: Final = 1.0
"""Between SIGTERM and the end of accepting: ten times a client's pause at 10 requests/s."""
_HEAD_MS: Final = 5_000
"""For the head of a request; slower ones hold a connection for nothing."""
_CONNECTIONS: Final = 4096
"""Open in one worker, or waiting to be accepted; most are idle ones, kept alive. One more waits."""
_LEAST_CONNECTIONS: Final = 128
_OTHER_FILES: Final = 256
"""Open in a worker besides: Redis, 8 connections to each model server, spill, metrics."""
_CLOSING_SECONDS: Final = 0.5
"""From the end of accepting until every open connection knows: it takes milliseconds."""
_LOOK_SECONDS: Final = 0.05
"""Between two looks whether the worker is to end, or its last request has ended."""
_LEAST_DRAIN_SECONDS: Final = 0.5
"""For the log, also where open requests have taken all of the time; then rows are spilled."""
_MARGIN_SECONDS: Final = 5
"""Beyond the time to drain, after which a worker that hangs is killed."""
_STAYS, _LEAVES, _CLOSES = 0, 1, 2
"""What the first process tells the workers: nothing, to send clients away, to end."""

_REFUSAL: Final = (
    b'{"error":{"message":"the gateway is ending; ask again","field":null,"row":null}}'
)
_REFUSAL_HEADERS: Final = [("content-type", "application/json"), ("connection", "close")]

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a worker needs to start; made before the workers are forked."""

    settings: GatewaySettings
    redis_url: str
    version: str
    """Of the code."""
    codes: Mapping[str, ServingCode]


class Worker:
    """One worker process: granian calls it to start, for each request, and to end."""

    def __init__(self, plan: Plan, stage: Callable[[], int]) -> None:
        self._parent = os.getppid()
        _leave_the_group()
        self._plan, self._stage = plan, stage
        self._links: list[RedisLink] = []
        self._services: list[UseCaseService] = []
        self._application: Application | None = None
        self._open = 0
        """Requests that are worked on; a connection whose answer waits to be read has none."""
        self._until = 0.0
        """When the worker should have ended, on the monotonic clock; 0: it stays."""
        self._failed = False
        self._watcher: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start, before the first request."""
        loop.run_until_complete(self._start())
        gc.collect()
        gc.freeze()  # what lives as long as the process is never looked at again

    async def __rsgi__(self, scope: Scope, connection: Connection) -> None:
        """Answer a request."""
        if self._ending is not None:
            with contextlib.suppress(RuntimeError):  # the client has gone
                connection.response_bytes(503, _REFUSAL_HEADERS, _REFUSAL)
            return
        self._open += 1
        try:
            await self._application(scope, connection)  # type: ignore[misc]  # started
        finally:
            self._open -= 1

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """End, after the last connection."""
        if self._watcher is not None:
            self._watcher.cancel()
        loop.run_until_complete(self._end())

    async def _start(self) -> None:
        plan = self._plan
        forget_the_dead()
        # No other process has or had this name: rows of the log are numbered under it.
        gateway = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        reads = RedisLink(plan.redis_url, name=f"features-{gateway}")
        control = RedisLink(plan.redis_url, name=f"control-{gateway}")
        self._links = [reads, control]
        for link in self._links:
            await link.start()
        store = FeatureStore(reads)
        metrics = Metrics({name: code.spec.serving for name, code in plan.codes.items()})
        for name, code in plan.codes.items():
            log = PredictionLog(plan.redis_url, name, gateway, plan.settings.spill)
            service = UseCaseService(code, gateway, store, control, log, metrics, self._fail)
            await service.start()
            self._services.append(service)
        described = openapi.description(
            {name: code.spec for name, code in plan.codes.items()}, plan.version
        )
        self._application = Application(
            {service.name: service for service in self._services},
            metrics,
            msgspec.json.encode(described),
            plan.version,
            plan.settings.max_body_bytes,
            lambda: self._stage() != _STAYS,
        )
        self._watcher = asyncio.create_task(self._watch(), name="the watch for the end")
        self._watcher.add_done_callback(self._watched)
        _log.info("gateway %s answers %s", gateway, ", ".join(plan.codes))

    async def _watch(self) -> None:
        """End when it is time to, whatever the connections do."""
        while not (self._failed or self._stage() == _CLOSES or os.getppid() != self._parent):  # noqa: ASYNC110  # shared memory and counts tell nobody
            await asyncio.sleep(_LOOK_SECONDS)
        self._until = time.monotonic() + self._plan.settings.drain_seconds
        await asyncio.sleep(_CLOSING_SECONDS)
        while self._open and time.monotonic() < self._until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        await self._end()
        await asyncio.sleep(max(self._until - time.monotonic(), _CLOSING_SECONDS))
        _log.warning("the worker ends although connections are open: their clients do not read")
        os._exit(1)

    def _watched(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("%s has ended", task.get_name(), exc_info=task.exception())
            os._exit(1)

    def _fail(self) -> None:
        """End this worker, in order; the first process starts another one."""
        if not self._failed and self._ending is None:
            _log.critical("the worker ends: it cannot work as it should")
            self._failed = True
            os.kill(os.getpid(), signal.SIGTERM)

    async def _end(self) -> None:
        """Keep the log's rows and let go of everything; asked twice, it is done once."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._stop())
        await asyncio.wait({self._ending})
        self._ending.result()

    async def _stop(self) -> None:
        seconds = self._plan.settings.drain_seconds
        if self._until:
            seconds = max(self._until - time.monotonic(), _LEAST_DRAIN_SECONDS)
        await asyncio.gather(*(service.stop(seconds) for service in self._services))
        for link in self._links:
            await link.close()
        _log.info("drained")


def _leave_the_group() -> None:
    """Take this process out of its parent's group, and end it when its parent is gone.

    A signal to the group (Ctrl-C, a supervisor) then reaches the first process alone, which ends
    the workers in their order.
    """
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class _Server(MPServer):
    """Granian's server, which says that it is going before it goes."""

    def __init__(self, stage: Any, **options: Any) -> None:
        super().__init__(**options)
        self._stage = stage
        self.broken = False
        """Whether a worker was killed or ended with an error."""

    def signal_handler_interrupt(self, *_: Any, **__: Any) -> None:
        """Begin to end; a second signal does not wait."""
        if self._stage.value != _STAYS:
            self._close()
            return
        self._stage.value = _LEAVES
        timer = threading.Timer(_LEAVING_SECONDS, self._close)
        timer.daemon = True
        timer.start()

    def _close(self) -> None:
        self._stage.value = _CLOSES
        super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _stop_workers(self) -> None:
        workers = [worker.inner for worker in self.wrks]
        super()._stop_workers()  # type: ignore[no-untyped-call]
        # One that had not installed its handlers yet ends by SIGTERM itself, and had nothing.
        self.broken = any(w.exitcode not in {0, None, -signal.SIGTERM} for w in workers)


def serve(plan: Plan) -> bool:
    """Answer requests until SIGTERM or SIGINT.

    Returns:
        Whether all workers have ended by themselves, with all their connections.

    Raises:
        ServiceError: The address cannot be listened on.
    """
    settings = plan.settings
    _check_address(settings.host, settings.port)
    connections = allowed_connections()
    multiprocessing.set_start_method("fork", force=True)  # workers share what is loaded
    stage = multiprocessing.RawValue("b", _STAYS)
    server = _Server(
        stage,
        target="serving.gateway",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=connections,
        backpressure=connections,
        http1_settings=HTTP1Settings(header_read_timeout=_HEAD_MS),
        log_level=LogLevels.warning,
        log_dictconfig={"loggers": {"_granian": {"handlers": [], "propagate": True}}},
        respawn_failed_workers=True,
        workers_kill_timeout=int(settings.drain_seconds) + _MARGIN_SECONDS,
    )

    def worker() -> Any:
        return Worker(plan, lambda: int(stage.value))

    server.serve(target_loader=worker, wrap_loader=False)
    return not server.broken


def allowed_connections() -> int:
    """Raise the limit of open files as far as it is needed; return the connections it allows."""
    wanted = _CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _CONNECTIONS
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(_LEAST_CONNECTIONS, soft - _OTHER_FILES)


def _check_address(host: str, port: int) -> None:
    """Refuse an address that another process listens on.

    The workers share their port, so the kernel would let a second gateway share it too: each would
    get a part of the requests.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past TIME_WAIT
            probe.bind(address)
    except OSError as error:
        used = (
            "is in use: another process listens there"
            if error.errno == errno.EADDRINUSE
            else (f"cannot be listened on: {shorten(error)}")
        )
        raise ServiceError(
            f"{host}:{port} {used}; set MLPLATFORM_GATEWAY_HOST and MLPLATFORM_GATEWAY_PORT to a "
            "free address of this machine"
        ) from error
