"""One rollout on a simulated trace, by the core as it is and by the peers' rules.

Machine, judge and tests are the ones that serve; only their driver is a stand-in. The machine is
asked to go on after every batch.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from bench.rollout import peers
from bench.rollout.driver import CHALLENGER, CHAMPION, USECASE, Driver
from bench.rollout.traffic import BASE_RATES, KINDS, LOSS_MARGIN, Kind, Trace
from mlplatform.contracts.rollout import AT_REST, Evidence, Rollout, ServerStatus
from mlplatform.contracts.usecase.operation import Guardrail, RolloutPlan
from serving.rollout import machine

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
BATCH: Final = timedelta(minutes=1)

SERVER_BATCHES: Final = 5
"""Until the challenger's server is ready; meanwhile the champion's rates become known."""
SHADOW_BATCHES: Final = 15
SOAK_BATCHES: Final = 45
DEADLINE_BATCHES: Final = 600
STALE_BATCHES: Final = 30
LAGS: Final = 3
"""Gateways follow a route at once, or one or two batches late, by the run's number."""

POLICIES: Final = (
    "ours", "Argo Rollouts, 95 %", "Argo Rollouts, 99 %", "Flagger", "peeked z-test",
)  # fmt: skip

_READY: Final = ServerStatus(state="ready")
_STARTING: Final = ServerStatus(state="starting")
_OUTCOMES: Final[dict[str, peers.Result]] = {
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "held": "held",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rollout.

    Attributes:
        kind: Class of the challenger.
        base: Champion's error rate.
        endings: By policy, in the order of `POLICIES`.
        blamed: The guardrail with the largest e-value of harm at our verdict; empty without harm.
        wald: Errors in the canary until our verdict, over Wald's bound (`Driver.information`).
        path: ln of the e-value of harm at each look, where it was asked for.
    """

    kind: str
    base: float
    endings: tuple[peers.Ending, ...]
    blamed: str
    wald: float
    path: tuple[float, ...]


def plan(kind: Kind, base: float) -> RolloutPlan:
    """Return the shipped use case's plan in batches; margins of rates go with the base rate."""
    hours = BATCH / timedelta(hours=1)
    return RolloutPlan(
        assignment_unit="entity",
        shadow_hours=SHADOW_BATCHES * hours if kind.shadow else 0.0,
        shadow_share=1.0 if kind.shadow else 0.0,
        weights=(0.05, 0.2, 0.5),
        min_exposure=100,
        guardrails=(
            Guardrail(metric="error_rate", margin=kind.margin * base),
            Guardrail(metric="budget_overrun_rate", margin=base),
            Guardrail(metric="loss", margin=LOSS_MARGIN),
        ),
        rollback_alpha=0.01,
        promotion_alpha=0.01,
        stale_hours=STALE_BATCHES * hours,
        soak_hours=SOAK_BATCHES * hours,
        deadline_hours=DEADLINE_BATCHES * hours,
    )


def series(kind: int, start: int, end: int, seed: int, paths: int) -> list[Outcome]:
    """Return the outcomes of some runs of a class, by number; the first `paths` with their path."""
    return [
        simulate(KINDS[kind], number, seed, keep_path=number < paths)
        for number in range(start, end)
    ]


def simulate(kind: Kind, number: int, seed: int, *, keep_path: bool = False) -> Outcome:
    """Return what becomes of run `number` of a class; the same for the same arguments."""
    base = BASE_RATES[number % len(BASE_RATES)]
    trace = Trace(kind, base, (seed, KINDS.index(kind), number))
    wanted = plan(kind, base)
    driver = Driver(trace, number // len(BASE_RATES) % LAGS, STALE_BATCHES)
    rollout, path = _advance(driver, wanted)
    last = rollout.story[-1]
    harmed = last.verdict == "harm" and last.looked is not None
    errors, answers = driver.spoiled()
    return Outcome(
        kind=kind.name,
        base=base,
        endings=(
            peers.Ending(_OUTCOMES[rollout.phase], driver.batches, errors, answers),
            peers.argo(trace, 0.95),
            peers.argo(trace, 0.99),
            peers.flagger(trace),
            peers.peeked(trace, wanted.weights),
        ),
        blamed=_blamed(rollout) if harmed else "",
        wald=driver.information(wanted.rollback_alpha) if harmed else float("nan"),
        path=tuple(path) if keep_path else (),
    )


def _advance(driver: Driver, wanted: RolloutPlan) -> tuple[Rollout, list[float]]:
    """Return the rollout once it is over, and the paths of its e-value."""
    rollout = machine.start(
        USECASE, 1, CHALLENGER, CHAMPION, wanted, 1, START, "simulator", "a trace"
    )
    path = []
    while rollout.phase not in AT_REST:
        driver.serve(rollout.routes)
        now = START + driver.batches * BATCH
        challenger = _READY if driver.batches >= SERVER_BATCHES else _STARTING
        evidence = Evidence(challenger, _READY, driver.acknowledged, driver.statistics(now))
        verdict = machine.look(rollout, evidence, now)
        if verdict is not None:
            path.append(verdict.log_harm)
        rollout = machine.turn(rollout, evidence, verdict, now)
    return rollout, path


def _blamed(rollout: Rollout) -> str:
    looked = rollout.story[-1].looked
    return max(looked.readings, key=lambda r: r.log_harm).metric if looked else ""
