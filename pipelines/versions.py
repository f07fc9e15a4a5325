"""Registered versions that a step works with: fetched, and verified before they are loaded."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform import signing
from mlplatform.contracts import Champion, Manifest, ModelRef, TrainingSet
from mlplatform.errors import DataError, NotFoundError

if TYPE_CHECKING:
    from mlplatform.clients.registry import Registry  # loads MLflow


def champion(
    registry: "Registry", name: str, data: TrainingSet, public_key: Path, folder: Path
) -> Champion | None:
    """Fetch the model that is served now and verify it; None before the first rollout.

    Args:
        registry: Where it is registered.
        name: The use case's.
        data: What it will be measured on.
        public_key: Verifies the signature, PEM.
        folder: For its files; replaced.

    Raises:
        DataError: It reads features that the training set does not have.
        ModelError: It is not what was signed.
        ServiceError: The registry failed.
    """
    ref = registry.by_alias(name, "champion")
    if ref is None:
        return None
    directory, manifest = verified(registry, ref, public_key, folder)
    title = f"{name} version {ref.version}"
    if gone := [feature for feature in manifest.features if feature not in data.features]:
        raise DataError(
            f"the champion, {title}, reads {', '.join(gone)}, which feature service "
            f"{data.feature_service} no longer has, so the two cannot be compared: keep the "
            "feature in the service until a model without it is champion"
        )
    return Champion(name=title, path=directory / signing.MODEL, features=manifest.features)


def verified(
    registry: "Registry", ref: ModelRef, public_key: Path, folder: Path
) -> tuple[Path, Manifest]:
    """Fetch a version to `folder`; return it when it is the model that was registered.

    Raises:
        ModelError: It is not what was signed.
        ServiceError: The registry failed.
    """
    shutil.rmtree(folder, ignore_errors=True)  # a step that is repeated finds what it left
    directory = registry.download(ref.name, ref.version, folder)
    manifest = signing.verify_registered(directory, public_key, ref)
    return directory, manifest


def asked_for(registry: "Registry", name: str, model: str) -> ModelRef:
    """Return the version that a number or an alias names.

    Raises:
        NotFoundError: There is none.
        ServiceError: The registry failed.
    """
    if model.isdecimal():
        return registry.get(name, int(model))
    found = registry.by_alias(name, model)
    if found is None:
        raise NotFoundError(
            f"no version of {name} is {model!r}: give a version's number, or the alias champion "
            "or challenger when there is one"
        )
    return found
