"""The temporal split: newest rows are the test, gaps hold no row, broken parts are refused."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mlplatform.contracts import TrainingSet
from mlplatform.contracts.usecase.data import Split
from mlplatform.errors import DataError
from pipelines.steps.split import labels, matrix, read, split

RULE = Split(validation_days=10, test_days=10, gap_hours=24)
Frame = Callable[..., pl.DataFrame]


def _alternating(count: int) -> list[int]:
    return [row % 2 for row in range(count)]


def test_parts_are_ordered_in_time_with_a_gap_between_them(frame: Frame) -> None:
    parts = split(RULE, frame(_alternating(6000), days=60), "late")

    gap = timedelta(hours=24)
    assert parts.validation.window.start - parts.train.window.end == gap
    assert parts.test.window.start - parts.validation.window.end == gap
    assert parts.test.window.end - parts.test.window.start == timedelta(days=10)
    assert parts.validation.window.end - parts.validation.window.start == timedelta(days=10)
    for part in (parts.train, parts.validation, parts.test):
        assert part.frame["event_timestamp"].min() >= part.window.start  # type: ignore[operator]
        assert part.frame["event_timestamp"].max() < part.window.end  # type: ignore[operator]


def test_every_row_outside_the_gaps_is_in_exactly_one_part(frame: Frame) -> None:
    rows = frame(_alternating(6000), days=60).with_row_index()
    parts = split(RULE, rows, "late")
    used = pl.concat([parts.train.frame, parts.validation.frame, parts.test.frame])["index"]

    assert used.n_unique() == len(used)
    assert 6000 - len(used) == pytest.approx(200, abs=2)  # two gaps of a day, 100 rows a day


def test_the_newest_row_is_a_test_row_also_when_it_lies_on_the_hour(frame: Frame) -> None:
    rows = frame(_alternating(60 * 24), days=60)  # each row on a whole hour
    parts = split(RULE, rows, "late")

    assert rows["event_timestamp"].max() == parts.test.frame["event_timestamp"].max()


def test_rows_may_come_in_any_order(frame: Frame) -> None:
    rows = frame(_alternating(6000), days=60)
    shuffled = split(RULE, rows.sample(fraction=1, shuffle=True, seed=1), "late")

    assert split(RULE, rows, "late").test.frame.equals(shuffled.test.frame.sort("event_timestamp"))


@pytest.mark.parametrize(
    ("days", "part"),
    [
        pytest.param(9, "the validation part, 2012-12-", id="validation"),
        pytest.param(20, "the train part, before 2012-12-", id="train"),
    ],
)
def test_a_part_without_rows_is_named_with_its_window_and_what_to_change(
    frame: Frame, days: int, part: str
) -> None:
    rows = frame(_alternating(days * 10), days=days)

    with pytest.raises(DataError, match=rf"{part}.*has no rows.*split\.test_days"):
        split(RULE, rows, "late")


def test_a_part_with_one_class_is_refused(frame: Frame) -> None:
    rows = frame([0] * 900 + _alternating(5100), days=60)
    only_negative = rows.with_columns(
        pl.when(pl.col("event_timestamp") > rows["event_timestamp"][4500])
        .then(0)
        .otherwise(pl.col("late"))
        .alias("late")
    )

    with pytest.raises(DataError, match=r"the test part.*1,\d{3} rows and all are negative"):
        split(RULE, only_negative, "late")


def test_a_set_without_rows_is_refused(frame: Frame) -> None:
    with pytest.raises(DataError, match="no rows"):
        split(RULE, frame([], days=1), "late")


def test_a_missing_file_is_refused_by_its_name(
    frame: Frame, stored: Callable[..., TrainingSet]
) -> None:
    training_set = stored(frame([0, 1], days=1), [])
    training_set.path.unlink()

    with pytest.raises(DataError, match=r"training_set\.parquet cannot be read"):
        read(training_set)


@pytest.mark.parametrize("bad", [pytest.param(None, id="null"), pytest.param(2, id="two")])
def test_a_label_that_is_neither_0_nor_1_is_refused(frame: Frame, bad: int | None) -> None:
    rows = frame([0, 1], days=1).with_columns(pl.Series("late", [0, bad], dtype=pl.Int8))

    with pytest.raises(DataError, match="1 values that are neither 0 nor 1"):
        labels(rows, "late")


def test_features_come_in_the_asked_order_as_float32_with_nan_for_null(frame: Frame) -> None:
    rows = frame([0, 1], days=1, b=[1, None], a=[0.5, 1.5], flag=[True, False])
    values = matrix(rows, ["a", "b", "flag"])

    assert np.float32 == values.dtype
    assert values.flags["C_CONTIGUOUS"]
    assert np.array_equal([[0.5, 1.0, 1.0], [1.5, np.nan, 0.0]], values, equal_nan=True)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        pytest.param({"a": ["x", "y"]}, r"\['a'\] are not numbers", id="text"),
        pytest.param({"a": [1.0, float("inf")]}, r"\['a'\] hold infinite", id="infinite"),
        pytest.param({"a": [1.0, 1e39]}, r"\['a'\] hold infinite", id="beyond-float32"),
        pytest.param({"b": [1.0, 2.0]}, r"lacks the features \['a'\]", id="absent"),
    ],
)
def test_a_column_that_no_model_can_read_is_named(
    frame: Frame, column: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        matrix(frame([0, 1], days=1, **column), ["a"])
