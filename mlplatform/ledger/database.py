"""The two databases that a ledger is kept in: one writer at a time, and no change to what is there.

Every transaction has a connection of its own: appends are rare, and a connection that is never
shared survives forks and threads.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from mlplatform.errors import ServiceError, SettingsError, shorten
from mlplatform.ledger.chain import GENESIS
from mlplatform.ledger.triggers import STATEMENTS

_CONNECT_SECONDS: Final = 10
_LOCK_SECONDS: Final = 30
"""Longest wait for other writers: each holds the lock for milliseconds."""

_CREATION_LOCK: Final = 0x6C_65_64_67_65_72
"""PostgreSQL advisory lock of the creation: the letters of "ledger"."""

_METADATA: Final = MetaData()
_INTEGER: Final = BigInteger().with_variant(Integer, "sqlite")

ENTRIES: Final = Table(
    "ledger_entries",
    _METADATA,
    Column("seq", _INTEGER, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False, unique=True),
    Column("usecase", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("decision", Text, nullable=False, comment="canonical JSON: the hash covers its bytes"),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ledger_entries_usecase_kind", "usecase", "kind", "seq"),
)

HEAD: Final = Table(
    "ledger_head",
    _METADATA,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("count", _INTEGER, nullable=False),
    Column("hash", String(64), nullable=False),
)


class Database:
    """A database by URL; `name` is the URL without credentials."""

    def __init__(self, url: str | SecretStr) -> None:
        self._url = _parse(url.get_secret_value() if isinstance(url, SecretStr) else url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self.name = _name(self._url)
        self._engine = _sqlite(self._url) if self._sqlite else _postgresql(self._url)

    def prepare(self, *, create: bool) -> None:
        """Make sure that there is a ledger; raises ServiceError where there is none."""
        if self._sqlite and not Path(str(self._url.database)).exists() and not create:
            raise self._no_ledger()
        with self._translated():
            if self._sqlite and create:
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self._engine.connect() as connection:
                if inspect(connection).has_table(HEAD.name):
                    return
        if not create:
            raise self._no_ledger()
        if self._sqlite:
            self._write_ahead()
        with self._creating() as connection:
            if not inspect(connection).has_table(HEAD.name):
                _METADATA.create_all(connection)
                connection.execute(insert(HEAD).values(id=1, count=0, hash=GENESIS))
                for statement in STATEMENTS[self._url.get_backend_name()]:
                    connection.exec_driver_sql(statement)

    def add(self, tables: MetaData) -> None:
        """Make sure that these tables are there beside the ledger's; two may do it at once."""
        with self.read() as connection:
            present = inspect(connection)
            if all(present.has_table(name) for name in tables.tables):
                return
        with self._creating() as connection:
            tables.create_all(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a transaction that is committed at the end, undone on any error."""
        with (
            self._translated(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            if not self._sqlite:
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a transaction that sees one state of the database throughout."""
        options: dict[str, Any] = {} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        with (
            self._translated(),
            self._engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _creating(self) -> Iterator[Connection]:
        """Give a transaction to make tables in, one creator at a time."""
        with self.write() as connection:
            if not self._sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise ServiceError(
                f"the ledger at {self.name} cannot be reached: {shorten(error.orig)}; start the "
                "database, or set MLPLATFORM_LEDGER_URL to the right one"
            ) from error
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise ServiceError(
                f"the database {self.name} refused what the ledger asked: {shorten(cause)}; look "
                "at the rights of its user and whether another program made its tables"
            ) from error
        except OSError as error:
            raise ServiceError(
                f"the ledger's file {self.name} cannot be created: {shorten(error)}; choose a "
                "folder that this process may write"
            ) from error

    def _no_ledger(self) -> ServiceError:
        return ServiceError(
            f"there is no ledger at {self.name}: run a pipeline first, or set "
            "MLPLATFORM_LEDGER_URL to the right database"
        )

    def _write_ahead(self) -> None:
        """Let readers read while one writes; the switch itself does not wait for locks."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                with self._translated():
                    raw = self._engine.raw_connection()
                    try:
                        raw.cursor().execute("PRAGMA journal_mode = WAL")
                    finally:
                        raw.close()
            except sqlite3.OperationalError as error:  # raw: SQLAlchemy does not wrap it
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"the ledger at {self.name} stayed locked for {_LOCK_SECONDS} s: "
                        f"{shorten(error)}; look for a process that holds it"
                    ) from error
                time.sleep(0.02)
            else:
                return


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without `from`: the vendor's message quotes parts of the URL, the password among them.
        raise SettingsError(
            "the ledger's URL cannot be read: write sqlite:///path/to/file or "
            "postgresql://user:password@host:port/name, special characters percent-encoded"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        return parsed
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise SettingsError(
        f"a ledger cannot be kept in {_name(parsed)}: write sqlite:///path/to/file or "
        "postgresql://user:password@host:port/name"
    )


def _name(url: URL) -> str:
    """Return a URL to show: built from its harmless parts, so that no secret can slip through."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{user}{url.host or ''}{port}/{url.database or ''}"


def _postgresql(url: URL) -> Engine:
    wait = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
    return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=wait)


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": _LOCK_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock at once: upgrading a read lock fails instead of waiting.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
