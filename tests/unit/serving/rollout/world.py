"""All that a driver acts on: a real Redis, a real database, and servers and gateways that obey.

It outlives its drivers, so a test may kill one and start the next. Time passes by the hour, and
the evidence of an hour follows from the state alone.
"""

import copy
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.clients.registry import Registry
from mlplatform.contracts import (
    Arm,
    ModelRef,
    OnlineField,
    OnlineGroup,
    OnlineLayout,
    OnlineView,
    Rollout,
    Route,
    ServedModel,
    ServerStatus,
)
from mlplatform.contracts.rollout import Order, Phase, Statistics, Version
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.ledger import Ledger
from serving.rollout import machine
from serving.rollout.aliases import RegistryAliases
from serving.rollout.driver import Driver
from serving.rollout.locks import FileLock
from serving.rollout.ports import Server
from serving.rollout.store import RolloutStore
from serving.route import RouteStore, acknowledgement_key
from tests.unit.serving.rollout import builders
from tests.unit.serving.rollout.builders import CHALLENGER, CHAMPION

USECASE: Final = "flight_delay"
PLAN: Final = builders.PLAN.model_copy(
    update={"shadow_hours": 1.0, "soak_hours": 1.0, "weights": (0.2, 0.5)}
)
CALLS: Final = (
    ("store", "write"),
    ("store", "note"),
    ("routes", "publish"),
    ("pool", "change"),
    ("aliases", "set"),
    ("registry", "set_alias"),
    ("registry", "remove_alias"),
    ("ledger", "append"),
)
"""All calls of a driver that write: on what, and which."""
_HOURS: Final = 60
"""In which any rollout of the plan is over, whatever was killed on the way."""
_GATEWAYS: Final = ("one", "two")
_ALIASES: Final = ("champion", "challenger")


class Clock:
    """The time, which passes when it is told to."""

    def __init__(self) -> None:
        self.now = builders.START

    def __call__(self) -> datetime:
        return self.now


class Pool:
    """Servers in memory: one that is ensured is ready at the second look."""

    def __init__(self) -> None:
        self.running: dict[Version, Server] = {}
        self.moves = 0
        """How often servers have moved to other addresses."""

    def look(self, version: Version) -> Server:
        server = self.running.get(version, Server(ServerStatus("absent")))
        if server.status.state == "starting":
            url = f"http://server-{version.version}-{self.moves}:8000"
            self.running[version] = Server(ServerStatus("ready", url), served(version))
        return server

    def ensure(self, versions: Collection[Version]) -> None:
        starting = Server(ServerStatus("starting"))
        self.running = {version: self.running.get(version, starting) for version in versions}

    def move(self) -> None:
        """Start all servers anew, at other addresses."""
        self.moves += 1
        self.running = dict.fromkeys(self.running, Server(ServerStatus("starting")))


class FileRegistry(Registry):
    """The aliases of a registry, in a file: it outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def by_alias(self, name: str, alias: str) -> ModelRef | None:
        version = self._aliases().get(alias)
        if version is None:
            return None
        return ModelRef(
            name=name,
            version=version,
            digest="d" * 64,
            uri=f"models:/{name}/{version}/signed",
            signature="s" * 64,
            run_id="run",
            created=False,
            registered_at=datetime(2026, 3, 1, tzinfo=UTC),
        )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        del name
        self._write(self._aliases() | {alias: version})

    def remove_alias(self, name: str, alias: str) -> None:
        del name
        self._write({key: value for key, value in self._aliases().items() if key != alias})

    def _aliases(self) -> dict[str, int]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def _write(self, aliases: dict[str, int]) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(aliases))
        new.replace(self._path)


class Evidence:
    """A reader that sees a model as the test says; a `ports.Reader`."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.errors = 0.004
        """Of the challenger; the champion's are 0.4 %."""
        self.failure: Exception | None = None

    def read(self, rollout: Rollout) -> Statistics:
        if self.failure is not None:
            raise self.failure
        return builders.shown(rollout, self._clock(), errors=self.errors)


class World:
    """One use case, its champion serving.

    Args:
        folder: Of the database, the aliases and the lock.
        redis: An empty server.
        registry: Has both versions; None: one that is a file.
    """

    def __init__(self, folder: Path, redis: RedisSync, registry: Registry | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger_url = f"sqlite:///{folder}/ledger.db"
        self.redis = redis
        self.clock = Clock()
        self.pool = Pool()
        self.evidence = Evidence(self.clock)
        self.registry = registry or FileRegistry(folder / "aliases.json")
        self.lock = folder / "aliases.lock"
        self.store = RolloutStore(self.ledger_url)
        self.routes = RouteStore(redis.address.url)
        self.ledger = Ledger(self.ledger_url)
        self._serve_champion()

    def _serve_champion(self) -> None:
        """Start the champion's server; give it traffic and its alias if nobody has them yet."""
        self.pool.ensure([CHAMPION])
        self.pool.look(CHAMPION)
        server = self.pool.look(CHAMPION)
        if self.route is None and server.served is not None:
            arm = Arm(name="champion", weight=1, url=server.status.url, model=server.served)
            self.routes.publish(Route(usecase=USECASE, epoch=1, salt="first", arms=(arm,)))
        if not self.aliases():
            self.registry.set_alias(USECASE, "champion", CHAMPION.version)

    def ask(self, plan: RolloutPlan = PLAN) -> None:
        """Ask for a rollout of the challenger, as a command does."""
        first_epoch = 1 if self.route is None else self.route.epoch + 1
        rollout = machine.start(
            USECASE, 1, CHALLENGER, CHAMPION, plan, first_epoch, self.clock.now, "ana",
            "a better model",
        )  # fmt: skip
        self.store.write(rollout, revision=0)

    def order(self, asked: Order) -> None:
        """Order something by hand, as a command does."""
        found = self.store.read(USECASE)
        assert found is not None
        after = machine.order(found.rollout, asked, "ana", "", self.clock.now)
        self.store.write(after, revision=found.revision)

    @contextmanager
    def driver(self, prepare: Callable[..., None] = lambda **_: None) -> Iterator[Driver]:
        """Give the driver of a new process.

        Args:
            prepare: Is given what the driver writes to, by name, before it does.
        """
        store, ledger = RolloutStore(self.ledger_url), Ledger(self.ledger_url)
        registry, pool = copy.copy(self.registry), _Link(self.pool)
        aliases = RegistryAliases(registry, store, FileLock(self.lock))
        with closing(RouteStore(self.redis.address.url)) as routes:
            prepare(
                store=store, routes=routes, pool=pool, aliases=aliases, registry=registry,
                ledger=ledger,
            )  # fmt: skip
            yield Driver(USECASE, store, routes, pool, aliases, ledger, self.evidence, self.clock)

    def hour(self, driver: Driver) -> Rollout:
        """Let an hour pass: gateways follow, then the driver looks; return what it knows then."""
        self.clock.now += timedelta(hours=1)
        self.follow()
        found = driver.tick()
        assert found is not None
        return found

    def follow(self, *gateways: str) -> None:
        """Let these gateways, or all of them, follow the route and say so."""
        route = self.route
        if route is not None:
            for name in gateways or _GATEWAYS:
                key = acknowledgement_key(USECASE, name)
                self.redis.execute("SET", key, str(route.epoch), "PX", "60000")

    def until(self, driver: Driver, phase: Phase, step: int = 0) -> Rollout:
        """Let hours pass until the rollout has turned to a phase and asked for its route."""
        for _ in range(_HOURS):
            rollout = self.hour(driver)
            if (rollout.phase, rollout.step) == (phase, step):
                return rollout
        pytest.fail(f"it is {self.rollout.phase} and waits for {self.rollout.waits_for}")

    def settle(self, driver: Driver) -> None:
        """Let hours pass until the rollout is over and nothing is left to be done."""
        for _ in range(_HOURS):
            if self.hour(driver).at_rest:
                break
        assert self.rollout.at_rest, f"it waits for {self.rollout.waits_for}"
        self.hour(driver)
        self.hour(driver)

    @property
    def rollout(self) -> Rollout:
        found = self.store.read(USECASE)
        assert found is not None
        return found.rollout

    @property
    def route(self) -> Route | None:
        return self.routes.read(USECASE)

    def state(self) -> dict[str, Any]:
        """Return how everything is, but for times."""
        stored = self.store.read(USECASE)
        body = None if stored is None else stored.rollout.model_dump(mode="json")
        entries = self.ledger.entries(USECASE)
        return {
            "rollout": _timeless(body),
            "route": self.route,
            "aliases": self.aliases(),
            "ledger": sorted(
                (entry.decision.key, entry.decision.verdict, entry.decision.reason)
                for entry in entries
            ),
            "servers": sorted(version.version for version in self.pool.running),
        }

    def aliases(self) -> dict[str, int]:
        """Return the version that each alias names."""
        found = {alias: self.registry.by_alias(USECASE, alias) for alias in _ALIASES}
        return {alias: ref.version for alias, ref in found.items() if ref is not None}

    def close(self) -> None:
        self.routes.close()


class _Link:
    """A process's way to the servers, so that a test can cut one process's alone."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def look(self, version: Version) -> Server:
        return self._pool.look(version)

    def ensure(self, versions: Collection[Version]) -> None:
        if set(versions) != set(self._pool.running):
            self.change(versions)

    def change(self, versions: Collection[Version]) -> None:
        self._pool.ensure(versions)


def served(version: Version) -> ServedModel:
    """Return what a version must be fed."""
    view = OnlineView(
        name="plane", ttl_seconds=None, fields=(OnlineField(name="age", dtype="float32"),)
    )
    group = OnlineGroup(keys=("tailnum",), views=(view,))
    return ServedModel(
        name=USECASE,
        version=version.version,
        digest=version.digest,
        features=("age",),
        threshold=0.5,
        layout=OnlineLayout(project="p", service="s", groups=(group,)),
    )


@contextmanager
def world_in(folder: Path, redis_url: str, registry: Registry | None = None) -> Iterator[World]:
    """Give a world with an empty Redis."""
    with connect(redis_url) as redis:
        redis.execute("FLUSHALL")
        with closing(World(folder, redis, registry)) as world:
            yield world


def _timeless(value: Any) -> Any:
    """Return a JSON value without what says when."""
    if isinstance(value, dict):
        kept = {key: _timeless(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if key != "at" and key[-3:] != "_at"}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
