"""Whether a run brought a better model, as the ledger tells.

A registered model is not better yet: that is for its rollout to find out on live traffic. Only one
that has taken over all of it is.
"""

from typing import Final

from mlplatform.contracts import Decision
from mlplatform.ledger import Ledger

_WITHOUT: Final = frozenset({"rejected", "failed", "duplicate"})
"""Verdicts of runs that leave no model of their own."""
_ENDED: Final = {"promoted": True, "rolled_back": False, "held": False, "superseded": False}
"""Phases in which a rollout ends, and whether its model serves then."""


def gain(ledger: Ledger, usecase: str, run: str) -> bool | None:
    """Return whether the model that a run registered took over; None while that is open.

    It is open until a rollout of the version has ended; of several the newest counts. A run that
    made an earlier run's model again brought nothing, nor did one whose model was never rolled out
    before a later version was: nobody asks for it any more.

    Args:
        ledger: Where decisions are kept.
        usecase: Its name.
        run: The run's id.

    Raises:
        LedgerError: A row cannot be read.
        ServiceError: The database cannot be reached.
    """
    registrations = [entry.decision for entry in ledger.entries(usecase, "registration")]
    own = [row for row in registrations if row.evidence.get("run") == run]
    if not own:
        ended = [entry.decision.verdict for entry in ledger.entries(usecase, "run", subject=run)]
        return False if ended and ended[-1] in _WITHOUT else None
    if _made_before(own[-1], registrations):
        return False
    version = str(own[-1].evidence["version"])
    if ledger.entries(usecase, "route", subject=version, limit=1):
        return True  # the first champion of all: it took over without a rollout
    if turns := ledger.entries(usecase, "rollout", subject=version, limit=1):
        return _ENDED.get(str(turns[-1].decision.evidence["phase"]))
    rolled = (entry.decision.subject for entry in ledger.entries(usecase, "rollout"))
    return False if any(int(other) > int(version) for other in rolled) else None


def _made_before(own: Decision, registrations: list[Decision]) -> bool:
    """Return whether another run's row names the version first.

    The row's own verdict cannot tell: a run that was cut off after it had registered its model
    finds it there when it tries again, and says `unchanged`.
    """
    first = next(row for row in registrations if row.subject == own.subject)
    return first.evidence.get("run") != own.evidence["run"]
