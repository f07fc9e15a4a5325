"""Each gate on hand-made evaluations: passes, fails, and says why with the numbers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from mlplatform.contracts import (
    Candidate,
    Comparison,
    Evaluation,
    GateResult,
    Interval,
    Metric,
    Role,
    SliceMetric,
    UseCase,
    Window,
)
from mlplatform.contracts.usecase.training import Gate
from mlplatform.errors import ModelError
from pipelines.steps.gate import gate

START = datetime(2013, 12, 1, tzinfo=UTC)
BEATS = {"kind": "improvement", "name": "beats", "metric": "pr_auc", "against": "baseline"}


def _interval(low: float, high: float) -> Interval:
    return Interval(estimate=(low + high) / 2, low=low, high=high)


def _gain(low: float, high: float, role: Role = "baseline") -> Comparison:
    return Comparison(against="other", role=role, metric="pr_auc", difference=_interval(low, high))


def _slice(value: str, low: float, high: float) -> SliceMetric:
    return SliceMetric(
        column="carrier",
        value=value,
        rows=800,
        metric="pr_auc",
        estimate=_interval(0.4, 0.6),
        comparisons=(_gain(low, high),),
    )


@pytest.fixture
def decide(flight_delay: UseCase, linear: Callable[..., Candidate]) -> Callable[..., GateResult]:
    """The answer of one gate."""

    def evaluation(name: str, role: Role, **values: Any) -> Evaluation:
        return Evaluation(
            candidate=name,
            role=role,
            window=Window(start=START, end=START + timedelta(days=31)),
            rows=1000,
            positive_rate=0.2,
            **{"metrics": {}, **values},
        )

    def build(rule: dict[str, Any], *, champion: bool = False, **values: Any) -> GateResult:
        # A copy is not validated: a real spec needs a baseline gate beside the one looked at.
        spec = flight_delay.model_copy(
            update={"gates": (TypeAdapter[Gate](Gate).validate_python(rule),)}
        )
        evaluations = [evaluation("ours", "candidate", **values)]
        if champion:
            evaluations.append(evaluation("v1", "champion"))
        report = gate(spec, evaluations, [linear("ours", "candidate", {"a": 1.0})])
        return report.results[0]

    return build


@pytest.mark.parametrize(
    ("low", "passed"),
    [
        pytest.param(0.02, True, id="above"),
        pytest.param(0.01, False, id="equal"),
        pytest.param(-0.01, False, id="below"),
    ],
)
def test_an_improvement_needs_the_lower_end_above_the_margin(
    decide: Callable[..., GateResult], low: float, passed: bool
) -> None:
    result = decide({**BEATS, "margin": 0.01}, comparisons=(_gain(low, 0.06),))

    assert passed == result.passed
    assert (low, 0.01) == (result.observed, result.required)
    assert f"[{low:+.4f}, +0.0600]" in result.reason
    assert "margin 0.01" in result.reason


@pytest.mark.parametrize("kind", ["improvement", "slices"])
def test_without_a_champion_there_is_nothing_to_compare_with(
    decide: Callable[..., GateResult], kind: str
) -> None:
    rule = {**BEATS, "kind": kind, "against": "champion", "margin": 0.01}
    result = decide(rule)

    assert result.passed
    assert "no champion yet" in result.reason


def test_with_a_champion_its_comparison_decides(decide: Callable[..., GateResult]) -> None:
    rule = {**BEATS, "against": "champion", "margin": 0.0}
    gains = (_gain(0.1, 0.2, "baseline"), _gain(-0.02, 0.01, "champion"))

    result = decide(rule, champion=True, comparisons=gains)

    assert not result.passed
    assert "-0.0050 [-0.0200, +0.0100]" in result.reason


def test_a_champion_that_was_not_compared_is_an_error_and_no_pass(
    decide: Callable[..., GateResult],
) -> None:
    with pytest.raises(ModelError, match="needs pr_auc of ours against the champion"):
        decide({**BEATS, "against": "champion", "margin": 0.0}, champion=True)


@pytest.mark.parametrize(
    ("metric", "value", "bound", "passed"),
    [
        pytest.param("pr_auc", 0.4, 0.3, True, id="higher-is-better-above"),
        pytest.param("pr_auc", 0.2, 0.3, False, id="higher-is-better-below"),
        pytest.param("log_loss", 0.2, 0.3, True, id="lower-is-better-below"),
        pytest.param("log_loss", 0.4, 0.3, False, id="lower-is-better-above"),
        pytest.param("calibration_error", 0.1, 0.1, True, id="on-the-bound"),
    ],
)
def test_a_threshold_bounds_the_metric_on_its_bad_side(
    decide: Callable[..., GateResult], metric: Metric, value: float, bound: float, passed: bool
) -> None:
    rule = {"kind": "threshold", "name": "bounded", "metric": metric, "bound": bound}
    interval = Interval(estimate=value, low=value - 0.01, high=value + 0.01)
    result = decide(rule, metrics={metric: interval})

    assert passed == result.passed
    assert (value, bound) == (result.observed, result.required)
    assert f"{value:.4f}" in result.reason


def test_a_metric_that_was_not_measured_is_an_error(decide: Callable[..., GateResult]) -> None:
    with pytest.raises(ModelError, match="gate bounded needs log_loss of ours"):
        decide({"kind": "threshold", "name": "bounded", "metric": "log_loss", "bound": 1.0})


@pytest.mark.parametrize(
    ("high", "passed"),
    [
        pytest.param(-0.04, False, id="wholly-below"),
        pytest.param(-0.03, True, id="touching"),
        pytest.param(0.02, True, id="uncertain"),
    ],
)
def test_a_slice_fails_when_its_interval_lies_wholly_below_the_margin(
    decide: Callable[..., GateResult], high: float, passed: bool
) -> None:
    rule = {**BEATS, "kind": "slices", "margin": 0.03}
    parts = (_slice("AA", 0.01, 0.05), _slice("WN", -0.2, high), _slice("UA", -0.01, 0.05))

    result = decide(rule, slices=parts)

    assert passed == result.passed
    assert "worst of 3 slices is carrier=WN with 800 rows" in result.reason
    assert (high, -0.03) == (result.observed, result.required)


def test_every_failing_slice_is_named(decide: Callable[..., GateResult]) -> None:
    parts = (_slice("AA", -0.2, -0.1), _slice("WN", -0.3, -0.2), _slice("UA", 0.0, 0.1))
    result = decide({**BEATS, "kind": "slices", "margin": 0.03}, slices=parts)

    assert result.reason.endswith("failing: carrier=AA, carrier=WN")


def test_no_measured_slice_is_an_error_and_no_pass(decide: Callable[..., GateResult]) -> None:
    with pytest.raises(ModelError, match=r"no slice was measured: lower slices\.min_rows"):
        decide({**BEATS, "kind": "slices", "margin": 0.03})


def test_the_best_candidate_without_an_evaluation_is_an_error(
    flight_delay: UseCase, linear: Callable[..., Candidate]
) -> None:
    with pytest.raises(ModelError, match="ours has 0 evaluations"):
        gate(flight_delay, [], [linear("ours", "candidate", {"a": 1.0})])
