"""All that the operator acts on: a real cluster, registry, Redis and database; small servers.

The operator runs as a process on this machine, as one of its replicas would in a pod; the model
servers run in pods, where a stub answers as the registered models do. Gateways are said to follow
every route.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.mlflow_server import mlflow_server
from local.processes import free_port
from local.redis_server import redis_server
from mlplatform.clients.kubernetes import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    MODEL_ROLLOUTS,
    Cluster,
    Object,
)
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Route
from mlplatform.ledger import Ledger
from mlplatform.settings import RegistrySettings
from serving.route import RouteStore, acknowledgement_key
from tests.conftest import ROOT
from tests.loop.small_platform import USECASE, SmallPlatform, small_platform

NAME = "flight-delay"
IMAGE = os.environ.get(
    "MLPLATFORM_TEST_PYTHON_IMAGE", "localhost:5000/library/python:3.11-slim-bookworm"
)
"""Any image with a python3 for the stubs."""
PATIENCE = 300.0
"""Seconds after which what is waited for will not come, however busy the machine."""
_HERE = Path(__file__).parent


@dataclass
class Operator:
    """One replica, as a process."""

    process: "subprocess.Popen[str]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")


@dataclass
class Stage:
    """The surroundings of one use case."""

    cluster: Cluster
    platform: SmallPlatform
    registry: Registry
    redis: RedisSync
    environment: dict[str, str]
    weights: dict[str, float] = field(default_factory=dict)
    replicas: int = 0

    @contextlib.contextmanager
    def operator(self, **environment: str) -> Iterator[Operator]:
        """Run a replica for the length of the block, and end it as a kubelet does."""
        self.replicas += 1
        log = self.platform.workspace.root / f"operator-{self.replicas}.log"
        mine = {
            "MLPLATFORM_OPERATOR_IDENTITY": f"replica-{self.replicas}",
            "MLPLATFORM_OPERATOR_HEALTH_PORT": str(free_port()),
            "MLPLATFORM_OPERATOR_EXPORTS": str(log.with_suffix("")),
            **environment,
        }
        with log.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.operator"],
                cwd=ROOT, env=os.environ | self.environment | mine, stdout=out, stderr=out,
                text=True,
            )  # fmt: skip
            try:
                yield Operator(process, log)
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise

    def register(self, weight: float, *, served: bool = True) -> int:
        """Register a model, by this name too; return its version."""
        found = self.platform.register(self.registry, weight, tag=str(time.monotonic_ns()))
        if served:
            self.weights[str(found.version)] = weight
            self._put("stub", self._stub())
        self.registry.set_alias(USECASE, "challenger", found.version)
        return found.version

    def prepare(self) -> None:
        """Put what the chart would into the namespace."""
        text = (_HERE / "template.yaml").read_text(encoding="utf-8").replace("IMAGE", IMAGE)
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {"ports": [{"name": "http", "port": 8000, "targetPort": "http"}]},
        }
        template = {"deployment.yaml": text, "service.yaml": json.dumps(service)}
        self._put("mlplatform-triton", template)
        self._put("stub", self._stub())

    @property
    def object(self) -> Object:
        return self.cluster.get(MODEL_ROLLOUTS, NAME)

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.object.get("status") or {})

    @property
    def route(self) -> Route | None:
        with contextlib.closing(RouteStore(self.redis.address.url)) as routes:
            return routes.read(USECASE)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.environment["MLPLATFORM_LEDGER_URL"])

    def ask(self, **spec: Any) -> None:
        self.cluster.patch(MODEL_ROLLOUTS, NAME, {"spec": spec})

    def order(self, action: str, **more: Any) -> None:
        """Give an order, with the next number."""
        last = self.object["spec"].get("order", {}).get("id", 0)
        self.ask(order={"id": last + 1, "action": action, **more})

    def servers(self) -> set[str]:
        labels = {"app.kubernetes.io/component": "triton"}
        found = self.cluster.list(DEPLOYMENTS, labels)
        return {one["metadata"]["name"].rpartition("-")[0] for one in found}

    def events(self) -> list[tuple[str, str]]:
        found = self.cluster.list(EVENTS, fields=f"involvedObject.name={NAME}")
        found.sort(key=lambda one: str(one["metadata"]["creationTimestamp"]))
        return [(one["reason"], one["message"]) for one in found]

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, json.dumps(self._shown(), indent=1)
            time.sleep(0.1)

    def phase(self, *phases: str) -> Callable[[], bool]:
        return lambda: self.status.get("phase") in phases

    def follow(self, stop: threading.Event) -> None:
        """Be a gateway that follows every route."""
        key = acknowledgement_key(USECASE, "one")
        with contextlib.closing(RouteStore(self.redis.address.url)) as routes:
            while not stop.wait(0.1):
                route = routes.read(USECASE)
                if route is not None:
                    self.redis.execute("SET", key, str(route.epoch), "PX", "5000")

    def _shown(self) -> dict[str, Any]:
        return {key: value for key, value in self.status.items() if key != "rollout"}

    def _stub(self) -> dict[str, str]:
        script = (_HERE / "server.py").read_text(encoding="utf-8")
        return {"server.py": script, "weights.json": json.dumps(self.weights)}

    def _put(self, name: str, data: dict[str, str]) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": data,
        }
        self.cluster.apply(CONFIG_MAPS, body, "mlplatform-tests")


@contextlib.contextmanager
def staged(cluster: Cluster, root: Path) -> Iterator[Stage]:
    """Start what the operator acts on, with the first version registered."""
    platform = small_platform(root)
    workspace = platform.workspace
    stop = threading.Event()
    with (
        mlflow_server(workspace.mlflow) as mlflow,
        redis_server(root / "redis", guarded=False) as server,
        connect(server.url) as redis,
    ):
        registry = Registry(RegistrySettings(tracking_uri=mlflow.url))
        environment = {
            "MLPLATFORM_OPERATOR_NAMESPACE": cluster.namespace,
            "MLPLATFORM_OPERATOR_ADDRESS": "ip",
            "MLPLATFORM_OPERATOR_REGISTRY_SECONDS": "1",
            "MLPLATFORM_OPERATOR_TICK_SECONDS": "0.2",
            "MLPLATFORM_OPERATOR_LEASE_SECONDS": "6",
            "MLPLATFORM_OPERATOR_RENEW_SECONDS": "1",
            "MLPLATFORM_LEDGER_URL": workspace.ledger_url,
            "MLPLATFORM_REDIS_URL": server.url,
            "MLPLATFORM_REGISTRY_TRACKING_URI": mlflow.url,
            "MLPLATFORM_SIGNING_PUBLIC_KEY": str(workspace.keys[1]),
            "MLPLATFORM_ARCHIVE_ROOT": str(workspace.predictions),
        }
        stage = Stage(cluster, platform, registry, redis, environment)
        first = registry.by_alias(USECASE, "challenger")
        assert first is not None
        stage.weights = {str(first.version): -0.01}
        stage.prepare()
        gateway = threading.Thread(target=stage.follow, args=(stop,), name="gateway")
        gateway.start()
        try:
            yield stage
        finally:
            stop.set()
            gateway.join()
