"""Three days of a broken feed between sound ones never lead to a retraining; a moved world does."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from feature_repo.profile.reference import Reference
from mlplatform.contracts.retrain import Finding, Fire, History
from monitoring.drift import detect
from monitoring.trigger import decide, observe
from monitoring.verdict import of_inputs
from monitoring.whole import check
from tests.unit.monitoring.feed import (
    DAY,
    LAYOUT,
    SPEC,
    START,
    calibrated,
    changed,
    reference,
    sound,
    stopped,
    vectors,
    window,
)

FIRST = 42
"""A Monday, after the reference: sound. The three days after it are planted, two more are sound."""
PLAN = SPEC.monitoring.model_copy(update={"schedule_days": None})

Plant = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module", name="known")
def _known() -> Reference:
    return calibrated(reference())


def judged(known: Reference, plant: Plant) -> list[Finding]:
    """Return what is found on the six days."""
    days = [sound(day) for day in range(FIRST, FIRST + 6)]
    days[1:4] = map(plant, days[1:4])
    found = []
    for number, rows in enumerate(days):
        of = window(FIRST + number)
        whole = check(SPEC, LAYOUT, known, rows, of, days[number - 1] if number else None)
        assert known.profile.calibration is not None
        drift = detect(known.rows, vectors(rows), known.profile.calibration, of)
        found.append(of_inputs(SPEC.name, of, whole, None, drift, of.end))
    return found


def retrainings(findings: Sequence[Finding]) -> int:
    """Return on how many days the trigger would have fired."""
    history = History(usecase=SPEC.name, began=START)
    fired = 0
    for one in findings:
        history = observe(history, one, PLAN, one.judged_at)
        fired += isinstance(decide(history, PLAN, one.judged_at), Fire)
    return fired


def since_noon(name: str, change: Callable[[np.ndarray], object]) -> Plant:
    """Return what changes a feature from the first planted noon on."""
    first = START + (FIRST + 1) * DAY

    def plant(rows: pl.DataFrame) -> pl.DataFrame:
        hour = 12 if rows["event_time"][0] < first + DAY else 0
        return changed(rows, name, change, since_hour=hour)

    return plant


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        pytest.param("volume", lambda rows: rows.clear(), id="no requests"),
        pytest.param(
            "gap",
            lambda rows: rows.filter(~rows["event_time"].dt.hour().is_between(14, 16)),
            id="gap",
        ),
        pytest.param(
            "duplicates",
            lambda rows: pl.concat(
                [
                    rows,
                    rows.filter(rows["event_time"].dt.hour() == 15).with_columns(
                        pl.col("request_id") + "-again"
                    ),
                ]
            ),
            id="duplicated hour",
        ),
        pytest.param(
            "stale",
            lambda rows: stopped(rows, 0, START + (FIRST + 1) * DAY + timedelta(hours=12)),
            id="stopped view",
        ),
        pytest.param(
            "unit", since_noon("temp", lambda x: (x - 32) / 1.8), id="°C in place of °F, since noon"
        ),
        pytest.param("unit", since_noon("gap", lambda x: x * 60), id="seconds, since noon"),
        pytest.param("defaults", since_noon("distance", lambda _: 744), id="defaults, since noon"),
        pytest.param("defaults", since_noon("delay", lambda _: 0), id="zeros, since noon"),
    ],
)
def test_a_broken_feed_is_called_so_and_retrains_nothing(
    known: Reference, kind: str, plant: Plant
) -> None:
    findings = judged(known, plant)

    assert ["healthy", "data_fault", "data_fault", "data_fault", "healthy", "healthy"] == [
        one.cause for one in findings
    ]
    assert all(kind in one.why for one in findings[1:4])
    assert 0 == retrainings(findings)


def thinned(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values)) % 9, values, np.nan)


def tailed(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values)) % 30, values, 400)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("gap", lambda x: x + 0.2 * 42, id="mean"),
        pytest.param("distance", lambda x: 1550 + (x - 1550) * 1.3**0.5, id="variance"),
        pytest.param("flag", lambda x: 1 - x, id="categories swapped"),
        pytest.param("delay", thinned, id="null share doubled"),
        pytest.param("gap", tailed, id="tail"),
    ],
)
def test_a_true_shift_is_input_drift_of_its_column_and_retrains(
    known: Reference, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    findings = judged(known, lambda rows: changed(rows, name, change))

    assert "data_fault" not in {one.cause for one in findings}
    named = [one.blamed for one in findings[1:4] if one.cause == "input_drift"]
    assert len(named) >= 2
    assert {(name,)} == set(named)
    assert retrainings(findings)
