"""Three layers: each sign of life is held against the spec, and none is no sign of health."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from mlplatform.contracts import Decision
from mlplatform.contracts.watch import LayerHealth
from monitoring import layers
from tests.unit.monitoring.days import CODE, traffic

SPEC = CODE.spec
NOW = datetime(2013, 6, 1, tzinfo=UTC)


def vital(health: LayerHealth, name: str) -> tuple[float, bool]:
    (found,) = (one for one in health.vitals if one.name == name)
    return found.value, found.ok


def row(kind: Any, verdict: str, **evidence: Any) -> Decision:
    return Decision(
        key=f"{kind}/{verdict}",
        usecase=SPEC.name,
        kind=kind,
        subject="1",
        verdict=verdict,
        reason="as told",
        evidence=evidence,
        actor="test",
        at=NOW,
    )


def every(nth: int, column: str, value: float) -> Callable[[pl.DataFrame], pl.DataFrame]:
    hit = pl.int_range(pl.len()) % nth == 0
    return lambda rows: rows.with_columns(pl.when(hit).then(value).otherwise(column).alias(column))


@pytest.mark.parametrize(
    ("hop", "budget"), [("total", 40), ("features", 10), ("inference", 20), ("decision", 10)]
)
@pytest.mark.parametrize("slow", [25, 200], ids=["4 in 100", "1 in 200"])
def test_the_99th_percentile_of_each_hop_is_held_against_its_budget(
    hop: str, budget: float, slow: int
) -> None:
    rows = every(slow, f"{hop}_us", 1000 * budget + 1)(traffic(0, rows=400))
    over = slow < 100

    assert over is not vital(layers.infrastructure(SPEC, rows), f"{hop}_p99_ms")[1]
    within = every(slow, f"{hop}_us", 1000 * budget)(traffic(0, rows=400))
    assert vital(layers.infrastructure(SPEC, within), f"{hop}_p99_ms")[1]


@pytest.mark.parametrize(
    ("change", "share"),
    [
        pytest.param(every(100, "fallback", value=True), 0.99, id="the rules answered"),
        pytest.param(every(100, "total_us", value=40_001), 0.99, id="over the budget"),
        pytest.param(every(100, "degraded", value=True), 1.0, id="degraded is answered"),
        pytest.param(every(1000, "fallback", value=True), 0.999, id="just what is promised"),
        pytest.param(every(500, "fallback", value=True), 0.998, id="one more than promised"),
    ],
)
def test_availability_is_the_share_that_a_model_answered_within_the_budget(
    change: Callable[[pl.DataFrame], pl.DataFrame], share: float
) -> None:
    health = layers.infrastructure(SPEC, change(traffic(0, rows=1000)))
    value, ok = vital(health, "availability")

    assert share == pytest.approx(value)
    assert ok is (share > 0.99)  # two failures of a thousand may be chance, ten are not
    assert health.verdict == ("ok" if ok else "trouble")


def test_features_that_were_not_read_are_counted() -> None:
    rows = traffic(0, rows=4, reasons=[[], ["features_late"], ["features_down", "x"], ["y"]])

    assert (0.5, True) == vital(layers.infrastructure(SPEC, rows), "features_unread_share")


def test_no_sign_of_life_is_unknown() -> None:
    found = [
        layers.infrastructure(SPEC, traffic(0).clear()),
        layers.pipeline(SPEC, (), NOW),
        layers.model(None, None),
    ]

    assert ["unknown"] * 3 == [health.verdict for health in found]


@pytest.mark.parametrize(
    ("made", "name", "ok"),
    [
        pytest.param(row("run", "registered"), "last_run_ok", True, id="registered"),
        pytest.param(row("run", "rejected"), "last_run_ok", True, id="a gate said no"),
        pytest.param(row("run", "failed"), "last_run_ok", False, id="failed"),
        pytest.param(
            row("training_set", "built", data_age_hours=48), "training_data_age_hours", True,
            id="data are fresh",
        ),
        pytest.param(
            row("training_set", "built", data_age_hours=48.1), "training_data_age_hours", False,
            id="data are old",
        ),
        pytest.param(row("rollout", "promoted"), "rollout_held", True, id="promoted"),
        pytest.param(row("rollout", "held"), "rollout_held", False, id="held"),
    ],
)  # fmt: skip
def test_the_pipeline_is_judged_by_its_newest_rows(made: Decision, name: str, ok: bool) -> None:
    assert ok is vital(layers.pipeline(SPEC, [made], NOW), name)[1]


@pytest.mark.parametrize(("days", "ok"), [(29, True), (31, True), (31.1, False)])
def test_a_run_is_late_a_window_after_it_was_due(days: float, ok: bool) -> None:
    as_of = (NOW - timedelta(days=days)).isoformat()
    monthly = SPEC.monitoring.model_copy(update={"schedule_days": 30, "window_hours": 24})
    spec = SPEC.model_copy(update={"monitoring": monthly})
    health = layers.pipeline(spec, [row("run", "registered", as_of=as_of)], NOW)

    value, well = vital(health, "last_run_age_days")
    assert days == pytest.approx(value)
    assert ok is well
