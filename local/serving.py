"""The serving half of the platform on one machine: every server real, supervised, on loopback.

Redis with the features known at a moment, a Triton for each model version that the last rollout
needs, the gateway in front, the archiver behind, MLflow's registry beside, and the rollout's driver
in a thread. Where nobody has rolled anything out yet, the first registered version becomes the
champion.

It refuses to start without a registered version, and beside other servers of the same workspace.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from feature_repo import layout as layouts
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from feature_repo.labels import labels_of
from feature_repo.materialize import materialize
from local.clock import Clock
from local.driving import driven
from local.front import archiver_program, gateway_program, start_over, wait_for_route
from local.mlflow_server import mlflow_server
from local.processes import HOST, free_port
from local.redis_server import redis_program
from local.server_pool import ServerPool
from local.supervisor import Handle, Program, Supervisor
from local.triton_server import triton_program
from local.workspace import Workspace
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Arm, Rollout, Route, ServedModel
from mlplatform.contracts.rollout import AT_REST, Version
from mlplatform.ledger import Ledger
from mlplatform.settings import RegistrySettings
from serving.rollout import machine
from serving.rollout.aliases import RegistryAliases
from serving.rollout.desk import Orders
from serving.rollout.driver import Driver
from serving.rollout.effects import EnsureServers
from serving.rollout.evidence import EvidenceReader
from serving.rollout.first_champion import first_champion
from serving.rollout.locks import FileLock
from serving.rollout.store import RolloutStore, Stored
from serving.route import RouteStore
from serving.triton.export import Export, export

Say = Callable[[str, str], None]
"""Prints a line under the name of a step."""

_SERVER_SECONDS: Final = 120.0
"""Longest wait for the first champion: its export and the start of its server take about five."""


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
    registry_url: str
    rollouts: RolloutStore
    orders: Orders
    driver: Driver
    clock: Clock

    @property
    def triton(self) -> Handle:
        """The server of `model`."""
        return self.pool.handle(Version(version=self.model.version, digest=self.model.digest))

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
            servers runs on from it, or from the last turn of a rollout that goes on.
        say: Tells what is being done.
        port: Of the gateway; None takes a free one.

    Raises:
        PlatformError: No version is registered, it is refused, or a server did not start.
    """
    usecase = code.spec.name
    with contextlib.ExitStack() as stack:
        stack.enter_context(workspace.serving_lock())
        mlflow = stack.enter_context(mlflow_server(workspace.mlflow))
        registry = Registry(RegistrySettings(tracking_uri=mlflow.url))
        ledger, rollouts = Ledger(workspace.ledger_url), RolloutStore(workspace.ledger_url)
        stored = rollouts.read(usecase)
        clock = Clock(_time(as_of, stored), workspace.clock)
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
        redis_url = f"redis://{HOST}:{redis_port}/0"
        environment = workspace.serving_environment(redis_url, port, usecase)
        start_over(redis_url, usecase, environment)
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
            arm = Arm(name="champion", weight=1, url=url, model=served)
            routes.publish(Route(usecase=usecase, epoch=1, salt=usecase, arms=(arm,)))
        driver = Driver(
            usecase,
            rollouts,
            routes,
            pool,
            RegistryAliases(registry, rollouts, FileLock(workspace.aliases_lock)),
            ledger,
            EvidenceReader(code.spec, workspace.predictions, labels_of(code), clock.now),
            clock.now,
        )

        # The archiver outlives the gateway, whose last rows it takes.
        front = stack.enter_context(Supervisor())
        archiver = front.start(archiver_program(workspace, environment))
        gateway = front.start(gateway_program(workspace, port, environment))
        stack.enter_context(driven(driver, usecase))
        url = f"http://{HOST}:{port}"
        wait_for_route(url, workspace)
        say("gateway", f"{url}/v1/{usecase}/score")
        orders = Orders(code.spec, rollouts, ledger, clock.now, lambda: True)
        yield Serving(
            usecase, url, redis_url, served, redis, gateway, archiver, pool, registry, mlflow.url,
            rollouts, orders, driver, clock,
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


def _time(as_of: datetime, stored: Stored | None) -> datetime:
    """Return what time it is for the servers: a rollout that goes on is not back before its turns.

    What it has seen since would otherwise lie ahead of it.
    """
    if stored is None or stored.rollout.phase in AT_REST:
        return as_of
    return max(as_of, stored.rollout.entered_at, stored.rollout.story[-1].at)


def _needed(rollout: Rollout) -> tuple[Version, ...]:
    """Return the versions that a rollout needs servers of, the one that serves first."""
    return next(
        effect.versions for effect in machine.effects(rollout) if isinstance(effect, EnsureServers)
    )
