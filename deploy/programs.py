"""Programs that the commands call: helm, kubectl, kind, a container tool.

They are found on PATH, called with arguments that hold no secret, and what they say on standard
error is the message when they fail.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from mlplatform.errors import ServiceError, SettingsError, shorten

_WHERE: Final = MappingProxyType(
    {
        "helm": "https://helm.sh/docs/intro/install/ (3.14 or newer)",
        "kubectl": "https://kubernetes.io/docs/tasks/tools/",
        "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
        "docker": "https://docs.docker.com/engine/install/; or podman, with CONTAINER_TOOL=podman",
        "podman": "https://podman.io/docs/installation; or docker, with CONTAINER_TOOL=docker",
    }
)
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def find(name: str) -> str:
    """Return the path of a program.

    Raises:
        SettingsError: It is not on PATH.
    """
    path = shutil.which(name)
    if path is None:
        where = _WHERE.get(name, "your package manager")
        raise SettingsError(f"{name} is not on PATH: install it, see {where}")
    return path


def call(
    name: str,
    *arguments: str,
    given: str | None = None,
    folder: Path | None = None,
    settings: Mapping[str, str] = _NONE,
    timeout_seconds: float = 120,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        name: On PATH.
        arguments: Without secrets: every user of the machine can read them.
        given: On its standard input.
        folder: In which it runs.
        settings: Environment variables over this process's own.
        timeout_seconds: After which it is ended.

    Raises:
        SettingsError: It is not on PATH.
        ServiceError: It failed, or took too long.
    """
    command = [find(name), *arguments]
    shown = " ".join([name, *arguments[:2]])
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            cwd=folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(
            f"`{shown}` did not end within {timeout_seconds:.0f} s: is the cluster within reach?"
        ) from error
    if done.returncode:
        said = _last_words(done.stderr or done.stdout)
        raise ServiceError(f"`{shown}` failed: {shorten(said)}")
    return done.stdout


def _last_words(text: str) -> str:
    """Return the lines that say what went wrong: programs warn first and fail at the end."""
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return " ".join(errors or lines[-5:]) or "it said nothing"
