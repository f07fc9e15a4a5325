"""What a backup consists of, and whether a folder still is that.

The manifest is written last: a folder without one is a backup that did not end. Everything that can
be known without a cluster is checked here, before a restore touches anything: a file that is
missing, cut short or changed, and a name that would lead out of the folder.
"""

import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final, Literal, get_args

from pydantic import Field, ValidationError

from mlplatform.contracts.base import Contract, UtcDatetime
from mlplatform.errors import DataError, shorten
from mlplatform.ledger import Head

NAME: Final = "manifest.json"
_PRIVATE: Final = 0o600
"""A backup holds decisions, requests of users, models; with Secrets, the keys to all of it."""

Part = Literal["ledger", "registry", "artifacts", "data", "rollouts"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
"""In the order in which they are copied: what refers to something is copied before it."""


class Copied(Contract):
    """One file of a backup."""

    part: Part | Literal["secrets"]
    file: str = Field(pattern=r"^[a-z][a-z_]*\.[a-z]+$")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    database: str = Field(default="", description="Of a dump.")
    rows: dict[str, int] = Field(default_factory=dict, description="Of a dump, by table.")
    head: Head | None = Field(default=None, description="Of the ledger's chain.")
    files: int = Field(default=0, description="Of a volume, or objects in a list.")


class Manifest(Contract):
    """A backup."""

    format: Literal[1] = 1
    made_at: UtcDatetime
    namespace: str
    versions: dict[str, str] = Field(description="Of what the copies were made with.")
    signing_key: str = Field(description="SHA-256 of the public key that models are verified by.")
    copies: tuple[Copied, ...]
    left_out: dict[str, str] = Field(description="Parts that are kept elsewhere, and where.")

    def of(self, part: str) -> tuple[Copied, ...]:
        """Return the files of a part."""
        return tuple(copy for copy in self.copies if copy.part == part)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that it holds."""
        return tuple(part for part in PARTS if self.of(part))

    @property
    def digest(self) -> str:
        """What this backup is told from others by."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def described(path: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest


def write(folder: Path, manifest: Manifest) -> None:
    """End a backup."""
    partial = folder / f"{NAME}.partial"
    private(partial).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / NAME)


def private(path: Path) -> Path:
    """Make an empty file that only its owner may read; return its path."""
    path.unlink(missing_ok=True)
    path.touch(_PRIVATE)
    return path


def read(folder: Path) -> Manifest:
    """Return a backup whose files are all what they were.

    Raises:
        DataError: It did not end, or a file is missing, cut short or changed.
    """
    path = folder / NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no {NAME}: the backup did not end, or this is another folder; "
            "name one that `make backup` has finished"
        ) from error
    except (ValidationError, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {shorten(error)}; it was edited, or written by another "
            "release: restore with the release that made it"
        ) from error
    for copy in manifest.copies:
        _check(folder / copy.file, copy)
    return manifest


def check_archive(path: Path, folders: Iterable[str]) -> int:
    """Return the number of files in a copied volume.

    Args:
        path: Of the tar file.
        folders: Beginnings that its names may have; none: whatever lies below the volume's root.

    Raises:
        DataError: It holds something that a backup never writes: a link, a device, a name that
            leads elsewhere.
    """
    roots, count = tuple(folders), 0
    try:
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                inside = not roots or any(name.is_relative_to(root) for root in roots)
                if name.is_absolute() or ".." in name.parts or not inside:
                    raise DataError(f"{path} holds {member.name!r}, which belongs elsewhere")
                if not (member.isreg() or member.isdir()):
                    raise DataError(
                        f"{path} holds {member.name!r}, which is neither file nor folder"
                    )
                count += member.isreg()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {shorten(error)}; take another backup") from error
    return count


def _check(path: Path, copy: Copied) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing: the backup is not whole; take another one")
    size = path.stat().st_size
    if size != copy.size:
        raise DataError(
            f"{path} has {size} bytes and had {copy.size}: it was cut short or changed; "
            "take another backup"
        )
    if described(path)[1] != copy.sha256:
        raise DataError(f"{path} was changed after it was made; take another backup")
