"""Docker or Podman: builds an image, pushes it and says how large it is."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.image_registry import plain
from deploy.programs import call
from mlplatform.errors import ServiceError, SettingsError

TOOLS: Final = ("docker", "podman")
_BUILD_SECONDS: Final = 3600.0
"""The largest takes about three minutes; a slow line to the package registry, an hour."""
_PUSH_SECONDS: Final = 3600.0


def found() -> str:
    """Return the tool of this machine: docker where its daemon answers, else podman."""
    if shutil.which("docker") and shutil.which("podman"):
        answers = subprocess.run(["docker", "info"], capture_output=True, check=False)
        return "docker" if answers.returncode == 0 else "podman"
    return "podman" if shutil.which("podman") else "docker"


class ContainerTool:
    """One of the two.

    Args:
        name: Its program.

    Raises:
        SettingsError: It is neither.
    """

    def __init__(self, name: str) -> None:
        if name not in TOOLS:
            raise SettingsError(f"CONTAINER_TOOL is {name!r}: it is one of {', '.join(TOOLS)}")
        self.name = name

    def build(
        self,
        root: Path,
        file: str,
        reference: str,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        """Make an image.

        Args:
            root: The repository.
            file: Its Dockerfile, from there.
            reference: Name and tag that it gets.
            arguments: For its ARGs.
            labels: Besides those of its Dockerfile.

        Raises:
            SettingsError: The tool is not on PATH.
            ServiceError: It failed.
        """
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options += [f"--label={name}={value}" for name, value in labels.items()]
        if self.name == "docker":
            options.append("--provenance=false")  # one manifest, not a list with a note beside it
        call(
            self.name, "build", *options, "--tag", reference, "--file", str(root / file), str(root),
            timeout_seconds=_BUILD_SECONDS,
        )  # fmt: skip

    def push(self, reference: str) -> str:
        """Push an image; return its digest in the registry.

        Raises:
            SettingsError: The tool is not on PATH.
            ServiceError: It failed, or says no digest.
        """
        if self.name == "docker":
            call("docker", "push", "--quiet", reference, timeout_seconds=_PUSH_SECONDS)
            said = call("docker", "image", "inspect", reference)
            names = json.loads(said)[0].get("RepoDigests") or []
            repository = reference.rpartition(":")[0]
            mine = [name for name in names if name.startswith(f"{repository}@")]
            digest = mine[0].partition("@")[2] if mine else ""
        else:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "digest"
                tls = ["--tls-verify=false"] if plain(reference) else []
                call(
                    "podman", "push", "--quiet", *tls, f"--digestfile={file}", reference,
                    timeout_seconds=_PUSH_SECONDS,
                )  # fmt: skip
                digest = file.read_text(encoding="utf-8").strip()
        if not digest.startswith("sha256:"):
            raise ServiceError(f"{self.name} pushed {reference} and says no digest: {digest!r}")
        return digest

    def size(self, reference: str) -> int | None:
        """Return the bytes of an image on disk; None when it is not here."""
        try:
            said = call(self.name, "image", "inspect", reference)
        except ServiceError:
            return None
        return int(json.loads(said)[0]["Size"])
