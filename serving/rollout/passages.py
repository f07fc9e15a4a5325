"""Rows of the ledger as passages of a version's story; nothing is said that no row says."""

from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import Field

from mlplatform.contracts import Contract, Decision, UtcDatetime, Verdict
from serving.rollout.guardrails import percent
from serving.rollout.judge import e_value

_HEADLINES: Final = {
    "started": "Rollout {rollout} begins",
    "verifying": "Its server starts",
    "verified": "Verified: {place}",
    "canary": "To {place}",
    "soak": "Soak: {place}",
    "promoted": "Promoted: all traffic",
    "harm": "Harm: all traffic goes back",
    "failed": "Its server failed: no traffic",
    "held": "Held: no traffic",
    "superseded": "Superseded: no traffic",
    "forced": "Sent on by hand: {place}",
    "rolled_back": "Rolled back by hand: no traffic",
    "aborted": "Aborted by hand: no traffic",
    "paused": "Paused",
    "resumed": "Resumed",
}


class Passage(Contract):
    """Something that was decided."""

    at: UtcDatetime
    rollout: int | None = Field(description="Its number; None: outside of a rollout.")
    verdict: str
    title: str
    text: str = Field(description="Why, with the numbers.")
    actor: str
    looked: Verdict | None = Field(default=None, description="What was seen, if that decided.")


def passages_of(decisions: Sequence[Decision], version: int) -> Iterator[Passage]:
    """Yield what the rows say of a version, in their order; rows of others are passed over."""
    runs = {row.evidence.get("run") for row in decisions if _is_registration(row, version)} - {None}
    promoted: set[int] = set()  # rollouts of later versions that this one has lost its traffic to
    for row in decisions:
        if row.kind == "gate" and row.evidence.get("run") in runs:
            yield _passage(row, f"Gates: {row.subject} {row.verdict}")
        elif _is_registration(row, version):
            yield _passage(row, "Registered" if row.verdict == "registered" else "Built again")
        elif row.kind == "route" and row.subject == str(version):
            yield _passage(row, "First champion: all traffic")
        elif is_own(row, version):
            headline = _HEADLINES.get(row.verdict, row.verdict)
            title = headline.format(rollout=number_of(row), place=place_of(row))
            looked = row.evidence.get("looked")
            verdict = None if looked is None else Verdict.model_validate(looked)
            yield _passage(row, title, rollout=number_of(row), looked=verdict)
        elif row.kind == "rollout" and row.evidence.get("champion") == version:
            if row.evidence.get("phase") == "promoted":
                promoted.add(number_of(row))
                yield _passage(row, f"Version {row.subject} takes over")
            elif number_of(row) in promoted:
                yield _passage(row, f"Back from version {row.subject}: all traffic")


def is_own(row: Decision, version: int) -> bool:
    """Return whether a row is a turn of a version's own rollout."""
    return row.kind == "rollout" and row.subject == str(version)


def number_of(row: Decision) -> int:
    """Return the number of the rollout that a row is of."""
    return int(str(row.evidence["rollout"]))


def place_of(row: Decision) -> str:
    """Return where a row of a rollout puts the version."""
    if row.evidence.get("phase") == "shadow":
        return "answers that nobody sees"
    return share(float(str(row.evidence["weight"])))


def share(weight: float) -> str:
    """Return a share of traffic in words."""
    return f"{percent(weight)} of traffic"


def _passage(
    row: Decision, title: str, *, rollout: int | None = None, looked: Verdict | None = None
) -> Passage:
    return Passage(
        at=row.at,
        rollout=rollout,
        verdict=row.verdict,
        title=title,
        text=_why(row, looked),
        actor=row.actor,
        looked=looked,
    )


def _why(row: Decision, looked: Verdict | None) -> str:
    """Return a row's reason; a step needs no proof that the version is safe, and says so."""
    if row.verdict not in {"canary", "soak"} or looked is None or looked.kind != "undecided":
        return row.reason
    harm = e_value(looked.log_harm)
    return f"Enough was seen, and no harm (e-value {harm}). {row.reason}"


def _is_registration(row: Decision, version: int) -> bool:
    return row.kind == "registration" and row.subject == f"{row.usecase}/{version}"
