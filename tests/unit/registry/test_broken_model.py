"""The broken version is sound in every form, and wrong in what it answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from local.broken_model import FACTOR, register_broken
from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import ModelRef
from mlplatform.errors import ModelError
from tests.unit.registry.conftest import FEATURES, NOW, Work

NAME = "a_version_for_drills"


def fetched(registry: Registry, ref: ModelRef, keys: signing.KeyPair, to: Path) -> Path:
    """Return the model file of a version that is what was signed."""
    registry.download(NAME, ref.version, to)
    signing.verify(
        to, keys.public, name=NAME, version=ref.version, run_id=ref.run_id,
        model_digest=ref.digest, signature=ref.signature,
    )  # fmt: skip
    return to / signing.MODEL


def answers(model: Path, rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[float]:
    session = onnxruntime.InferenceSession(model)
    (found,) = session.run(None, {session.get_inputs()[0].name: rows})
    return np.asarray(found).ravel().tolist()


def test_it_is_signed_answers_as_for_inputs_in_another_unit_and_is_made_once(
    registry: Registry, make_work: Callable[..., Work], keys: signing.KeyPair, tmp_path: Path
) -> None:
    sound = make_work(NAME).run(registry)
    marked = registry.by_alias(NAME, "challenger")
    made = [
        register_broken(
            registry, NAME, sound.version, keys=keys, workdir=tmp_path / "work", now=NOW
        )
        for _ in range(2)
    ]
    whole = fetched(registry, sound, keys, tmp_path / "sound")
    broken = fetched(registry, made[0], keys, tmp_path / "copy")

    assert made[0].version == made[1].version == sound.version + 1
    assert made[0].digest != sound.digest
    assert marked == registry.by_alias(NAME, "challenger")
    rows = np.random.default_rng(0).normal(0, 0.02, (50, len(FEATURES))).astype(np.float32)
    scaled = rows * np.float32(FACTOR)
    assert pytest.approx(answers(whole, scaled), abs=1e-6) == answers(broken, rows)
    assert not np.allclose(answers(whole, rows), answers(broken, rows), atol=0.01)


def test_a_sound_version_that_is_not_what_was_signed_is_not_copied(
    registry: Registry, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    name = "a_version_of_another_signer"
    sound = make_work(name).run(registry)
    strangers = signing.KeyPair(tmp_path / "key.pem", tmp_path / "key.pub")
    signing.create_key_pair(strangers.private, strangers.public)

    with pytest.raises(ModelError):
        register_broken(registry, name, sound.version, keys=strangers, workdir=tmp_path, now=NOW)
    newest = registry.newest(name)
    assert newest is not None
    assert sound.version == newest.version
