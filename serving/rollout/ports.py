"""What a driver acts through: one on this machine, another in a cluster."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mlplatform.contracts import Rollout, ServedModel
from mlplatform.contracts.rollout import ServerStatus, Statistics, Version
from serving.rollout.store import Look, Revision, Stored


class States(Protocol):
    """Where the newest rollout of each use case is kept, and what was seen of it."""

    def read(self, usecase: str) -> Stored | None:
        """Return the newest rollout of a use case; None when it never had one.

        Raises:
            DataError: What is stored is no rollout of this use case.
            ServiceError: The store is away.
        """
        ...

    def write(self, rollout: Rollout, *, revision: Revision) -> Revision:
        """Replace the state that has this revision, and return the new revision.

        Args:
            rollout: The new state.
            revision: Of the state that it follows from; 0: there was none.

        Raises:
            StaleError: The stored state is another one by now; nothing was written.
            ServiceError: The store is away; whether it was written is then unknown.
        """
        ...

    def note(self, look: Look) -> None:
        """Keep what was seen, to be plotted; raises ServiceError where it cannot be kept."""
        ...


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


class Lock(Protocol):
    """What one writer holds at a time; it is let go when its holder dies."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold the lock for the length of the block; never waits for it.

        Raises:
            ServiceError: Somebody else has it, or it cannot be taken.
            StaleError: It was taken over from this process: what it decided on is no longer so.
        """
        ...


class Reader(Protocol):
    """Reads the evidence of one rollout from the prediction log and the matured labels."""

    def read(self, rollout: Rollout) -> Statistics:
        """Return all that the rollout has shown by now.

        Raises:
            DataError: The log cannot be read; the look is then inconclusive.
        """
        ...
