"""A workspace in which nothing was trained: real features of two months, small models of our own.

The models are logistic with one weight for all inputs. What a weight's sign decides is all that the
tests of a rollout need of a model: the same sign is the same decision on every real flight.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Self

import msgspec

from feature_repo import catalog, ingest
from feature_repo import store as stores
from local.clock import Clock
from local.mlflow_server import mlflow_server
from local.traffic import rfc3339, traffic
from local.workspace import Workspace
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Manifest, ModelRef
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.settings import RegistrySettings
from tests.unit.serving.triton.conftest import logistic
from tests.unit.signing.filler import fill

USECASE = "flight_delay"
AS_OF = datetime(2013, 3, 1, 12, tzinfo=UTC)
FEATURES = ("distance_miles", "departure_hour", "scheduled_minutes")
ON_TIME, LATE = -0.01, 0.01
"""Weights with which no flight is called late, and each is. On a busy machine the rules answer some
requests in a model's place; they call few flights late, so the sound models of a test do that too.
"""
SECOND = 1 / 3600
"""Of an hour: a test's plan says seconds where a real one says hours."""


@dataclass(frozen=True)
class SmallPlatform:
    """The workspace, its use case, and whose versions it has."""

    workspace: Workspace
    code: catalog.UseCaseCode

    def copy(self, root: Path, plan: RolloutPlan) -> Self:
        """Copy the workspace, which nobody uses now; its versions are rolled out by a plan."""
        shutil.copytree(self.workspace.root, root)
        spec = self.code.spec.model_copy(update={"rollout": plan})
        return dataclasses.replace(
            self, workspace=Workspace(root), code=dataclasses.replace(self.code, spec=spec)
        )

    def requests(self, clock: Clock, prefix: str) -> Iterator[bytes]:
        """Yield requests without end, each of another flight, asked at the servers' time."""
        known = list(traffic(self.code, AS_OF, AS_OF + timedelta(hours=3)).events())
        for number in count():
            event = known[number % len(known)]
            day = AS_OF + timedelta(days=number // 9000)
            key = f"{day:%Y-%m-%d}-{event['carrier']}-{number % 9000 + 1}-{event['origin']}"
            yield msgspec.json.encode(
                event
                | {"flight_key": key, "request_id": f"{prefix}-{number}"}
                | {"event_timestamp": rfc3339(clock.now())}
            )

    def register(self, registry: Registry, weight: float, *, tag: str = "") -> ModelRef:
        """Register and sign a model; a tag makes other bytes of the same model."""
        folder = self.workspace.root / "registered" / f"{weight:g}{tag}"
        folder.mkdir(parents=True)
        model = logistic(len(FEATURES), weight=weight)
        model.doc_string = tag
        (folder / signing.MODEL).write_bytes(model.SerializeToString())
        fill(folder)
        digest = signing.file_digest(folder / signing.MODEL)
        run = registry.start_run(USECASE, "test", {}, AS_OF)
        reserved = registry.reserve(USECASE, run, digest=digest, data_digest="d", tags={})
        signing.write_manifest(
            folder,
            Manifest(
                name=USECASE,
                version=reserved.version,
                run_id=run,
                model_digest=digest,
                data_digest="d",
                git_commit="0123abc",
                feature_service=self.code.spec.feature_service,
                features=FEATURES,
                created_at=AS_OF,
            ),
        )
        signature = signing.sign(folder, self.workspace.keys[0])
        registry.upload(reserved, folder, FEATURES)
        return registry.complete(reserved, signature)

    def stored_model(self, digest: str) -> Path:
        """Return the registry's own file of a model that is served."""
        for path in self.workspace.mlflow.rglob(f"signed/{signing.MODEL}"):
            if signing.file_digest(path) == digest:
                return path
        raise FileNotFoundError(f"the registry holds no model {digest}")


def small_platform(root: Path) -> SmallPlatform:
    """Make the workspace: keys, landed events, features, and version 1, the first champion."""
    workspace = Workspace(root)
    workspace.keys[0].parent.mkdir(parents=True)
    signing.create_key_pair(*workspace.keys)
    data = str(workspace.data)
    store = stores.open_store(data)
    stores.apply(store)
    ingest.extend(USECASE, store, data, AS_OF)
    platform = SmallPlatform(workspace, catalog.load(USECASE))
    with mlflow_server(workspace.mlflow) as server:
        registry = Registry(RegistrySettings(tracking_uri=server.url))
        first = platform.register(registry, ON_TIME)
        registry.set_alias(USECASE, "challenger", first.version)
    return platform
