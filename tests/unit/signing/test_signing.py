"""What is signed is accepted; everything else is refused."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlplatform import signing
from mlplatform.contracts import Manifest
from mlplatform.errors import ModelError, SettingsError
from tests.unit.signing.filler import FILES, fill


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> signing.KeyPair:
    return _new_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def model(tmp_path: Path, keys: signing.KeyPair) -> Path:
    return _signed(tmp_path / "model", keys, version=3)


def _new_keys(folder: Path) -> signing.KeyPair:
    pair = signing.KeyPair(folder / "key.pem", folder / "key.pub")
    signing.create_key_pair(pair.private, pair.public)
    return pair


def _unsigned(directory: Path, *, version: int, content: bytes = b"onnx bytes") -> Path:
    directory.mkdir()
    (directory / "model.onnx").write_bytes(content)
    fill(directory)
    manifest = Manifest(
        name="flight_delay",
        version=version,
        run_id="run-3",
        model_digest=signing.file_digest(directory / "model.onnx"),
        data_digest="d" * 64,
        git_commit="0123abc",
        feature_service="flight_delay_v1",
        features=("wind",),
        created_at=datetime(2013, 12, 31, tzinfo=UTC),
    )
    signing.write_manifest(directory, manifest)
    return directory


def _signed(directory: Path, keys: signing.KeyPair, *, version: int) -> Path:
    _unsigned(directory, version=version)
    signing.sign(directory, keys.private)
    return directory


def _verify(directory: Path, keys: signing.KeyPair) -> Manifest:
    return signing.verify(directory, keys.public, name="flight_delay", version=3, run_id="run-3")


def test_a_signed_model_is_accepted_and_its_manifest_returned(
    model: Path, keys: signing.KeyPair
) -> None:
    manifest = _verify(model, keys)

    assert ("flight_delay", 3, "run-3", ("wind",)) == (
        manifest.name,
        manifest.version,
        manifest.run_id,
        manifest.features,
    )


def test_a_signed_model_may_be_moved(model: Path, keys: signing.KeyPair, tmp_path: Path) -> None:
    moved = shutil.copytree(model, tmp_path / "elsewhere")

    assert _verify(model, keys) == _verify(moved, keys)


def test_the_digest_of_the_signature_is_returned(tmp_path: Path, keys: signing.KeyPair) -> None:
    directory = _unsigned(tmp_path / "model", version=3)

    assert signing.sign(directory, keys.private) == signing.file_digest(directory / "model.sig")


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_anywhere_is_refused(
    model: Path, keys: signing.KeyPair, name: str
) -> None:
    path = model / name
    content = path.read_bytes()

    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ModelError):
            _verify(model, keys)
    path.write_bytes(content)
    assert 3 == _verify(model, keys).version


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(model: Path, keys: signing.KeyPair, name: str) -> None:
    (model / name).unlink()

    with pytest.raises(ModelError, match=f"lacks {name}"):
        _verify(model, keys)


@pytest.mark.parametrize("name", [*FILES, "weights.bin"])
def test_a_renamed_file_is_refused(model: Path, keys: signing.KeyPair, name: str) -> None:
    source = model / ("model.onnx" if name == "weights.bin" else name)
    source.rename(model / f"{name}.old")

    with pytest.raises(ModelError, match="lacks"):
        _verify(model, keys)


@pytest.mark.parametrize("name", ["extra.py", ".gitignore", ".gitattributes", "model.onnx.data"])
def test_an_added_file_is_refused(model: Path, keys: signing.KeyPair, name: str) -> None:
    (model / name).write_text("added")

    with pytest.raises(ModelError, match=f"unexpected {name}"):
        _verify(model, keys)


@pytest.mark.parametrize("name", [".git", ".github", "empty"])
def test_an_added_folder_is_refused(model: Path, keys: signing.KeyPair, name: str) -> None:
    (model / name).mkdir()

    with pytest.raises(ModelError, match="plain files only"):
        _verify(model, keys)


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_the_right_bytes_is_refused(
    model: Path, keys: signing.KeyPair, tmp_path: Path, name: str
) -> None:
    (model / name).rename(tmp_path / name)
    (model / name).symlink_to(tmp_path / name)

    with pytest.raises(ModelError, match="is a link"):
        _verify(model, keys)


def test_a_link_to_the_directory_is_refused(
    model: Path, keys: signing.KeyPair, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(model)

    with pytest.raises(ModelError, match="must be a real folder"):
        _verify(tmp_path / "link", keys)


def test_two_swapped_files_are_refused(model: Path, keys: signing.KeyPair) -> None:
    first, second = model / "model.onnx", model / "feature_config.json"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)

    with pytest.raises(ModelError, match="is not what was signed"):
        _verify(model, keys)


def test_the_signature_of_another_model_is_refused(
    model: Path, keys: signing.KeyPair, tmp_path: Path
) -> None:
    other = _signed(tmp_path / "other", keys, version=4)
    shutil.copyfile(other / "model.sig", model / "model.sig")

    with pytest.raises(ModelError, match=r"is not what was signed.*manifest\.json"):
        _verify(model, keys)


def test_the_signature_of_another_key_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not what was signed"):
        _verify(model, _new_keys(tmp_path))


def test_the_signature_of_another_key_that_claims_ours_is_refused(
    model: Path, keys: signing.KeyPair, tmp_path: Path
) -> None:
    hint = json.loads((model / "model.sig").read_text())["verificationMaterial"]
    signing.sign(model, _new_keys(tmp_path).private)
    forged = json.loads((model / "model.sig").read_text()) | {"verificationMaterial": hint}
    (model / "model.sig").write_text(json.dumps(forged, separators=(",", ":")))

    with pytest.raises(ModelError, match="was not made with the private key"):
        _verify(model, keys)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda text: text + "\n", id="white-space"),
        pytest.param(lambda text: text[:-1] + ',"note":"x"}', id="unknown-field"),
    ],
)
def test_a_signature_that_is_spelled_otherwise_is_refused(
    model: Path, keys: signing.KeyPair, edit: Callable[[str], str]
) -> None:
    path = model / "model.sig"
    path.write_text(edit(path.read_text()))

    with pytest.raises(ModelError, match="is not what was signed"):
        _verify(model, keys)


def test_a_second_valid_signature_is_not_the_registered_one(
    model: Path, keys: signing.KeyPair
) -> None:
    registered = signing.file_digest(model / "model.sig")
    signing.sign(model, keys.private)

    assert 3 == _verify(model, keys).version
    with pytest.raises(ModelError, match="is not the signature that was registered"):
        signing.verify(model, keys.public, name="flight_delay", version=3, signature=registered)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="not-text"),
        pytest.param(b"{}", id="no-fields"),
        pytest.param(b"[]", id="a-list"),
        pytest.param(b'{"verificationMaterial": null}', id="null"),
        pytest.param(b'{"verificationMaterial": {}, "dsseEnvelope": {}}', id="hollow"),
    ],
)
def test_a_file_that_is_no_signature_is_refused(
    model: Path, keys: signing.KeyPair, content: bytes
) -> None:
    (model / "model.sig").write_bytes(content)

    with pytest.raises(ModelError, match="is not what was signed"):
        _verify(model, keys)


@pytest.mark.parametrize(
    ("expected", "field"),
    [
        pytest.param({"name": "credit_risk", "version": 3}, "name", id="name"),
        pytest.param({"name": "flight_delay", "version": 7}, "version", id="version"),
        pytest.param({"name": "flight_delay", "version": 3, "run_id": "x"}, "run_id", id="run"),
        pytest.param(
            {"name": "flight_delay", "version": 3, "model_digest": "x"}, "model_digest", id="digest"
        ),
    ],
)
def test_a_validly_signed_model_is_refused_as_another(
    model: Path, keys: signing.KeyPair, expected: dict[str, str | int], field: str
) -> None:
    with pytest.raises(ModelError, match=f"is of {field} .*may be a replay"):
        signing.verify(model, keys.public, **expected)  # type: ignore[arg-type]


def test_a_manifest_of_other_bytes_is_not_signed(tmp_path: Path, keys: signing.KeyPair) -> None:
    directory = _unsigned(tmp_path / "model", version=3)
    (directory / "model.onnx").write_bytes(b"other bytes")

    with pytest.raises(ModelError, match="do not belong together"):
        signing.sign(directory, keys.private)


def test_a_broken_manifest_is_not_signed(tmp_path: Path, keys: signing.KeyPair) -> None:
    directory = _unsigned(tmp_path / "model", version=3)
    (directory / "manifest.json").write_text('{"name": "flight_delay"}')

    with pytest.raises(ModelError, match="is not a manifest"):
        signing.sign(directory, keys.private)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: (folder / "extra").write_text("x"), id="extra-file"),
        pytest.param(lambda folder: (folder / "manifest.json").unlink(), id="no-manifest"),
        pytest.param(lambda folder: (folder / "link").symlink_to("/etc/passwd"), id="link"),
        pytest.param(shutil.rmtree, id="absent"),
    ],
)
def test_a_directory_that_could_not_be_verified_is_not_signed(
    tmp_path: Path, keys: signing.KeyPair, spoil: Callable[[Path], object]
) -> None:
    directory = _unsigned(tmp_path / "model", version=3)
    spoil(directory)

    with pytest.raises(ModelError):
        signing.sign(directory, keys.private)


def test_the_private_key_is_for_its_owner_only(keys: signing.KeyPair) -> None:
    assert 0o600 == stat.S_IMODE(keys.private.stat().st_mode)
    assert b"PRIVATE KEY" not in keys.public.read_bytes()


def test_the_private_key_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        pair = _new_keys(tmp_path)
    finally:
        os.umask(before)

    assert 0o600 == stat.S_IMODE(pair.private.stat().st_mode)


@pytest.mark.parametrize("kept", ["key.pem", "key.pub"])
def test_keys_are_never_overwritten(tmp_path: Path, kept: str) -> None:
    (tmp_path / kept).write_text("precious")

    with pytest.raises(SettingsError, match=f"{kept} exists"):
        _new_keys(tmp_path)
    assert [kept] == [path.name for path in tmp_path.iterdir()]
    assert "precious" == (tmp_path / kept).read_text()


def test_half_a_pair_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be created"):
        signing.create_key_pair(tmp_path / "key.pem", tmp_path / "absent" / "key.pub")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"not a key"], ids=["absent", "empty", "text"])
def test_a_key_that_cannot_be_used_is_a_settings_error(
    model: Path, tmp_path: Path, content: bytes | None
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)

    with pytest.raises(SettingsError, match=r"private key .* cannot be used"):
        signing.sign(model, key)
    with pytest.raises(SettingsError, match=r"public key .* cannot be used"):
        signing.verify(model, key, name="flight_delay", version=3)
