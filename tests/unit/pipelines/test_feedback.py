"""Labels of people beside those of the source, and requests that are not learnt from."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import feedback, predictions
from feature_repo.labels import ORIGIN, Agreement, agreement, with_reviews
from mlplatform.contracts.review import ReviewItem
from mlplatform.errors import DataError
from mlplatform.reviews import ReviewStore

START: Final = datetime(2013, 6, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
USECASE: Final = "flight_delay"
TIME: Final = pl.Datetime("us", "UTC")


def item(name: str, label: int | None = None, hour: float | None = None) -> ReviewItem:
    return ReviewItem(
        usecase=USECASE,
        request_id=name,
        event_time=START,
        entity=name,
        request="{}",
        version=1,
        score=0.5,
        decision=True,
        reason="uncertain",
        queued_at=START,
        label=label,
        reviewer="" if hour is None else "ada",
        reviewed_at=None if hour is None else START + hour * HOUR,
    )


def labels(*known: tuple[str, int | None, float | None]) -> pl.DataFrame:
    rows = [
        (name, START, None if hour is None else START + hour * HOUR, label, "x")
        for name, label, hour in known
    ]
    schema: dict[str, Any] = {
        "request_id": pl.String,
        "event_timestamp": TIME,
        "label_timestamp": TIME,
        "late": pl.Int8,
        "origin": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_people_fill_in_what_the_source_does_not_know_and_change_nothing_else() -> None:
    source = labels(("a", 1, 3), ("b", None, None), ("c", None, None), ("d", 0, 3))
    reviewed = [item("b", 1, 30), item("d", 1, 30), item("elsewhere", 1, 30)]

    found = with_reviews(source, reviewed, "late", START + 40 * HOUR)

    expected = labels(("a", 1, 3), ("b", 1, 30), ("c", None, None), ("d", 0, 3))
    origin = pl.Series(ORIGIN, ["source", "review", None, "source"])
    assert expected.with_columns(origin).equals(found)
    assert found.schema == {**source.schema, ORIGIN: pl.String()}
    assert Agreement(1, 1) == agreement(source, reviewed, "late", START + 40 * HOUR)


OPTIONAL_HOUR = st.none() | st.integers(0, 6)
SOURCE = st.lists(st.tuples(st.sampled_from([0, 1, None]), OPTIONAL_HOUR), min_size=1, max_size=8)
REVIEWS = st.dictionaries(
    st.integers(0, 9), st.tuples(st.sampled_from([0, 1, None]), st.integers(0, 6)), max_size=8
)


@settings(max_examples=300, deadline=None)
@given(SOURCE, REVIEWS, st.integers(0, 7))
def test_each_label_is_the_one_that_a_clerk_would_pick(
    source: list[tuple[int | None, int | None]],
    reviews: dict[int, tuple[int | None, int]],
    now: int,
) -> None:
    """The source's where it was known by then, else the person's known by then, else as it was."""
    frame = labels(*((str(row), *values) for row, values in enumerate(source)))
    reviewed = [item(str(row), *values) for row, values in reviews.items()]
    expected: list[tuple[Any, ...]] = []
    compared = disagreed = 0
    for row, (label, hour) in enumerate(source):
        theirs, at = reviews.get(row, (None, 99))
        by_source = label is not None and hour is not None and hour <= now
        by_person = theirs is not None and at <= now
        compared += by_source and by_person
        disagreed += by_source and by_person and label != theirs
        if by_person and not by_source:
            expected.append((str(row), theirs, START + at * HOUR, "review"))
        else:
            moment = None if hour is None else START + hour * HOUR
            expected.append((str(row), label, moment, None if label is None else "source"))

    found = with_reviews(frame, reviewed, "late", START + now * HOUR)

    assert expected == found.select("request_id", "late", "label_timestamp", ORIGIN).rows()
    assert Agreement(compared, disagreed) == agreement(frame, reviewed, "late", START + now * HOUR)


def answer(name: str, second: float, **changes: Any) -> dict[str, Any]:
    moment = START + timedelta(seconds=second)
    values: dict[str, Any] = dict.fromkeys(predictions.SCHEMA)
    return values | {
        "gateway": "g",
        "sequence": 1,
        "request_id": name,
        "usecase": USECASE,
        "event_time": moment,
        "received_at": moment,
        "arm": "champion",
        "degraded": False,
        "fallback": False,
        "reasons": [],
    } | changes  # fmt: skip


def frame(*answers: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(answers), schema=dict(predictions.SCHEMA), orient="row")


def keep(root: Path, *answers: dict[str, Any]) -> None:
    hour = root / USECASE / "date=2013-06-01" / "hour=00"
    hour.mkdir(parents=True, exist_ok=True)
    number = len(list(hour.iterdir()))
    frame(*answers).write_parquet(hour / predictions.part_name(number, number))


STALE: Final = {"degraded": True, "reasons": ["stale:origin_weather"]}
RULES: Final = {"arm": "rules", "fallback": True, "reasons": ["inference_late"]}


def test_a_request_is_left_out_for_its_first_live_answer() -> None:
    answers = frame(
        answer("whole", 0),
        answer("stale", 0, **STALE),
        answer("rules", 0, **RULES),
        answer("both", 0, **RULES | STALE),
        answer("asked again", 5),
        answer("asked again", 1, **STALE),
        answer("broke later", 9, **STALE),
        answer("broke later", 8),
        answer("shadow broke", 1, **STALE | {"arm": "shadow"}),
        answer("shadow broke", 1, sequence=2),
    )

    found = feedback.degraded(answers)

    assert {"stale", "rules", "both", "asked again"} == set(found["request_id"])
    assert "stale:origin_weather 3, inference_late 1" == feedback.told(found)


def test_without_archive_and_reviews_there_is_nothing(tmp_path: Path) -> None:
    found = feedback.read(USECASE, f"sqlite:///{tmp_path}/ledger.db", tmp_path / "no", START)

    assert ("", (), 0) == (found.digest, found.reviewed, found.degraded.height)
    assert feedback.NONE.degraded.schema == found.degraded.schema
    assert "" == feedback.NONE.digest


def test_a_damaged_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    keep(tmp_path, answer("a", 0))
    (part,) = tmp_path.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:100])

    with pytest.raises(DataError, match=r"the prediction log of flight_delay in .* cannot be read"):
        feedback.read(USECASE, f"sqlite:///{tmp_path}/ledger.db", tmp_path, START + HOUR)


def test_the_digest_changes_with_what_a_training_set_depends_on_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    url, now = f"sqlite:///{tmp_path}/ledger.db", START + HOUR
    store = ReviewStore(url)

    def digest() -> str:
        return feedback.read(USECASE, url, tmp_path, now).digest

    keep(tmp_path, answer("a", 0), answer("b", 1))
    store.add([item("a"), item("b"), item("c")])
    store.answer(USECASE, "c", None, reviewer="ada", now=now)
    store.answer(USECASE, "a", 1, reviewer="ada", now=now + HOUR)
    keep(tmp_path, answer("later", 3_600, **STALE))
    assert "" == digest()

    keep(tmp_path, answer("broken", 3, **STALE))
    first = digest()
    store.answer(USECASE, "b", 1, reviewer="ada", now=now)
    second = digest()
    store.answer(USECASE, "b", 0, reviewer="bob", now=now, again=True)
    third = digest()
    store.answer(USECASE, "b", None, reviewer="bob", now=now, again=True)

    assert 4 == len({"", first, second, third})
    assert first == digest()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.integers(0, 3),
            st.sampled_from(["champion", "shadow", "rules"]),
            st.booleans(),
        ),
        max_size=15,
    )
)
def test_what_is_left_out_is_what_a_walk_through_the_answers_finds(
    came: list[tuple[str, int, str, bool]],
) -> None:
    answers = [
        answer(name, second, arm=arm, sequence=number, degraded=degraded, fallback=arm == "rules")
        for number, (name, second, arm, degraded) in enumerate(came)
    ]
    first: dict[str, bool] = {}
    for one in sorted(answers, key=lambda one: (one["received_at"], one["sequence"])):
        if one["arm"] != "shadow":
            first.setdefault(one["request_id"], one["degraded"] or one["fallback"])

    found = feedback.degraded(frame(*answers))["request_id"].to_list()

    assert sorted(name for name, bad in first.items() if bad) == sorted(found)
