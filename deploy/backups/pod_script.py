"""Runs inside a pod that mounts a volume: packs folders, unpacks them beside, and swaps.

The text of this file is the argument of the pod's Python, so it imports nothing of the platform.
Sums are taken at this end as well: what carries the bytes may lose the last of them.

    pack ROOT FOLDER…       writes a tar to standard output, its sum as JSON to standard error
    unpack ROOT             reads one from standard input into ROOT/.restoring, prints its sum
    swap ROOT ID FOLDER…    moves what was unpacked to its place, what was there to .replaced-ID
    count ROOT FOLDER…      prints how many files there are

No FOLDER: all that lies in the root. Names that begin with a dot are not the platform's, or not
whole yet; they are never packed.
"""

import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_RESTORING: Final = ".restoring"
_REPLACED: Final = ".replaced-"
_LOST_AND_FOUND: Final = "lost+found"


class Summed:
    """A stream, and the sum of what went through it."""

    def __init__(self, stream: Any) -> None:
        """Wrap a binary stream."""
        self._stream, self._sum = stream, hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write to the stream."""
        self._take(data)
        self._stream.write(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read from the stream."""
        data: bytes = self._stream.read(size)
        self._take(data)
        return data

    def said(self, files: int) -> str:
        """Return what went through, as JSON."""
        return json.dumps({"size": self.size, "sha256": self._sum.hexdigest(), "files": files})

    def _take(self, data: bytes) -> None:
        self._sum.update(data)
        self.size += len(data)


def pack(root: Path, folders: list[str]) -> None:
    """Write the folders to standard output.

    The platform's folders only gain files that appear whole. Those whose name begins with `_` hold
    the state of the files beside them and come last: a state that is older than its files is made
    up for, files that are newer than their state would be counted twice. What vanishes from such a
    folder was not needed any more; what vanishes elsewhere makes the copy worthless.
    """
    out, count = Summed(sys.stdout.buffer), 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for path in _all(root, folders):
            name = path.relative_to(root)
            try:
                archive.add(path, arcname=str(name), recursive=False)
            except FileNotFoundError:
                if not any(part.startswith("_") for part in name.parts):
                    raise
            else:
                count += path.is_file()
    sys.stdout.flush()
    sys.stderr.write(out.said(count) + "\n")


def unpack(root: Path) -> None:
    """Read folders from standard input; what lies in their places is left alone."""
    beside = root / _RESTORING
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    given, count = Summed(sys.stdin.buffer), 0
    with tarfile.open(fileobj=given, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            member.mode = 0o755 if member.isdir() else 0o644
            archive.extract(member, beside)
            count += member.isreg()
    while given.read(1 << 16):
        pass
    os.sync()
    sys.stdout.write(given.said(count) + "\n")


def swap(root: Path, name: str, folders: list[str]) -> None:
    """Move what was unpacked to its place; done twice, it does nothing more."""
    beside, away = root / _RESTORING, root / (_REPLACED + name)
    for old in root.glob(f"{_REPLACED}*"):
        if old != away:
            shutil.rmtree(old)
    for folder in folders or sorted(set(_entries(root)) | set(_entries(beside))):
        place, replaced = root / folder, away / folder
        if place.exists() and replaced.exists():
            # It was swapped before the last attempt was killed: what is there came from the copy.
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        elif place.exists():
            replaced.parent.mkdir(parents=True, exist_ok=True)
            place.rename(replaced)
        else:
            replaced.mkdir(parents=True, exist_ok=True)  # a mark: there was nothing
        if (beside / folder).exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            (beside / folder).rename(place)
    shutil.rmtree(beside, ignore_errors=True)
    os.sync()


def count(root: Path, folders: list[str]) -> None:
    """Print the number of files in the folders."""
    sys.stdout.write(f"{sum(path.is_file() for path in _all(root, folders))}\n")


def _all(root: Path, folders: list[str]) -> Iterator[Path]:
    for folder in folders or _entries(root):
        start = root / folder
        if start.is_dir():
            yield start
            yield from _below(start)
        elif start.is_file():
            yield start


def _below(folder: Path) -> Iterator[Path]:
    """Yield what lies below a folder, the state of files after the files."""
    for name in sorted(_entries(folder), key=lambda name: (name.startswith("_"), name)):
        path = folder / name
        if path.is_symlink():
            continue
        yield path
        if path.is_dir():
            yield from _below(path)


def _entries(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return sorted(name for name in names if not name.startswith(".") and name != _LOST_AND_FOUND)


def main() -> None:
    """Do what the arguments say."""
    what, root, *more = sys.argv[1:]
    if what == "pack":
        pack(Path(root), more)
    elif what == "unpack":
        unpack(Path(root))
    elif what == "swap":
        swap(Path(root), more[0], more[1:])
    else:
        count(Path(root), more)


if __name__ == "__main__":
    main()
