"""What monitoring needs of a registered version: fetched once, verified each time it is loaded."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from feature_repo.profile import reference
from feature_repo.profile.reference import Reference
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Evaluation, Manifest, ModelRef
from mlplatform.errors import ModelError, ServiceError, shorten

_DIGITS: Final = 12
"""Of the signature's digest in a folder's name; the whole of it is compared at each load."""


@dataclass(frozen=True)
class Watched:
    """A version that answers, with what it was trained on and what it promised."""

    version: int
    manifest: Manifest
    reference: Reference
    evaluation: Evaluation


def load(registry: Registry, usecase: str, version: int, public_key: Path, cache: Path) -> Watched:
    """Return a registered version, from the cache if it was fetched before.

    Args:
        registry: Where it is registered.
        usecase: Its registered name.
        version: Complete version.
        public_key: Verifies the signature, PEM.
        cache: Folder of all fetched versions: `<usecase>/v<version>-<digest>`. Several processes
            may share it. A signed directory is a few MB.

    Raises:
        ModelError: What the registry or the cache holds is not what was signed, or lacks what
            monitoring needs: such a version cannot be watched.
        ServiceError: The registry failed, or the disk does.
    """
    ref = registry.get(usecase, version)
    folder = cache / usecase / f"v{version}-{ref.signature[:_DIGITS]}"
    if not folder.is_dir():
        _fetch(registry, ref, folder)
    try:
        return _read(folder, ref, public_key)
    except ModelError as error:
        raise ModelError(
            f"{usecase} version {version} cannot be watched: {error}. It was read from {folder}: "
            "remove that folder and try again, which downloads it anew"
        ) from error


def _fetch(registry: Registry, ref: ModelRef, folder: Path) -> None:
    """Download a version into a folder that appears whole or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=folder.parent) as scratch:
            fetched = registry.download(ref.name, ref.version, Path(scratch) / "signed")
            try:
                fetched.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, and fetched the same
                    raise
    except OSError as error:
        raise ServiceError(
            f"{ref.name} version {ref.version} cannot be kept in {folder}: {shorten(error)}; free "
            "some space there, or choose a folder that this process may write"
        ) from error


def _read(folder: Path, ref: ModelRef, public_key: Path) -> Watched:
    manifest = signing.verify_registered(folder, public_key, ref)
    known = reference.read(folder)
    path = folder / signing.EVALUATION
    try:
        evaluation = Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(f"{path} is not an evaluation ({shorten(error)})") from error
    profile = known.profile
    if (profile.usecase, profile.features) != (manifest.name, manifest.features):
        raise ModelError(
            f"its reference is of {profile.usecase} with {len(profile.features)} features, its "
            f"manifest of {manifest.name} with {len(manifest.features)}: register it again"
        )
    return Watched(ref.version, manifest, known, evaluation)
