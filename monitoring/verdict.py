"""Which cause a window is given: the first that speaks, in an order that never trains on breakage.

    data_fault      the feed is broken: what else the window shows may come of it
    skew            serving computes other features than training: so does a new training
    inconclusive    too little of the window can be read to go on
    input_drift     features have moved; the score may have moved with them
    output_drift    the score alone has
    inconclusive    nothing could be compared
    healthy

Pure. It says what was found; what follows from it is decided elsewhere.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from feature_repo.profile.calibration import SCORE
from mlplatform.contracts import Window
from mlplatform.contracts.drift import DriftReport
from mlplatform.contracts.performance import Performance, PerformanceVerdict
from mlplatform.contracts.retrain import Cause, Finding, Watch
from mlplatform.contracts.skew import SkewReport
from mlplatform.contracts.watch import Wholeness

LENGTH: Final = 300
"""Characters of `Finding.why`: it is read on one line of a page, an alert, the ledger."""

_OF_LABELS: Final[dict[PerformanceVerdict, Cause]] = {
    "loss": "performance_loss",
    "no_loss": "healthy",
    "immature": "inconclusive",
    "inconclusive": "inconclusive",
}


class _Cause(NamedTuple):
    """A cause with what it blames and what is told of it, the strongest first."""

    cause: Cause
    blamed: Sequence[str]
    told: list[str]


def of_inputs(
    usecase: str,
    window: Window,
    whole: Wholeness,
    skew: SkewReport | None,
    drift: DriftReport | None,
    now: datetime,
) -> Finding:
    """Return the cause that requests and answers of a window show.

    A feature view that the skew audit found stopped is a broken feed, even where its last values
    are young enough to pass for whole.

    Args:
        usecase: Its name.
        window: What was judged.
        whole: Whether its data are whole.
        skew: None: not audited.
        drift: None: there are no thresholds.
        now: When it is judged; not before the window's end.
    """
    return _finding(usecase, "inputs", window, _cause(whole, skew, drift), now)


def of_performance(performance: Performance, window: Window, now: datetime) -> Finding:
    """Return the cause that matured labels show.

    Args:
        performance: On the evidence of the window, which reaches further back than the window.
        window: The newest one whose labels have matured.
        now: When it is judged.
    """
    cause = _OF_LABELS[performance.verdict]
    lost = [one.metric for one in performance.losses if one.verdict == "loss"]
    blamed = lost if cause == "performance_loss" else []
    found = _Cause(cause, blamed, [performance.reason])
    return _finding(performance.usecase, "performance", window, found, now)


def _cause(whole: Wholeness, skew: SkewReport | None, drift: DriftReport | None) -> _Cause:
    stopped = [view for view in skew.views if view.finding == "stopped"] if skew else []
    skewed = skew is not None and skew.verdict == "skew"
    if whole.verdict == "fault":
        told = [f"{one.kind} of {one.subject}: {one.why}" for one in whole.faults]
        return _Cause("data_fault", [one.subject for one in whole.faults], told)
    if skewed and stopped:
        told = [f"stale of {one.view}: {one.detail}" for one in stopped]
        return _Cause("data_fault", [one.view for one in stopped], told)
    if skew is not None and skewed:
        return _Cause("skew", [one.feature for one in skew.features], [skew.reason])
    if whole.verdict == "inconclusive":
        return _Cause("inconclusive", [], [whole.reason])
    if drift is None:
        return _Cause("inconclusive", [], ["the model has no thresholds of drift"])
    found = _of_drift(drift)
    if found.cause == "healthy" and skew is not None and skew.verdict == "inconclusive":
        found.told.append(f"the skew audit says nothing: {skew.reason}")
    return found


def _of_drift(drift: DriftReport) -> _Cause:
    if drift.drifted:
        columns = {one.column: one for one in drift.columns}
        told = [f"{name}: {columns[name].reason}" for name in drift.drifted]
        alone = set(drift.drifted) == {SCORE}
        return _Cause("output_drift" if alone else "input_drift", drift.drifted, told)
    calm = sum(one.verdict == "no_drift" for one in drift.columns)
    spoken = calm > len(drift.columns) / 2  # a column without values is not the whole window
    healthy = drift.verdict == "no_drift" or spoken
    return _Cause("healthy" if healthy else "inconclusive", [], [drift.reason])


def _finding(
    usecase: str,
    watch: Watch,
    window: Window,
    found: _Cause,
    now: datetime,
) -> Finding:
    return Finding(
        usecase=usecase,
        watch=watch,
        window=window,
        cause=found.cause,
        blamed=tuple(dict.fromkeys(found.blamed)),
        why=_short(found.told),
        judged_at=now,
    )


def _short(told: Sequence[str]) -> str:
    """Return as many of the sentences as fit, the first of them cut if it alone does not."""
    for kept in range(len(told), 0, -1):
        left = len(told) - kept
        text = "; ".join([*told[:kept], *([f"and {left} more"] if left else [])])
        if len(text) <= LENGTH:
            return text
    more = f"… and {len(told) - 1} more" if len(told) > 1 else "…"
    return told[0][: LENGTH - len(more)] + more if told else ""
