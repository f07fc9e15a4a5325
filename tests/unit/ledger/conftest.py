"""Ledgers on both databases; PostgreSQL is Debian's, started by the tests and thrown away."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from mlplatform.contracts import Decision

MISSING = "PostgreSQL is not installed: apt-get install postgresql (Debian's package)"


def programs() -> Path | None:
    """Return the folder of Debian's newest PostgreSQL programs, or of those on PATH."""
    debian = Path("/usr/lib/postgresql")
    found = sorted(debian.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


def as_unprivileged_user() -> list[str]:
    """Return what to put before a command: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    user = "postgres" if "postgres:" in Path("/etc/passwd").read_text() else "nobody"
    return [shutil.which("runuser", path="/usr/sbin:/sbin:/usr/bin") or "runuser", "-u", user, "--"]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Start a server on a free port of the loopback; return its URL without a database."""
    folder = programs()
    if folder is None:
        pytest.skip(MISSING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="ledger-postgresql-"))
    home.chmod(0o777)  # the other user makes its data folder in it
    run = as_unprivileged_user()

    def call(*command: str) -> None:
        # The server keeps its starter's output open, so the output goes to a file, not a pipe.
        log = home / "output"
        with log.open("ab") as output:
            code = subprocess.run(
                [*run, *command], cwd=home, stdout=output, stderr=output, check=False
            ).returncode
        assert code == 0, log.read_text()

    data = home / "data"
    options = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off -c synchronous_commit=off"
    try:
        call(
            f"{folder}/initdb", "-D", str(data), "-U", "ledger", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        call(
            f"{folder}/pg_ctl", "-D", str(data), "-o", options, "-l", f"{data}/log", "-w",
            "-t", "60", "start",
        )  # fmt: skip
        yield f"postgresql://ledger:unused@127.0.0.1:{port}"
    finally:
        if (data / "postmaster.pid").exists():
            call(f"{folder}/pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without a ledger; a test runs once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/kept/ledger.db"
    server = request.getfixturevalue("postgresql")
    name = f"ledger_{uuid.uuid4().hex}"
    engine = create_engine(f"{server}/postgres".replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:  # a schema: a database takes a second to make
        connection.execute(text(f"CREATE SCHEMA {name}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {name} TO public"))
    engine.dispose()
    return f"{server}/postgres?options=-csearch_path%3D{name}"


@pytest.fixture
def decide() -> Callable[..., Decision]:
    """Return a function that makes a decision; what a test does not name does not matter to it."""

    def make(key: str, **changes: object) -> Decision:
        values = {
            "key": key,
            "usecase": "flight_delay",
            "kind": "gate",
            "subject": "xgboost",
            "verdict": "accepted",
            "reason": "better by 0.02",
            "evidence": {"margin": 0.01, "rows": [1, 2, None], "käse": {"b": True, "a": 1e300}},
            "actor": "test",
            "at": "2013-12-31T23:59:59.123456Z",
        }
        return Decision.model_validate(values | changes)

    return make


@pytest.fixture
def execute(url: str) -> Iterator[Callable[..., None]]:
    """Return a function that runs a statement on the database, past the ledger."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

    def run(statement: str, **values: object) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    yield run
    engine.dispose()
