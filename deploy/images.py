"""`python -m deploy images`: one image for each role, built, pushed, and named by digest.

What it leaves is `build/cluster/images.yaml`, the values that Helm is given: everything is deployed
by digest. An image that is in the registry already, made of the same inputs, is not built again.
The base images are the Dockerfiles' ARGs; `--base PYTHON=…@sha256:…` takes another, or the same
by digest.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy import image_recipes
from deploy.container_tool import ContainerTool, found
from deploy.image_recipes import PREFIX, Recipe
from deploy.image_registry import Stored, stored
from deploy.values import IMAGES
from mlplatform.errors import PlatformError, ServiceError

ROOT: Final = Path(__file__).resolve().parents[1]
_REGISTRY: Final = "localhost:5000"
_MEGABYTE: Final = 1_000_000
_HEADER: Final = "# Written by `make images`: where each role's image is, by digest.\n"


@dataclass(frozen=True)
class Made:
    """One image that is ready."""

    recipe: Recipe
    repository: str
    digest: str
    """Empty: it was not pushed."""
    built: bool
    seconds: float
    on_disk: int | None
    """Bytes; None: it is not on this machine."""
    stored: Stored | None


class Workshop:
    """Makes images and puts them into one registry.

    Args:
        tool: That builds and pushes.
        registry: Host, with a path where there is one.
        bases: References of base images by their ARG.
        push: False: they are only built.
    """

    def __init__(
        self, tool: ContainerTool, registry: str, bases: Mapping[str, str], *, push: bool = True
    ) -> None:
        self._tool, self._registry, self._bases, self._push = tool, registry, bases, push

    def make(self, recipe: Recipe) -> Made:
        """Make sure of an image.

        Raises:
            SettingsError: The tool is not on PATH.
            ServiceError: It could not be built or pushed.
        """
        started = time.perf_counter()
        repository = f"{self._registry.rstrip('/')}/{PREFIX}{recipe.role}"
        tag = image_recipes.tag(recipe, ROOT, self._bases)
        reference = f"{repository}:{tag}"
        there = stored(repository, tag) if self._push else None
        built = there is None
        digest = there.digest if there else ""
        if built:
            self._build(recipe, reference, tag)
        if built and self._push:
            digest = self._tool.push(reference)
            there = stored(repository, digest)
        return Made(
            recipe, repository, digest, built, time.perf_counter() - started,
            self._tool.size(reference), there,
        )  # fmt: skip

    def _build(self, recipe: Recipe, reference: str, tag: str) -> None:
        text = (ROOT / recipe.file).read_text(encoding="utf-8")
        files = image_recipes.inputs(text, ROOT)
        self._tool.build(
            ROOT,
            recipe.file,
            reference,
            arguments={"GIT_COMMIT": commit(ROOT, files), **image_recipes.used(self._bases, text)},
            labels={
                "mlplatform.dev/inputs": tag,
                **({"org.opencontainers.image.source": origin} if (origin := source(ROOT)) else {}),
            },
        )


def source(root: Path) -> str | None:
    """Return where the repository's origin can be read, without credentials; None: nowhere."""
    try:
        return public_address(_git(root, "config", "--get", "remote.origin.url"))
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or no origin
        return None


def public_address(remote: str) -> str | None:
    """Return the https address of a git remote; None: it is a folder, or nothing."""
    found = re.fullmatch(
        r"(?:https?://(?:[^@/]*@)?|ssh://[^@/]*@|[\w.-]+@)"
        r"(?P<host>[\w.-]+)(?::\d+)?[/:](?P<path>[^?#]+?)(?:\.git)?/?",
        remote,
    )
    return f"https://{found['host']}/{found['path']}" if found else None


def commit(root: Path, files: Sequence[Path]) -> str:
    """Return the commit that these files are of, with `-changed` where they differ from it."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *(str(path) for path in files))
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return "unknown"
    return f"{head}-changed" if changed else head


def _git(root: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def merged(before: Mapping[str, Any], made: Sequence[Made], triton: str | None) -> dict[str, Any]:
    """Return Helm's values for images.

    Args:
        before: Those of the roles that were not made now.
        made: What was.
        triton: The server of GPU nodes, by digest; None: as before.

    Raises:
        SettingsError: It is not named by its digest.
    """
    values = dict(before)
    for image in made:
        for role in (image.recipe.role, *image.recipe.runs):
            values[role] = {"repository": image.repository, "digest": image.digest}
    if triton:
        repository, digest = image_recipes.by_digest(triton)
        values["triton-gpu"] = {"repository": repository, "digest": digest}
    return values


def table(made: Sequence[Made]) -> Table:
    """Return what was made, for a person; sizes in megabytes."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("image", "was", "s", "on disk", "compressed", "new layers", "digest"):
        shown.add_column(
            heading, justify="left" if heading in {"image", "was", "digest"} else "right"
        )
    seen: set[str] = set()
    for image in made:
        layers = image.stored.layers if image.stored else {}
        new = sum(size for digest, size in layers.items() if digest not in seen)
        seen.update(layers)
        shown.add_row(
            image.recipe.role,
            "built" if image.built else "there",
            f"{image.seconds:.1f}",
            f"{image.on_disk / _MEGABYTE:.0f}" if image.on_disk else "",
            f"{image.stored.size / _MEGABYTE:.0f}" if image.stored else "",
            f"{new / _MEGABYTE:.0f}" if layers else "",
            image.digest[:19],
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1, with the reason, when an image is not made."""
    console = Console()
    try:
        options = _parser().parse_args(arguments)
        _run(options, console)
    except PlatformError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    return 0


def _run(options: argparse.Namespace, console: Console) -> None:
    bases = dict(options.base)
    if options.triton_gpu:
        image_recipes.by_digest(options.triton_gpu)  # before minutes of work
    workshop = Workshop(
        ContainerTool(options.tool or found()), options.registry, bases, push=not options.no_push
    )
    made = []
    for recipe in image_recipes.chosen(options.only):
        with console.status(f"{recipe.role}…"):
            made.append(workshop.make(recipe))
    console.print(table(made))
    if options.no_push:
        console.print("not pushed: Helm's values stay as they were")
        return
    _write(merged(_before(options.registry), made, options.triton_gpu))
    console.print(f"{IMAGES} names them for Helm", highlight=False)


def _before(registry: str) -> dict[str, Any]:
    """Return the values that are there, of images in the same registry or of others' making."""
    import yaml

    if not IMAGES.is_file():
        return {}
    values: dict[str, dict[str, str]] = yaml.safe_load(IMAGES.read_text(encoding="utf-8"))["images"]
    return {
        role: image
        for role, image in values.items()
        if role == "triton-gpu"
        or image["repository"].startswith(f"{registry.rstrip('/')}/{PREFIX}")
    }


def _write(images: Mapping[str, Any]) -> None:
    import yaml

    text = _HEADER + yaml.safe_dump({"images": dict(images)})
    try:
        IMAGES.parent.mkdir(parents=True, exist_ok=True)
        IMAGES.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServiceError(f"{IMAGES} cannot be written: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy images", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROLE", help="only the images of these roles"
    )
    parser.add_argument(
        "--registry", default=os.environ.get("REGISTRY") or _REGISTRY, metavar="HOST",
        help="where they are pushed to; default: REGISTRY, or %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--tool", default=os.environ.get("CONTAINER_TOOL"), metavar="NAME",
        help="docker or podman; default: CONTAINER_TOOL, or the one that works here",
    )  # fmt: skip
    parser.add_argument(
        "--base", action="append", type=_base, default=[], metavar="ARG=IMAGE",
        help="another base image: PYTHON, REDIS or POSTGRES",
    )  # fmt: skip
    parser.add_argument(
        "--triton-gpu", default=os.environ.get("TRITON_GPU_IMAGE") or None, metavar="IMAGE",
        help="NVIDIA's server for GPU nodes, by digest; default: TRITON_GPU_IMAGE",
    )  # fmt: skip
    parser.add_argument("--no-push", action="store_true", help="only build")
    return parser


def _base(text: str) -> tuple[str, str]:
    name, equals, reference = text.partition("=")
    if not (name in {"PYTHON", "REDIS", "POSTGRES"} and equals and reference):
        raise argparse.ArgumentTypeError(
            f"{text!r}: write PYTHON=, REDIS= or POSTGRES= and a reference, best by digest"
        )
    return name, reference


if __name__ == "__main__":
    sys.exit(main())
