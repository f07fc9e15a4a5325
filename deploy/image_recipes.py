"""What the images are made of, and whether an image of exactly that is there already.

An image's tag is the digest of its inputs: its Dockerfile, the files that it copies out of the
repository, and the base images that were asked for. The same inputs are the same tag, on every
machine, so an image that nothing has changed is not built again. The commit is no input: an image
carries the commit at which it was first made of them.
"""

import fnmatch
import hashlib
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlplatform.errors import SettingsError

PREFIX: Final = "mlplatform-"
"""Of the repositories' names."""
_DIGITS: Final = 16
"""Hexadecimal digits of a tag: 64 bits, where a few hundred images are kept."""
_BY_DIGEST: Final = re.compile(r"(?P<repository>[a-z0-9][^@\s]*)@(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Recipe:
    """How one image is made."""

    role: str
    runs: tuple[str, ...] = ()
    """Other roles that run from it."""

    @property
    def file(self) -> str:
        """Its Dockerfile, from the root of the repository."""
        return f"images/{self.role}.Dockerfile"


RECIPES: Final = (
    Recipe("gateway"),
    Recipe("registry"),
    Recipe("redis"),
    Recipe("postgres"),
    # The archiver writes Parquet as features do; it would treble the gateway.
    Recipe("features", runs=("archiver",)),
    Recipe("operator"),
    Recipe("triton"),
    Recipe("pipeline"),
    Recipe("ray"),
    Recipe("monitor"),
)
"""All images, in the order in which they are made: a layer before the images that share it."""


def chosen(names: Sequence[str]) -> list[Recipe]:
    """Return the recipes of the roles that were named; of all when none was.

    Raises:
        SettingsError: No image is for that role.
    """
    known = {role: recipe for recipe in RECIPES for role in (recipe.role, *recipe.runs)}
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(
            f"no image is for {', '.join(unknown)}: there are those for {', '.join(known)}"
        )
    asked = {known[name] for name in names}
    return [recipe for recipe in RECIPES if recipe in asked or not names]


def tag(recipe: Recipe, root: Path, bases: Mapping[str, str]) -> str:
    """Return the tag of the image that would be made now.

    Args:
        recipe: Of the image.
        root: The repository.
        bases: References of base images by their ARG; those that its Dockerfile does not have do
            not matter.
    """
    text = (root / recipe.file).read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode())
    for name, reference in sorted(used(bases, text).items()):
        digest.update(f"\0{name}={reference}".encode())
    for path in inputs(text, root):
        runs = bool(path.stat().st_mode & stat.S_IXUSR)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\0{path.relative_to(root)} {runs} {content}".encode())
    return digest.hexdigest()[:_DIGITS]


def used(bases: Mapping[str, str], dockerfile: str) -> dict[str, str]:
    """Return the base images that a Dockerfile takes by an ARG of that name."""
    return {
        name: reference
        for name, reference in bases.items()
        if re.search(rf"^ARG {re.escape(name)}=", dockerfile, re.MULTILINE)
    }


def inputs(dockerfile: str, root: Path) -> list[Path]:
    """Return the files that a Dockerfile copies out of the repository, in order.

    Args:
        dockerfile: Its text.
        root: The repository.
    """
    hidden = _hidden(root)
    found: set[Path] = set()
    for source in _copied(dockerfile):
        top = root / source
        files = (path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        found.update(path for path in files if not hidden.fullmatch(str(path.relative_to(root))))
    return sorted(found)


def by_digest(reference: str) -> tuple[str, str]:
    """Return repository and digest of an image that others make.

    Raises:
        SettingsError: It is not named by its digest.
    """
    found = _BY_DIGEST.fullmatch(reference)
    if found is None:
        raise SettingsError(
            f"{reference!r} does not name an image by its digest: look it up with "
            "`docker buildx imagetools inspect nvcr.io/nvidia/tritonserver:<release>-py3`, and "
            "give it as nvcr.io/nvidia/tritonserver@sha256:<64 digits>"
        )
    return found["repository"], found["digest"]


def _copied(dockerfile: str) -> Iterator[str]:
    """Yield what a Dockerfile copies from the context."""
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not any(word.startswith("--from=") for word in words):
            *sources, _target = (word for word in words[1:] if not word.startswith("--"))
            yield from sources


def _hidden(root: Path) -> re.Pattern[str]:
    """Return what .dockerignore keeps out of every folder; its first lines say what is let in."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    anywhere = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    names = "|".join(fnmatch.translate(pattern) for pattern in anywhere)
    return re.compile(rf"(?:.*/)?(?:{names or '(?!)'})(?:/.*)?", re.DOTALL)
