"""The peers' servers, each at its best documented setting, and the floor's.

MLflow's scoring server: the registered version's ONNX flavour with one thread each for
onnxruntime (its default spins on every core), uvicorn without an access log. Feast's server: its
own Redis store over the very hashes that ours reads beside, one worker that is never restarted
(its default restarts after 1,000 requests), no access log, a registry that is not read again.
"""

import os
import shutil
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.mlflow_server import mlflow_server
from local.processes import free_port
from local.supervisor import Handle, Program, Supervisor
from local.workspace import Workspace
from mlplatform.errors import ServiceError

ROOT: Final = Path(__file__).resolve().parents[2]
_HOST: Final = "127.0.0.1"
_BIN: Final = Path(sys.executable).parent
_CHECK_SECONDS: Final = 30.0
"""Between two looks at a peer: its health page must not count as its CPU time."""

_STORE: Final = """\
project: mlplatform
provider: local
registry: {{path: {registry}, cache_ttl_seconds: 86400}}
offline_store: {{type: feature_repo.offline_store.AsofOfflineStore, root: {offline}}}
online_store: {{type: redis, connection_string: "{redis}"}}
entity_key_serialization_version: 3
auth: {{type: no_auth}}
"""
_DOWNLOAD: Final = """
import sys
from mlflow.artifacts import download_artifacts
print(download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2]))
"""


@dataclass(frozen=True)
class Served:
    """A running server of a peer."""

    url: str
    handle: Handle


def scoring_server(supervisor: Supervisor, model: Path, scratch: Path) -> Served:
    """Start `mlflow models serve` on a model's folder."""
    port = free_port()
    command = [
        str(_BIN / "mlflow"), "models", "serve", "--model-uri", str(model), "--host", _HOST,
        "--port", str(port), "--env-manager", "local", "--workers", "1",
    ]  # fmt: skip
    # `mlflow models serve` runs the `uvicorn` of PATH, which reads its options from UVICORN_*.
    environment = {"UVICORN_ACCESS_LOG": "0", "UVICORN_LOG_LEVEL": "warning"}
    return _start(supervisor, "mlflow", command, port, "/ping", scratch, environment)


def feature_server(
    supervisor: Supervisor, workspace: Workspace, redis_url: str, scratch: Path
) -> Served:
    """Start `feast serve` over the online store that `local.serving` has filled."""
    repository = scratch / "feast"
    repository.mkdir(parents=True)
    data = workspace.data.absolute()
    address, _, database = redis_url.removeprefix("redis://").partition("/")
    (repository / "feature_store.yaml").write_text(
        _STORE.format(
            registry=data / "registry.db",
            offline=data / "offline",
            redis=f"{address},db={database or 0}",
        )
    )
    port = free_port()
    command = [
        str(_BIN / "feast"), "--chdir", str(repository), "serve", "--host", _HOST,
        "--port", str(port), "--workers", "1", "--max-requests", "0", "--no-access-log",
        "--keep-alive-timeout", "75", "--registry_ttl_sec", "86400",
    ]  # fmt: skip
    return _start(supervisor, "feast", command, port, "/health", scratch)


def chain(
    supervisor: Supervisor, feast: Served, mlflow: Served, about: dict[str, str], scratch: Path
) -> Served:
    """Start the FastAPI gateway between the two."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "bench.serving.chain:create",
        "--host", _HOST, "--port", str(port), "--workers", "1", "--no-access-log",
        "--log-level", "warning",
    ]  # fmt: skip
    environment = about | {"BENCH_FEAST_URL": feast.url, "BENCH_MLFLOW_URL": mlflow.url}
    return _start(supervisor, "chain", command, port, "/ping", scratch, environment)


def floor(supervisor: Supervisor, redis_url: str, model: Path, scratch: Path) -> Served:
    """Start the bare server of `bench.serving.floor`."""
    port = free_port()
    command = [
        sys.executable, "-m", "granian", "--interface", "rsgi", "--factory",
        "--host", _HOST, "--port", str(port), "--workers", "1", "--runtime-threads", "1",
        "--loop", "uvloop", "--no-ws", "--log-level", "warning", "bench.serving.floor:create",
    ]  # fmt: skip
    environment = {"BENCH_REDIS_URL": redis_url, "BENCH_MODEL": str(model)}
    return _start(supervisor, "floor", command, port, "/", scratch, environment)


def scoring_model(workspace: Workspace, name: str, version: int, scratch: Path) -> Path:
    """Return a copy of a registered version for MLflow's server, with one thread each.

    The options are those of `mlflow.onnx.save_model(onnx_session_options=...)`, in the file where
    it writes them.

    Raises:
        ServiceError: The version cannot be fetched, or its MLmodel is not as expected.
    """
    import subprocess

    folder = scratch / "model"
    with mlflow_server(workspace.mlflow) as server:
        done = subprocess.run(
            [sys.executable, "-c", _DOWNLOAD, f"models:/{name}/{version}", str(folder)],
            env=os.environ | {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_DISABLE_TELEMETRY": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ServiceError(f"models:/{name}/{version} cannot be fetched: {done.stderr[-500:]}")
    described = folder / "MLmodel"
    text, options = described.read_text(), "onnx_session_options: null"
    if text.count(options) != 1:
        raise ServiceError(f"{described} does not say '{options}': adapt bench/serving/peers.py")
    threads = "{intra_op_num_threads: 1, inter_op_num_threads: 1}"
    described.write_text(text.replace(options, f"onnx_session_options: {threads}"))
    shutil.rmtree(folder / "signed", ignore_errors=True)
    return folder


def _start(
    supervisor: Supervisor,
    name: str,
    command: list[str],
    port: int,
    health: str,
    scratch: Path,
    environment: dict[str, str] | None = None,
) -> Served:
    url = f"http://{_HOST}:{port}"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    program = Program(
        name=name,
        command=command,
        log=scratch / f"{name}.log",
        ready=_answers(f"{url}{health}"),
        cwd=ROOT,
        env=os.environ
        | threads
        | {"PATH": f"{_BIN}:{os.environ.get('PATH', '')}", "MLFLOW_DISABLE_TELEMETRY": "1"}
        | (environment or {}),
        patience_seconds=120,  # a peer that is only slow under load is measured, not restarted
        check_seconds=_CHECK_SECONDS,
    )
    return Served(url, supervisor.start(program))


def _answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (our own address)
                return bool(answer.status == 200)
        except OSError:
            return False

    return ready
