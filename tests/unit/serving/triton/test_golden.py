"""Golden answers tell a healthy server of this model from every other one."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from mlplatform.errors import ModelError
from serving.triton.golden import TOLERANCE, Golden, golden
from tests.unit.serving.triton.conftest import FEATURES, Signed, logistic, model

WIDTH = len(FEATURES)


def content(made: Any) -> bytes:
    return bytes(made.SerializeToString())


def constant(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.asarray(value), name)


def one_column(*nodes: Any) -> list[Any]:
    """Nodes that begin with the first feature, missing read as 0, as `first` [N, 1]."""
    return [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
        helper.make_node("MatMul", ["filled", "pick"], ["first"]),
        *nodes,
    ]


CONSTANTS = [
    constant("zero", np.float32(0)),
    constant("pick", np.eye(WIDTH, 1, dtype=np.float32)),
]


def renamed(old: str, new: str) -> Any:
    made = logistic()
    for item in (*made.graph.input, *made.graph.output):
        item.name = new if item.name == old else item.name
    for node in made.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    return made


def two_outputs() -> Any:
    made = logistic()
    made.graph.output.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1]))
    return made


def of_doubles() -> Any:
    made = model([helper.make_node("Cast", ["features"], ["probability"], to=1)], [], width=1)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return made


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another input": (lambda: renamed("features", "inputs"), "not features float32"),
    "another output": (lambda: renamed("probability", "label"), "not features float32"),
    "two outputs": (two_outputs, "not features float32"),
    "another width": (lambda: logistic(WIDTH + 1), "not features float32"),
    "doubles": (of_doubles, "not features float32"),
    "a fixed number of rows": (
        lambda: model(
            one_column(helper.make_node("Sigmoid", ["first"], ["probability"])), CONSTANTS, rows=1
        ),
        "not features float32",
    ),
    "NaN for a missing value": (
        lambda: model(
            [
                helper.make_node("MatMul", ["features", "pick"], ["first"]),
                helper.make_node("Sigmoid", ["first"], ["probability"]),
            ],
            CONSTANTS,
        ),
        "no probabilities",
    ),
    "log-odds": (
        lambda: model(
            one_column(helper.make_node("Identity", ["first"], ["probability"])), CONSTANTS
        ),
        "no probabilities",
    ),
    "a share among the rows beside it": (
        lambda: model(
            one_column(helper.make_node("Softmax", ["first"], ["probability"], axis=0)), CONSTANTS
        ),
        "by the rows beside it",
    ),
    "chance": (
        lambda: model(
            one_column(helper.make_node("RandomUniformLike", ["first"], ["probability"])), CONSTANTS
        ),
        "by chance",
    ),
    "one answer for equal rows": (
        lambda: model(
            one_column(
                helper.make_node("Unique", ["first"], ["distinct"]),
                helper.make_node("Reshape", ["distinct", "column"], ["fewer"]),
                helper.make_node("Sigmoid", ["fewer"], ["probability"]),
            ),
            [*CONSTANTS, constant("column", np.array([-1, 1]))],
        ),
        "not one probability each",
    ),
    "a failure at run time": (
        lambda: model(
            one_column(
                helper.make_node("Shape", ["first"], ["beyond"]),
                helper.make_node("Gather", ["first", "beyond"], ["missed"]),
                helper.make_node("Concat", ["first", "missed"], ["probability"], axis=0),
            ),
            CONSTANTS,
        ),
        "cannot answer the golden rows|not one probability each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_served_is_refused(name: str) -> None:
    make, message = REFUSED[name]

    with pytest.raises(ModelError, match=message):
        golden(content(make()), WIDTH)


def test_the_rows_hold_missing_values_and_one_row_is_missing_altogether() -> None:
    rows = golden(content(logistic()), WIDTH).features()

    assert (8, WIDTH) == rows.shape
    assert np.isnan(rows[1]).all()
    assert 0 < np.isnan(rows[2:]).sum() < rows[2:].size
    assert (rows[0] == 0).all()


def test_the_same_bytes_have_the_same_golden_answers() -> None:
    assert golden(content(logistic()), WIDTH) == golden(content(logistic()), WIDTH)


def test_the_answers_are_those_of_the_formula() -> None:
    known = golden(content(logistic()), WIDTH)
    weights = np.linspace(0.01, 0.02, WIDTH)
    expected = 1 / (1 + np.exp(-np.nan_to_num(known.features().astype(float)) @ weights))

    assert known.matches(expected)


def test_another_model_does_not_match() -> None:
    known, other = (
        golden(content(logistic()), WIDTH),
        golden(content(logistic(weight=0.011)), WIDTH),
    )

    assert known.rows == other.rows
    assert not known.matches(np.array(other.answers))


@given(
    st.integers(0, 7),
    st.one_of(
        st.floats(min_value=1.01 * TOLERANCE),
        st.floats(max_value=-1.01 * TOLERANCE),
        st.just(math.nan),
    ),
)
def test_one_answer_off_by_more_than_the_tolerance_does_not_match(row: int, off: float) -> None:
    known = Golden(rows=((0.0,),) * 8, answers=(0.5,) * 8)
    answers = np.full(8, 0.5)
    answers[row] += off

    assert not known.matches(answers)


@given(st.lists(st.floats(-0.99 * TOLERANCE, 0.99 * TOLERANCE), min_size=3, max_size=3))
def test_answers_within_the_tolerance_match(off: list[float]) -> None:
    known = Golden(rows=((0.0,),) * 3, answers=(0.1, 0.5, 0.9))

    assert known.matches(np.array([0.1, 0.5, 0.9]) + off)


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), (0,), ()])
def test_answers_of_another_number_of_rows_do_not_match(shape: tuple[int, ...]) -> None:
    known = Golden(rows=((0.0,),) * 8, answers=(0.5,) * 8)

    assert not known.matches(np.full(shape, 0.5))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"rows": [[1]], "answers": []}', id="no answers"),
        pytest.param('{"rows": [[1], [1, 2]], "answers": [0, 0]}', id="uneven rows"),
        pytest.param('{"rows": [[1]], "answers": [0.1, 0.2]}', id="more answers than rows"),
        pytest.param('{"rows": [[1]], "answers": [NaN]}', id="NaN"),
        pytest.param('{"rows": [[1]], "answers": [0.1], "more": 1}', id="more fields"),
    ],
)
def test_a_damaged_golden_file_is_not_read(text: str) -> None:
    with pytest.raises(ValidationError):
        Golden.model_validate_json(text)


def test_a_kept_golden_file_gives_the_same_rows_to_the_last_bit(signed: Signed) -> None:
    made = signed.export()
    kept = Golden.model_validate_json((Path(made.folder) / "golden.json").read_bytes())

    assert made.golden.features().tobytes() == kept.features().tobytes()
