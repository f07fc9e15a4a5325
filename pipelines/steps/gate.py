"""The gates: a pure function from what was measured to whether the model may be registered.

Each gate of the spec answers with the numbers in words, for people and for the ledger. A metric
that was not measured is an error, never a pass.
"""

import logging
from collections.abc import Sequence
from typing import Literal

from mlplatform.contracts import (
    HIGHER_IS_BETTER,
    Candidate,
    Comparison,
    Evaluation,
    GateReport,
    GateResult,
    Metric,
    SliceMetric,
    UseCase,
)
from mlplatform.contracts.usecase.training import Gate, ImprovementGate, SliceGate, ThresholdGate
from mlplatform.errors import ModelError
from pipelines.steps.selection import winner

_log = logging.getLogger("mlplatform.gate")


def gate(
    spec: UseCase, evaluations: Sequence[Evaluation], candidates: Sequence[Candidate]
) -> GateReport:
    """Put the best candidate, by validation score, through every gate of the spec.

    A gate against the champion passes when no champion was evaluated: the first model has none.

    Raises:
        ModelError: The candidate, or a metric or comparison that a gate needs, is not among
            the evaluations.
    """
    best = winner(candidates, spec.goal.north_star)
    found = [item for item in evaluations if (item.candidate, item.role) == (best.name, best.role)]
    if len(found) != 1:
        raise ModelError(
            f"the best candidate {best.name} has {len(found)} evaluations among "
            f"{[item.candidate for item in evaluations]}: evaluate it once"
        )
    champion = any(item.role == "champion" for item in evaluations)
    results = tuple(_result(rule, found[0], champion=champion) for rule in spec.gates)
    for result in results:
        _log.info("%s %s: %s", "pass" if result.passed else "FAIL", result.gate, result.reason)
    return GateReport(candidate=best.name, results=results)


def _result(rule: Gate, evaluation: Evaluation, *, champion: bool) -> GateResult:
    if isinstance(rule, ThresholdGate):
        return _threshold(rule, evaluation)
    if rule.against == "champion" and not champion:
        required = rule.margin if isinstance(rule, ImprovementGate) else -rule.margin
        return GateResult(
            gate=rule.name,
            passed=True,
            reason="no champion yet: there is nothing to compare with",
            metric=rule.metric,
            observed=required,
            required=required,
        )
    if isinstance(rule, ImprovementGate):
        return _improvement(rule, evaluation)
    return _slices(rule, evaluation)


def _improvement(rule: ImprovementGate, evaluation: Evaluation) -> GateResult:
    """The lower end of the paired interval must exceed the margin."""
    comparison = _comparison(evaluation.comparisons, rule.metric, rule.against)
    if comparison is None:
        raise ModelError(
            f"gate {rule.name} needs {rule.metric} of {evaluation.candidate} against the "
            f"{rule.against}, which was not measured: evaluate both on the same rows"
        )
    gain = comparison.difference
    passed = gain.low > rule.margin
    return GateResult(
        gate=rule.name,
        passed=passed,
        reason=(
            f"gain in {rule.metric} of {evaluation.candidate} over the {rule.against} "
            f"{comparison.against}: {gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]; "
            "the lower end "
            f"{'exceeds' if passed else 'does not exceed'} the margin {rule.margin:g}"
        ),
        metric=rule.metric,
        observed=gain.low,
        required=rule.margin,
    )


def _threshold(rule: ThresholdGate, evaluation: Evaluation) -> GateResult:
    """The estimate must lie on the right side of the bound."""
    if rule.metric not in evaluation.metrics:
        raise ModelError(
            f"gate {rule.name} needs {rule.metric} of {evaluation.candidate}, which was not "
            f"measured; there are {sorted(evaluation.metrics)}"
        )
    value = evaluation.metrics[rule.metric]
    higher = HIGHER_IS_BETTER[rule.metric]
    passed = value.estimate >= rule.bound if higher else value.estimate <= rule.bound
    return GateResult(
        gate=rule.name,
        passed=passed,
        reason=(
            f"{rule.metric} of {evaluation.candidate} is {value.estimate:.4f} "
            f"[{value.low:.4f}, {value.high:.4f}], {'within' if passed else 'beyond'} the bound: "
            f"at {'least' if higher else 'most'} {rule.bound:g}"
        ),
        metric=rule.metric,
        observed=value.estimate,
        required=rule.bound,
    )


def _slices(rule: SliceGate, evaluation: Evaluation) -> GateResult:
    """No slice's paired interval may lie wholly below minus the margin."""
    compared = [
        (part, comparison)
        for part in evaluation.slices
        if part.metric == rule.metric
        and (comparison := _comparison(part.comparisons, rule.metric, rule.against)) is not None
    ]
    if not compared:
        raise ModelError(
            f"gate {rule.name} needs {rule.metric} by slice against the {rule.against}, and no "
            "slice was measured: lower slices.min_rows, correct slices.columns or drop the gate"
        )
    worst, comparison = min(compared, key=lambda pair: pair[1].difference.high)
    failing = [part for part, paired in compared if paired.difference.high < -rule.margin]
    gain = comparison.difference
    words = (
        f"the worst of {len(compared)} slices is {_named(worst)} with {worst.rows:,} rows: "
        f"gain in {rule.metric} over the {rule.against} {comparison.against} "
        f"{gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    )
    return GateResult(
        gate=rule.name,
        passed=not failing,
        reason=(
            f"{words}, wholly below the allowed loss of {rule.margin:g}; failing: "
            f"{', '.join(_named(part) for part in failing)}"
            if failing
            else f"{words}, not wholly below the allowed loss of {rule.margin:g}"
        ),
        metric=rule.metric,
        observed=gain.high,
        required=-rule.margin,
    )


def _named(part: SliceMetric) -> str:
    return f"{part.column}={part.value}"


def _comparison(
    comparisons: Sequence[Comparison], metric: Metric, against: Literal["baseline", "champion"]
) -> Comparison | None:
    return next((it for it in comparisons if it.metric == metric and it.role == against), None)
