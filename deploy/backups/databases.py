"""The databases: dumped by PostgreSQL's own programs, inside its pod, and put back beside the old.

A dump is restored into a database of its own, checked there, and takes the place of the old one by
two renames in one transaction. So a restore that fails, or finds a broken chain, has changed
nothing, and what was replaced is still there under `<name>_replaced` until the next restore.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Final

from deploy.backups.copied_rows import LEDGER, Contents, contents
from deploy.backups.shell import Shell
from mlplatform.errors import ServiceError

POD: Final = "mlplatform-postgres-0"
CONTAINER: Final = "postgres"
OWNERS: Final = MappingProxyType(
    {"ledger": "ledger", "registry": "registry", "registry_auth": "registry"}
)
"""Roles that own the databases, by database."""
_SIGN: Final = MappingProxyType(
    {"ledger": "ledger_entries", "registry": "model_versions", "registry_auth": ""}
)
"""Tables whose rows are worth something: a database without any counts as empty. The accounts of
the registry are made again from the Secrets."""
_ATTEMPTS: Final = 5
"""To rename a database: a reader that connects in between stands in the way of it."""


class Databases:
    """The databases of one PostgreSQL pod.

    Args:
        shell: Into its container, whose environment holds the superuser's password.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def version(self) -> str:
        """Return the server's version; raises ServiceError where it does not answer."""
        return self._ask("postgres", "SHOW server_version;")

    def dump(self, name: str, file: Path) -> Contents:
        """Write a database to a file, and return what the file holds.

        Raises:
            ServiceError: The server is away, or the file cannot be read back.
            DataError: The file was cut short.
        """
        self._shell.run(
            *_program("pg_dump"), "--format=custom", "--no-owner", "--no-privileges",
            f"--dbname={name}", into=file,
        )  # fmt: skip
        return self.contents(file)

    def contents(self, source: Path | str) -> Contents:
        """Return what a dump holds, or the database of that name.

        Raises:
            ServiceError: It cannot be read.
            DataError: The file was cut short.
        """
        if isinstance(source, Path):
            lines = self._shell.lines("pg_restore", "--data-only", "--file=-", given=source)
        else:
            lines = self._shell.lines(*_program("pg_dump"), "--data-only", f"--dbname={source}")
        return contents(lines, LEDGER)

    def holds_something(self, name: str) -> bool:
        """Return whether a database has rows that a restore would replace."""
        table = _SIGN[name]
        exists = f"SELECT to_regclass('public.{table}') IS NOT NULL;"
        if not table or not self.exists(name) or self._ask(name, exists) != "t":
            return False
        found = f"SELECT EXISTS (SELECT FROM {table});"  # noqa: S608 (a name of ours)
        return self._ask(name, found) == "t"

    def exists(self, name: str) -> bool:
        """Return whether there is a database of that name."""
        query = f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}');"  # noqa: S608
        return self._ask("postgres", query) == "t"

    def prepare(self, name: str, file: Path) -> str:
        """Restore a dump into a database beside the old one, and return its name.

        Raises:
            ServiceError: PostgreSQL refuses the dump; the old database is as it was.
        """
        beside, owner = f"{name}_restoring", OWNERS[name]
        self._ask(
            "postgres",
            f"DROP DATABASE IF EXISTS {beside} WITH (FORCE);\n"
            f"CREATE DATABASE {beside} OWNER {owner};",
        )
        self._shell.run(
            *_program("pg_restore"), "--no-owner", "--no-privileges", f"--role={owner}",
            "--exit-on-error", "--single-transaction", f"--dbname={beside}", given=file,
        )  # fmt: skip
        return beside

    def swap(self, name: str) -> None:
        """Let the restored database take the place of the old one.

        Raises:
            ServiceError: Somebody keeps on connecting to the old one.
        """
        trouble: ServiceError | None = None
        for _ in range(_ATTEMPTS):
            try:
                self._swap(name)
            except ServiceError as error:
                trouble = error
            else:
                return
        raise ServiceError(f"the database {name} could not be replaced: {trouble}") from trouble

    def _swap(self, name: str) -> None:
        old = ""
        if self.exists(name):
            self._ask(
                "postgres",
                f"DROP DATABASE IF EXISTS {name}_replaced WITH (FORCE);\n"
                f"ALTER DATABASE {name} ALLOW_CONNECTIONS false;\n"
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}';",
            )
            old = f"ALTER DATABASE {name} ALLOW_CONNECTIONS true;\n"
            old += f"ALTER DATABASE {name} RENAME TO {name}_replaced;\n"
        self._ask(
            "postgres",
            f"BEGIN;\n{old}ALTER DATABASE {name}_restoring RENAME TO {name};\n"
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;\nCOMMIT;",
        )

    def _ask(self, database: str, statements: str) -> str:
        """Run statements; return what they print."""
        said = self._shell.run(
            *_program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
            "--set=ON_ERROR_STOP=1", f"--dbname={database}", "--file=-", given=statements,
        )  # fmt: skip
        return said.out.strip()


def _program(name: str) -> tuple[str, ...]:
    """Return how a program of PostgreSQL is called as the superuser.

    The shell takes the password out of the container's environment: it is in no argument.
    """
    script = 'PGPASSWORD="$POSTGRES_PASSWORD" exec "$@"'
    return ("sh", "-c", script, "sh", name, "--host=127.0.0.1", "--username=postgres")
