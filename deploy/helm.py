"""Helm, as far as these commands need it: what is released, what would be, make it so.

Values come from files, never from arguments, and hold no secret: the chart only names Secrets.
Helm is not asked to wait. A killed `helm --wait` leaves a release that nobody may upgrade any
more, and it waits without a word; `deploy.waiting` says what each pod waits for.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.programs import call
from deploy.target import RELEASE, Target
from mlplatform.clients.kubernetes import SECRETS, Cluster
from mlplatform.errors import ServiceError

CHART: Final = Path("helm/mlplatform")
_SECONDS: Final = 300.0
"""Longest time of one call; installing 80 objects takes some ten seconds on a small node."""


@dataclass(frozen=True)
class Release:
    """One revision of the chart, in the cluster or only rendered."""

    status: str
    """`deployed`, `failed`, `pending-install`…"""
    revision: int
    manifest: str
    """All objects, as YAML documents."""
    hooks: tuple[str, ...]
    values: dict[str, Any]
    """Those that were given, over the chart's own."""

    @classmethod
    def read(cls, text: str) -> "Release":
        """Return the release in Helm's JSON."""
        found = json.loads(text)
        return cls(
            status=str(found["info"]["status"]),
            revision=int(found["version"]),
            manifest=str(found.get("manifest", "")),
            hooks=tuple(sorted(hook["manifest"] for hook in found.get("hooks") or ())),
            values=found.get("config") or {},
        )

    def equals(self, other: "Release") -> bool:
        """Return whether the other asks for the same objects, from the same values."""
        return (self.manifest, self.hooks, self.values) == (
            other.manifest,
            other.hooks,
            other.values,
        )

    @property
    def pending(self) -> bool:
        """Whether a Helm was killed while it worked on this."""
        return self.status.startswith("pending") or self.status == "uninstalling"


class Helm:
    """Helm on one cluster and namespace.

    Args:
        target: Where.
    """

    def __init__(self, target: Target) -> None:
        self._place = ("--kube-context", target.context, "--namespace", target.namespace)

    def current(self) -> Release | None:
        """Return the newest revision; None when nothing was ever released.

        Raises:
            ServiceError: Helm failed.
        """
        try:
            return Release.read(self._call("status", RELEASE, "--output", "json"))
        except ServiceError as error:
            if "not found" in str(error):
                return None
            raise

    def planned(self, values: Sequence[Path]) -> Release:
        """Return what `release` would make, as the API server sees it; nothing is written.

        Raises:
            ServiceError: The chart refuses the values, or Helm failed.
        """
        return Release.read(self._upgrade(values, "--dry-run=server", "--output", "json"))

    def release(self, values: Sequence[Path]) -> Release:
        """Make the release so.

        Raises:
            ServiceError: The chart refuses the values, or the API server an object.
        """
        return Release.read(self._upgrade(values, "--output", "json"))

    def rendered(self, values: Sequence[Path], server_version: str) -> str:
        """Return the chart's objects without asking the cluster.

        Args:
            values: Files; later ones win.
            server_version: Of the API server that they are for.

        Raises:
            ServiceError: The chart refuses the values.
        """
        files = [part for path in values for part in ("--values", str(path))]
        version = ("--kube-version", server_version)
        return self._call("template", RELEASE, str(CHART), "--skip-crds", *version, *files)

    def uninstall(self) -> None:
        """Remove the release's objects; none where there is no release.

        Raises:
            ServiceError: Helm failed.
        """
        self._call("uninstall", RELEASE, "--ignore-not-found")

    def _upgrade(self, values: Sequence[Path], *more: str) -> str:
        files = [part for path in values for part in ("--values", str(path))]
        # Its CRDs are applied before: Helm never upgrades any.
        return self._call("upgrade", RELEASE, str(CHART), "--install", "--skip-crds", *files, *more)

    def _call(self, *arguments: str) -> str:
        return call("helm", *arguments, *self._place, timeout_seconds=_SECONDS)


def forget_pending(cluster: Cluster, release: Release) -> None:
    """Remove the record of a revision whose Helm was killed; the objects stay.

    Helm refuses to go on from it. Without the record it goes on from the revision before, or
    installs anew and takes over the objects, which carry its name.

    Args:
        cluster: Where the release is.
        release: Whose `pending` is true, and on which nobody works.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    cluster.delete(SECRETS, f"sh.helm.release.v1.{RELEASE}.v{release.revision}")
