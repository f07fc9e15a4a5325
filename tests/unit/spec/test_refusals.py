"""Each kind of mistake is named with its line, its path, its value and what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform import spec
from mlplatform.errors import SpecError

WriteSpec = Callable[..., Path]


def refusal(path: Path) -> list[str]:
    """Return the problems' lines, without the file's path."""
    with pytest.raises(SpecError) as caught:
        spec.load(path)
    _, *lines = str(caught.value).splitlines()
    return [line.removeprefix(f"{path}:") for line in lines]


def test_a_complete_spec_is_read_with_its_defaults(write_spec: WriteSpec) -> None:
    loaded = spec.load(write_spec())

    assert loaded.name == "small_case"
    assert loaded.data.freshness_hours == 48
    assert loaded.data.min_size_ratio == 0.8
    assert loaded.entities[1].keys == ("floor", "corner_id")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param(
            "  owner: wayfinding",
            "  ownr: wayfinding\n  owner: wayfinding",
            '8: goal.ownr: value "wayfinding": there is no such key; did you mean owner?',
            id="unknown key, near a known one",
        ),
        pytest.param(
            "cost: {serving_per_month: 90,",
            "cost: {zzz: 1, serving_per_month: 90,",
            "72: cost.zzz: value 1: there is no such key; "
            "remove it: the keys here are serving_per_month, training_per_month",
            id="unknown key, near none",
        ),
        pytest.param(
            "bound: 0.1}",
            "bound: 0.1, margn: 1}",
            "44: gates.1.margn: value 1: there is no such key; "
            "remove it: the keys here are kind, name, metric, bound",
            id="unknown key inside a union",
        ),
        pytest.param(
            "  owner: wayfinding\n",
            "",
            "3: goal.owner: no value: the key is missing; add it: Who is asked when it breaks.",
            id="missing key",
        ),
        pytest.param(
            "cost: {serving_per_month: 90, training_per_month: 10}\n",
            "",
            "1: cost: no value: the key is missing; add it: Monthly bounds, in US dollars.",
            id="missing section",
        ),
        pytest.param(
            "peak_qps: 20",
            "peak_qps: '20'",
            '49: serving.peak_qps: value "20": must be a valid number; '
            "write a number without quotes",
            id="text for a number",
        ),
        pytest.param(
            "min_exposure: 100",
            "min_exposure: 1.5",
            "55: rollout.min_exposure: value 1.5: must be a valid integer; "
            "write a whole number without quotes",
            id="fraction for a whole number",
        ),
        pytest.param(
            "min_exposure: 100",
            "min_exposure: true",
            "55: rollout.min_exposure: value true: must be a valid integer; "
            "write a whole number without quotes",
            id="truth for a number",
        ),
        pytest.param(
            "peak_qps: 20",
            "peak_qps: .nan",
            "49: serving.peak_qps: value NaN: must be a finite number; write a number",
            id="not a number",
        ),
        pytest.param(
            "  label_rate: {min: 0.1, max: 0.5}",
            "  freshness_hours: 72\n  label_rate: {min: 0.1, max: 0.5}",
            "17: data.freshness_hours: value 72: must be less than or equal to 48; lower it",
            id="data older than 48 hours",
        ),
        pytest.param(
            "  label_rate: {min: 0.1, max: 0.5}",
            "  min_size_ratio: 0.7\n  label_rate: {min: 0.1, max: 0.5}",
            "17: data.min_size_ratio: value 0.7: must be greater than or equal to 0.8; raise it",
            id="a set smaller than 80 %",
        ),
        pytest.param(
            "north_star: pr_auc",
            "north_star: pr_acu",
            "7: goal.north_star: value \"pr_acu\": must be 'pr_auc', 'roc_auc', 'log_loss' or "
            "'calibration_error'; did you mean pr_auc?",
            id="unknown word, near a known one",
        ),
        pytest.param(
            "{kind: threshold,",
            "{kind: treshold,",
            "44: gates.1.kind: value \"treshold\": must be one of 'improvement', 'threshold', "
            "'slices'; did you mean threshold?",
            id="unknown kind of gate",
        ),
        pytest.param(
            "num_leaves: {choice: [7, 15]}",
            "num_leaves: {chioce: [7, 15]}",
            '40: training.candidates.1.search.num_leaves: value {"chioce": [7, 15]}: is none of '
            "{choice: [a, b]}, {uniform: [low, high]}, {loguniform: [low, high]}; "
            "write one of them",
            id="unknown kind of space",
        ),
        pytest.param(
            "num_leaves: {choice: [7, 15]}",
            "num_leaves: {choice: [7, [15]]}",
            "40: training.candidates.1.search.num_leaves.choice.1: value [15]: must be a valid "
            "number or a valid integer or a valid string; write one of them",
            id="wrong member of a union",
        ),
        pytest.param(
            "name: small_case\n",
            "name: Small-Case\n",
            "1: name: value \"Small-Case\": must match pattern '^[a-z][a-z0-9_]{2,40}$'; rename it",
            id="a name that is no Python name",
        ),
        pytest.param(
            "  definition: Turned around within five minutes.",
            "  definition: 2013-01-01",
            "11: label.definition: value 2013-01-01: YAML reads this as a timestamp; "
            "put it in quotes",
            id="a date",
        ),
        pytest.param(
            "max_metric_loss: {pr_auc: 0.05}",
            "max_metric_loss: {pr_auc: 0.05, roc_acu: 0.1}",
            "67: monitoring.max_metric_loss.roc_acu: value \"roc_acu\": must be 'pr_auc', "
            "'roc_auc', 'log_loss' or 'calibration_error'; did you mean roc_auc?",
            id="unknown key of a mapping",
        ),
        pytest.param(
            "split: {validation_days: 7,",
            "split: {validation_days: 7, validation_days: 8,",
            "29: split.validation_days: value 8: the key appears on line 29 too; "
            "remove one of the two",
            id="the same key twice",
        ),
    ],
)
def test_a_mistake_is_named_with_line_value_and_advice(
    write_spec: WriteSpec, old: str, new: str, problem: str
) -> None:
    path = write_spec((old, new))

    assert problem in refusal(path)


def test_all_problems_are_listed_at_once_in_the_order_of_lines(write_spec: WriteSpec) -> None:
    path = write_spec(
        ("north_star: pr_auc", "north_star: auc"),  # an unknown word
        ("peak_qps: 20", "peak_qps: many"),  # a wrong type
        ("total: 50", "total: 60"),  # a contradiction, hidden by the wrong type beside it
        ("max_metric_loss: {pr", "max_metric_loss: {roc"),  # another that needs the wrong word
        ("persistence: [2, 3]", "persistence: [3, 2]"),  # one that needs nothing else
        ("  soak_hours: 12", "  soak_hours: 12\n  soak_hours: 13"),  # a repeated key
        ("{name: visitor, keys: [visitor_id]}", "{name: visitor, key: [visitor_id]}"),
    )

    found = refusal(path)

    assert [
        "goal.north_star",
        "entities.0.keys",
        "entities.0.key",
        "serving.peak_qps",
        "rollout.soak_hours",
        "monitoring.persistence",
    ] == [line.split(": ")[1] for line in found]


def test_contradictions_of_valid_sections_are_found_beside_other_mistakes(
    write_spec: WriteSpec,
) -> None:
    path = write_spec(
        ("peak_qps: 20", "peak_qps: many"),
        ("assignment_unit: visitor", "assignment_unit: visitr"),
    )

    found = refusal(path)

    assert [
        "49: serving.peak_qps",
        "52: rollout.assignment_unit",
    ] == [": ".join(line.split(": ")[:2]) for line in found]


def test_a_spec_without_tables_is_refused(write_spec: WriteSpec) -> None:
    path = write_spec(("  tables:\n    turns:\n", "  tables: {}\n  ignored:\n"))

    problems = [line for line in refusal(path) if "data.tables" in line]
    assert len(problems) == 1
    assert "value {}: must have at least 1 item after validation, not 0; add to it" in problems[0]


def test_the_folder_must_have_the_name_of_the_use_case(write_spec: WriteSpec) -> None:
    path = write_spec(folder="other_case")

    (problem,) = refusal(path)

    assert '1: name: value "small_case": the folder is named other_case; rename one' in problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"a: [1,\nb: 2\n", "this is not YAML", id="unclosed list"),
        pytest.param(b"a:\n\tb: 1\n", "2: the file: no value: this is not YAML", id="tab"),
        pytest.param(b"a: \x01\n", "this is not YAML", id="control character"),
        pytest.param(b"a: 1\n---\nb: 1\n", "expected a single document", id="two documents"),
        pytest.param(b"a: !!python/object:os.system {}\n", "this is not YAML", id="Python object"),
        pytest.param(b"name: 2013-13-45\n", "YAML reads this as a timestamp", id="no such date"),
        pytest.param(b"", "a spec is a mapping", id="empty file"),
        pytest.param(b"- a\n", "a spec is a mapping", id="a list"),
        pytest.param(b"1: a\n", "a key must be text", id="a number as key"),
        pytest.param(b"? [a]\n: b\n", "a key must be text", id="a list as key"),
        pytest.param(b"a: &a [*a]\n", "anchors make this file larger", id="holds itself"),
        pytest.param(
            b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (new, new, b",".join([b"*%c" % old] * 10))
                for old, new in zip(b"abcd", b"bcde", strict=True)
            ),
            "anchors make this file larger",
            id="anchors that multiply",
        ),
    ],
)
def test_what_is_no_spec_at_all_is_refused_in_words(
    write_text: WriteSpec, content: bytes, problem: str
) -> None:
    path = write_text(content)

    assert problem in "\n".join(refusal(path))


def test_a_file_that_is_not_utf8_is_refused(write_text: WriteSpec) -> None:
    path = write_text(b"name: caf\xe9\n")

    with pytest.raises(SpecError, match="is not UTF-8 text"):
        spec.load(path)


def test_a_missing_file_is_refused_with_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file or directory; a use case is a folder with"):
        spec.load(tmp_path / "usecase.yaml")


def test_anchors_and_merged_keys_are_read(write_spec: WriteSpec) -> None:
    path = write_spec(
        (
            "  - {metric: error_rate, margin: 0.01}\n",
            "  - &one {metric: error_rate, margin: 0.01}\n",
        ),
        ("    - {metric: loss, margin: 0.02}", "    - {<<: *one, metric: loss}"),
    )

    assert 0.01 == spec.load(path).rollout.guardrails[1].margin
