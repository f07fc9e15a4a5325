"""Values that are right one by one and wrong together are refused, each with its own line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlplatform import spec
from mlplatform.contracts import UseCase
from mlplatform.errors import SpecError

WriteSpec = Callable[..., Path]

TURNED = "        turned_at: {type: timestamp}\n"

CASES = [
    pytest.param(
        "total: 50,",
        "total: 60,",
        "serving.latency_ms.total: value 60: the hops add up to 50 ms but the total is 60 ms; "
        "set the total to 50 or change a hop",
        id="the budget does not add up",
    ),
    pytest.param(
        "gap_hours: 20}",
        "gap_hours: 0.5}",
        "split.gap_hours: value 0.5: a gap of 0.5 h is shorter than the label's delay of 20 h",
        id="the gap is shorter than the delay",
    ),
    pytest.param(
        "{min: 0.1, max: 0.5}",
        "{min: 0.5, max: 0.5}",
        "data.label_rate.min: value 0.5: the band is empty",
        id="an empty band of label rates",
    ),
    pytest.param(
        "      role: baseline\n",
        "",
        "there are 0 baselines among 2 candidates",
        id="no baseline",
    ),
    pytest.param(
        "    - kind: lightgbm\n",
        "    - kind: lightgbm\n      role: baseline\n",
        "there are 2 baselines among 2 candidates",
        id="only baselines",
    ),
    pytest.param(
        "kind: lightgbm",
        "kind: logistic_regression",
        "the kind logistic_regression appears twice",
        id="a kind twice",
    ),
    pytest.param(
        "fixed: {min_data_in_leaf: 20}",
        "fixed: {num_leaves: 20}",
        "training.candidates.1.search.num_leaves: value {",
        id="searched and fixed",
    ),
    pytest.param(
        "loguniform: [0.1, 1.0]",
        "loguniform: [1.0, 0.1]",
        "training.candidates.0.search.C.loguniform: value [1.0, 0.1]: the lower bound 1 is not",
        id="bounds the wrong way round",
    ),
    pytest.param(
        "      trials: 2\n      search:\n        num_leaves",
        "      trials: 3\n      search:\n        num_leaves",
        "training.candidates.1.trials: value 3: the search space has 2 combinations",
        id="more trials than combinations",
    ),
    pytest.param(
        "training:\n",
        "training:\n  max_rounds: 10\n  early_stopping_rounds: 10\n",
        "training.early_stopping_rounds: value 10: training ends after 10 rounds",
        id="early stopping that cannot happen",
    ),
    pytest.param(
        "name: better, metric: pr_auc, against: baseline",
        "name: better, metric: pr_auc, against: champion",
        "no gate compares the north star pr_auc with the baseline",
        id="no gate against the baseline",
    ),
    pytest.param(
        "name: better, metric: pr_auc",
        "name: better, metric: log_loss",
        "no gate compares the north star pr_auc with the baseline",
        id="a gate on another metric than the north star",
    ),
    pytest.param(
        "name: calibrated",
        "name: better",
        "two gates are named better",
        id="a gate's name twice",
    ),
    pytest.param(
        "bound: 0.1",
        "bound: 1.5",
        "gates.1.bound: value 1.5: calibration_error allows [0, 1]",
        id="a bound that always holds",
    ),
    pytest.param(
        "slices: {columns: [floor]}",
        "slices: {columns: []}",
        "slices.columns: value []: a gate looks at slices but there are none",
        id="a gate on slices, and no slices",
    ),
    pytest.param(
        "slices: {columns: [floor]}",
        "slices: {columns: [floor, lost]}",
        "slices.columns: value",
        id="sliced by the label",
    ),
    pytest.param(
        "slices: {columns: [floor]}",
        "slices: {columns: [floor, floor]}",
        "floor appears twice",
        id="a slice twice",
    ),
    pytest.param(
        "name: corner,",
        "name: visitor,",
        "two entities are named visitor",
        id="an entity's name twice",
    ),
    pytest.param(
        "keys: [floor, corner_id]",
        "keys: [floor, floor]",
        "entities.1.keys: value",
        id="a key twice",
    ),
    pytest.param(
        "  name: lost",
        "  name: corner_id",
        'label.name: value "corner_id": is also an entity\'s key',
        id="the label is a key",
    ),
    pytest.param(
        "assignment_unit: visitor",
        "assignment_unit: person",
        'rollout.assignment_unit: value "person": is not an entity; choose one of corner, visitor',
        id="an unknown assignment unit",
    ),
    pytest.param(
        "weights: [0.1, 0.5]",
        "weights: [0.5, 0.1]",
        "rollout.weights: value [0.5, 0.1]: the shares must rise within (0, 1)",
        id="falling weights",
    ),
    pytest.param(
        "weights: [0.1, 0.5]",
        "weights: [0.1, 1.0]",
        "rollout.weights: value [0.1, 1.0]: the shares must rise within (0, 1)",
        id="a weight of 1",
    ),
    pytest.param(
        "{metric: loss, margin: 0.02}",
        "{metric: error_rate, margin: 0.02}",
        "error_rate appears twice",
        id="a guardrail twice",
    ),
    pytest.param(
        "soak_hours: 12",
        "soak_hours: 94",
        "rollout.deadline_hours: value 100: shadow and soak take 100 h of it",
        id="no time left for the steps",
    ),
    pytest.param(
        "deadline_hours: 100",
        "deadline_hours: 26",
        "rollout.deadline_hours: value 26: the guardrail on loss needs labels",
        id="labels come after the deadline",
    ),
    pytest.param(
        "persistence: [2, 3]",
        "persistence: [3, 2]",
        "monitoring.persistence: value [3, 2]: 3 of the last 2 windows cannot be",
        id="k above n",
    ),
    pytest.param(
        "max_metric_loss: {pr_auc: 0.05}",
        "max_metric_loss: {roc_auc: 0.05}",
        "nobody watches the north star",
        id="the north star is not watched",
    ),
    pytest.param(
        "retrains_per_week: 2",
        "retrains_per_week: 5",
        "monitoring.retrains_per_week: value 5: a cooldown of 48 h never allows 5 runs",
        id="a cooldown longer than the rate allows",
    ),
    pytest.param(
        "cooldown_hours: 48",
        "cooldown_hours: 150",
        "monitoring.schedule_days: value 5: the cooldown of 150 h would swallow scheduled runs",
        id="a schedule inside the cooldown",
    ),
    pytest.param(
        "retrains_per_week: 2",
        "retrains_per_week: 0",
        "monitoring.schedule_days: value 5: that is more than 0 scheduled runs in a week",
        id="a schedule above the rate",
    ),
    pytest.param(
        "event_time: turned_at",
        "event_time: turned",
        'data.tables.turns.event_time: value "turned": turned is not a declared column',
        id="an undeclared event time",
    ),
    pytest.param(
        "unique: [visitor_id, turned_at]",
        "unique: [visitor, turned_at]",
        "data.tables.turns.unique: value",
        id="an undeclared unique column",
    ),
    pytest.param(
        "{low: turned_at, high: seen_at}",
        "{low: turned_at, high: angle}",
        "data.tables.turns.ordered.0: value",
        id="columns without an order",
    ),
    pytest.param(
        "{low: turned_at, high: seen_at}",
        "{low: turned_at, high: seen}",
        'data.tables.turns.ordered.0.high: value "seen": seen is not a declared column',
        id="an undeclared ordered column",
    ),
    pytest.param(
        "event_time: turned_at",
        "event_time: angle",
        'data.tables.turns.event_time: value "angle": angle is declared as float',
        id="an event time that is no time",
    ),
    pytest.param(
        "min: -180, max: 180",
        "min: 180, max: -180",
        "data.tables.turns.columns.angle.min: value 180: is above the max of -180",
        id="min above max",
    ),
    pytest.param(
        TURNED,
        "        turned_at: {type: timestamp, min: 1}\n",
        "data.tables.turns.columns.turned_at.min: value 1: a timestamp column has no min",
        id="a bound on a time",
    ),
    pytest.param(
        "{type: float, min",
        "{type: float, values: [a], min",
        "data.tables.turns.columns.angle.values: value",
        id="a list of values on a number",
    ),
    pytest.param(
        "{type: float, min",
        "{type: float, pattern: a, min",
        'data.tables.turns.columns.angle.pattern: value "a": a float column has no pattern',
        id="a pattern on a number",
    ),
    pytest.param(
        '"[a-z]+"',
        '"[a-z"',
        'data.tables.turns.columns.visitor_id.pattern: value "[a-z": is not a regular expression',
        id="a broken pattern",
    ),
]


@pytest.mark.parametrize(("old", "new", "problem"), CASES)
def test_a_contradiction_is_the_only_problem_and_names_its_value(
    write_spec: WriteSpec, old: str, new: str, problem: str
) -> None:
    path = write_spec((old, new))

    with pytest.raises(SpecError) as caught:
        spec.load(path)

    head, *lines = str(caught.value).splitlines()
    assert f"{path} is refused, 1 problem:" == head
    assert problem in lines[0]


def test_a_contradiction_names_the_line_of_the_value_to_change(write_spec: WriteSpec) -> None:
    path = write_spec(("total: 50,", "total: 60,"))

    with pytest.raises(SpecError) as caught:
        spec.load(path)

    lines = path.read_text(encoding="utf-8").splitlines()
    (line,) = (number for number, text in enumerate(lines, start=1) if "total: 60" in text)
    assert f"{path}:{line}: serving.latency_ms.total" in str(caught.value)


def test_a_use_case_built_in_code_is_held_to_the_same_rules(write_spec: WriteSpec) -> None:
    values = spec.load(write_spec()).model_dump()
    values["split"]["gap_hours"] = 0
    values["rollout"]["assignment_unit"] = "person"

    with pytest.raises(ValidationError, match=r"split\.gap_hours: .*; rollout\.assignment_unit: "):
        UseCase.model_validate(values)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("gap_hours: 20}", "gap_hours: 21}", id="a longer gap"),
        pytest.param("weights: [0.1, 0.5]", "weights: [0.99]", id="one step"),
        pytest.param("persistence: [2, 3]", "persistence: [1, 1]", id="every window counts"),
        pytest.param("  schedule_days: 5\n", "", id="no schedule"),
        pytest.param("min: -180, max: 180", "min: 180, max: 180", id="a constant"),
        pytest.param("{low: turned_at, high: seen_at}", "{low: angle, high: angle}", id="numbers"),
    ],
)
def test_the_edge_of_a_rule_is_accepted(write_spec: WriteSpec, old: str, new: str) -> None:
    path = write_spec((old, new))

    assert "small_case" == spec.load(path).name
