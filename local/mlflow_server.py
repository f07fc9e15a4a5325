"""A real MLflow tracking server and registry for one machine, up for the length of a `with`.

It runs the ASGI application that `mlflow server` would run, by the same uvicorn command, without
the `mlflow` command in front of it: that one imports the whole library in a first process only to
start a second (11.5 s and 580 MB against 5.5 s and 290 MB, measured on two cores). What the
command passes on through the environment is set here directly.

Loopback only, one worker, exact allowed hosts, no job execution, no telemetry, no pickle. The
server has no authentication, so it is never started on another address.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.processes import HOST, end_group, free_port, refuse_taken, tail
from mlplatform.errors import ServiceError

_APPLICATION: Final = "mlflow.server.fastapi_app:app"
_STATE: Final = "server.json"
_LOG: Final = "server.log"
_POLL_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 5.0
"""Time to end by itself before it is killed; it takes 0.2 s when idle."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    pid: int
    started: bool
    """False: it was already running for the same store and is left running."""
    seconds: float
    """From the start of the process to its first answer out of the database."""


@contextlib.contextmanager
def mlflow_server(
    root: Path, *, port: int | None = None, timeout_seconds: float = 120
) -> Iterator[Server]:
    """Run a server whose database, artifacts and log lie under `root`.

    A server that already runs for the same root is used and left alone. One that was started
    here is stopped with its whole process group when the block ends, however it ends.

    Args:
        root: Folder of `mlflow.db`, `artifacts/` and `server.log`; made when absent.
        port: Port on the loopback address; None takes a free one.
        timeout_seconds: Longest wait for the first answer.

    Raises:
        ServiceError: The port is taken by something else, or the server died or hung while
            starting; the end of its log is in the message.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    running = _running(root)
    if running is not None and port in {None, _port(running)}:
        yield running
        return
    if running is not None:
        raise ServiceError(
            f"an MLflow server for {root} already runs at {running.url} (process {running.pid}), "
            f"so none is started on port {port}: use that address, or stop it first"
        )
    port = free_port() if port is None else port
    refuse_taken(port, "the MLflow server")
    started = time.perf_counter()
    with (root / _LOG).open("wb") as log:
        process = subprocess.Popen(
            _command(port),
            cwd=root,
            env=_environment(root, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own group: Ctrl-C reaches us first, and we end the group
        )
    try:
        url = f"http://{HOST}:{port}"
        _wait(process, url, root / _LOG, started + timeout_seconds)
        (root / _STATE).write_text(json.dumps({"url": url, "pid": process.pid}), encoding="utf-8")
        yield Server(url, process.pid, started=True, seconds=time.perf_counter() - started)
    finally:
        (root / _STATE).unlink(missing_ok=True)
        end_group(process, _STOP_SECONDS)


def _command(port: int) -> list[str]:
    return [
        sys.executable, "-m", "uvicorn", "--host", HOST, "--port", str(port), "--workers", "1",
        "--no-access-log", _APPLICATION,
    ]  # fmt: skip


def _environment(root: Path, port: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_"))  # a caller's settings are not the server's
    }
    store = f"sqlite:///{root / 'mlflow.db'}"
    return kept | {
        # What `mlflow server` hands to its workers (mlflow/server/__init__.py, `_run_server`).
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(root / "artifacts"),
        "_MLFLOW_SGI_NAME": "uvicorn",
        # What `--allowed-hosts` sets: other Host headers get 403 (DNS rebinding).
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, deadline: float) -> None:
    """Return when the server answers from its database, which is later than its health page."""
    request = urllib.request.Request(  # noqa: S310 (our own loopback address)
        f"{url}/api/2.0/mlflow/experiments/search",
        data=b'{"max_results": 1}',
        headers={"Content-Type": "application/json"},
    )
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise ServiceError(
                f"the MLflow server at {url} ended with status {process.returncode} while "
                f"starting; the end of {log}:\n{tail(log)}"
            )
        try:
            left = max(deadline - time.perf_counter(), _POLL_SECONDS)
            with urllib.request.urlopen(request, timeout=left):  # noqa: S310 (as above)
                return
        except urllib.error.HTTPError as error:
            raise ServiceError(
                f"the MLflow server at {url} answered {error.code} when asked for its "
                f"experiments; the end of {log}:\n{tail(log)}"
            ) from error
        except OSError:  # not listening yet
            time.sleep(_POLL_SECONDS)
    raise ServiceError(
        f"the MLflow server at {url} did not answer in time; the end of {log}:\n{tail(log)}"
    )


def _running(root: Path) -> Server | None:
    """Return the live server that wrote its address under this root, if there is one."""
    try:
        state = json.loads((root / _STATE).read_text(encoding="utf-8"))
        server = Server(str(state["url"]), int(state["pid"]), started=False, seconds=0.0)
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode()
        with urllib.request.urlopen(f"{server.url}/health", timeout=2):  # noqa: S310 (loopback)
            pass
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = _APPLICATION in command and str(_port(server)) in command.split("\0")
    return server if ours else None


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])
