"""Evaluation on hand-made models whose right answers are known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform.contracts import Candidate, Champion, Evaluation, TrainingSet, UseCase
from mlplatform.errors import DataError, ModelError
from pipelines.steps.evaluate import evaluate
from pipelines.steps.gate import gate

ROWS = 6000
GROUPS = {"strong": ("a",), "weak": ("b",), "nothing": ("noise",)}

World = tuple[UseCase, TrainingSet, tuple[Candidate, ...]]


def _columns(rng: np.random.Generator, flipped: str = "") -> tuple[np.ndarray, dict[str, Any]]:
    """The label depends on `a` and less on `b`; where the carrier is `flipped`, on -a."""
    a, b, noise = rng.normal(size=(3, ROWS))
    carrier = rng.choice(["AA", "BB", "CC"], ROWS, p=[0.6, 0.35, 0.05])
    effect = np.where(carrier == flipped, -a, a)
    labels = (rng.random(ROWS) < 1 / (1 + np.exp(-(2 * effect + b)))).astype(np.int8)
    origin = np.where(np.arange(ROWS) % 2 == 0, "JFK", "LGA")
    return labels, {"a": a, "b": b, "noise": noise, "carrier": carrier, "origin": origin}


@pytest.fixture
def world(
    vary: Callable[..., UseCase],
    frame: Callable[..., pl.DataFrame],
    stored: Callable[..., TrainingSet],
    linear: Callable[..., Candidate],
    rng: np.random.Generator,
) -> Callable[..., World]:
    """Test rows (30 of 60 days), a strong candidate, a lesser one and a weak baseline."""

    def build(flipped: str = "", **spec: Any) -> World:
        labels, columns = _columns(rng, flipped)
        split = {"test_days": 30, "validation_days": 10, "gap_hours": 24}
        slices = {"columns": ["carrier", "origin"], "min_rows": 300}
        chosen = vary(**{"split": split, "slices": slices, **spec})
        features = {"a": 2.0, "b": 1.0, "noise": 0.0}
        candidates = (
            linear("weak", "baseline", {**features, "a": 0.2}, 0.9),
            linear("lesser", "candidate", {**features, "b": -1.0}, 0.6),
            linear("strong", "candidate", features, 0.7),
        )
        return chosen, stored(frame(labels.tolist(), 60, **columns), list(features)), candidates

    return build


def _evaluate(world: World, champion: Champion | None = None) -> tuple[Evaluation, ...]:
    spec, training_set, candidates = world
    return evaluate(spec, training_set, candidates, GROUPS, champion, seed=1)


def test_the_winner_by_validation_score_comes_first_and_alone_has_details(
    world: Callable[..., World],
) -> None:
    evaluations = _evaluate(world())

    assert ["strong", "weak", "lesser"] == [item.candidate for item in evaluations]
    assert evaluations[0].slices
    assert evaluations[0].ablations
    assert not any(item.slices or item.ablations or item.importance for item in evaluations[1:])


def test_the_winner_is_chosen_by_validation_also_when_the_test_would_choose_another(
    world: Callable[..., World],
) -> None:
    spec, training_set, (weak, lesser, strong) = world()
    favoured = lesser.model_copy(update={"validation_score": 0.8})

    best, *_ = evaluate(spec, training_set, (weak, favoured, strong), GROUPS, None, seed=1)

    assert "lesser" == best.candidate


def test_candidates_are_compared_with_the_baseline_on_the_same_rows(
    world: Callable[..., World],
) -> None:
    best, baseline, _ = _evaluate(world())
    gain = next(item for item in best.comparisons if item.metric == "pr_auc")

    assert ("weak", "baseline") == (gain.against, gain.role)
    assert gain.difference.estimate == pytest.approx(
        best.metrics["pr_auc"].estimate - baseline.metrics["pr_auc"].estimate
    )
    assert gain.difference.low > 0
    assert baseline.comparisons == ()


def test_all_rows_of_the_window_are_measured_and_only_those(world: Callable[..., World]) -> None:
    best, *_ = _evaluate(world())

    assert ROWS / 2 == pytest.approx(best.rows, abs=10)
    assert best.rows == sum(point.rows for point in best.calibration)
    assert (best.window.end - best.window.start).days == 30


def test_slices_partition_the_rows_and_small_ones_are_left_out(
    world: Callable[..., World],
) -> None:
    best, *_ = _evaluate(world())

    assert [("carrier", "AA"), ("carrier", "BB"), ("origin", "JFK"), ("origin", "LGA")] == [
        (item.column, item.value) for item in best.slices
    ]
    assert best.rows == sum(item.rows for item in best.slices if item.column == "origin")
    assert all(item.comparisons[0].role == "baseline" for item in best.slices)


def test_ablation_and_importance_find_what_the_model_leans_on(
    world: Callable[..., World],
) -> None:
    best, *_ = _evaluate(world())
    lost = {item.group: item.difference for item in best.ablations}

    assert ["a", "b", "noise"] == list(best.importance)
    assert lost["strong"].low > lost["weak"].high > 0
    assert (0.0, 0.0, 0.0) == (
        lost["nothing"].estimate,
        lost["nothing"].low,
        lost["nothing"].high,
    )
    assert best.importance["noise"] == 0.0


def test_the_champion_reads_its_own_features_and_is_compared(
    world: Callable[..., World], linear: Callable[..., Candidate]
) -> None:
    old = linear("old", "champion", {"noise": 0.0, "a": 2.0})
    champion = Champion(name="flight_delay v3", path=old.path, features=old.features)
    best, *others = _evaluate(world(), champion)
    gain = next(
        item for item in best.comparisons if item.role == "champion" and item.metric == "pr_auc"
    )

    assert ("flight_delay v3", "champion") == (others[-1].candidate, others[-1].role)
    assert 0 < gain.difference.low < gain.difference.high < 0.2
    assert {"baseline", "champion"} == {item.role for item in best.slices[0].comparisons}


def test_a_champion_whose_feature_list_is_not_its_own_is_refused(
    world: Callable[..., World], linear: Callable[..., Candidate]
) -> None:
    old = linear("old", "champion", {"noise": 0.0, "a": 2.0})

    with pytest.raises(ModelError, match="champion v3 takes 2 features but lists 1"):
        _evaluate(world(), Champion(name="v3", path=old.path, features=("a",)))


def test_a_champion_with_a_feature_that_is_gone_is_refused(
    world: Callable[..., World], linear: Callable[..., Candidate]
) -> None:
    old = linear("old", "champion", {"gone": 0.0, "a": 2.0})

    with pytest.raises(DataError, match=r"lacks the features \['gone'\]"):
        _evaluate(world(), Champion(name="v3", path=old.path, features=old.features))


def test_equal_seeds_give_equal_evaluations(world: Callable[..., World]) -> None:
    same = world()

    assert _evaluate(same) == _evaluate(same)


def test_a_group_with_a_foreign_feature_is_refused(world: Callable[..., World]) -> None:
    spec, training_set, candidates = world()

    with pytest.raises(DataError, match=r"group odd names \['x'\].*GROUPS in features\.py"):
        evaluate(spec, training_set, candidates, {"odd": ("x",)}, None, seed=1)


def test_a_slice_column_that_the_set_lacks_is_refused(world: Callable[..., World]) -> None:
    broken = world(slices={"columns": ["dest"], "min_rows": 300})

    with pytest.raises(DataError, match=r"no column dest.*slices\.columns"):
        _evaluate(broken)


def test_no_candidate_beside_the_baseline_is_refused(world: Callable[..., World]) -> None:
    spec, training_set, candidates = world()

    with pytest.raises(ModelError, match="no model has the role candidate"):
        evaluate(spec, training_set, candidates[:1], GROUPS, None, seed=1)


def test_a_better_model_passes_the_gates(world: Callable[..., World]) -> None:
    spec, training_set, candidates = world()
    report = gate(spec, _evaluate((spec, training_set, candidates)), candidates)

    assert report.passed, [result.reason for result in report.results]
    assert "strong" == report.candidate


def test_a_model_that_is_bad_on_one_slice_is_rejected_and_the_slice_is_named(
    world: Callable[..., World],
) -> None:
    spec, training_set, candidates = world(flipped="BB")
    report = gate(spec, _evaluate((spec, training_set, candidates)), candidates)
    failed = {result.gate: result.reason for result in report.results if not result.passed}

    assert not report.passed
    assert "carrier=BB" in failed["no_slice_regresses"]
    assert "carrier=AA" not in failed["no_slice_regresses"]
