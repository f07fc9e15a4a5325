"""Whether the images that are to be deployed are in their registry, seen from this machine."""

import http.client
from pathlib import Path
from typing import Final

from deploy.checks import Finding
from deploy.image_registry import connected
from mlplatform.errors import shorten

_SECONDS: Final = 5.0
_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""What a digest may name: images, and lists of them for several architectures."""
_OK: Final = 200
_ASKS: Final = frozenset({401, 403})


def images(path: Path) -> dict[str, dict[str, str]]:
    """Return repository and digest by role, from the values that `make images` writes."""
    import yaml

    found: dict[str, dict[str, str]] = yaml.safe_load(path.read_text(encoding="utf-8"))["images"]
    return found


def check(path: Path) -> Finding:
    """Check that each image is in its registry by its digest."""
    if not path.is_file():
        return Finding("bad", "images", f"there is no {path}", "build and push: `make images`")
    found = images(path)
    gone, unknown = [], []
    for role, image in found.items():
        try:
            status = _status(image["repository"], image["digest"])
        except OSError as error:
            unknown.append(f"{_host(image['repository'])} cannot be reached: {shorten(error)}")
            continue
        if status in _ASKS:
            unknown.append(f"{_host(image['repository'])} asks who you are")
        elif status != _OK:
            gone.append(role)
    if gone:
        text = f"not in their registry: {', '.join(gone)}"
        return Finding("bad", "images", text, "build and push them: `make images`")
    if unknown:
        text = f"{'; '.join(dict.fromkeys(unknown))}: not checked from here"
        return Finding("warning", "images", text, "the nodes have to be able to pull from it")
    return Finding("good", "images", f"all {len(found)} are in their registry by digest")


def _host(repository: str) -> str:
    return repository.partition("/")[0]


def _status(repository: str, digest: str) -> int:
    _, _, name = repository.partition("/")
    connection = connected(repository, _SECONDS)
    accept = {"Accept": ", ".join(_MANIFESTS)}
    try:
        connection.request("HEAD", f"/v2/{name}/manifests/{digest}", headers=accept)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
