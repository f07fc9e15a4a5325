"""A Ray cluster for the length of one step: capped to the machine, closed in every case.

Where the caller has already connected (`ray.init`), that cluster is used and left running.
Otherwise a local one is started, which is why it needs care: Ray's ports listen on all
interfaces, so a token made for this run alone guards them; nothing is written to the home folder.
"""

import importlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mlplatform.errors import ServiceError, shorten

_OBJECT_STORE_BYTES: Final = 512 * 2**20
"""Shared memory for the training data, which is put there once; 230,000 x 27 float32 is 25 MB."""

_SETTINGS: Final[Mapping[str, str]] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Under `uv run` Ray would have each worker build the project's environment once more.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Tune's progress tables: each trial is told in one line of our own.
    "RAY_AIR_NEW_OUTPUT": "0",
    # CSV, JSON and TensorBoard files that nobody reads.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune turns Ctrl-C into a normal end of the search; it must end the run.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Trials run one beside the other on one CPU each, so theirs is the parallelism.
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def session(cpus: int, scratch_parent: Path | None = None) -> Iterator[Path]:
    """Connect to Ray, starting it with `cpus` CPUs when there is none; yields a scratch folder.

    The folder is short-lived. The environment of this process is restored at the end.

    Args:
        cpus: CPUs that Ray may use; capped to those of this machine.
        scratch_parent: Where the scratch folder goes; by default /tmp.

    Raises:
        ServiceError: Ray does not start.
    """
    with _scratch(scratch_parent) as scratch:
        if _connected():  # its cluster has a token already
            with _environment(_SETTINGS):
                yield scratch
            return
        # Ray makes Unix sockets in its own folder, whose paths may have 107 characters.
        own = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        with _scratch() as short, _environment({**_SETTINGS, **own}):
            import ray

            _reread_authentication()
            try:
                _start(cpus, short / "ray")
                yield scratch
            finally:
                ray.shutdown()


def _connected() -> bool:
    """Return whether this process has a cluster; importing Ray would make it read its settings."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _start(cpus: int, folder: Path) -> None:
    import ray

    try:
        ray.init(
            num_cpus=max(1, min(cpus, os.cpu_count() or 1)),
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
        raise ServiceError(
            f"Ray did not start with {cpus} CPUs: {shorten(error)}; look for processes of an "
            "earlier run and for free memory in /dev/shm"
        ) from error


def _reread_authentication() -> None:
    """Make Ray read mode and token again.

    It reads both once for each process, at its import or first use; a second session, or an
    import before the first, would otherwise refuse its own token. Ray does the same in its
    `_enable_token_auth` (ray 2.60, _private/authentication/authentication_token_setup.py).
    """
    raylet: Any = importlib.import_module("ray._raylet")  # compiled: no types to check against
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _scratch(parent: Path | None = None) -> Iterator[Path]:
    short = "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108  # sockets need short paths
    path = Path(tempfile.mkdtemp(prefix="mlp", dir=parent or short))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # Ray's last processes may still be writing


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set Ray's variables; they must be there before it starts its processes."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    chosen = {**settings, "PYTHONPATH": path}
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
