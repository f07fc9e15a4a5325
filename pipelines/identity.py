"""What a run is made from: two runs with the same identity would decide the same.

The identity covers the spec, the code of the stages up to registration, the locked libraries,
every raw byte that was there, and what people and live traffic said of the labels, so that an
unchanged run can say so instead of repeating itself.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pyarrow import fs

from feature_repo import parts

_CODE = ("mlplatform", "feature_repo", "pipelines")
_ROOT = Path(__file__).resolve().parent.parent


def run_identity(usecase_folder: Path, raw_root: str, as_of: datetime, live: str = "") -> str:
    """Return the SHA-256 over code, spec, libraries, raw files, feedback and time of a run.

    Args:
        usecase_folder: The folder of the use case.
        raw_root: Folder or URI of its raw tables.
        as_of: The time the run looks from.
        live: Digest of `feature_repo.feedback`; empty: there is none.
    """
    digest = hashlib.sha256(as_of.isoformat().encode())
    digest.update(live.encode())
    folders = [_ROOT / name for name in _CODE] + [usecase_folder]
    for folder in folders:
        for path in _sources(folder):
            digest.update(f"\0{folder.name}/{path.relative_to(folder)}\0".encode())
            digest.update(path.read_bytes())
    if (lock := _ROOT / "uv.lock").exists():
        digest.update(lock.read_bytes())
    raw = parts.folder(".", raw_root)
    selector = fs.FileSelector(raw.path, recursive=True, allow_not_found=True)
    for info in sorted(raw.files.get_file_info(selector), key=lambda info: info.path):
        if info.type == fs.FileType.File:
            digest.update(f"\0{info.path.removeprefix(raw.path)}\0".encode())
            with raw.files.open_input_stream(info.path) as stream:
                digest.update(stream.read())
    return digest.hexdigest()


def _sources(folder: Path) -> Iterable[Path]:
    return sorted(path for kind in ("*.py", "*.yaml") for path in folder.rglob(kind))
