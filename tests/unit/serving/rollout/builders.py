"""Rollouts and evidence for tests: a plan, versions, and what sound or broken models show."""

from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from mlplatform.contracts import Counts, Evidence, Moments, Pair, Rollout, ServerStatus, Stage
from mlplatform.contracts.rollout import AT_REST, Phase, Share, Statistics, Version
from mlplatform.contracts.usecase.operation import Guardrail, RolloutPlan
from serving.rollout import machine
from serving.rollout.effects import EnsureServers, PublishRoute, Record, SetAliases

START: Final = datetime(2026, 3, 2, 8, tzinfo=UTC)
CHAMPION: Final = Version(version=3, digest="c" * 64)
CHALLENGER: Final = Version(version=4, digest="d" * 64)
NEWER: Final = Version(version=5, digest="e" * 64)
PLAN: Final = RolloutPlan(
    assignment_unit="flight",
    shadow_hours=6,
    weights=(0.05, 0.2, 0.5),
    min_exposure=500,
    guardrails=(
        Guardrail(metric="error_rate", margin=0.02),
        Guardrail(metric="budget_overrun_rate", margin=0.02),
        Guardrail(metric="loss", margin=0.02),
    ),
    rollback_alpha=0.01,
    promotion_alpha=0.01,
    soak_hours=24,
    deadline_hours=336,
)
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
UNDER_WAY: Final = tuple(phase for phase in PHASES if phase not in AT_REST)
HOUR: Final = timedelta(hours=1)
READY: Final = ServerStatus("ready", "http://127.0.0.1:8000")


def begun(plan: RolloutPlan = PLAN, *, first_epoch: int = 7) -> Rollout:
    """Return a rollout that was asked for just now."""
    return machine.start(
        "flight_delay", 2, CHALLENGER, CHAMPION, plan, first_epoch, START, "ana", "a better model"
    )


def shown(
    rollout: Rollout,
    at: datetime,
    *,
    entities: int = 40_000,
    errors: float = 0.004,
    champion_errors: float = 0.004,
    loss: float = 0.1,
) -> Statistics:
    """Return what was seen until `at`: the same in each stage, as if labels were known at once.

    Args:
        rollout: It gives the stages: the weights that it ever asked for.
        at: Time of the look and of the newest row.
        entities: Seen in each stage by both arms together, and by the shadow.
        errors: Rate of the challenger's errors.
        champion_errors: That of the champion's in the stages; before them it was 0.4 %.
        loss: Mean loss of the challenger; the champion's is 0.1.
    """
    weights: dict[float, int] = {}
    for routed in rollout.routes:
        if 0 < routed.weight < 1:
            weights.setdefault(routed.weight, routed.epoch)
    stages = []
    for weight, epoch in weights.items():
        challenger = round(entities * weight)
        champion = entities - challenger
        wrong = Counts(round(champion * champion_errors), round(challenger * errors))
        stages.append(
            Stage(
                epoch,
                weight,
                exposed=Counts(champion, challenger),
                values={
                    "error_rate": Pair(
                        _rate(champion, wrong.champion), _rate(challenger, wrong.challenger)
                    ),
                    "budget_overrun_rate": Pair(_rate(champion, 0), _rate(challenger, 0)),
                    "loss": Pair(_mean(champion, 0.1), _mean(challenger, loss)),
                },
                events={"error_rate": wrong, "budget_overrun_rate": Counts()},
            )
        )
    more = round(entities * (errors - champion_errors))
    shadowed = any(routed.shadow for routed in rollout.routes)
    return Statistics(
        usecase=rollout.usecase,
        number=rollout.number,
        version=rollout.challenger.version,
        digest=rollout.challenger.digest,
        at=at,
        newest={guardrail.metric: at for guardrail in rollout.plan.guardrails},
        stages=tuple(stages),
        paired={
            "error_rate": Moments(entities, float(more), float(abs(more))),
            "loss": Moments(entities, entities * (loss - 0.1), entities * 0.01),
        }
        if shadowed
        else {},
        baseline={"error_rate": Share(160, 40_000)},
        recent={"error_rate": Share(round(40_000 * champion_errors), 40_000)},
    )


def evidence(rollout: Rollout, statistics: Statistics | None = None) -> Evidence:
    """Return a look at which both servers are ready and every gateway follows the route."""
    return Evidence(READY, READY, rollout.epoch, statistics)


def look(rollout: Rollout, now: datetime) -> Rollout:
    """Return the rollout after a look at which all is well."""
    return machine.advance(rollout, evidence(rollout, shown(rollout, now)), now)[0]


def reach(
    phase: Phase, step: int = 0, plan: RolloutPlan = PLAN, *, in_force: bool = True
) -> tuple[Rollout, datetime]:
    """Return a rollout that has come to a phase or a step of its canary, and the time of it.

    Where it ended badly it was in its first canary step.
    """
    if phase in AT_REST and phase != "promoted":
        rollout, now = reach("canary", plan=plan)
        if phase == "held":
            now = rollout.deadline_at
            rollout = look(rollout, now)
        elif phase == "superseded":
            rollout = machine.supersede(rollout, NEWER, "ana", now)
        else:
            rollout = machine.order(rollout, "rollback", "ana", "", now)
    else:
        rollout, now = begun(plan), START
        while rollout.phase != phase or (phase == "canary" and rollout.step != step):
            now += HOUR
            rollout = look(rollout, now)
    if in_force:  # a look could go further than that
        rollout = rollout.model_copy(update={"committed": rollout.epoch, "entered_at": now})
    return rollout, now


def driven(rollout: Rollout, now: datetime, hours: int = 60) -> Rollout:
    """Return the rollout after hourly looks at which all is well."""
    for _ in range(hours):
        now += HOUR
        rollout = look(rollout, now)
    return rollout


def after(rollout: Rollout, seen: Evidence, now: datetime) -> Rollout:
    """Return the rollout after one look."""
    return machine.advance(rollout, seen, now)[0]


def servers(rollout: Rollout) -> EnsureServers:
    """Return which servers are to run."""
    return next(e for e in machine.effects(rollout) if isinstance(e, EnsureServers))


def route(rollout: Rollout) -> PublishRoute:
    """Return the route that is asked for."""
    return next(e for e in machine.effects(rollout) if isinstance(e, PublishRoute))


def aliases(rollout: Rollout) -> SetAliases:
    """Return how the aliases are to be."""
    return next(e for e in machine.effects(rollout) if isinstance(e, SetAliases))


def rows(rollout: Rollout) -> list[Record]:
    """Return the rows of the ledger."""
    return [e for e in machine.effects(rollout) if isinstance(e, Record)]


def _rate(entities: int, events: int) -> Moments:
    return Moments(entities, float(events), float(events))


def _mean(entities: int, mean: float) -> Moments:
    """Return the sums of values that spread by 0.1 about their mean."""
    return Moments(entities, entities * mean, entities * (mean**2 + 0.01))
