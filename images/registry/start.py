"""Starts the MLflow server of a cluster: with users, without anything that it does not need.

One process: MLflow's application with its basic-auth part, under uvicorn. `mlflow server` would
keep a second Python beside it to watch the first, which the kubelet does already. What it hands to
its workers by environment is set here.

    start.py [PORT]

It refuses to start while a secret is missing: there is no default password. The Secrets are the
truth: the administrator's password is theirs from the next start on. Jobs, pickles and telemetry
are off.
"""  # noqa: INP001 (a program of an image, not a package)

import os
import signal
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path
from typing import Any, Final

PORT: Final = 5000
DRAIN_SECONDS: Final = 20
"""For uploads under way when the pod is to end."""
DATABASE_SECONDS: Final = 120
"""For the database to answer: both may have been started at once."""
SECRETS: Final = {
    "MLFLOW_BACKEND_STORE_URI": "mlplatform-registry-server",
    "MLFLOW_AUTH_DATABASE_URI": "mlplatform-registry-server",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "mlplatform-registry-server",
    "MLPLATFORM_REGISTRY_USERNAME": "mlplatform-registry-admin",
    "MLPLATFORM_REGISTRY_PASSWORD": "mlplatform-registry-admin",
}
"""What must be set, and the Secret that has it."""


def main() -> int:
    """Run the server until it is told to end."""
    # A first process of a container ends at no signal that it does not handle; uvicorn does later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lacking = [f"{name} (Secret {where})" for name, where in SECRETS.items() if not _value(name)]
    if not _value("MLFLOW_SERVER_ALLOWED_HOSTS"):
        lacking.append("MLFLOW_SERVER_ALLOWED_HOSTS (names that it is called by, with commas)")
    if lacking:
        sys.stderr.write(f"the registry is not started, for these are not set: {lacking}\n")
        return 1
    wait_for_database(_value("MLFLOW_BACKEND_STORE_URI"))
    wait_for_database(_value("MLFLOW_AUTH_DATABASE_URI"))
    os.environ.update(environment(Path(tempfile.mkdtemp(prefix="registry-"))))
    application = made()

    import uvicorn

    uvicorn.run(
        application,
        host="0.0.0.0",  # noqa: S104 (its Service is how it is reached)
        port=int(sys.argv[1]) if sys.argv[1:] else PORT,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return 0


def environment(folder: Path) -> dict[str, str]:
    """Return MLflow's settings; its file of accounts is written to `folder`."""
    artifacts = _value("MLFLOW_ARTIFACTS_DESTINATION") or "/artifacts"
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(_accounts(folder / "accounts.ini")),
        "MLFLOW_AUTH_ADMIN_USERNAME": _value("MLPLATFORM_REGISTRY_USERNAME"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": _value("MLPLATFORM_REGISTRY_PASSWORD"),
        # What `mlflow server` hands to its workers (mlflow/server/__init__.py, `_run_server`).
        "_MLFLOW_SERVER_FILE_STORE": _value("MLFLOW_BACKEND_STORE_URI"),
        "_MLFLOW_SERVER_REGISTRY_STORE": _value("MLFLOW_BACKEND_STORE_URI"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def made() -> Any:
    """Return the application; its tables and the administrator are there when it is returned."""
    from mlflow.server import auth, handlers

    database = _value("MLFLOW_BACKEND_STORE_URI")
    handlers.initialize_backend_stores(database, database, "mlflow-artifacts:/")
    application = auth.create_app()
    name, password = (_value(f"MLPLATFORM_REGISTRY_{part}") for part in ("USERNAME", "PASSWORD"))
    if not auth.store.authenticate_user(name, password, use_primary=True):
        auth.store.update_user(name, password=password, is_admin=True)
        sys.stderr.write(f"the password of {name} is the Secret's again\n")
    return application


def wait_for_database(address: str) -> None:
    """Return when the database at this address takes connections.

    Raises:
        SystemExit: It did not in time.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    engine = create_engine(address)
    deadline = time.monotonic() + DATABASE_SECONDS
    while True:
        try:
            with engine.connect():
                engine.dispose()
                return
        except OperationalError as error:
            where = engine.url.render_as_string(hide_password=True)
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"the database {where} takes no connection: {error.orig}"
                ) from error
            sys.stderr.write(f"waiting for the database {where}\n")
            time.sleep(1)


def _accounts(path: Path) -> Path:
    """Write the file that says where accounts are kept; it holds the database's password."""
    accounts = ConfigParser(interpolation=None)
    accounts["mlflow"] = {
        "default_permission": "READ",
        # MLflow reads the file with interpolation: a percent sign is written twice.
        "database_uri": _value("MLFLOW_AUTH_DATABASE_URI").replace("%", "%%"),
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        # A password costs 0.1 s to check; a changed one is refused after this long.
        "auth_cache_ttl_seconds": "60",
    }
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        accounts.write(file)
    return path


def _value(name: str) -> str:
    return os.environ.get(name, "")


if __name__ == "__main__":
    sys.exit(main())
