"""Signs a model directory and refuses any directory that is not what was signed.

    model.onnx            what is served
    feature_config.json   how to call it
    manifest.json         which model, version and run it is
    profile.json          thresholds of drift, and what they were made from
    reference.parquet     the rows that live windows are compared with
    evaluation.json       what the model did on the test window
    model.sig             the signature

The signature (OpenSSF model-signing, an EC P-256 key, no network) covers every byte of the others.
The manifest inside names the model, its version and its run, so a validly signed old model cannot
be replayed under another version; a profile cannot be widened until nothing is drift any more, nor
an evaluation lowered until nothing is a loss.

The set of files is closed: the library can skip unsigned files and skips git's own files by
default; here nothing is skipped. A directory with one file more, one less, a folder or a link
is refused before any cryptography.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from mlplatform.contracts import Manifest, ModelRef
from mlplatform.errors import ModelError, SettingsError, shorten

MODEL: Final = "model.onnx"
CONFIG: Final = "feature_config.json"
MANIFEST: Final = "manifest.json"
PROFILE: Final = "profile.json"
REFERENCE: Final = "reference.parquet"
EVALUATION: Final = "evaluation.json"
SIGNATURE: Final = "model.sig"

_SIGNED: Final = frozenset({MODEL, CONFIG, MANIFEST, PROFILE, REFERENCE, EVALUATION})
_PRIVATE_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


@dataclass(frozen=True)
class KeyPair:
    """Where the two keys lie; only the step that registers has the private one."""

    private: Path
    public: Path


def create_key_pair(private: Path, public: Path) -> None:
    """Write a new P-256 key pair as PEM; the private file is readable by its owner only.

    Raises:
        SettingsError: One of the files exists. Keys are never overwritten: models that were
            signed with them could no longer be verified.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise SettingsError(
                f"the key file {path} exists: keys are never overwritten; choose another path, "
                "or remove both files if nothing was signed with them"
            )
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    shared = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(private, secret, _PRIVATE_MODE)
    try:
        _write_new(public, shared, _PUBLIC_MODE)
    except SettingsError:
        private.unlink()  # ours, made two lines above: half a pair is of no use
        raise


def public_key(private: bytes) -> bytes:
    """Return the public key of a private one, both PEM.

    Raises:
        SettingsError: It is no unencrypted private key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"the private key cannot be read ({shorten(error)}): give an unencrypted EC P-256 key "
            "in PEM"
        ) from error
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` into the model directory and return its path."""
    path = directory / MANIFEST
    path.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def sign(directory: Path, private_key: Path) -> str:
    """Sign a model directory.

    Args:
        directory: Exactly the files of a model directory; an existing `model.sig` is replaced.
        private_key: EC private key, PEM.

    Returns:
        SHA-256 of the signature file, in hex.

    Raises:
        ModelError: The directory holds other files, or its manifest belongs to another model.
        SettingsError: The private key cannot be used.
    """
    _closed(directory, required=_SIGNED, allowed=_SIGNED | {SIGNATURE})
    _matches_model(directory, _read_manifest(directory))
    from model_signing import signing

    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"the private key {private_key} cannot be used ({shorten(error)}): "
            "give an unencrypted EC P-256 key in PEM"
        ) from error
    signer.set_hashing_config(_hashing()).sign(directory, directory / SIGNATURE)
    return file_digest(directory / SIGNATURE)


def verify(
    directory: Path,
    public_key: Path,
    *,
    name: str,
    version: int,
    run_id: str | None = None,
    model_digest: str | None = None,
    signature: str | None = None,
) -> Manifest:
    """Verify that the directory is the signed model that the caller expects.

    Args:
        directory: Exactly the files of a model directory, `model.sig` among them.
        public_key: EC public key, PEM.
        name: Registered name that is being loaded.
        version: Version that is being loaded.
        run_id: Run that should have made it; None: any.
        model_digest: SHA-256 that `model.onnx` should have; None: the manifest's alone.
        signature: SHA-256 that `model.sig` should have, from the registry; None: any valid one.

    Returns:
        The verified manifest.

    Raises:
        ModelError: A file was changed, added, removed or renamed, is a link, the signature is
            absent or of another key or model, or the manifest names another model.
        SettingsError: The public key cannot be used.
    """
    _closed(directory, required=_SIGNED | {SIGNATURE}, allowed=_SIGNED | {SIGNATURE})
    _verify_signature(directory, public_key)
    manifest = _read_manifest(directory)
    _matches_model(directory, manifest)
    if signature is not None and signature != file_digest(directory / SIGNATURE):
        raise ModelError(
            f"{directory / SIGNATURE} is valid but is not the signature that was registered for "
            f"{name} version {version}: the model was signed again; register it as a new version"
        )
    expected = {"name": name, "version": version}
    if run_id is not None:
        expected["run_id"] = run_id
    if model_digest is not None:
        expected["model_digest"] = model_digest
    for field, value in expected.items():
        found = getattr(manifest, field)
        if found != value:
            raise ModelError(
                f"the signed model in {directory} is of {field} {found}, but {value} was asked "
                "for: it was signed for something else and may be a replay; download it again "
                "from the registry, and register anew if the registry holds it so"
            )
    return manifest


def verify_registered(directory: Path, public_key: Path, ref: ModelRef) -> Manifest:
    """Verify that the directory is what the registry says of a version; as `verify`."""
    return verify(
        directory,
        public_key,
        name=ref.name,
        version=ref.version,
        run_id=ref.run_id,
        model_digest=ref.digest,
        signature=ref.signature,
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashing() -> Any:
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _verify_signature(directory: Path, public_key: Path) -> None:
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"the public key {public_key} cannot be used ({shorten(error)}): "
            "give the EC public key in PEM"
        ) from error
    try:
        _canonical(directory / SIGNATURE)
        verifier.set_hashing_config(_hashing()).verify(directory, directory / SIGNATURE)
    except InvalidSignature as error:
        raise ModelError(
            f"the signature in {directory} was not made with the private key of {public_key}, "
            "or was edited: do not load this model; register it again"
        ) from error
    # What the library and its parsers raise on a damaged signature file is not one type.
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise ModelError(
            f"the model in {directory} is not what was signed ({shorten(error)}): "
            "do not load it; download it again or register it again"
        ) from error


def _canonical(signature: Path) -> None:
    """Refuse another spelling of the same signature: white space, unknown fields, loose base64.

    The verification reads through these, but a file that was edited is not what was signed.
    """
    from sigstore_models.bundle import v1 as bundles

    text = signature.read_text(encoding="utf-8")
    if bundles.Bundle.from_dict(json.loads(text)).to_json() != text:
        raise ValueError(f"{signature.name} is not written as the signer writes it")


def _closed(directory: Path, *, required: frozenset[str], allowed: frozenset[str]) -> None:
    if directory.is_symlink() or not directory.is_dir():
        raise ModelError(f"{directory} is not a model directory: it must be a real folder")
    found = set()
    for entry in directory.iterdir():
        if not stat.S_ISREG(entry.lstat().st_mode):
            raise ModelError(
                f"{entry} is a link, a folder or a special file: "
                "a model directory holds plain files only"
            )
        found.add(entry.name)
    if missing := required - found:
        raise ModelError(
            f"the model directory {directory} lacks {', '.join(sorted(missing))}: "
            "it is incomplete, not signed or of an older release; download it again, or train and "
            "register it again"
        )
    if extra := found - allowed:
        raise ModelError(
            f"the model directory {directory} holds unexpected {', '.join(sorted(extra))}: "
            "nothing may be added to a signed model; remove it or download again"
        )


def _read_manifest(directory: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except ValidationError as error:
        raise ModelError(
            f"{directory / MANIFEST} is not a manifest ({shorten(error)}): register again"
        ) from error


def _matches_model(directory: Path, manifest: Manifest) -> None:
    digest = file_digest(directory / MODEL)
    if digest != manifest.model_digest:
        raise ModelError(
            f"{directory / MODEL} has digest {digest}, its manifest says "
            f"{manifest.model_digest}: the two do not belong together"
        )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        raise SettingsError(f"the key file {path} cannot be created: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # a umask may have taken bits away
        file.write(content)
