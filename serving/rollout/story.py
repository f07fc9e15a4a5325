"""Why a version serves, or does not: its story, put together from the ledger.

Every sentence is a row of the ledger, and every curve is made of looks that were kept when they
were taken; nothing is computed anew, so the story is what was known then. It refuses a version
that the ledger has never heard of.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from pydantic import Field

from mlplatform.contracts import Contract, Decision, Rollout, UtcDatetime
from mlplatform.contracts.rollout import Phase
from mlplatform.contracts.usecase.operation import RolloutPlan
from mlplatform.errors import NotFoundError
from mlplatform.ledger import Entry, Ledger
from serving.rollout.passages import Passage, is_own, number_of, passages_of, place_of, share
from serving.rollout.store import Look, RolloutStore

_MOST_LOOKS: Final = 400
"""Looks of a rollout that are plotted: about as many as a screen has columns for."""

_OUTCOMES: Final = {
    "promoted": "was promoted",
    "rolled_back": "was rolled back",
    "held": "was held back, for want of evidence",
    "superseded": "was superseded",
}
"""What became of a version, by the phase in which its last rollout ended."""


class Band(Contract):
    """A phase or step of a rollout, as long as it lasted."""

    title: str
    start: UtcDatetime
    end: UtcDatetime


class Trial(Contract):
    """The evidence of one rollout over time."""

    number: int
    plan: RolloutPlan | None = Field(description="Its rules; None: its first row has none.")
    bands: tuple[Band, ...]
    looks: tuple[Look, ...] = Field(description="Oldest first, thinned; the decisive ones kept.")


class Story(Contract):
    """The story of one version."""

    usecase: str
    version: int
    outcome: str = Field(description="What became of it, in a sentence or two.")
    passages: tuple[Passage, ...] = Field(description="Oldest first.")
    trials: tuple[Trial, ...] = Field(default=(), description="One for each rollout.")


def tell(ledger: Ledger, store: RolloutStore, usecase: str, version: int) -> Story:
    """Read the ledger and the looks, and return the story of a version.

    Raises:
        NotFoundError: The ledger does not know the version.
        LedgerError: A row cannot be read.
        DataError: A look cannot be read.
        ServiceError: The database cannot be reached.
    """
    entries = ledger.entries(usecase=usecase)
    own = (row.decision for row in entries if is_own(row.decision, version))
    numbers = sorted({number_of(decision) for decision in own})
    looks = [look for number in numbers for look in store.looks(usecase, number)]
    stored = store.read(usecase)
    newest = None if stored is None else stored.rollout
    return story(entries, looks, usecase, version, newest)


def story(
    entries: Sequence[Entry],
    looks: Sequence[Look],
    usecase: str,
    version: int,
    newest: Rollout | None = None,
) -> Story:
    """Return the story of a version.

    Args:
        entries: Rows of the ledger, oldest first; of other versions too.
        looks: Of the version's rollouts.
        usecase: Whose version.
        version: Its number.
        newest: The use case's newest rollout, if there is one: says what a rollout that is
            under way waits for, and when its last route was in force.

    Raises:
        NotFoundError: No row is about the version.
    """
    decisions = [entry.decision for entry in entries if entry.decision.usecase == usecase]
    passages = tuple(passages_of(decisions, version))
    if not passages:
        known = sorted({row.subject for row in decisions if row.kind == "registration"})
        raise NotFoundError(
            f"the ledger knows no version {version} of {usecase}; it knows "
            f"{', '.join(known) or 'none: run `make demo` first'}"
        )
    rows = [decision for decision in decisions if is_own(decision, version)]
    trials = tuple(
        _trial([row for row in rows if number_of(row) == number], looks)
        for number in sorted({number_of(row) for row in rows})
    )
    if newest is not None and newest.number not in {trial.number for trial in trials[-1:]}:
        newest = None
    return Story(
        usecase=usecase,
        version=version,
        outcome=_outcome(passages, rows, newest, version),
        passages=passages,
        trials=trials,
    )


# --- The end of the story ------------------------------------------------------------------------


def _outcome(
    passages: Sequence[Passage], rows: Sequence[Decision], newest: Rollout | None, version: int
) -> str:
    """Return what became of the version."""
    last = passages[-1]
    if not rows:
        if any(passage.title.startswith("First champion") for passage in passages):
            found = f"Version {version} was the first to serve; there was nothing to compare with."
        else:
            found = (
                f"Version {version} was registered and never rolled out: "
                f"`make rollout VERSION={version}` begins."
            )
    else:
        found = _ended(rows[-1], newest, version)
    if last.rollout is None and last.title.startswith(("Version", "Back from")):
        found += f" {last.title} at {moment(last.at)}."
    return found


def _ended(row: Decision, newest: Rollout | None, version: int) -> str:
    """Return how the last rollout ended, or how far it is."""
    phase = str(row.evidence["phase"])
    reason = row.reason.rstrip(".")
    if phase not in _OUTCOMES:
        waits = f"; it waits for {newest.waits_for}" if newest and newest.waits_for else ""
        return f"Version {version} is on its way, in phase {phase} with {place_of(row)}{waits}."
    found = f"Version {version} {_OUTCOMES[phase]} at {moment(row.at)}: {reason}."
    # A turn that changed no traffic has no route of its own to wait for.
    if newest is not None and newest.at_rest and newest.routes[-1].at == row.at:
        seconds = (newest.entered_at - row.at).total_seconds()
        found += f" Every gateway followed within {seconds:,.1f} s by the rollout's clock."
    return found


def moment(at: datetime) -> str:
    """Return a time as the story writes it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


# --- Evidence over time --------------------------------------------------------------------------


def _trial(rows: Sequence[Decision], looks: Sequence[Look]) -> Trial:
    """Return the evidence of one rollout; its rows are not empty."""
    number = number_of(rows[0])
    own = [look for look in looks if look.number == number]
    plan = rows[0].evidence.get("plan")
    return Trial(
        number=number,
        plan=None if plan is None else RolloutPlan.model_validate(plan),
        bands=tuple(_bands(rows, own)),
        looks=tuple(_thinned(own)),
    )


def _bands(rows: Sequence[Decision], looks: Sequence[Look]) -> Iterator[Band]:
    """Yield the phases that lasted; the last one as far as it was looked at."""
    turns: list[tuple[str, datetime]] = []
    for row in rows:
        phase: Phase | str = str(row.evidence["phase"])
        title = share(float(str(row.evidence["weight"]))) if phase == "canary" else phase
        if not turns or turns[-1][0] != title:
            turns.append((title, row.at))
    ends = [start for _, start in turns[1:]]
    ends.append(max([turns[-1][1], *(look.at for look in looks[-1:])]))
    for (title, start), end in zip(turns, ends, strict=True):
        if end > start:
            yield Band(title=title, start=start, end=end)


def _thinned(looks: Sequence[Look]) -> Iterator[Look]:
    """Yield few enough looks to plot; the last of each phase decided, so it stays."""
    every = -(-len(looks) // _MOST_LOOKS)
    for index, look in enumerate(looks):
        following = looks[index + 1] if index + 1 < len(looks) else None
        decisive = following is None or (look.phase, look.step) != (following.phase, following.step)
        if decisive or index % every == 0:
            yield look
