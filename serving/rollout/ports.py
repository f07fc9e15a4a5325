"""What a driver acts through: one on this machine, another in a cluster."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from mlplatform.contracts import Rollout, ServedModel
from mlplatform.contracts.rollout import ServerStatus, Statistics, Version


@dataclass(frozen=True, slots=True)
class Server:
    """The server of one version, as it is now."""

    status: ServerStatus
    served: ServedModel | None = None
    """What it must be fed; known when it is ready."""


class Servers(Protocol):
    """One server for each version; a live one is never changed."""

    def look(self, version: Version) -> Server:
        """Return how the version's server is; never blocks for longer than a second."""
        ...

    def ensure(self, versions: Collection[Version]) -> None:
        """Begin to start the servers that are missing and stop all others; does not wait.

        A server is started only from a model whose signature, name, version and digest were
        verified, and is ready only when it gives the golden answers.
        """
        ...


class Aliases(Protocol):
    """The registry's view of who serves."""

    def set(self, usecase: str, champion: Version, challenger: Version | None) -> None:
        """Make the aliases so; raises ServiceError where the registry is away."""
        ...


class Reader(Protocol):
    """Reads the evidence of one rollout from the prediction log and the matured labels."""

    def read(self, rollout: Rollout) -> Statistics:
        """Return all that the rollout has shown by now.

        Raises:
            DataError: The log cannot be read; the look is then inconclusive.
        """
        ...
