"""A replay is good when nothing was lost and served vectors equal the offline join."""

from typing import Any

import pytest

from local.audited import Audited, audited
from mlplatform.contracts.skew import FeatureSkew, SkewReport
from tests.unit.local.replays import replayed


def test_a_replay_is_good_when_nothing_was_lost_and_vectors_are_equal() -> None:
    assert replayed().good


@pytest.mark.parametrize(
    "values",
    [
        {"lost": 1},
        {"refused": 1},
        {"unlogged": 1},
        {"doubled": 1},
        {"mislogged": 1},
        {"equal": 9},
        {"fallback": 10, "compared": 0, "equal": 0},
        {"compared": 0, "equal": 0},
    ],
    ids=str,
)
def test_a_replay_that_lost_or_compared_nothing_is_not_good(
    values: dict[str, Any],
) -> None:
    assert not replayed(**values).good


def report(rows: int, wrong: int, announced: int, **features: tuple[int, int]) -> SkewReport:
    """Return an audit in which features differ in so many rows, of which so many were announced."""
    return SkewReport(
        usecase="flight_delay",
        window=None,
        rows=rows,
        mismatched_rows=wrong,
        announced_rows=announced,
        features=tuple(
            FeatureSkew(
                feature=name, view="", rows=rows, mismatched=one, announced=said,
                causes={"transform": one}, detail="",
            )
            for name, (one, said) in features.items()
        ),
        verdict="skew" if wrong else "no_skew",
        reason="",
    )  # fmt: skip


def test_audits_add_up_and_answers_that_said_it_themselves_are_not_compared() -> None:
    found = audited([report(10, 3, 2, temp=(3, 2), wind=(2, 2)), report(5, 1, 0, temp=(1, 0))])

    assert Audited(13, 11, {"temp": 2}) == found


def test_no_audit_compares_nothing() -> None:
    assert Audited(0, 0, {}) == audited([])
