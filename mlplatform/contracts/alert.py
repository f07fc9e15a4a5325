"""What people are told by monitoring, and what is remembered of it.

An alert has the name that a Prometheus rule of the same meaning has, and so the same runbook.
"""

from typing import Final, Literal

from pydantic import Field

from mlplatform.contracts.base import Contract, UtcDatetime

Severity = Literal["page", "ticket"]
"""page: users or data are harmed now, somebody is woken; ticket: on the next working day."""

AlertState = Literal["firing", "resolved"]

RUNBOOKS: Final = "docs/operations.md"
"""Where each alert has a section, under a heading that is its name."""


def runbook(name: str) -> str:
    """Return the link to an alert's section."""
    return f"{RUNBOOKS}#{name.lower()}"


class Alert(Contract):
    """Something that people should know, or that it is over."""

    usecase: str
    name: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$", description="As the section's heading.")
    severity: Severity
    state: AlertState
    subject: str = Field(default="", description="Features, metrics, a request: what shows it.")
    summary: str = Field(description="In words, with the numbers.")
    at: UtcDatetime = Field(description="The moment that it speaks of; not when it was found out.")

    @property
    def key(self) -> str:
        """Return what makes two alerts one: `<usecase>/<name>`, whatever the subject."""
        return f"{self.usecase}/{self.name}"

    @property
    def runbook(self) -> str:
        """Return the link to its section."""
        return runbook(self.name)


class Told(Contract):
    """What was last told under one key."""

    key: str
    state: AlertState
    fired_at: UtcDatetime = Field(description="Of the newest that fired and was told.")
    known_at: UtcDatetime = Field(description="Of the newest that came, told or not.")


class Parcel(Contract):
    """An alert that a channel has not taken yet."""

    channel: str
    alert: Alert


class Announced(Contract):
    """All that is remembered of one use case's alerts: written as one JSON value."""

    usecase: str
    told: tuple[Told, ...] = Field(default=(), description="One for each key, by key.")
    parcels: tuple[Parcel, ...] = Field(default=(), description="To be delivered, oldest first.")
    lost: int = Field(default=0, ge=0, description="Parcels given up: too many were waiting.")

    def last(self, key: str) -> Told | None:
        """Return what was last told under a key."""
        return next((told for told in self.told if told.key == key), None)
