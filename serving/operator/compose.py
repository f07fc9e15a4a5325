"""The composition root of one use case: from settings to its host."""

import contextlib
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from feature_repo import catalog
from feature_repo import layout as layouts
from feature_repo.catalog import UseCaseCode
from feature_repo.labels import labels_of
from mlplatform.clients.kubernetes import CONFIG_MAPS, Cluster, Object
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Rollout
from mlplatform.errors import PlatformError
from mlplatform.ledger import Ledger
from mlplatform.settings import (
    ArchiveSettings,
    LedgerSettings,
    OperatorSettings,
    PlatformSettings,
    RedisSettings,
    RegistrySettings,
    SigningSettings,
)
from serving.operator import template
from serving.operator.checked import Surroundings
from serving.operator.events import Events
from serving.operator.first import First
from serving.operator.host import ACTOR, Host, Parts
from serving.operator.lease import Lease
from serving.operator.registered import Registered
from serving.operator.servers import ClusterServers, addresses
from serving.operator.status import described
from serving.operator.store import ClusterStore
from serving.operator.template import Template
from serving.rollout.aliases import RegistryAliases
from serving.rollout.driver import Driver
from serving.rollout.evidence import EvidenceReader
from serving.rollout.store import RolloutStore
from serving.route import RouteStore
from serving.triton.export import Export, export

_REGISTRY_SECONDS: Final = 10
"""Longest wait for one answer of the registry: whoever waits for it also looks for harm."""


@dataclass(frozen=True)
class Settings:
    """All that the operator is told by its environment."""

    operator: OperatorSettings
    platform: PlatformSettings
    ledger: LedgerSettings
    redis: RedisSettings
    registry: RegistrySettings
    signing: SigningSettings
    archive: ArchiveSettings

    @classmethod
    def load(cls) -> "Settings":
        """Return the settings of the environment; raises SettingsError where one is wrong."""
        registry = RegistrySettings.load()
        timeout = min(registry.timeout_seconds, _REGISTRY_SECONDS)
        return cls(
            OperatorSettings.load(),
            PlatformSettings.load(),
            LedgerSettings.load(),
            RedisSettings.load(),
            registry.model_copy(update={"timeout_seconds": timeout}),
            SigningSettings.load(),
            ArchiveSettings.load(),
        )


def compose(settings: Settings, cluster: Cluster, lease: Lease, usecase: str) -> Host:
    """Return the host of a use case, its threads started.

    Raises:
        PlatformError: The use case is not in this image, or a service is away.
    """
    code = catalog.load(usecase)
    now, registry = settings.platform.clock, Registry(settings.registry)
    ledger, copies = Ledger(settings.ledger.url), RolloutStore(settings.ledger.url)
    routes = RouteStore(settings.redis.url.get_secret_value())

    def made_from() -> Template:
        return template.parse(cluster.get(CONFIG_MAPS, settings.operator.template))

    def describe(rollout: Rollout | None, found: Object) -> Object:
        return described(rollout, host.seen(), found, datetime.now(UTC))

    store = ClusterStore(cluster, copies, lambda: lease.token, describe)
    around = Surroundings(
        cluster,
        usecase,
        _Exporter(settings, code, registry),
        addresses(cluster, made_from, settings.operator.address),
        settings.operator.start_seconds,
    )
    servers = ClusterServers(around, made_from, lambda: store.object(usecase), lease)
    registered = Registered(registry, usecase, settings.operator.registry_seconds)
    driver = Driver(
        usecase,
        store,
        routes,
        servers,
        RegistryAliases(registry, store, lease),
        ledger,
        EvidenceReader(code.spec, settings.archive.root, labels_of(code), now),
        now,
    )
    parts = Parts(
        spec=code.spec, store=store, copies=copies, driver=driver, servers=servers, routes=routes,
        registry=registry, registered=registered, ledger=ledger,
        events=Events(cluster, settings.operator.name), lease=lease, now=now,
    )  # fmt: skip
    first = First(usecase, registry, registered, ledger, servers, routes, ACTOR)
    host = Host(parts, first)
    registered.start()
    return host


class WarmUp(threading.Thread):
    """Loads what hosts will need, which takes many seconds: a replica that waits has the time.

    What cannot be loaded, or is away, is said when it is needed.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="warm-up", daemon=True)
        self._settings = settings
        self.loaded = threading.Event()
        """The code of all use cases is loaded: two threads never load it at once."""

    def run(self) -> None:
        """Load, once."""
        try:
            for usecase in catalog.names():
                with contextlib.suppress(PlatformError):
                    catalog.load(usecase)
                    layouts.load(usecase)
        finally:
            self.loaded.set()
        with contextlib.suppress(PlatformError):
            Registry(self._settings.registry).by_alias(catalog.names()[0], "champion")


@dataclass(frozen=True)
class _Exporter:
    """Fetches and verifies versions of one use case."""

    settings: Settings
    code: UseCaseCode
    registry: Registry

    def __call__(self, version: int) -> Export:
        request_features = {name for group in self.code.groups.values() for name in group}
        return export(
            self.registry,
            self.code.spec.name,
            version,
            spec=self.code.spec,
            layout=layouts.load(self.code.spec.name),
            request_features=request_features,
            public_key=self.settings.signing.public_key,
            # Its golden answers and its inputs are the same for every target.
            target="embedded",
            out=self.settings.operator.exports,
        )
