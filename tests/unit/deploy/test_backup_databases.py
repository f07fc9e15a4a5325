"""Databases are restored beside the old ones, and take their places whole or not at all."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from deploy.backups.copied_rows import verified_head
from deploy.backups.databases import OWNERS, Databases
from mlplatform.contracts import Decision
from mlplatform.errors import ServiceError
from mlplatform.ledger import Ledger
from tests.unit.deploy.local_shell import LocalShell
from tests.unit.ledger.conftest import decide, postgresql, programs  # noqa: F401 (fixtures)


def execute(server: str, database: str, *statements: str) -> None:
    url = f"{server}/{database}".replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


@pytest.fixture
def server(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: F811
    """A server with the platform's roles and databases, and its programs on PATH."""
    monkeypatch.setenv("PATH", f"{programs()}:/usr/bin:/bin")
    monkeypatch.setenv("PGPORT", str(urlsplit(postgresql).port))
    monkeypatch.setenv("POSTGRES_PASSWORD", "unused")
    execute(
        postgresql, "postgres",
        "DO $$ BEGIN CREATE ROLE postgres SUPERUSER LOGIN; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "DO $$ BEGIN CREATE ROLE registry LOGIN; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        *(f"CREATE DATABASE {name} OWNER {owner}" for name, owner in OWNERS.items()),
    )  # fmt: skip
    yield postgresql
    every = [f"{name}{end}" for name in OWNERS for end in ("", "_replaced", "_restoring")]
    execute(
        postgresql,
        "postgres",
        *(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in every),
    )


@pytest.fixture
def databases(server: str) -> Databases:  # noqa: ARG001 (it has to be there)
    return Databases(LocalShell())


@pytest.fixture
def ledger(server: str, decide: Callable[..., Decision]) -> Ledger:  # noqa: F811
    found = Ledger(f"{server}/ledger")
    for key in "abc":
        found.append(decide(key, reason="tab\tline\nback\\slash"))
    return found


def test_a_ledger_comes_back_with_the_same_head(
    server: str,
    databases: Databases,
    ledger: Ledger,
    decide: Callable[..., Decision],  # noqa: F811
    tmp_path: Path,
) -> None:
    head = ledger.head()
    dumped = databases.dump("ledger", tmp_path / "ledger.dump")
    ledger.append(decide("after the backup"))

    beside = databases.prepare("ledger", tmp_path / "ledger.dump")
    found = databases.contents(beside)
    before = ledger.head().count
    databases.swap("ledger")

    assert dumped.rows == found.rows
    assert head == verified_head(dumped) == verified_head(found)
    assert 4 == before
    assert head == ledger.head()
    assert 3 == ledger.verify(head)
    assert 4 == Ledger(f"{server}/ledger_replaced").head().count


def test_a_restored_ledger_is_as_append_only_as_it_was(
    server: str, databases: Databases, ledger: Ledger, tmp_path: Path
) -> None:
    assert 3 == ledger.head().count
    databases.dump("ledger", tmp_path / "ledger.dump")
    databases.prepare("ledger", tmp_path / "ledger.dump")
    databases.swap("ledger")

    with pytest.raises(Exception, match="append-only"):
        execute(server, "ledger", "DELETE FROM ledger_entries")


def test_a_dump_that_was_cut_short_leaves_the_database_as_it_was(
    databases: Databases, ledger: Ledger, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.dump"
    databases.dump("ledger", file)
    file.write_bytes(file.read_bytes()[:-200])

    with pytest.raises(ServiceError, match="pg_restore"):
        databases.contents(file)
    with pytest.raises(ServiceError, match="failed"):
        databases.prepare("ledger", file)

    assert 3 == ledger.verify()


def test_readers_do_not_stand_in_the_way_of_a_swap(
    server: str, databases: Databases, ledger: Ledger, tmp_path: Path
) -> None:
    databases.dump("ledger", tmp_path / "ledger.dump")
    databases.prepare("ledger", tmp_path / "ledger.dump")
    reader = create_engine(f"{server}/ledger".replace("postgresql:", "postgresql+psycopg:"))
    with reader.connect() as connection:
        connection.execute(text("SELECT 1"))
        databases.swap("ledger")
        connection.invalidate()
    reader.dispose()

    assert 3 == ledger.head().count


def test_only_a_database_with_rows_has_something_to_lose(
    server: str, databases: Databases, decide: Callable[..., Decision]  # noqa: F811
) -> None:  # fmt: skip
    nothing = databases.holds_something("ledger")
    ledger = Ledger(f"{server}/ledger")
    empty = databases.holds_something("ledger")
    ledger.append(decide("a"))

    assert (False, False, True) == (nothing, empty, databases.holds_something("ledger"))
    assert not databases.holds_something("registry")
