"""Stories for the tests of what is told: one in which everything happens, one that is empty."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from local.followed import Rolled
from local.replayed import Hop
from local.told import Claim, Day, Line, Told
from mlplatform.contracts import Window
from mlplatform.contracts.drift import ColumnDrift, DriftReport, DriftStatistic
from mlplatform.contracts.model import Interval
from mlplatform.contracts.performance import (
    Cohort,
    Estimate,
    Hindsight,
    Measurement,
    MetricLoss,
    PairedPerformance,
    Performance,
)
from mlplatform.contracts.retrain import Cause, Finding
from mlplatform.contracts.watch import LayerHealth, Vital, Wholeness, WindowReport
from tests.unit.local.replays import replayed

START: Final = datetime(2013, 6, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
DAYS: Final = 18
NAME: Final = "flight_delay"
WORLD, FEED, BROKEN = "the world moves", "a feed is stopped (planted)", "a broken one (planted)"
_CAUSES: Final[dict[int, Cause]] = {
    5: "input_drift",
    7: "input_drift",
    8: "input_drift",
    13: "data_fault",
    14: "data_fault",
}
_HALF: Final = 0.01
"""Of every interval."""


def window(day: int, days: int = 1) -> Window:
    """Return whole days of the story."""
    return Window(start=START + day * DAY, end=START + (day + days) * DAY)


def interval(estimate: float, half: float = _HALF) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)


def measured(**values: float) -> tuple[Measurement, ...]:
    return tuple(
        Measurement.model_validate({"metric": name, "value": v, "interval": interval(v)})
        for name, v in values.items()
    )


def finding(day: int, cause: Cause, **values: Any) -> Finding:
    """Return a finding of the inputs of a day, judged at its end."""
    at = window(day)
    known: dict[str, Any] = {"usecase": NAME, "watch": "inputs", "window": at, "judged_at": at.end}
    return Finding(cause=cause, **(known | values))


def drift(day: int, cause: Cause) -> DriftReport:
    """Return a report in which temperature moves as far as the cause says."""
    moved = cause == "input_drift"
    excess = {"temperature": 2.4 + 0.2 * day if moved else 0.5 + 0.02 * day, "score": 0.4}
    columns = tuple(
        ColumnDrift(
            column=name,
            method="wasserstein",
            verdict="drift" if value > 1 else "no_drift",
            reason=f"mean 24.1 against 9.8 (6.2 to 13.4), {value:.1f} times as far as usual",
            signs=("mean",) if value > 1 else (),
            statistics=(DriftStatistic(sign="mean", value=24.1, usual=9.8, excess=value),),
            distance=0.9,
            threshold=0.5,
            rows=900,
            null_share=0.0,
            reference_null_share=0.0,
        )
        for name, value in excess.items()
    )
    verdict = "drift" if moved else "no_drift"
    return DriftReport.model_validate(
        {"window": window(day), "rows": 900, "verdict": verdict, "reason": "", "columns": columns}
    )


def cohort(day: int, days: int = 7) -> Cohort:
    """Return the matured requests of the days that end with one."""
    of = window(day + 1 - days, days)
    return Cohort(
        window=of, as_of=of.end + DAY, requests=6300, measured=6200, unlabelled=100,
        positive_rate=0.24,
    )  # fmt: skip


def performance(day: int, version: int) -> Performance:
    value = 0.412 - 0.006 * day + (0.05 if version > 1 else 0)
    metrics = measured(pr_auc=value, log_loss=0.61 - value / 4)
    loss = MetricLoss(
        metric="pr_auc",
        accepted=0.05,
        registered=interval(0.43),
        live=metrics[0],
        loss=interval(0.43 - value),
        verdict="no_loss",
    )
    return Performance(
        usecase=NAME, version=version, cohort=cohort(day), metrics=metrics, losses=(loss,),
        verdict="no_loss", reason="no loss",
    )  # fmt: skip


def estimate(day: int, version: int) -> Estimate:
    return Estimate(
        usecase=NAME, version=version, cohort=cohort(day, 1), metrics=measured(pr_auc=0.40),
        verdict="no_loss", reason="",
    )  # fmt: skip


def pair() -> PairedPerformance:
    """Return the model that was replaced beside the new one, the latter better by 0.012."""
    return PairedPerformance(
        usecase=NAME,
        champion=1,
        challenger=2,
        cohort=cohort(12),
        champion_metrics=measured(pr_auc=0.400, log_loss=0.52),
        challenger_metrics=measured(pr_auc=0.412, log_loss=0.525),
        gains=(
            Measurement(metric="pr_auc", value=0.012, interval=interval(0.012, 0.008)),
            Measurement(metric="log_loss", value=-0.005, interval=interval(-0.005)),
        ),
        verdict="better",
        reason="the gain in pr_auc is above zero",
    )  # fmt: skip


def line(day: int, kind: str, subject: str, verdict: str, reason: str = "as it was seen") -> Line:
    at = window(day).end
    return Line(
        window=at, kind=kind, subject=subject, verdict=verdict, reason=reason, recorded_at=at
    )


DECISIONS: Final = (
    Line(
        window=None, kind="registration", subject=f"{NAME}/1", verdict="registered",
        reason="the gates held", recorded_at=datetime(2026, 11, 1, tzinfo=UTC),
    ),
    line(5, "retrain", "persistence", "waiting", "1 of 2 windows blame temperature"),
    line(8, "retrain", "0f" * 16, "requested", "temperature drifted in 2 of 3 windows"),
    line(8, "retrain", "0f" * 16, "submitted", "run training-1"),
    line(8, "registration", f"{NAME}/2", "registered", "the gates held"),
    line(8, "rollout", "2", "started"),
    line(9, "rollout", "2", "verified"),
    line(9, "rollout", "2", "canary"),
    line(11, "rollout", "2", "promoted", "no worse by the margin: e-value 140"),
    line(12, "retrain", "0f" * 16, "better", "version 2 took over"),
    line(13, "retrain", "data_fault", "refused", "data_fault: weather: the feed has stopped"),
    line(15, "rollout", "3", "started"),
    line(16, "rollout", "3", "harm", "decision rate 31 % against 5 %: e-value 2,300"),
)  # fmt: skip


def day(number: int) -> Day:
    """Return a day of the full story."""
    cause, of = _CAUSES.get(number, "healthy"), window(number)
    blamed = {"input_drift": ("temperature",), "data_fault": ("weather",)}.get(cause, ())
    why = {"input_drift": "temperature: mean 24.1 against 9.8", "data_fault": "weather stopped"}
    findings = [finding(number, cause, blamed=blamed, why=why.get(cause, ""))]
    version, matured = (1 if number < 11 else 2), number - 2
    labels: dict[str, Any] = {}
    if matured >= 0:
        findings.append(finding(matured, "healthy", watch="performance", judged_at=of.end))
        realised = performance(matured, 1 if matured < 11 else 2)
        labels = {
            "performance": realised,
            "estimate": estimate(number, version),
            "hindsight": Hindsight(
                estimate=estimate(matured, 1), realised=realised, errors={"pr_auc": 0.01}
            ),
        }
    fault = cause == "data_fault"
    slow = Vital(name="p99_ms", value=80, limit=50, ok=False, why="p99 80 ms, 50 ms allowed")
    return Day(
        act=WORLD if number < 13 else FEED if number < 15 else BROKEN,
        report=WindowReport(
            usecase=NAME,
            window=of,
            judged_at=of.end,
            version=version,
            findings=tuple(findings),
            whole=Wholeness(window=of, rows=900, verdict="fault" if fault else "whole", reason=""),
            drift=drift(number, cause),
            layers=(LayerHealth(layer="infrastructure", verdict="trouble", vitals=(slow,)),)
            if number == 4
            else (),
            **labels,
        ),
        withheld=("weather",) if fault else (),
        decisions=tuple(item for item in DECISIONS if item.window == of.end),
        rollout="version 2: canary, 10% of entities" if number in {9, 10} else "",
        alerts=("the feed of weather has stopped",) if fault else (),
    )


def full(**values: Any) -> Told:
    """Return the story in which everything happens."""
    known: dict[str, Any] = {
        "usecase": NAME,
        "goal": "Say at the gate whether a flight will arrive late",
        "trained_as_of": START,
        "start": START,
        "end": START + DAYS * DAY,
        "git_commit": "f" * 40,
        "seconds": 300,
        "claims": (
            Claim(text="Drift is named", held=True, seen="temperature on Jun 06"),
            Claim(text="A broken version is rolled back", held=False, seen="it was held"),
        ),
        "days": tuple(map(day, range(DAYS))),
        "rollouts": (
            Rolled(
                title="version 2 is to take over (retraining: drift)", number=1, version=2,
                champion=1, phase="promoted", reason="no worse by the margin", hours=74,
                turns=("started", "verified", "canary", "promoted"),
            ),
            Rolled(
                title="a broken version", number=2, version=3, champion=2, phase="rolled_back",
                reason="harm: decision rate", hours=14, turns=("started", "canary", "harm"),
            ),
        ),
        "replaced": pair(),
        "traffic": replayed(hops={"features": Hop(p50=1, p99=2, budget=10),
                                  "client": Hop(p50=5, p99=61, budget=50)}),
        "decisions": DECISIONS,
    }  # fmt: skip
    return Told.model_validate(known | values)


def empty() -> Told:
    """Return a story in which nothing has happened yet."""
    nothing: dict[str, Any] = dict.fromkeys(("claims", "days", "rollouts", "decisions"), ())
    return full(end=START, replaced=None, traffic=replayed(sent=0, answered=0, hops={}), **nothing)


def answers(days: int = DAYS) -> pl.DataFrame:
    """Return the client's ledger: version 1, a canary, version 2; rules on the tenth day."""
    minutes = np.arange(0, days * 24 * 60, 7)
    minutes = minutes[(minutes // 60) % 24 > 5]
    share = np.interp(minutes / 1440, [9, 9.01, 10.5, 10.51, 11.9, 12], [0, 0.1, 0.1, 0.5, 0.5, 1])
    new = np.random.default_rng(1).random(minutes.size) < share
    fallback = (minutes // 1440 == 10) & (minutes // 60 % 24 < 10)
    return pl.DataFrame(
        {
            "event_timestamp": [START + timedelta(minutes=int(at)) for at in minutes],
            "version": [None if f else 2 if n else 1 for n, f in zip(new, fallback, strict=True)],
            "arm": "champion",
            "score": 0.2,
            "decision": False,
            "degraded": False,
            "fallback": fallback,
            "ms": 4.0,
            "status": 200,
        },
        schema_overrides={
            "event_timestamp": pl.Datetime("us", "UTC"), "version": pl.Int64, "status": pl.Int32
        },
    )  # fmt: skip
