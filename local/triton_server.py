"""A real Triton server for one exported model version on one machine.

The binary, its Python backend and the backend's stub come from the `nvidia-pytriton` wheel, which
lives in an environment of its own (`local/triton`); none of that wheel's Python runs. One process
serves one version and is never changed: no model control, no gRPC, loopback only.

It is healthy when the version says that it is ready *and* gives the golden answers. Readiness
alone would not do: Triton stays ready when the process that runs the model is dead or hangs.
"""

import functools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.processes import HOST
from local.supervisor import Program
from mlplatform.clients.triton import golden_answer, model_ready
from mlplatform.errors import ServiceError, shorten
from serving.triton.export import Export

_ENVIRONMENT: Final = Path(__file__).with_name("triton") / ".venv"
_LAUNCH: Final = Path(__file__).with_name("triton") / "launch.py"
_ANSWER_SECONDS: Final = 1.0
"""Longest wait for readiness and for the golden answers, each; they take about a millisecond."""
_PATIENCE_SECONDS: Final = 3.0
_SHARED_MEMORY_BYTES: Final = 1_048_576
"""First size of the region that requests travel through to the model's process; it grows by
itself. Versions differ in their default, up to 64 MiB."""
_HTTP_THREADS: Final = 2
"""One was enough for a lone caller; with 32 callers two answered 15,300 requests a second, one
9,500, eight 11,400 (two cores, 300 trees)."""
_EXIT_SECONDS: Final = 3
"""At SIGTERM Triton waits this long for callers to close their kept-alive connections, then ends
(its default is 30, longer than a supervisor waits); requests under way take milliseconds."""

_ASK: Final = """
import json, sys, sysconfig
print(json.dumps({
    "site": sysconfig.get_path("platlib"),
    "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "folders": [
        sysconfig.get_config_var("LIBDIR") or "",
        f"{sysconfig.get_config_var('LIBDIR')}/{sysconfig.get_config_var('MULTIARCH')}",
        f"{sys.base_prefix}/lib",
    ],
}))
"""


@dataclass(frozen=True)
class _Installation:
    """Where the parts of the server lie."""

    environment: Path
    binary: Path
    backend: Path
    """Folder of the Python backend."""
    stub: Path
    """The program that runs the model; built for one minor version of Python."""
    libraries: tuple[Path, ...]
    """Folders of the shared libraries: the wheel's and Python's own."""


def triton_program(export: Export, port: int, metrics_port: int, *, root: Path) -> Program:
    """Return how to serve an export on the loopback address.

    Args:
        export: One model version, exported for the target `embedded`.
        port: Port of the HTTP protocol.
        metrics_port: Port of the Prometheus metrics.
        root: Folder of the log; made when absent.

    Raises:
        ServiceError: The server's environment is not installed, or its Python has no shared
            library.
    """
    installed = _installation(_ENVIRONMENT)
    model, version = export.served.name, export.served.version
    root = root.resolve()
    backends = _backends(root, installed)
    # With the port: a server that starts removes what its own predecessor left, nobody else's.
    region = f"mlplatform_triton_{os.getuid()}_{port}_"
    url = f"http://{HOST}:{port}"
    features, golden = export.golden.features(), export.golden

    def ready() -> bool:
        try:
            return model_ready(url, model, version, timeout_seconds=_ANSWER_SECONDS) and (
                golden.matches(
                    golden_answer(url, model, version, features, timeout_seconds=_ANSWER_SECONDS)
                )
            )
        except ServiceError:
            return False

    return Program(
        name=f"triton {model} version {version}",
        command=[
            str(installed.environment / "bin" / "python"), "-I", str(_LAUNCH), region,
            str(installed.binary),
            f"--model-repository={export.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-default-byte-size={_SHARED_MEMORY_BYTES}",
            f"--backend-config=python,shm-region-prefix-name={region}",
            "--model-control-mode=none", "--disable-auto-complete-config",
            "--exit-on-error=true", "--strict-readiness=true",
            f"--http-address={HOST}", f"--http-port={port}",
            f"--http-thread-count={_HTTP_THREADS}", f"--exit-timeout-secs={_EXIT_SECONDS}",
            "--allow-grpc=false",
            f"--metrics-address={HOST}", f"--metrics-port={metrics_port}",
            "--allow-gpu-metrics=false",
            "--log-info=false",  # its tables would push the reason of a failed start out of sight
        ],
        log=root / f"{model}-v{version}-{port}.log",
        ready=ready,
        cwd=Path("/"),  # the first place where the model's Python looks for modules
        env=_environment(installed),
        patience_seconds=_PATIENCE_SECONDS,
    )  # fmt: skip


def _environment(installed: _Installation) -> dict[str, str]:
    """Return the server's environment; its Python runs isolated and reads no PYTHON* variable."""
    return {
        # The model's Python finds its packages by the first `python3` here.
        "PATH": f"{installed.environment / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(map(str, installed.libraries)),
        "OMP_NUM_THREADS": "1",
        "HOME": os.environ.get("HOME", "/"),
    }


def _backends(root: Path, installed: _Installation) -> Path:
    """Return a folder of backends that holds the Python backend with its stub beside it.

    Triton looks for the stub there, the wheel ships it elsewhere, and the wheel stays untouched.
    """
    folder = root / "backends"
    python = folder / "python"
    python.mkdir(parents=True, exist_ok=True)
    for path in (
        installed.backend / "libtriton_python.so",
        installed.backend / "triton_python_backend_utils.py",
        installed.stub,
    ):
        link = python / path.name
        if not link.is_symlink() or link.readlink() != path:
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    return folder


@functools.cache
def _installation(environment: Path) -> _Installation:
    python = environment / "bin" / "python"
    if not python.is_file():
        raise ServiceError(
            f"the model server is not installed (there is no {python}): run `make setup`"
        )
    try:
        asked = subprocess.run([str(python), "-I", "-c", _ASK], check=True, capture_output=True)
        found = json.loads(asked.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ServiceError(
            f"{python} does not work ({shorten(error)}): remove {environment} and run `make setup`"
        ) from error
    site = Path(found["site"])
    server = site / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / found["version"] / "triton_python_backend_stub"
    for path in (server / "bin" / "tritonserver", stub):
        if not path.is_file():
            raise ServiceError(
                f"the model server is incomplete (there is no {path}): remove {environment} and "
                "run `make setup`"
            )
    library = f"libpython{found['version']}.so.1.0"
    folders = [Path(folder) for folder in found["folders"] if (Path(folder) / library).is_file()]
    if not folders:
        raise ServiceError(
            f"the Python of {environment} has no shared {library}, which Triton's Python backend "
            f"needs: install it (Debian: apt install libpython{found['version']}; pyenv: build "
            "with --enable-shared), then run `make setup`"
        )
    return _Installation(
        environment=environment,
        binary=server / "bin" / "tritonserver",
        backend=server / "backends" / "python",
        stub=stub,
        libraries=(folders[0], site / "nvidia_pytriton.libs"),
    )
