"""What the ledger tells a run of those before it: who has its request, how large the last set was.

It appends one row, that of a request which a run takes.
"""

from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from mlplatform.contracts import UseCase
from mlplatform.contracts.retrain import owner, ownership
from mlplatform.errors import LedgerError, StaleError
from mlplatform.ledger import Ledger
from pipelines.times import moment


def take_request(
    ledger: Ledger,
    usecase: str,
    request: str,
    run: str,
    journal: dict[str, JsonValue],
    now: datetime,
) -> None:
    """Take a retraining request for this run; a step that is repeated takes it again.

    Args:
        ledger: Where it is taken.
        usecase: Its name.
        request: The request's key.
        run: This run's id.
        journal: The step's record, which is told of the request and of another run that has it.
        now: The time.

    Raises:
        StaleError: Another run has it, and trains.
        LedgerError: The ledger's chain is broken.
        ServiceError: The database cannot be reached.
    """
    mine = ownership(usecase, request, run, now)
    journal["request"] = request
    try:
        ledger.append(mine)
    except LedgerError:
        taken = ledger.get(mine.key)
        if taken is None or owner(taken.decision) == run:
            raise
        journal["owner"] = owner(taken.decision)
        raise StaleError(
            f"run {owner(taken.decision)} trains what request {request} asked for already: "
            "this run ends here, and nothing is lost"
        ) from None


def previous_rows(ledger: Ledger, spec: UseCase, as_of: datetime) -> int | None:
    """Labels that the source gave the last training set of this feature service; None: no set.

    Those of people do not count, and those that were left out for how they were answered do: the
    rule on size looks for labels that the source has lost.

    A run that looks from an earlier time has fewer rows by nature and is no regression.

    Raises:
        LedgerError: A row cannot be read.
        ServiceError: The database cannot be reached.
    """
    entries = ledger.entries(usecase=spec.name, kind="training_set")
    built = [entry.decision.evidence for entry in entries]
    sizes = [
        _count(row, "rows") + _count(row, "degraded_rows") - _count(row, "reviewed_rows")
        for row in built
        if row["feature_service"] == spec.feature_service and moment(str(row["as_of"])) <= as_of
    ]
    return sizes[-1] if sizes else None


def _count(row: Mapping[str, JsonValue], name: str) -> int:
    """Return a number of a ledger row; 0 where its release did not count that yet."""
    value = row.get(name)
    return value if isinstance(value, int) else 0
