"""What a registry says of an image: its digest, and how much of it goes over the network.

It asks without credentials, as far as that goes: a registry that wants to know who asks is left to
the container tool, which knows. Then an image is built and pushed where it might have been found.
"""

import http.client
import json
import re
import ssl
from dataclasses import dataclass
from typing import Any, Final

_SECONDS: Final = 10.0
_ONE: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LOCAL: Final = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")


@dataclass(frozen=True)
class Stored:
    """An image in a registry."""

    digest: str
    layers: dict[str, int]
    """Compressed size by digest, in bytes."""

    @property
    def size(self) -> int:
        """Bytes that a node without any of its layers pulls."""
        return sum(self.layers.values())


def plain(registry: str) -> bool:
    """Return whether a registry is this machine's own, which speaks HTTP."""
    return _LOCAL.fullmatch(registry.partition("/")[0]) is not None


def connected(repository: str, timeout_seconds: float) -> http.client.HTTPConnection:
    """Return a connection to a repository's registry, over TLS unless it is this machine's own."""
    host = repository.partition("/")[0]
    if plain(host):
        return http.client.HTTPConnection(host, timeout=timeout_seconds)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, timeout=timeout_seconds, context=context)


def stored(repository: str, reference: str) -> Stored | None:
    """Return an image by its tag or digest; None: it is not there, or the registry does not say.

    Args:
        repository: With the registry's host, `localhost:5000/mlplatform-gateway`.
        reference: Tag or digest.
    """
    _, _, name = repository.partition("/")
    connection = connected(repository, _SECONDS)
    try:
        connection.request(
            "GET", f"/v2/{name}/manifests/{reference}", headers={"Accept": ", ".join(_ONE)}
        )
        answer = connection.getresponse()
        body = answer.read()
        digest = answer.getheader("Docker-Content-Digest")
        if answer.status != http.HTTPStatus.OK or digest is None:
            return None
        return Stored(digest, _layers(json.loads(body)))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _layers(manifest: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of a manifest's layers; an index of several images has none."""
    return {layer["digest"]: int(layer["size"]) for layer in manifest.get("layers", ())}
