"""What the core asks for: values, all of them idempotent, that a driver brings about.

They say how things are to be, not what to change, so that a driver which was killed between any
two of them does all of them again.
"""

from dataclasses import dataclass

from mlplatform.contracts import Decision
from mlplatform.contracts.rollout import Version


@dataclass(frozen=True, slots=True)
class EnsureServers:
    """These versions have a verified server each, and no other version has one."""

    versions: tuple[Version, ...]
    """The one that serves first."""


@dataclass(frozen=True, slots=True)
class PublishRoute:
    """The route is this one. Skipped while a server that it needs is not ready."""

    epoch: int
    salt: str
    champion: Version
    """Takes what the challenger does not."""
    challenger: Version | None
    weight: float
    """The challenger's share of entities; it is an arm when this is above 0."""
    shadow: float
    """Share of requests that the challenger sees besides; 0: none."""


@dataclass(frozen=True, slots=True)
class SetAliases:
    """The registry's aliases are these; a view of the rollout's state that is put right."""

    champion: Version
    challenger: Version | None
    """None: nobody has that alias."""


@dataclass(frozen=True, slots=True)
class Record:
    """The ledger holds this row; its key makes it one, however often it is asked for."""

    decision: Decision


Effect = EnsureServers | PublishRoute | SetAliases | Record
