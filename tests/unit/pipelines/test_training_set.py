"""The training set: matured labels, each once, in order, with nothing from the future."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from feature_repo import catalog
from feature_repo.feedback import NONE, Feedback
from feature_repo.inputs import Array
from feature_repo.labels import ORIGIN
from mlplatform.contracts import TrainingSet
from mlplatform.contracts.review import ReviewItem
from mlplatform.errors import DataError, LeakError
from pipelines.steps.training_set import build_training_set, content_digest

SPEC = catalog.load("flight_delay").spec
START = datetime(2013, 1, 1, tzinfo=UTC)
KEYS = sorted({key for entity in SPEC.entities for key in entity.keys})


def labels(count: int = 6) -> pl.DataFrame:
    hours = range(count)
    return pl.DataFrame(
        {
            "request_id": [f"r{hour}" for hour in hours],
            **{key: ["a"] * count for key in KEYS},
            "event_timestamp": [START + timedelta(hours=hour) for hour in hours],
            "label_timestamp": [START + timedelta(hours=hour + 3) for hour in hours],
            SPEC.label.name: [hour % 2 for hour in hours],
            **{name: ["x"] * count for name in SPEC.slices.columns if name not in KEYS},
        },
        schema_overrides={
            "event_timestamp": pl.Datetime("us", "UTC"),
            "label_timestamp": pl.Datetime("us", "UTC"),
            SPEC.label.name: pl.Int8,
        },
    )


def join(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(temp=pl.int_range(pl.len()).cast(pl.Float32))


def request(columns: dict[str, Array]) -> dict[str, Array]:
    return {"twice": 2 * columns["temp"]}


def build(tmp_path: Path, frame: pl.DataFrame, **changes: Any) -> TrainingSet:
    options: dict[str, Any] = {
        "spec": SPEC,
        "labels": frame,
        "join": join,
        "request": request,
        "request_inputs": ["temp"],
        "groups": {"weather": ("temp",), "request": ("twice",)},
        "as_of": START + timedelta(days=2),
        "out": tmp_path,
    }
    return build_training_set(**(options | changes))


def test_each_matured_label_is_one_row_in_label_order(tmp_path: Path) -> None:
    result = build(tmp_path, labels())
    rows = pl.read_parquet(result.path)

    assert [f"r{hour}" for hour in range(6)] == rows["request_id"].to_list()
    assert (6, 0, 0.5) == (result.rows, result.immature_rows, result.positive_rate)
    assert np.array_equal(2 * rows["temp"].to_numpy(), rows["twice"].to_numpy())


def test_labels_of_a_cohort_that_has_not_matured_are_left_out_and_counted(tmp_path: Path) -> None:
    result = build(tmp_path, labels(), as_of=START + timedelta(hours=26))

    assert (3, 3) == (result.rows, result.immature_rows)  # known all six, a day old three


def test_a_label_that_is_later_than_its_delay_waits(tmp_path: Path) -> None:
    late = pl.col("label_timestamp") + pl.duration(hours=40)
    result = build(tmp_path, labels().with_columns(label_timestamp=late))

    assert (6, 0) == (build(tmp_path, labels()).rows, build(tmp_path, labels()).immature_rows)
    assert (6, 0) == (result.rows, result.immature_rows)
    waiting = build(
        tmp_path, labels().with_columns(label_timestamp=late), as_of=START + timedelta(hours=45)
    )
    assert (3, 3) == (waiting.rows, waiting.immature_rows)


def test_a_label_that_never_comes_is_left_out(tmp_path: Path) -> None:
    late = pl.col("request_id") == "r1"
    frame = labels().with_columns(label_timestamp=pl.when(~late).then("label_timestamp"))

    assert (5, 1) == (build(tmp_path, frame).rows, build(tmp_path, frame).immature_rows)


def test_no_known_label_is_an_error_that_says_when(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label of flight_delay had matured at 2013-01-01 01:00"):
        build(tmp_path, labels(), as_of=START + timedelta(hours=1))


def reviewed(name: str, label: int, hour: int) -> ReviewItem:
    return ReviewItem(
        usecase=SPEC.name,
        request_id=name,
        event_time=START,
        entity=name,
        request="{}",
        version=1,
        score=0.5,
        decision=True,
        reason="sampled",
        queued_at=START,
        label=label,
        reviewer="ada",
        reviewed_at=START + timedelta(hours=hour),
    )


def answered_badly(*names: str) -> pl.DataFrame:
    rows = {"request_id": names, "reasons": [["features_late"]] * len(names)}
    return pl.DataFrame(rows, schema=NONE.degraded.schema)


def test_a_persons_label_is_learnt_from_once_it_was_given(tmp_path: Path) -> None:
    frame = labels().with_columns(late=pl.when(pl.col("request_id") != "r1").then("late"))
    live = Feedback((reviewed("r1", 0, 40), reviewed("r2", 1, 40)), answered_badly())

    before = build(tmp_path, frame, live=live, as_of=START + timedelta(hours=39))
    assert (5, 0, 0) == (before.rows, before.reviewed_rows, before.reviews_compared)

    after = build(tmp_path, frame, live=live)
    rows = pl.read_parquet(after.path)

    assert (6, 1, 1, 1) == (
        after.rows, after.reviewed_rows, after.reviews_compared, after.reviews_disagreed
    )  # fmt: skip
    assert [0, 0, 0, 1, 0, 1] == rows["late"].to_list()
    assert ["r1"] == rows.filter(pl.col(ORIGIN) == "review")["request_id"].to_list()
    assert START + timedelta(hours=40) == rows["label_timestamp"][1]


def test_rows_that_were_answered_badly_are_left_out_and_counted(tmp_path: Path) -> None:
    live = Feedback((), answered_badly("elsewhere", "r3"))

    whole, result = build(tmp_path, labels()), build(tmp_path, labels(), live=live)
    rows = pl.read_parquet(result.path)

    assert (5, 1, 0) == (result.rows, result.degraded_rows, result.immature_rows)
    assert ["r0", "r1", "r2", "r4", "r5"] == rows["request_id"].to_list()
    assert whole.digest != result.digest


def test_open_labels_that_were_answered_badly_are_counted_once(tmp_path: Path) -> None:
    live = Feedback((), answered_badly("r5"))

    result = build(tmp_path, labels(), live=live, as_of=START + timedelta(hours=26))

    assert (3, 3, 0) == (result.rows, result.immature_rows, result.degraded_rows)


@pytest.mark.parametrize(("bad", "refused"), [(2, False), (3, True)], ids=["20 %", "30 %"])
def test_more_than_a_share_is_not_left_out_in_silence(
    tmp_path: Path, bad: int, refused: bool
) -> None:
    live = Feedback((), answered_badly(*(f"r{row}" for row in range(bad))))

    if not refused:
        assert 10 - bad == build(tmp_path, labels(10), live=live).rows
        return
    with pytest.raises(DataError, match=r"3 of 10 matured .* \(30\.0%\) .*\(features_late 3\)"):
        build(tmp_path, labels(10), live=live)
    raised = SPEC.data.model_copy(update={"max_degraded_rate": 0.3})
    spec = SPEC.model_copy(update={"data": raised})
    assert 7 == build(tmp_path, labels(10), spec=spec, live=live).rows


def test_a_join_that_loses_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="returned 5 rows for 6, "):
        build(tmp_path, labels(), join=lambda rows: join(rows).head(5))


def test_a_feature_that_is_never_known_in_time_is_called_a_leak(tmp_path: Path) -> None:
    with pytest.raises(LeakError, match="temp: no value was known at any of 6 predictions"):
        build(
            tmp_path,
            labels(),
            join=lambda rows: rows.with_columns(temp=pl.lit(None, pl.Float32)),
            request=lambda columns: {"twice": np.ones(len(columns["temp"]))},
        )


def test_equal_content_has_equal_digests_whatever_its_storage() -> None:
    frame = pl.DataFrame({"a": [1.0, None, 3.0], "b": ["x", None, "yz"]})
    chunked = pl.concat([frame[:1], frame[1:]], rechunk=False)

    assert content_digest(frame) == content_digest(chunked)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"a": [1.0, 0.0, 3.0], "b": ["x", None, "yz"]}, id="null is not zero"),
        pytest.param({"a": [1.0, None, 3.0], "b": ["x", "", "yz"]}, id="null is not empty"),
        pytest.param({"a": [1.0, None, 3.0], "b": ["xy", None, "z"]}, id="borders count"),
        pytest.param({"a": [3.0, None, 1.0], "b": ["x", None, "yz"]}, id="order counts"),
        pytest.param({"c": [1.0, None, 3.0], "b": ["x", None, "yz"]}, id="names count"),
    ],
)
def test_other_content_has_another_digest(other: dict[str, list[Any]]) -> None:
    frame = pl.DataFrame({"a": [1.0, None, 3.0], "b": ["x", None, "yz"]})

    assert content_digest(frame) != content_digest(pl.DataFrame(other))
