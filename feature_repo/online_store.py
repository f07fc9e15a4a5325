"""Feast's online store on Redis, with a packed string beside each of Feast's hashes.

What Feast writes and reads stays as it is, to the byte: `get_online_features` and every other
Feast client work unchanged. Each write puts the same row into the packed strings that the gateway
reads (`feature_repo.online`), in the same transaction, and replaces only what is not newer.

It refuses Redis Cluster and Sentinel: a hash and its packed strings lie in different slots, and
the writer follows no failover by itself. A view that no packed string holds is written by Feast
alone. Deleting a view clears its sections too; strings of a layout that is no longer declared
stay until `feature_repo.materialize.prune`, because a gateway may still read them.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.redis import (
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    RedisType,
)

from feature_repo import layout
from feature_repo.online_rows import ProtoRow
from feature_repo.online_writer import OnlineWriter
from mlplatform.clients.redis_protocol import Address
from mlplatform.clients.redis_sync import RedisSync, connect
from mlplatform.errors import SettingsError

_SCAN: Final = 1000
"""Keys that one step of a scan looks at: 0.2 ms of the server."""


class PackedRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]  # no types
    """Settings of the store, as in `feature_store.yaml`: Feast's, with this store's name."""

    type: Literal["feature_repo.online_store.PackedRedisOnlineStore"] = (
        "feature_repo.online_store.PackedRedisOnlineStore"
    )


class PackedRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]  # no types
    """Feast's Redis store that writes packed strings too; see the module."""

    _writer: OnlineWriter | None = None

    def writer(self, config: RepoConfig) -> OnlineWriter:
        """Return the store's one writer; it connects at its first write."""
        if self._writer is None:
            settings = config.online_store
            kind = RedisType(settings.redis_type)
            if kind != RedisType.redis:
                raise SettingsError(
                    f"online store: redis_type {kind.value} is not supported: a "
                    "hash and its packed string must be on one server; use redis_type: redis"
                )
            self._writer = OnlineWriter(
                connect(url(settings.connection_string)),
                config.project,
                key_ttl_seconds=settings.key_ttl_seconds,
                versioned=config.registry.enable_online_feature_view_versioning,
            )
        return self._writer

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[ProtoRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows where they are not older than what is there.

        Args:
            config: Holds the store's settings.
            table: The view; its tag says where its packed sections are.
            data: Rows as Feast hands them over.
            progress: Called with the number of rows.

        Raises:
            ServiceError: Redis is out of reach or refused the rows.
        """
        if not layout.placements(table):
            super().online_write_batch(config, table, data, progress)
            return
        self.writer(config).write_protos(table, data)
        if progress is not None:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[ProtoRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows as `online_write_batch` does, in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete a view's rows: its fields in Feast's hashes and its packed sections."""
        super().delete_table(config, table)
        redis = self.writer(config).redis
        for place in layout.placements(table):
            clear(redis, config.project, table.name, place)

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Delete the rows of all these views."""
        redis = self.writer(config).redis
        for table in tables:
            for place in layout.placements(table):
                clear(redis, config.project, table.name, place)
        super().teardown(config, tables, entities)


def mark_key(project: str, view: str, place: layout.Placement) -> bytes:
    """Return the key that says up to when a view was materialized into a packed string."""
    return f"packed-mark:{project}:{place.fingerprint}:{view}".encode()


def clear(redis: RedisSync, project: str, view: str, place: layout.Placement) -> None:
    """Make a view's section empty in every string that has it, and forget its mark.

    Raises:
        ServiceError: Redis is out of reach or refused it.
    """
    redis.execute("DEL", mark_key(project, view, place))
    empty = bytes(place.section.size)
    for keys in scan(redis, place.key(project, b"") + b"*"):
        redis.pipeline([("SETRANGE", key, place.section.offset, empty) for key in keys])


def scan(redis: RedisSync, pattern: bytes) -> Any:
    """Yield the keys that match, some at a time; a key may come twice.

    Raises:
        ServiceError: Redis is out of reach or refused it.
    """
    cursor: bytes = b"0"
    while True:
        cursor, keys = redis.execute("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
        if keys:
            yield keys
        if cursor == b"0":
            return


def connection_string(url_of_redis: str) -> str:
    """Return a Redis URL in Feast's form: host:port,db=0,password=..., ssl=true for rediss://.

    Raises:
        ServiceError: The URL is not understood.
    """
    address = Address.of(url_of_redis)
    parts = [f"{address.host}:{address.port}", f"db={address.db}"]
    for name, value in (("username", address.user), ("password", address.password)):
        if value is not None:
            text = json.dumps(value).replace(",", "\\u002c")  # Feast splits at commas first
            parts.append(f"{name}={text}")
    return ",".join([*parts, *(["ssl=true"] if address.tls else [])])


def url(text: str) -> str:
    """Return Feast's form of an address as a URL.

    Raises:
        SettingsError: It names several servers or an option that the writer does not have.
    """
    nodes, options = RedisOnlineStore._parse_connection_string(text)  # noqa: SLF001  # Feast's own
    unknown = sorted(set(options) - {"db", "username", "password", "ssl"})
    if len(nodes) != 1 or unknown:
        raise SettingsError(
            f"online store: connection_string has {len(nodes)} servers and the options {unknown}: "
            "write host:port and at most db, username, password and ssl"
        )
    who = ""
    if "password" in options:
        names = [str(options.get("username", "")), str(options["password"])]
        who = ":".join(quote(name, safe="") for name in names) + "@"
    scheme = "rediss" if options.get("ssl") else "redis"
    host, port = nodes[0]["host"], nodes[0].get("port", "6379")
    return f"{scheme}://{who}{host}:{port}/{options.get('db', 0)}"
