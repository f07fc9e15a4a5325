"""Which code a view's history was computed by: history of other code is not gone on with.

A view is appended to from where it ends. When the code that computes it changes, its old rows
would stay and the new would follow them, under one name. So each view's folder holds the
fingerprint of the code that filled it, and other code starts a new folder; the old one is kept
aside, under `.superseded`.
"""

import ast
import hashlib
from pathlib import Path
from typing import Final

_FILE: Final = "code.sha256"


def of_code(folder: Path) -> str:
    """Return the SHA-256 of the Python code in a use case's folder; comments do not count.

    All of the folder: a view's function may use anything in it.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        tree = ast.dump(ast.parse(path.read_text(encoding="utf-8")))
        digest.update(f"\0{path.relative_to(folder)}\0{tree}".encode())
    return digest.hexdigest()


def start_over_if_changed(history: Path, fingerprint: str) -> bool:
    """Make `history` a folder for this code; return whether one of other code was moved aside.

    A folder with parts and without a fingerprint was filled by somebody else and is left alone.
    """
    marker = history / _FILE
    filled = history.exists() and any(history.glob("part-*.parquet"))
    before = marker.read_text(encoding="utf-8") if marker.exists() else None
    if before == fingerprint or (filled and before is None):
        return False
    if filled:
        aside = history.parent / ".superseded"
        aside.mkdir(exist_ok=True)
        number = sum(1 for _ in aside.glob(f"{history.name}-*"))
        history.rename(aside / f"{history.name}-{number}-{str(before)[:12]}")
    history.mkdir(parents=True, exist_ok=True)
    marker.write_text(fingerprint, encoding="utf-8")
    return filled
