"""Where the images come from, and what is in them: `make scan`, `make sign` and `make verify`.

All three work on the digests that `make images` wrote, so what was scanned is what is signed and
what is deployed. Signatures are keyless: the certificate names the workflow that signed, and
`verify` asks for exactly that one. There is no key that could be lost.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from rich.console import Console

from deploy import vulnerabilities
from deploy.image_recipes import PREFIX
from deploy.programs import call
from deploy.progress import Progress
from mlplatform.errors import PlatformError, ServiceError, SettingsError, shorten

IMAGES: Final = Path("build/cluster/images.yaml")
"""Written by `make images`."""
BILLS: Final = Path("build/cluster/sbom")
"""Of materials, one for each image, in CycloneDX."""
_SECONDS: Final = 900.0
"""Of one call: the scanner reads an image of a gigabyte from its registry."""
_SEVERITIES: Final = "HIGH,CRITICAL"
_IDENTITY: Final = "SIGNER_IDENTITY"
_ISSUER: Final = "SIGNER_ISSUER"
_GITHUB: Final = "https://token.actions.githubusercontent.com"
"""Who says that a workflow is the workflow, where no other issuer is named."""


class Image(BaseModel):
    """An image as it is deployed: by digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._:/-]*$")]
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

    @property
    def reference(self) -> str:
        """What a registry's client calls it."""
        return f"{self.repository}@{self.digest}"


class Images(BaseModel):
    """All images of a deployment, by role."""

    model_config = ConfigDict(frozen=True)

    images: dict[str, Image]


@dataclass(frozen=True)
class Signer:
    """Who must have signed."""

    identity: str
    """The workflow, as its certificate names it."""
    issuer: str
    """Who vouched for it."""

    @property
    def arguments(self) -> Sequence[str]:
        """For cosign."""
        return (
            f"--certificate-identity={self.identity}",
            f"--certificate-oidc-issuer={self.issuer}",
        )


def read(path: Path) -> dict[str, Image]:
    """Return the images that a deployment takes, by role; roles may share one.

    Raises:
        SettingsError: There is no such file, or it names an image without a digest.
    """
    import yaml

    if not path.is_file():
        raise SettingsError(f"there is no {path}: make the images with `make images`")
    try:
        found = Images.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).images
    except (ValidationError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} has to name each image by repository and digest, as `make images` writes it: "
            f"{shorten(error)}"
        ) from error
    if not found:
        raise SettingsError(f"{path} names no image: make them with `make images`")
    return found


def own(images: dict[str, Image]) -> dict[str, Image]:
    """Return the images that `make images` made, each once, under the first role that runs it.

    The model server of GPU nodes is its maker's: a person has named it by digest, and nobody but
    the maker can sign it.
    """
    found: dict[str, Image] = {}
    for role, image in images.items():
        name = image.repository.rsplit("/", 1)[-1]
        if name.startswith(PREFIX) and image not in found.values():
            found[role] = image
    return found


def bill(role: str) -> Path:
    """Return the file with what is in a role's image."""
    return BILLS / f"{role}.cdx.json"


def scan(images: dict[str, Image], progress: Progress) -> None:
    """Write what is in each image, and refuse known vulnerabilities that are mended elsewhere.

    Raises:
        SettingsError: Trivy is not on PATH, or the accepted ones are not as they should be.
        ServiceError: Trivy failed, or an image must not be delivered.
    """
    accepted = vulnerabilities.read(vulnerabilities.ACCEPTED)
    today = datetime.now(UTC).date()
    BILLS.mkdir(parents=True, exist_ok=True)
    blocking: list[vulnerabilities.Vulnerability] = []
    for role, image in images.items():
        found = vulnerabilities.found(role, _scanned(role, image))
        stops = vulnerabilities.blocking(found, accepted, today)
        components = len(json.loads(bill(role).read_text(encoding="utf-8")).get("components") or ())
        progress.say(
            role,
            f"{components} components, {len(found)} known vulnerabilities of {_SEVERITIES.lower()}"
            f", {len(stops)} to mend",
        )
        blocking += stops
    for one in blocking:
        progress.say(one.role, str(one), style="yellow")
    if blocking:
        raise ServiceError(
            f"{len(blocking)} known vulnerabilities have a mended version: update the base image "
            f"or the lock file, or accept them for a while in {vulnerabilities.ACCEPTED}"
        )


def _scanned(role: str, image: Image) -> str:
    """Return trivy's report of an image, of which the bill of materials is kept."""
    path = str(bill(role))
    source = ("--image-src", "remote")  # what was pushed, not what lies here under its name
    content = ("--format", "cyclonedx", "--output", path)
    quiet = ("--quiet", "--disable-telemetry")
    call("trivy", "image", *quiet, *source, *content, image.reference, timeout_seconds=_SECONDS)
    report = ("--format", "json", "--severity", _SEVERITIES)
    return call("trivy", "sbom", *quiet, *report, path, timeout_seconds=_SECONDS)


def sign(images: dict[str, Image], progress: Progress) -> None:
    """Sign each image, and what `scan` says is in it.

    Raises:
        SettingsError: Cosign is not on PATH, or an image was not scanned.
        ServiceError: It cannot be signed: outside a workflow, a browser is needed.
    """
    unknown = [role for role in images if not bill(role).is_file()]
    if unknown:
        raise SettingsError(f"{', '.join(unknown)} not scanned: `make scan` comes before `sign`")
    for role, image in images.items():
        call("cosign", "sign", "--yes", image.reference, timeout_seconds=_SECONDS)
        content = ("--type", "cyclonedx", "--predicate", str(bill(role)))
        call("cosign", "attest", "--yes", *content, image.reference, timeout_seconds=_SECONDS)
        progress.say(role, image.reference)


def verify(images: dict[str, Image], signer: Signer, progress: Progress) -> None:
    """Refuse images that the signer has not signed, or of which it has not said what is in them.

    Raises:
        SettingsError: Cosign is not on PATH.
        ServiceError: A signature is missing or another's.
    """
    for role, image in images.items():
        call("cosign", "verify", *signer.arguments, image.reference, timeout_seconds=_SECONDS)
        content = ("--type", "cyclonedx", *signer.arguments)
        call("cosign", "verify-attestation", *content, image.reference, timeout_seconds=_SECONDS)
        progress.say(role, f"{image.digest} signed by {signer.identity}")


def _signer() -> Signer:
    identity = os.environ.get(_IDENTITY, "")
    if not identity:
        raise SettingsError(
            f"{_IDENTITY} is not set: give the workflow that must have signed, as "
            "https://github.com/ORGANISATION/REPOSITORY/.github/workflows/images.yml@refs/heads/main"
        )
    return Signer(identity, os.environ.get(_ISSUER, "") or _GITHUB)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when the images are refused."""
    parser = argparse.ArgumentParser(prog="python -m deploy.provenance", description=__doc__)
    parser.add_argument("command", choices=["scan", "sign", "verify"])
    options = parser.parse_args(arguments)
    progress = Progress(Console())
    try:
        images = own(read(IMAGES))
        if options.command == "scan":
            scan(images, progress)
        elif options.command == "sign":
            sign(images, progress)
        else:
            verify(images, _signer(), progress)
    except PlatformError as error:
        progress.say("refused", str(error), style="bold red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
