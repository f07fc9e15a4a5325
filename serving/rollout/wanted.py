"""What the state of a rollout means: for servers, route, aliases and ledger.

Nothing here decides anything: the same state always means the same, so a driver that was killed
asks again and finds what is missing.
"""

from mlplatform.contracts import Decision, Rollout
from mlplatform.contracts.rollout import AT_REST, Chapter, Routed, Version
from serving.rollout.effects import Effect, EnsureServers, PublishRoute, Record, SetAliases


def serves(rollout: Rollout) -> Version:
    """Return the version that has all traffic at rest, and all but the canary's before."""
    promoted = in_force(rollout)[0].phase == "promoted"
    return rollout.challenger if promoted else rollout.champion


def in_force(rollout: Rollout) -> tuple[Routed, ...]:
    """Return the routes that some gateway may follow: the newest that all did, and those after.

    Before any is in force these are all.
    """
    return tuple(routed for routed in rollout.routes if routed.epoch >= rollout.committed)


def effects(rollout: Rollout) -> tuple[Effect, ...]:
    """Return how servers, route, aliases and ledger are to be; from the state alone."""
    wanted = rollout.routes[-1]
    challenged = wanted.phase != "promoted" and (wanted.weight > 0 or wanted.shadow > 0)
    challenger = None if rollout.phase in AT_REST else rollout.challenger
    return (
        EnsureServers(_needed(rollout)),
        PublishRoute(
            epoch=wanted.epoch,
            salt=rollout.salt,
            champion=rollout.challenger if wanted.phase == "promoted" else rollout.champion,
            challenger=rollout.challenger if challenged else None,
            weight=wanted.weight if challenged else 0.0,
            shadow=wanted.shadow,
        ),
        SetAliases(champion=serves(rollout), challenger=challenger),
        *(Record(_decision(rollout, chapter)) for chapter in rollout.story),
    )


def _needed(rollout: Rollout) -> tuple[Version, ...]:
    """Return the versions that need a server: those of all routes that a gateway may follow."""
    both = (rollout.champion, rollout.challenger)
    first = serves(rollout)
    if rollout.phase not in AT_REST:
        return both
    found = {first.version}
    for route in in_force(rollout):
        if route.phase != "promoted":
            found.add(rollout.champion.version)
        if route.phase == "promoted" or route.weight > 0 or route.shadow > 0:
            found.add(rollout.challenger.version)
    return (first, *(v for v in both if v != first and v.version in found))


def _decision(rollout: Rollout, chapter: Chapter) -> Decision:
    """Return a chapter as a row of the ledger: the same row however the story goes on."""
    routed = next(r for r in rollout.routes if r.epoch == chapter.epoch)
    return Decision(
        key=f"{rollout.salt}/{chapter.number}",
        usecase=rollout.usecase,
        kind="rollout",
        subject=str(rollout.challenger.version),
        verdict=chapter.verdict,
        reason=chapter.reason,
        evidence={
            "rollout": rollout.number,
            "digest": rollout.challenger.digest,
            "champion": rollout.champion.version,
            "champion_digest": rollout.champion.digest,
            "phase": chapter.phase,
            "step": chapter.step,
            "epoch": chapter.epoch,
            "weight": routed.weight,
            "shadow": routed.shadow,
            "looked": None if chapter.looked is None else chapter.looked.model_dump(mode="json"),
            # The rules by which all that follows is decided.
            "plan": rollout.plan.model_dump(mode="json") if chapter.number == 1 else None,
        },
        actor=chapter.actor,
        at=chapter.at,
    )
