"""Known vulnerabilities of the images: what the scanner found, and what a company accepts.

Only those that have a mended version stop a delivery: nobody can act on the others today. One that
has to be lived with is written into a file with its reason and its last day, and after that day it
stops deliveries again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlplatform.errors import SettingsError, shorten

ACCEPTED: Final = Path("images/accepted-vulnerabilities.yaml")
"""The company's list; there is none in the beginning."""


@dataclass(frozen=True, order=True)
class Vulnerability:
    """One known vulnerability of one image."""

    role: str
    """Whose image."""
    identifier: str
    """`CVE-2025-1234`."""
    package: str
    installed: str
    mended: str
    """The version without it; empty: there is none yet."""
    severity: str
    """`HIGH` or `CRITICAL`; the scanner is asked for no other."""

    def __str__(self) -> str:
        """Return one line for a person."""
        return (
            f"{self.role}: {self.severity.lower()} {self.identifier} in {self.package} "
            f"{self.installed}, mended in {self.mended}"
        )


class Acceptance(BaseModel):
    """A vulnerability that the company lives with for a while."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identifier: str = Field(min_length=1)
    package: str = Field(min_length=1)
    reason: str = Field(min_length=10)
    until: date
    """The last day on which it is accepted."""


class Acceptances(BaseModel):
    """The company's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: tuple[Acceptance, ...]


def found(role: str, report: str) -> list[Vulnerability]:
    """Return what a report of trivy says of an image.

    Args:
        role: Of the image.
        report: Trivy's JSON.
    """
    results: list[dict[str, Any]] = json.loads(report).get("Results") or []
    return sorted(
        {
            Vulnerability(
                role=role,
                identifier=entry["VulnerabilityID"],
                package=entry["PkgName"],
                installed=entry.get("InstalledVersion", ""),
                mended=entry.get("FixedVersion", ""),
                severity=entry["Severity"],
            )
            for result in results
            for entry in result.get("Vulnerabilities") or ()
        }
    )


def read(path: Path) -> tuple[Acceptance, ...]:
    """Return what the company accepts; nothing where there is no file.

    Raises:
        SettingsError: The file is not as it should be.
    """
    import yaml

    if not path.is_file():
        return ()
    try:
        return Acceptances.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).accepted
    except (ValidationError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} has to hold `accepted:` with a list of identifier, package, reason and until: "
            f"{shorten(error)}"
        ) from error


def blocking(
    vulnerabilities: Iterable[Vulnerability], accepted: Iterable[Acceptance], today: date
) -> list[Vulnerability]:
    """Return those that stop a delivery: mended somewhere, and not accepted today."""
    lived_with = {(entry.identifier, entry.package) for entry in accepted if today <= entry.until}
    return [
        one
        for one in vulnerabilities
        if one.mended and (one.identifier, one.package) not in lived_with
    ]
