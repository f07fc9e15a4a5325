"""How the three layers did in a window: what answered, what feeds it, and the model itself. Pure.

Limits are the spec's. A layer without one sign of life is `unknown`, not well. It names no cause
and asks for nothing: that is what findings are for.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
from scipy.stats import binom

from mlplatform.contracts import Decision, UseCase
from mlplatform.contracts.drift import DriftReport
from mlplatform.contracts.performance import Performance
from mlplatform.contracts.usecase.operation import LatencyBudget
from mlplatform.contracts.watch import Layer, LayerHealth, Vital
from monitoring.served import UNREAD, says

_P99: Final = 0.99
_SURE: Final = 0.99
"""Of windows of a service that holds its limits just so, this share is not called trouble."""
_FAILED: Final = "failed"
_HELD: Final = "held"


def infrastructure(spec: UseCase, live: pl.DataFrame) -> LayerHealth:
    """Return how what answers did: latency by hop, availability, the store of features.

    Args:
        spec: Holds the budgets.
        live: Rows of the archive that somebody was answered with.
    """
    return _health("infrastructure", _answers(spec, live) if live.height else ())


def pipeline(spec: UseCase, rows: Sequence[Decision], now: datetime) -> LayerHealth:
    """Return how training and rollouts did.

    Args:
        spec: Holds the schedule and how fresh data must be.
        rows: The ledger's newest rows of the use case of the kinds `run`, `training_set` and
            `rollout`, oldest first; others are ignored.
        now: The time, in that of the data.
    """
    last = {row.kind: row for row in rows}
    found: list[Vital] = []
    if (run := last.get("run")) is not None:
        found.append(
            Vital(
                name="last_run_ok",
                value=float(run.verdict != _FAILED),
                limit=1,
                ok=run.verdict != _FAILED,
                why=f"run {run.subject} {run.verdict}: {run.reason}",
            )
        )
        if (as_of := _moment(run)) is not None:
            found.append(_age(spec, run, (now - as_of) / timedelta(days=1)))
    if (data := last.get("training_set")) is not None:
        age, limit = data.evidence.get("data_age_hours"), spec.data.freshness_hours
        if isinstance(age, int | float):
            found.append(
                Vital(
                    name="training_data_age_hours",
                    value=age,
                    limit=limit,
                    ok=age <= limit,
                    why=f"the newest data of the last training set were {age:.1f} h old when it "
                    f"was built; at most {limit:g} h",
                )
            )
    if (rollout := last.get("rollout")) is not None:
        held = rollout.verdict == _HELD
        found.append(
            Vital(
                name="rollout_held",
                value=float(held),
                limit=0,
                ok=not held,
                why=f"version {rollout.subject}: {rollout.verdict}: {rollout.reason}",
            )
        )
    return _health("pipeline", found)


def model(drift: DriftReport | None, performance: Performance | None) -> LayerHealth:
    """Return how the model did: columns that moved now, and what matured labels say."""
    found: list[Vital] = []
    if drift is not None and drift.columns:
        names = ", ".join(drift.drifted) or "none"
        found.append(
            Vital(
                name="drifted_columns",
                value=len(drift.drifted),
                limit=0,
                ok=not drift.drifted,
                why=f"of {len(drift.columns)} columns: {names}",
            )
        )
    if performance is not None and performance.cohort.requests:
        cohort = performance.cohort
        found.append(
            Vital(
                name="label_maturity",
                value=cohort.maturity,
                limit=None,
                ok=True,
                why=f"{cohort.measured:,} of {cohort.requests:,} requests measured",
            )
        )
        found += [
            Vital(
                name=f"{item.metric}_loss",
                value=item.registered.estimate - item.live.value
                if item.loss is None
                else item.loss.estimate,
                limit=item.accepted,
                ok=item.verdict != "loss",
                why=f"{item.live.value:.3f} against {item.registered.estimate:.3f} registered",
            )
            for item in performance.losses
        ]
    return _health("model", found)


def _answers(spec: UseCase, live: pl.DataFrame) -> Iterator[Vital]:
    budgets = spec.serving.latency_ms
    for hop, limit in _budgets(budgets).items():
        p99 = (live[f"{hop}_us"].quantile(_P99, "higher") or 0) / 1000
        yield Vital(
            name=f"{hop}_p99_ms",
            value=p99,
            limit=limit,
            ok=_by_chance(int((live[f"{hop}_us"] > 1000 * limit).sum()), live.height, 1 - _P99),
            why=f"99 % of {live.height:,} rows took at most {p99:.1f} ms; budget {limit:g} ms",
        )
    within = ~live["fallback"] & (live["total_us"] <= 1000 * _budgets(budgets)["total"])
    share, wanted = within.sum() / live.height, spec.serving.availability
    yield Vital(
        name="availability",
        value=share,
        limit=wanted,
        ok=_by_chance(live.height - int(within.sum()), live.height, 1 - wanted),
        why=f"{within.sum():,} of {live.height:,} rows answered by a model within the budget",
    )
    shares = {
        "fallback_share": live["fallback"],
        "degraded_share": live["degraded"],
        "features_unread_share": live.select(says(UNREAD)).to_series(),
    }
    for name, flags in shares.items():
        yield Vital(
            name=name,
            value=flags.sum() / live.height,
            limit=None,
            ok=True,
            why=f"{flags.sum():,} of {live.height:,} rows",
        )


def _by_chance(failed: int, rows: int, share: float) -> bool:
    """Return whether a service that fails at a share might show so many failures among its rows.

    One failure of a thousand rows is no sign that fewer than 999 of 1,000 are answered in time.
    """
    return failed <= int(binom.ppf(_SURE, rows, share))


def _budgets(budgets: LatencyBudget) -> dict[str, float]:
    """Return what each hop of a row may take in the gateway, milliseconds."""
    return {
        "total": budgets.total - budgets.network,
        "features": budgets.features,
        "inference": budgets.queue + budgets.inference,  # the gateway waits for both at once
        "decision": budgets.decision,
    }


def _age(spec: UseCase, run: Decision, days: float) -> Vital:
    limit = spec.monitoring.schedule_days
    late = limit is not None and days > limit + spec.monitoring.window_hours / 24
    due = "" if limit is None else f"; one is due every {limit:g} days"
    return Vital(
        name="last_run_age_days",
        value=days,
        limit=limit,
        ok=not late,
        why=f"run {run.subject} looked from {days:.1f} days ago{due}",
    )


def _moment(row: Decision) -> datetime | None:
    """Return the time that a run looked from, in that of the data."""
    said = row.evidence.get("as_of")
    if not isinstance(said, str):
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _health(layer: Layer, vitals: Iterable[Vital]) -> LayerHealth:
    found = tuple(vitals)
    if not found:
        return LayerHealth(layer=layer, verdict="unknown")
    well = all(vital.ok for vital in found)
    return LayerHealth(layer=layer, verdict="ok" if well else "trouble", vitals=found)
