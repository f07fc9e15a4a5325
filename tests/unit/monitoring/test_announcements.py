"""What a window and the trigger say to people: what fires, what is over, what nobody can tell."""

from typing import Any

import pytest

from mlplatform.contracts import Window
from mlplatform.contracts.retrain import Cause, History, Said
from mlplatform.contracts.skew import SkewReport
from mlplatform.contracts.watch import LayerHealth, Vital, Wholeness, WindowReport
from monitoring.announcements import alerts_of
from tests.unit.monitoring.signals import MONITORING, USECASE, at, finding, reach

WINDOW = Window(start=at(4), end=at(5))
AUDIT = SkewReport(
    usecase=USECASE, window=WINDOW, rows=9, mismatched_rows=0, verdict="no_skew", reason="equal"
)


def report(*causes: Cause, whole: Any = "whole", **values: Any) -> WindowReport:
    """What was seen in the hour from 4 to 5."""
    blamed = {"performance_loss": ("pr_auc",)}
    return WindowReport(
        usecase=USECASE,
        window=WINDOW,
        judged_at=at(6),
        version=1,
        findings=tuple(finding(4, cause, *blamed.get(cause, ("temp",))) for cause in causes),
        whole=Wholeness(window=WINDOW, rows=9, verdict=whole, reason="as told"),
        **values,
    )


def said(found: WindowReport, history: History | None = None) -> dict[str, str]:
    alerts = alerts_of(found, history, MONITORING, at(7))

    assert len(alerts) == len({alert.key for alert in alerts})  # nothing fires and is over at once
    return {alert.name: alert.state for alert in alerts}


ALL_OVER = {"DataFault": "resolved", "InputDrift": "resolved", "OutputDrift": "resolved"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(report("healthy"), ALL_OVER, id="healthy, not audited"),
        pytest.param(
            report("healthy", skew=AUDIT), ALL_OVER | {"Skew": "resolved"}, id="healthy, audited"
        ),
        pytest.param(report("input_drift"), ALL_OVER | {"InputDrift": "firing"}, id="drift"),
        pytest.param(
            report("data_fault", whole="fault"), {"DataFault": "firing"}, id="broken feed"
        ),
        pytest.param(report("skew"), {"Skew": "firing", "DataFault": "resolved"}, id="skew"),
        pytest.param(report("inconclusive", whole="inconclusive"), {}, id="inconclusive"),
        pytest.param(report("performance_loss"), {"PerformanceLoss": "firing"}, id="loss"),
        pytest.param(report(), {}, id="no finding"),
    ],
)
def test_a_window_fires_its_cause_and_ends_what_it_denies(
    found: WindowReport, expected: dict[str, str]
) -> None:
    assert expected == said(found)


def test_an_alert_speaks_of_the_end_of_its_window_and_names_what_is_to_blame() -> None:
    found = report("input_drift")
    (alert,) = [a for a in alerts_of(found, None, MONITORING, at(7)) if a.state == "firing"]

    assert (WINDOW.end, "temp", "ticket") == (alert.at, alert.subject, alert.severity)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("trouble", {"InfrastructureTrouble": "firing"}),
        ("ok", {"InfrastructureTrouble": "resolved"}),
        ("unknown", {}),
    ],
)
def test_a_layer_in_trouble_says_what_is_out_of_its_limit(
    verdict: Any, expected: dict[str, str]
) -> None:
    late = Vital(name="p99", value=80, limit=40, ok=verdict != "trouble", why="p99 is 80 ms")
    good = Vital(name="errors", value=0, limit=1, ok=True, why="no errors")
    layer = LayerHealth(layer="infrastructure", verdict=verdict, vitals=(late, good))
    model = LayerHealth(layer="model", verdict="trouble")
    found = report(layers=(layer, model))

    assert expected == said(found)
    for alert in alerts_of(found, None, MONITORING, at(7)):
        if alert.state == "firing":
            assert ("p99", "p99 is 80 ms") == (alert.subject, alert.summary)


def refused(reason: str) -> History:
    kind = Said(kind="refuse", reason=reason, since=at(4))
    return History(usecase=USECASE, began=at(0), said=kind)


@pytest.mark.parametrize(
    ("history", "fires"),
    [
        pytest.param(History(usecase=USECASE, began=at(0)), set(), id="nothing"),
        pytest.param(refused("data_fault"), {"RetrainingRefused"}, id="refused"),
        pytest.param(refused("no_gain"), set(), id="refused without gain"),
        pytest.param(reach("awaiting_approval"), {"RetrainingAwaitsApproval"}, id="approval"),
        pytest.param(reach("submitted"), set(), id="runs"),
        pytest.param(reach("failed"), {"TrainingFailed"}, id="failed"),
        pytest.param(
            reach("no_gain").model_copy(update={"without_gain": MONITORING.stop_after_no_gain}),
            {"RetrainingWithoutGain"},
            id="no gain",
        ),
    ],
)
def test_the_trigger_says_what_needs_a_person_and_that_the_rest_is_over(
    history: History, fires: set[str]
) -> None:
    found = said(report(), history)

    names = {"RetrainingRefused", "RetrainingAwaitsApproval", "RetrainingWithoutGain"}
    assert names | {"TrainingFailed"} == set(found)
    assert fires == {name for name, state in found.items() if state == "firing"}


def test_who_is_to_approve_learns_what_and_why() -> None:
    history = reach("awaiting_approval")
    assert history.last is not None
    (alert,) = [a for a in alerts_of(report(), history, MONITORING, at(7)) if a.state == "firing"]

    assert history.last.request.key == alert.subject
    assert history.last.request.why in alert.summary
