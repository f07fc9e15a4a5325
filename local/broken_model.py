"""A broken version for the demo and for drills: it reads its features in the wrong unit.

Whoever rolls models out should have seen one being caught. The copy is a sound model in every
formal way (registered, signed, it gives its golden answers), as the bug would be: somebody changed
minutes to seconds on one side of the wire.

It never sets an alias.
"""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import ModelRef

FACTOR: Final = 60.0
"""Seconds to the minute."""


def register_broken(
    registry: Registry, name: str, version: int, *, keys: signing.KeyPair, workdir: Path,
    now: datetime,
) -> ModelRef:  # fmt: skip
    """Register a copy of a version that multiplies each of its inputs by 60.

    Doing it again returns the version that is there.

    Args:
        registry: Where both live.
        name: Registered name.
        version: Of the sound model.
        keys: Verify the sound one and sign the copy.
        workdir: Folder for the model directory; `copy` in it is replaced.
        now: Time of the registration.

    Raises:
        ModelError: The sound version is not what was signed.
        ServiceError: The registry failed.
    """
    why = f"inputs times {FACTOR:g}"
    return register_copy(registry, name, version, scaled, why, keys=keys, workdir=workdir, now=now)


def register_copy(
    registry: Registry, name: str, version: int, change: Callable[[bytes], bytes], why: str, *,
    keys: signing.KeyPair, workdir: Path, now: datetime,
) -> ModelRef:  # fmt: skip
    """Register a copy of a version with another model in it; as `register_broken`.

    Args:
        registry: Where both live.
        name: Registered name.
        version: Of the sound model.
        change: From the content of its `model.onnx` to that of the copy's.
        why: What was changed, kept with the run.
        keys: Verify the sound one and sign the copy.
        workdir: Folder for the model directory; `copy` in it is replaced.
        now: Time of the registration.
    """
    sound = registry.get(name, version)
    directory = workdir / "copy"
    shutil.rmtree(directory, ignore_errors=True)
    registry.download(name, version, directory)
    manifest = signing.verify_registered(directory, keys.public, sound)
    model = directory / signing.MODEL
    model.write_bytes(change(model.read_bytes()))
    digest = signing.file_digest(model)
    if (known := registry.find_by_digest(name, digest, manifest.data_digest)) is not None:
        return known
    run = registry.start_run(name, "changed on purpose", {"changed": why}, now)
    reservation = registry.reserve(
        name, run, digest=digest, data_digest=manifest.data_digest,
        tags={"git_commit": manifest.git_commit, "feature_service": manifest.feature_service},
    )  # fmt: skip
    changed = {
        "version": reservation.version, "run_id": run, "model_digest": digest, "created_at": now,
    }  # fmt: skip
    (directory / signing.SIGNATURE).unlink()
    signing.write_manifest(directory, manifest.model_copy(update=changed))
    signature = signing.sign(directory, keys.private)
    registry.upload(reservation, directory, manifest.features)
    made = registry.complete(reservation, signature)
    registry.end_run(run, succeeded=True)
    return made


def scaled(content: bytes) -> bytes:
    """Return the model with a multiplication in front of it."""
    import onnx

    model: Any = onnx.load_from_string(content)
    graph = model.graph
    (given,) = graph.input
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == given.name:
                node.input[index] = f"{given.name}_scaled"
    factor = onnx.helper.make_tensor("factor", onnx.TensorProto.FLOAT, [], [FACTOR])
    graph.initializer.append(factor)
    scale = onnx.helper.make_node("Mul", [given.name, "factor"], [f"{given.name}_scaled"])
    graph.node.insert(0, scale)
    return bytes(model.SerializeToString())
