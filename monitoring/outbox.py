"""Which alerts people are told, once, and the delivery of those that a channel did not take.

Reports come again, late and in any order, from several processes; people are told once for each
key and interval that something is wrong, and once that it is over. What is to be told is written
by compare-and-swap beside the ledger before anything is sent, so a process that dies loses
nothing; it may send an alert twice (two processes at once, an answer that was lost), never none.
It refuses to wait: a channel that fails is left alone until the next call.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Final, Protocol

from pydantic import SecretStr

from mlplatform.contracts.alert import Alert, Announced, Parcel, Severity, Told
from mlplatform.errors import ServiceError, StaleError, shorten
from mlplatform.ledger.database import Database
from mlplatform.ledger.state import StateTable

REPEAT: Final[Mapping[Severity, timedelta]] = {
    "page": timedelta(hours=4),  # Alertmanager's default repeat_interval
    "ticket": timedelta(days=1),
}
"""Until something that goes on is told again, in the time that alerts speak of."""

_PARCELS: Final = 200
"""Kept for channels that are away, the newest; some 100 kB, weeks of a use case in trouble."""
_SECONDS: Final = 5.0
"""Of one call, from which on no further alert is sent."""
_ATTEMPTS: Final = 20
"""Writes that another writer may win in a row: more than there are writers."""

_log: Final = logging.getLogger(__name__)


class Channel(Protocol):
    """A way to people."""

    def send(self, alert: Alert) -> None:
        """Deliver an alert within seconds; raises ServiceError where that is not certain."""
        ...


def announce(state: Announced, alerts: Iterable[Alert], channels: Collection[str]) -> Announced:
    """Return the state in which these alerts are to be told; the very same where none is.

    An alert that speaks of an earlier moment than what is known under its key changes nothing.
    One that fires is told if none that fired was told in the interval before it, though it was
    over in between: what flaps is told as often as what goes on.
    """
    for alert in alerts:
        state = _heard(state, alert, channels)
    return state


def _heard(state: Announced, alert: Alert, channels: Collection[str]) -> Announced:
    last = state.last(alert.key)
    fires = alert.state == "firing"
    if last is None:
        if not fires:
            return state
        told, tells = (
            Told(key=alert.key, state="firing", fired_at=alert.at, known_at=alert.at),
            True,
        )
    elif alert.at < last.known_at:
        return state
    else:
        due = alert.at >= last.fired_at + REPEAT[alert.severity]
        tells = due if fires else last.state == "firing"
        told = last.model_copy(update={"known_at": alert.at})
        if tells:
            fired_at = alert.at if fires else last.fired_at
            told = told.model_copy(update={"state": alert.state, "fired_at": fired_at})
        if told == last:
            return state
    others = [item for item in state.told if item.key != alert.key]
    known = tuple(sorted([*others, told], key=lambda item: item.key))
    parcels = state.parcels
    if tells:
        parcels += tuple(Parcel(channel=name, alert=alert) for name in sorted(channels))
    lost = max(len(parcels) - _PARCELS, 0)
    changes = {"told": known, "parcels": parcels[lost:], "lost": state.lost + lost}
    return state.model_copy(update=changes)


class Outbox:
    """The alerts of all use cases, in the ledger's database.

    Args:
        ledger_url: `sqlite:///path/to/file` or `postgresql://user:password@host/name`.
        channels: Ways to people by name; a name stays, for alerts wait under it.

    Raises:
        SettingsError: `ledger_url` names no database that a ledger can be kept in.
        ServiceError: The database cannot be reached.
    """

    def __init__(self, ledger_url: str | SecretStr, channels: Mapping[str, Channel]) -> None:
        database = Database(ledger_url)
        database.prepare(create=True)
        self._states = StateTable(database, "alerts", Announced, "alerts")
        self._channels = dict(channels)

    def read(self, usecase: str) -> Announced:
        """Return what is remembered; raises ServiceError, and DataError where that is damaged."""
        found = self._states.read(usecase)
        return Announced(usecase=usecase) if found is None else found[1]

    def announce(self, usecase: str, alerts: Iterable[Alert]) -> int:
        """Tell people of these alerts, as far as they do not know; return how many were delivered.

        A channel that is away costs seconds and no error: what it did not take is sent again by
        the next call, also by one without alerts.

        Raises:
            ValueError: An alert is of another use case.
            StaleError: Other writers were faster twenty times.
            DataError: What is remembered cannot be read.
            ServiceError: The database cannot be reached; give the alerts again.
        """
        alerts = tuple(alerts)
        if others := {alert.usecase for alert in alerts} - {usecase}:
            raise ValueError(f"alerts of {', '.join(others)} were given as those of {usecase}")
        before = self.read(usecase).lost
        state = self._change(usecase, lambda old: announce(old, alerts, self._channels))
        if state.lost > before:
            _log.warning("%s: %d alerts were given up: no channel took them", usecase, state.lost)
        return self._deliver(state)

    def _deliver(self, state: Announced) -> int:
        """Send what waits, oldest first; a channel that fails is not tried again in this call."""
        end = time.monotonic() + _SECONDS
        away: set[str] = set()
        sent: list[Parcel] = []
        for parcel in state.parcels:
            channel = self._channels.get(parcel.channel)
            if channel is None or parcel.channel in away:
                continue
            if time.monotonic() >= end:
                break
            try:
                channel.send(parcel.alert)
            except ServiceError as error:
                _log.warning("%s: kept, to be sent again: %s", parcel.alert.key, shorten(error))
                away.add(parcel.channel)
            else:
                sent.append(parcel)
        if sent:
            self._change(state.usecase, lambda old: _without(old, sent))
        return len(sent)

    def _change(self, usecase: str, step: Callable[[Announced], Announced]) -> Announced:
        attempt = 0
        while True:
            revision, state = self._states.read(usecase) or (0, Announced(usecase=usecase))
            changed = step(state)
            if changed is state:
                return state
            try:
                self._states.write(changed, revision=revision)
            except StaleError:
                attempt += 1
                if attempt == _ATTEMPTS:
                    raise
            else:
                return changed


def _without(state: Announced, sent: Iterable[Parcel]) -> Announced:
    left = list(state.parcels)
    for parcel in sent:
        if parcel in left:
            left.remove(parcel)
    return state.model_copy(update={"parcels": tuple(left)})
