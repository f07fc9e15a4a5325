"""Processes of the gateway: workers that share the port, how they start and how they end.

The first process reads the specs and forks the workers; it answers nothing itself. At SIGTERM it
first lets the workers say that they are going: /readyz turns 503 and every answer closes its
connection, while new ones are still taken, so that clients and load balancers move on without a
broken connection. Then the workers stop to accept, finish what is open, and drain the log.
"""

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import threading
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
_BACKLOG: Final = 1024
"""Connections that wait or are open in one worker; most are idle ones, kept alive."""
_MARGIN_SECONDS: Final = 5
"""Beyond the time to drain, after which a worker that hangs is killed."""

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

    def __init__(self, plan: Plan, draining: Callable[[], bool]) -> None:
        _leave_the_group()
        self._plan, self._draining = plan, draining
        self._links: list[RedisLink] = []
        self._services: list[UseCaseService] = []
        self._application: Application | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start, before the first request."""
        loop.run_until_complete(self._start())
        gc.collect()
        gc.freeze()  # what lives as long as the process is never looked at again

    def __rsgi__(self, scope: Scope, connection: Connection) -> Any:
        """Answer a request."""
        return self._application(scope, connection)  # type: ignore[misc]  # started

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """End, after the last request."""
        loop.run_until_complete(self._stop())

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
            service = UseCaseService(code, gateway, store, control, log, metrics)
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
            self._draining,
        )
        _log.info("gateway %s answers %s", gateway, ", ".join(plan.codes))

    async def _stop(self) -> None:
        seconds = self._plan.settings.drain_seconds
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

    def __init__(self, draining: Any, **options: Any) -> None:
        super().__init__(**options)
        self._draining = draining

    def signal_handler_interrupt(self, *arguments: Any, **options: Any) -> None:
        """Begin to end; a second signal does not wait."""
        go: Callable[..., None] = super().signal_handler_interrupt
        if self._draining.value:
            go(*arguments, **options)
            return
        self._draining.value = 1
        timer = threading.Timer(_LEAVING_SECONDS, go)
        timer.daemon = True
        timer.start()


def serve(plan: Plan) -> None:
    """Answer requests until SIGTERM or SIGINT; returns when all workers have drained."""
    settings = plan.settings
    multiprocessing.set_start_method("fork", force=True)  # workers share what is loaded
    draining = multiprocessing.RawValue("b", 0)
    server = _Server(
        draining,
        target="serving.gateway",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=_HEAD_MS),
        log_level=LogLevels.warning,
        log_dictconfig={"loggers": {"_granian": {"handlers": [], "propagate": True}}},
        respawn_failed_workers=True,
        workers_kill_timeout=int(settings.drain_seconds) + _MARGIN_SECONDS,
    )

    def worker() -> Any:
        return Worker(plan, lambda: bool(draining.value))

    server.serve(target_loader=worker, wrap_loader=False)
