"""Configurations depend on spec and seed alone."""

from collections.abc import Callable
from typing import Any

import pytest

from mlplatform.contracts import UseCase
from mlplatform.errors import SpecError
from pipelines.steps.search import plans

Vary = Callable[..., UseCase]
BASELINE: dict[str, Any] = {"kind": "logistic_regression", "role": "baseline"}


def _params(spec: UseCase, kind: str) -> list[dict[str, float | int | str]]:
    return [plan.params for plan in plans(spec) if plan.kind == kind]


def test_equal_seeds_try_the_same_and_other_seeds_try_others(vary: Vary) -> None:
    first, again = vary(training={"seed": 7}), vary(training={"seed": 7})
    other = vary(training={"seed": 8})

    assert plans(first) == plans(again)
    assert _params(first, "xgboost") != _params(other, "xgboost")


def test_other_candidates_do_not_change_what_a_kind_tries(
    vary: Vary, flight_delay: UseCase
) -> None:
    reordered = vary(training={"candidates": flight_delay.training.candidates[::-1]})

    assert _params(flight_delay, "lightgbm") == _params(reordered, "lightgbm")


def test_values_lie_in_their_spaces(vary: Vary) -> None:
    rule = {
        "kind": "xgboost",
        "trials": 200,
        "fixed": {"gamma": 0.5},
        "search": {
            "max_depth": {"choice": [3, 5]},
            "learning_rate": {"loguniform": [0.01, 1.0]},
            "subsample": {"uniform": [0.7, 0.9]},
        },
    }
    tried = _params(vary(training={"candidates": [BASELINE, rule]}), "xgboost")

    assert len(tried) == 200
    assert {3, 5} == {params["max_depth"] for params in tried}
    assert {0.5} == {params["gamma"] for params in tried}
    assert all(0.7 <= float(params["subsample"]) <= 0.9 for params in tried)
    rates = sorted(float(params["learning_rate"]) for params in tried)
    assert 0.01 <= rates[0]
    assert rates[-1] <= 1.0
    assert 0.05 < rates[100] < 0.2  # the median of a log-uniform is the geometric mean, 0.1


def test_equal_draws_are_tried_once(vary: Vary) -> None:
    leaves = {"num_leaves": {"choice": [7, 15, 31, 63]}}
    rule = {"kind": "lightgbm", "trials": 4, "search": leaves}
    counts = set()
    for seed in range(10):
        spec = vary(training={"seed": seed, "candidates": [BASELINE, rule]})
        tried = [plan for plan in plans(spec) if plan.kind == "lightgbm"]
        counts.add(len(tried))

        assert len({plan.params["num_leaves"] for plan in tried}) == len(tried)
        assert [plan.number for plan in tried] == list(range(1, tried[0].of + 1))

    assert min(counts) < 4


@pytest.mark.parametrize("where", ["search", "fixed"])
def test_a_parameter_of_the_platform_is_refused_by_name(vary: Vary, where: str) -> None:
    value = {"choice": [1, 4]} if where == "search" else 4
    rule = {"kind": "xgboost", where: {"nthread": value}}

    with pytest.raises(SpecError, match=r"\['nthread'\] of xgboost are set by the platform"):
        plans(vary(training={"candidates": [BASELINE, rule]}))
