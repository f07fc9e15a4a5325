"""Becomes the model server: Triton on what the init container has laid out.

    serve.py [OPTION...]        options go to tritonserver, after ours, and win
    serve.py --lay-out FOLDER   while the image is built: brings the wheel's parts together

The server, its Python backend and the backend's stub lie in the `nvidia-pytriton` wheel; none of
that wheel's Python runs. One process serves one version and is never changed: no model control, no
gRPC. What a killed server has left in the shared memory of the pod is removed first (launch.py).
"""  # noqa: INP001 (a program of an image, not a package)

import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

FOLDER: Final = Path("/opt/tritonserver")
REPOSITORY: Final = "/models/repository"
REGION: Final = "mlplatform_triton_"
"""Begin of the names in the pod's shared memory; there is one server in a pod."""
HTTP_PORT: Final = 8000
METRICS_PORT: Final = 8002
HTTP_THREADS: Final = 2
"""One was enough for a lone caller; with 32 callers two answered most (two cores, 300 trees)."""
SHARED_MEMORY_BYTES: Final = 1_048_576
"""First size of the region that requests travel through to the model's process; it grows."""
EXIT_SECONDS: Final = 3
"""After SIGTERM, for callers to close kept-alive connections; requests under way take less."""


def main(arguments: list[str]) -> None:
    """Run the server in the place of this process."""
    server = str(FOLDER / "tritonserver")
    launch = str(Path(__file__).with_name("launch.py"))
    command = [sys.executable, "-I", launch, REGION, server, *options(), *arguments]
    os.execve(command[0], command, environment())  # noqa: S606 (built here; arguments are the pod's)


def options() -> list[str]:
    """Return how the server is started."""
    return [
        f"--model-repository={REPOSITORY}",
        f"--backend-directory={FOLDER / 'backends'}",
        f"--backend-config=python,shm-default-byte-size={SHARED_MEMORY_BYTES}",
        f"--backend-config=python,shm-region-prefix-name={REGION}",
        "--model-control-mode=none", "--disable-auto-complete-config",
        "--exit-on-error=true", "--strict-readiness=true",
        "--http-address=0.0.0.0", f"--http-port={HTTP_PORT}",
        f"--http-thread-count={HTTP_THREADS}", f"--exit-timeout-secs={EXIT_SECONDS}",
        "--allow-grpc=false",
        "--metrics-address=0.0.0.0", f"--metrics-port={METRICS_PORT}",
        "--allow-gpu-metrics=false",
        "--log-info=false",  # its tables would push the reason of a failed start out of sight
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """Return the server's environment; the model's Python is the first `python3` on its PATH."""
    libraries = (sysconfig.get_config_var("LIBDIR") or "/usr/lib", _site() / "nvidia_pytriton.libs")
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "HOME": "/tmp",  # noqa: S108 (all that a container with a read-only root may write to)
    }


def lay_out(folder: Path) -> None:
    """Put the stub beside its backend, where Triton looks for it, and the server above them."""
    wheel = _site() / "pytriton" / "tritonserver"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    parts = {
        backend / "libtriton_python.so": wheel / "backends" / "python" / "libtriton_python.so",
        backend / "triton_python_backend_utils.py":
            wheel / "backends" / "python" / "triton_python_backend_utils.py",
        backend / "triton_python_backend_stub":
            wheel / "python_backend_stubs" / version / "triton_python_backend_stub",
        folder / "tritonserver": wheel / "bin" / "tritonserver",
    }  # fmt: skip
    for link, part in parts.items():
        if not part.is_file():
            raise SystemExit(f"the nvidia-pytriton wheel has no {part}: local/triton pins another")
        link.symlink_to(part)


def _site() -> Path:
    return Path(sysconfig.get_path("platlib"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--lay-out"]:
        lay_out(Path(sys.argv[2]))
    else:
        main(sys.argv[1:])
