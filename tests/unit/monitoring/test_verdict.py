"""A window is given the first cause that speaks, with what it blames and a short reason."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from mlplatform.contracts import Window
from mlplatform.contracts.drift import ColumnDrift, DriftReport
from mlplatform.contracts.model import Interval
from mlplatform.contracts.performance import Cohort, Measurement, MetricLoss, Performance
from mlplatform.contracts.skew import FeatureSkew, SkewReport, ViewSkew
from mlplatform.contracts.watch import DataFault, Wholeness
from monitoring.verdict import LENGTH, of_inputs, of_performance

WINDOW: Final = Window(
    start=datetime(2013, 5, 30, tzinfo=UTC), end=datetime(2013, 5, 31, tzinfo=UTC)
)
NOW: Final = datetime(2013, 5, 31, 1, tzinfo=UTC)


def whole(verdict: str = "whole", *faults: DataFault) -> Wholeness:
    return Wholeness.model_validate(
        {"window": WINDOW, "rows": 900, "verdict": verdict, "reason": "so it is", "faults": faults}
    )


BROKEN: Final = whole(
    "fault",
    DataFault(kind="stale", subject="origin_weather", why="300 min old"),
    DataFault(kind="nulls", subject="temp", why="90 % are null"),
    DataFault(kind="unit", subject="temp", why="°C"),
)


def skew(verdict: str = "skew", view: str = "in_step", *features: str) -> SkewReport:
    return SkewReport.model_validate(
        {
            "usecase": "flight_delay",
            "window": WINDOW,
            "rows": 900,
            "mismatched_rows": 5,
            "features": [
                FeatureSkew(
                    feature=name, view="v", rows=900, mismatched=5, announced=0,
                    causes={"transform": 5}, detail="",
                )
                for name in features
            ],
            "views": [
                ViewSkew.model_validate(
                    {
                        "view": "carrier_delay", "rows": 900, "older": 9, "absent": 0, "newer": 0,
                        "median_lag_seconds": 9.0, "finding": view, "detail": "nothing after 12:00",
                    }
                )
            ],
            "verdict": verdict,
            "reason": "5 of 900 rows differ",
        }
    )  # fmt: skip


def drift(verdicts: dict[str, str]) -> DriftReport:
    found = set(verdicts.values())
    overall = (
        "drift" if "drift" in found else "inconclusive" if "inconclusive" in found else "no_drift"
    )
    return DriftReport.model_validate(
        {
            "window": WINDOW, "rows": 900, "verdict": overall, "reason": "as the columns say",
            "columns": [column(name, verdict) for name, verdict in verdicts.items()],
        }
    )  # fmt: skip


def column(name: str, verdict: str) -> ColumnDrift:
    return ColumnDrift.model_validate(
        {
            "column": name, "method": "wasserstein", "verdict": verdict, "reason": f"why {name}",
            "threshold": 0.1, "rows": 900, "null_share": 0.0, "reference_null_share": 0.0,
        }
    )  # fmt: skip


CALM: Final = {"temp": "no_drift", "wind": "no_drift", "score": "no_drift"}
MOVED: Final = CALM | {"temp": "drift"}


@pytest.mark.parametrize(
    ("cause", "blamed", "seen"),
    [
        pytest.param("healthy", (), (whole(), skew("no_skew"), drift(CALM)), id="all is well"),
        pytest.param("healthy", (), (whole(), None, drift(CALM)), id="not audited"),
        pytest.param(
            "healthy",
            (),
            (whole(), None, drift(CALM | {"gust": "inconclusive"})),
            id="one column without values",
        ),
        pytest.param(
            "data_fault",
            ("origin_weather", "temp"),
            (BROKEN, skew("skew", "in_step", "temp"), drift(MOVED)),
            id="a broken feed before all else",
        ),
        pytest.param(
            "data_fault",
            ("carrier_delay",),
            (whole(), skew("skew", "stopped", "carrier_late_rate"), drift(MOVED)),
            id="a stopped view that only the audit sees",
        ),
        pytest.param(
            "skew",
            ("departure_hour",),
            (whole(), skew("skew", "in_step", "departure_hour"), drift(MOVED)),
            id="skew before drift",
        ),
        pytest.param(
            "skew",
            ("departure_hour",),
            (whole("inconclusive"), skew("skew", "in_step", "departure_hour"), None),
            id="skew in a window too small for drift",
        ),
        pytest.param(
            "inconclusive",
            (),
            (whole("inconclusive"), None, drift(MOVED)),
            id="drift of what was left to read",
        ),
        pytest.param("inconclusive", (), (whole(), None, None), id="no thresholds"),
        pytest.param(
            "inconclusive",
            (),
            (whole(), None, drift(dict.fromkeys(CALM, "inconclusive"))),
            id="nothing to compare",
        ),
        pytest.param("input_drift", ("temp",), (whole(), None, drift(MOVED)), id="a feature"),
        pytest.param(
            "input_drift",
            ("temp",),
            (whole(), None, drift(dict.fromkeys(CALM, "inconclusive") | {"temp": "drift"})),
            id="a feature while others are not comparable",
        ),
        pytest.param(
            "input_drift",
            ("score", "temp"),
            (whole(), None, drift(MOVED | {"score": "drift"})),
            id="a feature and the score",
        ),
        pytest.param(
            "output_drift",
            ("score",),
            (whole(), None, drift(CALM | {"score": "drift"})),
            id="the score alone",
        ),
    ],
)
def test_the_first_cause_that_speaks_names_the_window(
    cause: str, blamed: tuple[str, ...], seen: tuple[Any, Any, Any]
) -> None:
    found = of_inputs("flight_delay", WINDOW, *seen, NOW)

    assert (cause, blamed) == (found.cause, tuple(sorted(found.blamed)))
    assert ("inputs", WINDOW, NOW) == (found.watch, found.window, found.judged_at)
    assert found.why


def test_columns_are_blamed_in_the_order_of_the_report() -> None:
    report = drift(MOVED | {"score": "drift"})

    found = of_inputs("flight_delay", WINDOW, whole(), None, report, NOW)

    assert report.drifted == found.blamed
    assert found.why.startswith(f"{report.drifted[0]}: ")


@pytest.mark.parametrize("faults", [1, 2, 40])
def test_a_reason_fits_one_line_and_counts_what_it_leaves_out(faults: int) -> None:
    long = "x" * 400 if faults == 1 else "x" * 90
    broken = [DataFault(kind="nulls", subject=f"f{number}", why=long) for number in range(faults)]

    found = of_inputs("flight_delay", WINDOW, whole("fault", *broken), None, None, NOW)

    assert len(found.why) <= LENGTH
    assert found.why.startswith("nulls of f0: xxx")
    assert ("and 38 more" in found.why) is (faults == 40)
    assert faults == len(found.blamed)


def performance(verdict: str, **metrics: str) -> Performance:
    losses = [
        MetricLoss.model_validate(
            {
                "metric": name, "accepted": 0.05,
                "registered": Interval(estimate=0.55, low=0.5, high=0.6),
                "live": Measurement(metric="pr_auc", value=0.4, interval=None),
                "loss": Interval(estimate=0.15, low=0.1, high=0.2), "verdict": one,
            }
        )
        for name, one in metrics.items()
    ]  # fmt: skip
    return Performance.model_validate(
        {
            "usecase": "flight_delay", "version": 1,
            "cohort": Cohort(window=WINDOW, as_of=NOW, requests=0),
            "losses": losses, "verdict": verdict, "reason": "by the labels",
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "blamed", "seen"),
    [
        ("performance_loss", ("pr_auc",), performance("loss", pr_auc="loss", roc_auc="no_loss")),
        ("healthy", (), performance("no_loss", pr_auc="no_loss")),
        ("inconclusive", (), performance("immature", pr_auc="immature")),
        ("inconclusive", (), performance("inconclusive")),
    ],
)
def test_labels_blame_the_metrics_that_were_lost(
    cause: str, blamed: tuple[str, ...], seen: Performance
) -> None:
    found = of_performance(seen, WINDOW, NOW)

    assert (cause, blamed, "by the labels") == (found.cause, found.blamed, found.why)
    assert ("performance", WINDOW, "flight_delay") == (found.watch, found.window, found.usecase)
