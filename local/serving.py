"""The serving half of the platform on one machine: every server real, supervised, on loopback.

Redis with the features known at a moment, the model version in a Triton of its own, the gateway in
front, the archiver behind. A version that nobody has promoted yet becomes the first champion here,
and the ledger says so: there is nothing that it could be compared with live.

It refuses to start without a registered version.
"""

import contextlib
import http.client
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from feature_repo import layout as layouts
from feature_repo import store as stores
from feature_repo.catalog import UseCaseCode
from feature_repo.materialize import materialize
from local.mlflow_server import mlflow_server
from local.redis_server import free_port, redis_program
from local.supervisor import Handle, Program, Supervisor
from local.triton_server import triton_program
from local.workspace import Workspace
from mlplatform.clients.redis_sync import connect
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Arm, Decision, ModelRef, Route, ServedModel
from mlplatform.errors import NotFoundError, ServiceError, shorten
from mlplatform.ledger import Ledger
from mlplatform.settings import RegistrySettings
from serving.predictions import stream
from serving.route import RouteStore
from serving.triton.export import Export, export

Say = Callable[[str, str], None]
"""Prints a line under the name of a step."""

_HOST: Final = "127.0.0.1"
_CHAMPION: Final = "champion"
_CHALLENGER: Final = "challenger"
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks the loopback address itself, whatever proxy the environment names."""
_READY_SECONDS: Final = 30.0
"""Longest wait until the gateway follows the route; it asks ten times a second."""


@dataclass(frozen=True)
class Serving:
    """A running platform."""

    usecase: str
    url: str
    """Of the gateway."""
    redis_url: str
    model: ServedModel
    redis: Handle
    triton: Handle
    gateway: Handle
    archiver: Handle


@contextlib.contextmanager
def serving(
    workspace: Workspace,
    code: UseCaseCode,
    as_of: datetime,
    say: Say,
    *,
    port: int | None = None,
) -> Iterator[Serving]:
    """Serve the champion of a use case for the length of the block.

    Args:
        workspace: Where a run has left a registered model and its features.
        code: The use case.
        as_of: The online store starts with the features known at this moment.
        say: Tells what is being done.
        port: Of the gateway; None takes a free one.

    Raises:
        PlatformError: No version is registered, it is refused, or a server did not start.
    """
    usecase = code.spec.name
    exported = _export(workspace, code, say)
    with Supervisor() as supervisor:
        redis_port, port = free_port(), free_port() if port is None else port
        redis = supervisor.start(redis_program(workspace.redis, redis_port))
        redis_url = f"redis://{_HOST}:{redis_port}/0"
        environment = workspace.serving_environment(redis_url, port, usecase)
        _start_over(redis_url, usecase, environment)
        store = stores.open_store(str(workspace.data), redis_url)
        stores.apply(store)
        rows = materialize(store, usecase, as_of)
        say("materialize", f"{sum(rows.values()):,} rows of {len(rows)} views in Redis")

        triton_port = free_port()
        program = triton_program(exported, triton_port, free_port(), root=workspace.root / "triton")
        triton = supervisor.start(program)
        served = exported.served
        say("triton", f"version {served.version} gives its golden answers at port {triton_port}")
        _publish(redis_url, usecase, served, f"http://{_HOST}:{triton_port}")

        # The archiver outlives the gateway, whose last rows it takes.
        archiver = supervisor.start(_archiver(workspace, environment))
        gateway = supervisor.start(_gateway(workspace, port, environment))
        url = f"http://{_HOST}:{port}"
        _wait_for_route(url, workspace)
        say("gateway", f"{url}/v1/{usecase}/score")
        yield Serving(usecase, url, redis_url, served, redis, triton, gateway, archiver)


def _export(workspace: Workspace, code: UseCaseCode, say: Say) -> Export:
    """Export the champion; the newest challenger becomes it if there is none."""
    name = code.spec.name
    with mlflow_server(workspace.mlflow) as server:
        registry = Registry(RegistrySettings(tracking_uri=server.url))
        champion = registry.by_alias(name, _CHAMPION)
        if champion is None:
            champion = registry.by_alias(name, _CHALLENGER)
            if champion is None:
                raise NotFoundError(
                    f"no version of {name} is registered: run `make demo` and see why its gates "
                    "refused the candidates"
                )
            _first_champion(workspace, registry, champion)
        exported = export(
            registry,
            name,
            champion.version,
            spec=code.spec,
            layout=layouts.load(name),
            request_features={feature for group in code.groups.values() for feature in group},
            public_key=workspace.keys[1],
            target="embedded",
            out=workspace.models,
        )
    say("export", f"version {champion.version}, signature verified, to {exported.folder}")
    return exported


def _first_champion(workspace: Workspace, registry: Registry, ref: ModelRef) -> None:
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
    Ledger(workspace.ledger_url).append(decision)
    registry.set_alias(ref.name, _CHAMPION, ref.version)


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


def _publish(redis_url: str, usecase: str, served: ServedModel, url: str) -> None:
    """Send all traffic to one version."""
    routes = RouteStore(redis_url)
    known = routes.read(usecase)
    arm = Arm(name=_CHAMPION, weight=1, url=url, model=served)
    epoch = 1 if known is None else known.epoch + 1
    routes.publish(Route(usecase=usecase, epoch=epoch, salt=usecase, arms=(arm,)))


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
