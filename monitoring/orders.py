"""What a person asks of a trigger: to train anew, yes, no, and that it may go on.

Written into the stored history and onto the ledger. A submitter brings it about, in this process
or in another one.
"""

import uuid
from collections.abc import Callable
from datetime import datetime

from mlplatform.contracts.retrain import Event, History
from mlplatform.contracts.usecase.operation import Monitoring
from mlplatform.errors import DataError, NotFoundError
from mlplatform.ledger import Ledger
from monitoring import history as histories
from monitoring.requests import RequestStore, notice, record


def ask(
    store: RequestStore,
    ledger: Ledger,
    usecase: str,
    monitoring: Monitoring,
    why: str,
    actor: str,
    now: datetime,
) -> History:
    """Tell of an event that no data show; a model is trained on it within the limits.

    Args:
        store: Of the histories.
        ledger: Where decisions are kept.
        usecase: Its name.
        monitoring: Of the use case's spec.
        why: What happened, in words: a new route, a new price list.
        actor: Who says so.
        now: The time, which is the event's too.

    Raises:
        DataError: It is not said what happened.
        StaleError: Other writers were faster twenty times.
        ServiceError: The database cannot be reached.
        LedgerError: The ledger's chain is broken.
    """
    if not why.strip():
        raise DataError(f"say what the model of {usecase} must learn of, for example: a new route")
    name = f"{actor}/{uuid.uuid4().hex[:8]}"
    event = Event(usecase=usecase, id=name, at=now, why=f"{why.strip()} ({actor})")
    return notice(store, ledger, usecase, [event], monitoring, now)


def approve(
    store: RequestStore,
    ledger: Ledger,
    usecase: str,
    key: str | None,
    actor: str,
    why: str,
    now: datetime,
) -> History:
    """Let the request run that waits for approval.

    Args:
        store: Of the histories.
        ledger: Where decisions are kept.
        usecase: Its name.
        key: The request's, or how it begins, so that a person answers what was read; None: the
            one that waits.
        actor: Who approves.
        why: Why, in words.
        now: The time.

    Raises:
        NotFoundError: The trigger was never asked.
        DataError: No such request waits for approval.
        StaleError: Other writers were faster twenty times.
        ServiceError: The database cannot be reached.
        LedgerError: The ledger's chain is broken.
    """

    def step(found: History) -> History:
        return histories.approve(found, _awaited(found, key), actor, why, now)

    return _change(store, ledger, usecase, step, now)


def deny(
    store: RequestStore,
    ledger: Ledger,
    usecase: str,
    key: str | None,
    actor: str,
    why: str,
    now: datetime,
) -> History:
    """Refuse the request that waits for approval: what it was asked for is settled.

    Arguments and errors are those of `approve`.
    """

    def step(found: History) -> History:
        return histories.deny(found, _awaited(found, key), actor, why, now)

    return _change(store, ledger, usecase, step, now)


def reset(
    store: RequestStore, ledger: Ledger, usecase: str, actor: str, why: str, now: datetime
) -> History:
    """Let the trigger train again after runs without gain: a person has found out why.

    Raises:
        NotFoundError: The trigger was never asked.
        StaleError: Other writers were faster twenty times.
        ServiceError: The database cannot be reached.
        LedgerError: The ledger's chain is broken.
    """

    def step(found: History) -> History:
        return histories.reset(found, actor, why, now)

    return _change(store, ledger, usecase, step, now)


def _change(
    store: RequestStore,
    ledger: Ledger,
    usecase: str,
    step: Callable[[History], History],
    now: datetime,
) -> History:
    if store.read(usecase) is None:
        raise NotFoundError(
            f"the trigger of {usecase} was never asked: no window has been judged and no event told"
        )
    return record(store, ledger, store.change(usecase, step, now))


def _awaited(history: History, key: str | None) -> str:
    """Return the key of the request that waits, if it is the one that is meant."""
    current = history.in_flight
    if current is None or current.phase != "awaiting_approval":
        raise DataError(
            f"no request of {history.usecase} waits for approval: it was answered, or none was made"
        )
    whole = current.request.key
    if not whole.startswith(key or ""):
        raise DataError(f"the request of {history.usecase} that waits is {whole}, not {key}")
    return whole
