"""From one registered version to the folder that one Triton server serves.

    <out>/<name>-v<version>-<target>-<digest>/
        repository/<name>/config.pbtxt
        repository/<name>/<version>/model.onnx
        repository/<name>/<version>/model.py      embedded only, with an empty file __pycache__
        served.json                               what the gateway must feed it
        golden.json                               rows with the answers that it must give

The folder appears whole, in one rename, and is never changed afterwards: another version, or
another spec, is another folder. Exporting again compares every byte with what would be written
and does nothing; a folder that differs is refused, not repaired, because a server may be running
from it and because whoever changed it may have meant harm.

Everybody may read the files and nobody may write them: Triton may run as another user. `out`
itself keeps the rights that it has.

It refuses everything that is not the signed model of exactly this name, version and run, and a
model with an input that neither the online store nor the request function gives: it would be
served with that input missing in every row.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlplatform import signing
from mlplatform.clients.registry import Registry
from mlplatform.contracts import Manifest, ModelRef, UseCase
from mlplatform.contracts.serving import OnlineLayout, ServedModel
from mlplatform.errors import ModelError, ServiceError, shorten
from serving.triton.config import Target, describe, render
from serving.triton.golden import Golden, golden

_REPOSITORY: Final = "repository"
_SERVED: Final = "served.json"
_GOLDEN: Final = "golden.json"
_EMBEDDED: Final = Path(__file__).with_name("embedded_model.py")
_DIGITS: Final = 12
"""Of the folder's digest: enough to tell exports apart; the files themselves are compared whole."""
_READ_ONLY: Final = 0o444
_READABLE: Final = 0o755


@dataclass(frozen=True)
class Export:
    """A model repository on disk."""

    folder: Path
    repository: Path
    """What Triton's --model-repository is."""
    served: ServedModel
    golden: Golden

    def refuse_other(self, digest: str) -> None:
        """Refuse to serve it where another model was asked for.

        Args:
            digest: Of the model that was judged.

        Raises:
            ModelError: The registry holds another one under this version.
        """
        if self.served.digest != digest:
            raise ModelError(
                f"version {self.served.version} of {self.served.name} has digest "
                f"{self.served.digest}, but {digest} was asked for: the registry holds another "
                "model than the one that was judged; ask for it anew"
            )


def export(
    registry: Registry,
    name: str,
    version: int,
    *,
    spec: UseCase,
    layout: OnlineLayout,
    request_features: Collection[str],
    public_key: Path,
    target: Target,
    out: Path,
) -> Export:
    """Fetch, verify and write one registered version.

    Args:
        registry: Where it is registered.
        name: Registered name, which is the use case's.
        version: Registered version.
        spec: The use case.
        layout: How its features lie in the online store.
        request_features: Names of the features that the use case's `request` computes.
        public_key: Verifies the signature, PEM.
        target: What will serve it.
        out: Folder of all exports.

    Raises:
        ModelError: The model, or what lies in its folder already, is refused; nothing is written.
        ServiceError: The registry failed, or the disk does; nothing is written.
    """
    ref = registry.get(name, version)
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        signed = registry.download(ref.name, ref.version, Path(scratch) / "signed")
        return export_signed(
            signed,
            ref,
            spec=spec,
            layout=layout,
            request_features=request_features,
            public_key=public_key,
            target=target,
            out=out,
        )


def export_signed(
    directory: Path,
    ref: ModelRef,
    *,
    spec: UseCase,
    layout: OnlineLayout,
    request_features: Collection[str],
    public_key: Path,
    target: Target,
    out: Path,
) -> Export:
    """Verify a signed directory that was fetched before, and write it.

    Args:
        directory: The files of a model directory.
        ref: What the registry says that it is.
        spec: The use case.
        layout: How its features lie in the online store.
        request_features: Names of the features that the use case's `request` computes.
        public_key: Verifies the signature, PEM.
        target: What will serve it.
        out: Folder of all exports.

    Raises:
        ModelError: The model, or what lies in its folder already, is refused; nothing is written.
        ServiceError: The disk is full or fails; nothing is written.
    """
    _refuse_names(ref, spec, layout)
    manifest = signing.verify_registered(directory, public_key, ref)
    content = _content(directory / signing.MODEL, manifest)
    if manifest.feature_service != layout.service:
        raise ModelError(
            f"{ref.name} version {ref.version} was trained on {manifest.feature_service}, but the "
            f"layout is of {layout.service}: export it with the layout of its own service"
        )
    _refuse_unknown(ref, manifest, layout, request_features)
    served = ServedModel(
        name=ref.name,
        version=ref.version,
        digest=manifest.model_digest,
        features=manifest.features,
        threshold=spec.serving.decision_threshold,
        layout=layout,
    )
    width = len(manifest.features)
    config = render(describe(ref.name, ref.version, width, spec.serving, target))
    known = golden(content, width)
    model = f"{_REPOSITORY}/{ref.name}"
    files = {
        f"{model}/config.pbtxt": config.encode(),
        f"{model}/{ref.version}/model.onnx": content,
        _SERVED: served.model_dump_json(indent=2).encode() + b"\n",
        _GOLDEN: known.model_dump_json().encode() + b"\n",
    }
    if target == "embedded":
        files[f"{model}/{ref.version}/model.py"] = _EMBEDDED.read_bytes()
        # Triton's Python ignores the environment and would write its bytecode here. A file in the
        # folder's place stops that, and stops bytecode that somebody else may have put there.
        files[f"{model}/{ref.version}/__pycache__"] = b""
    folder = out.resolve() / f"{ref.name}-v{ref.version}-{target}-{_digest(files)}"
    try:
        _write_once(folder, files)
    except OSError as error:
        raise ServiceError(
            f"the export {folder} cannot be written or read: {shorten(error)}; free some space "
            "there or export to a folder that this process may write"
        ) from error
    return Export(folder, folder / _REPOSITORY, served, known)


def _refuse_names(ref: ModelRef, spec: UseCase, layout: OnlineLayout) -> None:
    # The spec's name has a pattern without dots and slashes: it and a number make safe paths.
    if ref.name != spec.name:
        raise ModelError(
            f"{ref.name!r} is not the model of the use case {spec.name}: export a version that is "
            "registered under that name"
        )
    if not isinstance(ref.version, int) or ref.version < 1:
        raise ModelError(f"{ref.version!r} is not a version of {ref.name}: give a whole number")
    if layout.service != spec.feature_service:
        raise ModelError(
            f"the layout is of {layout.service}, but {spec.name} uses {spec.feature_service}: "
            "load the layout of the use case"
        )


def _refuse_unknown(
    ref: ModelRef, manifest: Manifest, layout: OnlineLayout, request_features: Collection[str]
) -> None:
    stored = {field.name for view in layout.views for field in view.fields}
    known = stored.union(request_features)
    if unknown := [name for name in manifest.features if name not in known]:
        raise ModelError(
            f"{ref.name} version {ref.version} reads {', '.join(unknown)}, which neither the views "
            f"of {layout.service} nor the request function give: export a model of today's "
            "features, or give them again"
        )


def _content(path: Path, manifest: Manifest) -> bytes:
    """Return the model's bytes: those that were verified, whatever happens to the file."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.model_digest:
        raise ModelError(f"{path} was changed while it was exported: export it again")
    return content


def _digest(files: Mapping[str, bytes]) -> str:
    """Return what tells two exports of a version apart: a changed spec makes another folder."""
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{name}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()[:_DIGITS]


def _write_once(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder with exactly these files, or make sure that it is so already."""
    if not os.path.lexists(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name, content in files.items():
                path = scratch / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(_READ_ONLY)
            # Made for their owner alone, by mkdtemp and perhaps by the umask.
            for path in (scratch, *scratch.rglob("*")):
                if path.is_dir():
                    path.chmod(_READABLE)
            try:
                scratch.rename(folder)
            except OSError:
                if not os.path.lexists(folder):
                    raise
                # Another export of the same version was faster: it must have written the same.
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if differing := _differences(folder, files):
        raise ModelError(
            f"{folder} is not what was exported: {shorten(', '.join(differing))}. Nothing was "
            "touched. Stop the servers that run from it, remove the folder and export again"
        )


def _differences(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        return ["it is no folder"]
    found = []
    left = dict(files)
    for path in sorted(folder.rglob("*")):
        name, mode = str(path.relative_to(folder)), path.lstat().st_mode
        if stat.S_ISDIR(mode):
            if not any(file.startswith(f"{name}/") for file in files):
                found.append(f"{name} was added")
        elif name not in files:
            found.append(f"{name} was added")
        elif not stat.S_ISREG(mode) or path.read_bytes() != left.pop(name):
            left.pop(name, None)
            found.append(f"{name} differs")
    return found + [f"{name} is missing" for name in left]
