"""The serving half of the platform on one machine: every server real, supervised, on loopback.

Redis with the features known at a moment, a Triton for each model version that the last rollout
needs, the gateway in front, the archiver behind, MLflow's registry beside, and the rollout's driver
in a thread. Where nobody has rolled anything out yet, the first registered version becomes the
champion, and the ledger says so: there is nothing that it could be compared with live.

It refuses to start without a registered version, and beside other servers of the same workspace.
"""

import contextlib
import http.client
import logging
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from feature_repo import layout as layouts
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from feature_repo.materialize import materialize
from local.clock import Clock
from local.mlflow_server import mlflow_server
from local.processes import free_port
from local.redis_server import redis_program
from local.rollout_orders import Orders
from local.server_pool import ServerPool
from local.supervisor import Handle, Program, Supervisor
from local.triton_server import triton_program
from local.workspace import Workspace
from mlplatform.clients.redis_sync import connect
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Arm, Decision, ModelRef, Rollout, Route, ServedModel
from mlplatform.contracts.rollout import Version
from mlplatform.errors import NotFoundError, ServiceError, shorten
from mlplatform.ledger import Ledger
from mlplatform.settings import RegistrySettings
from serving.predictions import stream
from serving.rollout import machine
from serving.rollout.aliases import RegistryAliases
from serving.rollout.driver import Driver
from serving.rollout.effects import EnsureServers
from serving.rollout.evidence import EvidenceReader
from serving.rollout.store import RolloutStore
from serving.route import RouteStore
from serving.triton.export import Export, export

Say = Callable[[str, str], None]
"""Prints a line under the name of a step."""

_LOG: Final = logging.getLogger("mlplatform.local")
_HOST: Final = "127.0.0.1"
_CHAMPION: Final = "champion"
_CHALLENGER: Final = "challenger"
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks the loopback address itself, whatever proxy the environment names."""
_READY_SECONDS: Final = 30.0
"""Longest wait until the gateway follows the route; it asks ten times a second."""
_SERVER_SECONDS: Final = 120.0
"""Longest wait for the first champion: its export and the start of its server take about five."""
_TICK_SECONDS: Final = 0.25
"""Between two looks of the driver: a verdict is acted on in the same look."""


@dataclass(frozen=True)
class Serving:
    """A running platform."""

    usecase: str
    url: str
    """Of the gateway."""
    redis_url: str
    model: ServedModel
    """That served all traffic, or its greater part, when the servers started."""
    redis: Handle
    gateway: Handle
    archiver: Handle
    pool: ServerPool
    registry: Registry
    rollouts: RolloutStore
    orders: Orders
    driver: Driver
    clock: Clock

    @property
    def triton(self) -> Handle:
        """The server of `model`."""
        return self.pool.handle(_version(self.model))

    @property
    def rollout(self) -> Rollout | None:
        """The newest rollout, as it is stored."""
        stored = self.rollouts.read(self.usecase)
        return None if stored is None else stored.rollout

    def start_rollout(
        self,
        version: int | None = None,
        *,
        actor: str = "local",
        reason: str = "",
        again: bool = False,
    ) -> Rollout:
        """Ask for a rollout, of the newest version by default; see `Orders.start`."""
        return self.orders.start(self.registry, version, actor=actor, reason=reason, again=again)


@contextlib.contextmanager
def serving(
    workspace: Workspace,
    code: UseCaseCode,
    as_of: datetime,
    say: Say,
    *,
    port: int | None = None,
) -> Iterator[Serving]:
    """Serve a use case for the length of the block, and drive its rollouts.

    What serves is what the last rollout says; one that is under way goes on.

    Args:
        workspace: Where a run has left a registered model and its features.
        code: The use case. Its spec and its labels count, for new rollouts and their evidence.
        as_of: The online store starts with the features known at this moment; the time of the
            servers runs on from it.
        say: Tells what is being done.
        port: Of the gateway; None takes a free one.

    Raises:
        PlatformError: No version is registered, it is refused, or a server did not start.
    """
    usecase = code.spec.name
    with contextlib.ExitStack() as stack:
        stack.enter_context(workspace.serving_lock())
        clock = Clock(as_of, workspace.clock)
        mlflow = stack.enter_context(mlflow_server(workspace.mlflow))
        registry = Registry(RegistrySettings(tracking_uri=mlflow.url))
        ledger, rollouts = Ledger(workspace.ledger_url), RolloutStore(workspace.ledger_url)
        stored = rollouts.read(usecase)
        versions = (
            (first_champion(registry, ledger, usecase),)
            if stored is None
            else _needed(stored.rollout)
        )
        pool = stack.enter_context(_pool(workspace, code, registry))
        pool.ensure(versions)

        behind = stack.enter_context(Supervisor())
        redis_port, port = free_port(), free_port() if port is None else port
        redis = behind.start(redis_program(workspace.redis, redis_port))
        redis_url = f"redis://{_HOST}:{redis_port}/0"
        environment = workspace.serving_environment(redis_url, port, usecase)
        _start_over(redis_url, usecase, environment)
        store = stores.open_store(str(workspace.data), redis_url)
        stores.apply(store)
        rows = materialize(store, usecase, as_of)
        say("materialize", f"{sum(rows.values()):,} rows of {len(rows)} views in Redis")

        served = pool.wait(versions[0], _SERVER_SECONDS)
        say("triton", f"version {served.version}, signature verified, gives its golden answers")
        routes = RouteStore(redis_url)
        stack.callback(routes.close)
        if stored is None:
            url = pool.look(versions[0]).status.url
            arm = Arm(name=_CHAMPION, weight=1, url=url, model=served)
            routes.publish(Route(usecase=usecase, epoch=1, salt=usecase, arms=(arm,)))
        driver = Driver(
            usecase,
            rollouts,
            routes,
            pool,
            RegistryAliases(registry, rollouts, workspace.aliases_lock),
            ledger,
            EvidenceReader(code.spec, workspace.predictions, labels_of(code), clock.now),
            clock.now,
        )

        # The archiver outlives the gateway, whose last rows it takes.
        front = stack.enter_context(Supervisor())
        archiver = front.start(_archiver(workspace, environment))
        gateway = front.start(_gateway(workspace, port, environment))
        stack.enter_context(_driven(driver, usecase))
        url = f"http://{_HOST}:{port}"
        _wait_for_route(url, workspace)
        say("gateway", f"{url}/v1/{usecase}/score")
        orders = Orders(code.spec, rollouts, ledger, clock.now, lambda: True)
        yield Serving(
            usecase, url, redis_url, served, redis, gateway, archiver, pool, registry, rollouts,
            orders, driver, clock,
        )  # fmt: skip


def _pool(workspace: Workspace, code: UseCaseCode, registry: Registry) -> ServerPool:
    name = code.spec.name
    layout = layouts.load(name)
    request_features = {feature for group in code.groups.values() for feature in group}

    def exported(version: int) -> Export:
        return export(
            registry,
            name,
            version,
            spec=code.spec,
            layout=layout,
            request_features=request_features,
            public_key=workspace.keys[1],
            target="embedded",
            out=workspace.models,
        )

    def program(exported: Export, port: int, metrics_port: int) -> Program:
        return triton_program(exported, port, metrics_port, root=workspace.root / "triton")

    return ServerPool(exported, program)


def labels_of(code: UseCaseCode) -> Callable[[datetime, datetime], pl.DataFrame]:
    """Return how the evidence reads the labels of a use case, from its source."""
    # An event may be filed before the window that its prediction falls into; never after.
    return lambda start, now: code.labels(code.read(start - timedelta(days=1), now))


def _version(model: ServedModel | ModelRef) -> Version:
    return Version(version=model.version, digest=model.digest)


def _needed(rollout: Rollout) -> tuple[Version, ...]:
    """Return the versions that a rollout needs servers of, the one that serves first."""
    return next(
        effect.versions for effect in machine.effects(rollout) if isinstance(effect, EnsureServers)
    )


def first_champion(registry: Registry, ledger: Ledger, usecase: str) -> Version:
    """Return the champion; the newest challenger becomes it if there is none.

    Raises:
        NotFoundError: No version is registered.
    """
    champion = registry.by_alias(usecase, _CHAMPION)
    if champion is None:
        champion = registry.by_alias(usecase, _CHALLENGER)
        if champion is None:
            raise NotFoundError(
                f"no version of {usecase} is registered: run `make demo` and see why its gates "
                "refused the candidates"
            )
        _promotefirst_champion(registry, ledger, champion)
    return _version(champion)


def _promotefirst_champion(registry: Registry, ledger: Ledger, ref: ModelRef) -> None:
    """Promote the first version of all; running it twice adds nothing."""
    decision = Decision(
        key=f"{ref.name}/route/{ref.version}/{ref.signature[:16]}",
        usecase=ref.name,
        kind="route",
        subject=str(ref.version),
        verdict="promoted",
        reason="the first version: no champion to compare it with on live traffic",
        evidence={"digest": ref.digest, "signature": ref.signature},
        actor="local",
        at=datetime.now(UTC),
    )
    ledger.append(decision)
    registry.set_alias(ref.name, _CHAMPION, ref.version)


@contextlib.contextmanager
def _driven(driver: Driver, usecase: str) -> Iterator[None]:
    """Let the driver look, act and look again in a thread of its own, for the length of the block.

    A program that it starts has a thread of its own again (see `ServerPool`).
    """
    stop = threading.Event()

    def drive() -> None:
        trouble = ""
        while not stop.is_set():
            try:
                driver.tick()
                trouble = ""
            except Exception as error:  # noqa: BLE001  # one that ends leaves a bad version there
                if trouble != (trouble := shorten(error)):
                    _LOG.exception("the rollout of %s could not be driven", usecase)
            stop.wait(_TICK_SECONDS)

    thread = threading.Thread(target=drive, name=f"rollout driver of {usecase}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _start_over(redis_url: str, usecase: str, environment: dict[str, str]) -> None:
    """Empty Redis of another moment's features; rows of the log that are left go to the archive."""
    redis = connect(redis_url)
    if redis.execute("XLEN", stream.key(usecase)):
        command = [sys.executable, "-m", "serving.predictions", "--once"]
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise ServiceError(
                f"the prediction log that an earlier run left cannot be archived "
                f"({shorten(error.stderr)}): free the disk, then start again"
            ) from error
    redis.execute("FLUSHALL")


def _gateway(workspace: Workspace, port: int, environment: dict[str, str]) -> Program:
    return Program(
        name="gateway",
        command=[sys.executable, "-m", "serving.gateway"],
        log=workspace.root / "gateway.log",
        # Alive, not ready: while Triton is away it still answers, by the rules.
        ready=lambda: _answers(f"http://{_HOST}:{port}/livez"),
        env=environment,
        port=port,
    )


def _archiver(workspace: Workspace, environment: dict[str, str]) -> Program:
    ready = workspace.root / "archiver.ready"
    ready.unlink(missing_ok=True)  # of one that was killed
    return Program(
        name="archiver",
        command=[sys.executable, "-m", "serving.predictions", "--ready", str(ready)],
        log=workspace.root / "archiver.log",
        ready=ready.exists,
        env=environment,
    )


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=1) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 (HTTP's own)
    except (OSError, http.client.HTTPException):
        return False


def _wait_for_route(url: str, workspace: Workspace) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not _answers(f"{url}/readyz"):
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the gateway at {url} is alive but not ready after {_READY_SECONDS:g} s: "
                f"see {workspace.root / 'gateway.log'} and {url}/readyz"
            )
        time.sleep(0.05)
