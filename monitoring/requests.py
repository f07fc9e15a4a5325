"""The histories of triggers: one row for each use case, beside the ledger in its database.

Of two who decide on one history the slower one decides again. What was decided is written with it
and reaches the ledger afterwards, so a process may die between the two. It refuses to know what a
history means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from mlplatform.contracts.retrain import History, Signal
from mlplatform.contracts.usecase.operation import Monitoring
from mlplatform.errors import StaleError
from mlplatform.ledger import Ledger
from mlplatform.ledger.database import Database
from mlplatform.ledger.state import StateTable
from monitoring.history import turn
from monitoring.trigger import observe

_ATTEMPTS: Final = 20
"""Writes that another writer may win in a row: more than there are writers."""

Step = Callable[[History], History]
"""From a history to the next one; the very same object where nothing changes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The history of a use case, as it is stored."""

    revision: int
    """Counts the writes of the use case's row, from 1."""
    history: History


class RequestStore:
    """The histories of all triggers; safe to share between threads, and across a fork.

    Args:
        ledger_url: `sqlite:///path/to/file` or `postgresql://user:password@host/name`: the
            ledger's database, made if it is not there.

    Raises:
        SettingsError: `ledger_url` names no database that a ledger can be kept in.
        ServiceError: The database cannot be reached.
    """

    def __init__(self, ledger_url: str | SecretStr) -> None:
        database = Database(ledger_url)
        database.prepare(create=True)
        self._states = StateTable(database, "retrain_triggers", History, "trigger")

    def read(self, usecase: str) -> Stored | None:
        """Return the history of a use case; None when its trigger has never been asked.

        Raises:
            DataError: The row holds no history of this use case.
            ServiceError: The database cannot be reached.
        """
        found = self._states.read(usecase)
        return None if found is None else Stored(*found)

    def write(self, history: History, *, revision: int) -> int:
        """Replace the history that has this revision, and return the new revision.

        Args:
            history: The new one.
            revision: Of the history that it follows from; 0: there was none.

        Raises:
            StaleError: The stored history is another one by now; nothing was written.
            ServiceError: The database cannot be reached; whether it was written is then unknown.
        """
        return self._states.write(history, revision=revision)

    def change(self, usecase: str, step: Step, now: datetime) -> History:
        """Take the stored history one step further, whoever else writes it; return the new one.

        Args:
            usecase: Its name.
            step: Pure: it is taken again from the newer history when another writer was faster.
            now: When the history begins, if there is none.

        Raises:
            StaleError: Other writers were faster twenty times.
            DataError: The row holds no history, or `step` refuses it.
            ServiceError: The database cannot be reached; whether it was written is then unknown.
        """
        attempt = 0
        while True:
            stored = self.read(usecase) or Stored(0, History(usecase=usecase, began=now))
            history = step(stored.history)
            if history is stored.history:
                return history
            try:
                self.write(history, revision=stored.revision)
            except StaleError:
                attempt += 1
                if attempt == _ATTEMPTS:
                    raise
            else:
                return history


def notice(
    store: RequestStore,
    ledger: Ledger,
    usecase: str,
    signals: Sequence[Signal],
    monitoring: Monitoring,
    now: datetime,
) -> History:
    """Take in what was signalled, decide, and put what was decided on the ledger.

    To be called after each window, and now and then without signals: runs fall due and cooldowns
    end. Signals may be given again, late and in any order. After an error, call it again.

    Args:
        store: Of the histories.
        ledger: Where decisions are kept.
        usecase: Its name.
        signals: Findings and events.
        monitoring: Of the use case's spec.
        now: The time.

    Raises:
        DataError: A signal is refused, see `observe`; none of them was taken in.
        StaleError: Other writers were faster twenty times.
        ServiceError: The database cannot be reached.
        LedgerError: The ledger's chain is broken.
    """

    def step(history: History) -> History:
        for signal in signals:
            history = observe(history, signal, monitoring, now)
        return turn(history, monitoring, now)

    return record(store, ledger, store.change(usecase, step, now))


def record(store: RequestStore, ledger: Ledger, history: History) -> History:
    """Put the rows that are not on the ledger yet there; return the history as it then is.

    Who dies in between leaves rows that are given to the ledger twice: it keeps the first.

    Raises:
        StaleError: Other writers were faster twenty times.
        ServiceError: The database cannot be reached.
        LedgerError: The ledger's chain is broken.
    """
    if not history.unrecorded:
        return history
    for row in history.unrecorded:
        ledger.append(row)
    done = {row.key for row in history.unrecorded}

    def drop(found: History) -> History:
        left = tuple(row for row in found.unrecorded if row.key not in done)
        same = len(left) == len(found.unrecorded)
        return found if same else found.model_copy(update={"unrecorded": left})

    return store.change(history.usecase, drop, history.began)
