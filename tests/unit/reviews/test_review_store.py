"""The review queue on both databases: nothing twice, nothing lost, the newest answer stands."""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.contracts.review import ReviewItem
from mlplatform.errors import DataError
from mlplatform.reviews import ReviewStore
from tests.unit.ledger.conftest import execute, postgresql, url  # noqa: F401 (fixtures)

USECASE = "flight_delay"
START = datetime(2013, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WRITERS = 6


def item(name: str, hour: float = 0, **changes: Any) -> ReviewItem:
    values = {
        "usecase": USECASE,
        "request_id": name,
        "event_time": START + hour * HOUR,
        "entity": f"entity of {name}",
        "request": '{"origin":"JFK","käse":1}',
        "version": 3,
        "score": 0.4999999999999999,
        "decision": False,
        "reason": "uncertain",
        "queued_at": START + timedelta(days=1),
    }
    return ReviewItem.model_validate(values | changes)


@pytest.fixture
def store(url: str) -> ReviewStore:  # noqa: F811 (the fixture)
    return ReviewStore(url)


def answer(
    store: ReviewStore, name: str, label: int | None, hour: float = 30, **changes: Any
) -> ReviewItem:
    values: dict[str, Any] = {"reviewer": "ada", "now": START + hour * HOUR}
    return store.answer(USECASE, name, label, **(values | changes))


def given_labels(store: ReviewStore, hour: float) -> dict[str, int | None]:
    return {one.request_id: one.label for one in store.labels(USECASE, START + hour * HOUR)}


def test_what_was_queued_waits_unchanged_and_once(store: ReviewStore) -> None:
    first = [item("b", 1), item("a", 1), item("c", 0.5)]

    assert 3 == store.add(first)
    assert 1 == store.add([item("a", 1, reason="sampled", score=0.9), item("d", 2)])
    assert 0 == store.add([])

    assert (first[2], first[1], first[0], item("d", 2)) == store.pending(USECASE, 10)
    assert (first[2], first[1]) == store.pending(USECASE, 2)
    assert 4 == store.waiting(USECASE)


def test_earlier_windows_wait_in_front(store: ReviewStore) -> None:
    late = item("late window, early request", -1, queued_at=START + timedelta(days=2))
    store.add([late, item("early window")])

    found = [one.request_id for one in store.pending(USECASE, 10)]

    assert ["early window", late.request_id] == found


def test_use_cases_do_not_share_requests(store: ReviewStore) -> None:
    other = item("a", usecase="other")
    store.add([item("a"), other])
    answer(store, "a", 1)

    assert (other,) == store.pending("other", 1)
    assert (0, 1) == (store.waiting(USECASE), store.waiting("other"))
    assert () == store.labels("other", START + 99 * HOUR)


@pytest.mark.parametrize("label", [0, 1])
def test_an_answer_is_a_label_from_then_on(store: ReviewStore, label: int) -> None:
    store.add([item("a")])
    now = START + 30 * HOUR
    kept = item("a").model_copy(
        update={"label": label, "reviewer": "ada", "note": "saw it land", "reviewed_at": now}
    )

    assert kept == answer(store, "a", label, note="saw it land")

    assert () == store.pending(USECASE, 10)
    assert () == store.labels(USECASE, now - timedelta(microseconds=1))
    assert (kept,) == store.labels(USECASE, now)


def test_who_cannot_say_gives_no_label_and_is_not_asked_again(store: ReviewStore) -> None:
    store.add([item("a")])

    answer(store, "a", None)

    assert (0, {}) == (store.waiting(USECASE), given_labels(store, 99))


def test_the_same_answer_twice_is_one_answer(store: ReviewStore) -> None:
    store.add([item("a")])
    first = answer(store, "a", 1)

    assert first == answer(store, "a", 1, hour=40, note="again", again=True)
    assert first == answer(store, "a", 1, hour=50, reviewer=" ada ")
    assert (first,) == store.answers(USECASE, "a")


@pytest.mark.parametrize(
    ("label", "reviewer"),
    [(0, "ada"), (None, "ada"), (1, "bob")],
    ids=["another label", "takes it back", "another person"],
)
def test_another_answer_needs_a_word_and_the_first_is_kept(
    store: ReviewStore, label: int | None, reviewer: str
) -> None:
    store.add([item("a")])
    first = answer(store, "a", 1)

    with pytest.raises(DataError, match=r"ada answered 'a' with 1 at 2013-06-02 06:00 .*--again"):
        answer(store, "a", label, hour=40, reviewer=reviewer)
    assert (first,) == store.answers(USECASE, "a")

    second = answer(store, "a", label, hour=40, reviewer=reviewer, again=True)

    assert (first, second) == store.answers(USECASE, "a")
    assert {"a": 1} == given_labels(store, 39)
    assert ({} if label is None else {"a": label}) == given_labels(store, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_id": "unknown"}, "no decision 'unknown' of flight_delay was queued"),
        ({"usecase": "other"}, "no decision 'a' of other was queued"),
        ({"label": 2}, "2 is no label of 'a': give 0 or 1"),
        ({"label": -1}, "-1 is no label"),
        ({"label": 0.5}, "0.5 is no label"),
        ({"label": "1"}, "'1' is no label"),
        ({"reviewer": ""}, "say who answers 'a'"),
        ({"reviewer": " \n"}, "say who answers 'a'"),
        ({"now": START - HOUR}, "was decided at 2013-06-01 00:00 UTC, after the answer's time"),
        ({"note": "a\0b"}, "holds a character that no database keeps"),
        ({"reviewer": "\udc80"}, "holds a character that no database keeps"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_answer_is_refused_and_the_decision_still_waits(
    store: ReviewStore, change: dict[str, Any], message: str
) -> None:
    store.add([item("a")])
    values: dict[str, Any] = {
        "usecase": USECASE, "request_id": "a", "label": 1, "reviewer": "ada", "now": START + HOUR,
    }  # fmt: skip

    with pytest.raises(DataError, match=message):
        store.answer(**(values | change))

    assert ((item("a"),), ()) == (store.pending(USECASE, 9), store.answers(USECASE, "a"))


@pytest.mark.parametrize(
    "bad",
    [
        item("b", label=1, reviewer="ada", reviewed_at=START + HOUR),
        item("b", reviewer="ada"),
        item("\0"),
    ],
    ids=["answered", "looked at", "null character"],
)
def test_what_cannot_be_queued_leaves_nothing_behind(store: ReviewStore, bad: ReviewItem) -> None:
    with pytest.raises(DataError):
        store.add([item("a"), bad])

    assert 0 == store.waiting(USECASE)


def test_no_limit_below_one(store: ReviewStore) -> None:
    with pytest.raises(ValueError, match="limit must be at least 1"):
        store.pending(USECASE, 0)


def test_an_item_that_was_edited_is_named(
    store: ReviewStore,
    execute: Callable[..., None],  # noqa: F811 (the fixture)
) -> None:
    store.add([item("a")])
    execute("UPDATE review_items SET body = '{}'")

    with pytest.raises(DataError, match="the queued decision 'a' of flight_delay cannot be read"):
        store.pending(USECASE, 1)


def test_of_many_who_queue_and_answer_at_once_each_is_counted_once(
    url: str,  # noqa: F811 (the fixture)
) -> None:
    """Each writer queues the same rows in another order, then answers each in its own name."""
    names = [f"r{number}" for number in range(12)]
    barrier = threading.Barrier(WRITERS)

    def work(writer: int) -> tuple[int, int]:
        store = ReviewStore(url)
        barrier.wait(timeout=30)
        new = store.add([item(name) for name in (names[writer:] + names[:writer])])
        first = 0
        for name in names:
            try:
                answer(store, name, writer % 2, reviewer=f"w{writer}")
                first += 1
            except DataError:
                answer(store, name, writer % 2, reviewer=f"w{writer}", again=True)
        return new, first

    with ThreadPoolExecutor(WRITERS) as pool:
        done = list(pool.map(work, range(WRITERS)))
    store = ReviewStore(url)
    histories = [store.answers(USECASE, name) for name in names]

    assert (12, 12) == (sum(new for new, _ in done), sum(first for _, first in done))
    assert [WRITERS] * 12 == [len(history) for history in histories]
    assert {name: history[-1].label for name, history in zip(names, histories, strict=True)} == (
        given_labels(store, 99)
    )


ANSWERS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from([0, 1, None]), st.sampled_from(["ada", "bob"])
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(ANSWERS, st.integers(0, 13))
def test_labels_are_those_of_whoever_spoke_last_by_then(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[str, int | None, str]],
    hour: int,
) -> None:
    path: Path = tmp_path_factory.mktemp("reviews") / "ledger.db"
    store = ReviewStore(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as kept_open:
        # Those that close while one is open leave the write-ahead log as it is: much faster.
        kept_open.execute("SELECT * FROM review_items").fetchall()
        store.add(map(item, "abc"))
        stands: dict[str, int | None] = {}
        every: dict[str, list[tuple[int | None, str]]] = {name: [] for name in "abc"}
        for number, (name, label, reviewer) in enumerate(said):
            answer(store, name, label, hour=number, reviewer=reviewer, again=True)
            if every[name][-1:] != [(label, reviewer)]:
                every[name].append((label, reviewer))
            if number <= hour:
                stands[name] = label

        kept = {name: store.answers(USECASE, name) for name in "abc"}
        waiting, labels = store.waiting(USECASE), given_labels(store, hour)

    assert {name: label for name, label in stands.items() if label is not None} == labels
    assert every == {name: [(one.label, one.reviewer) for one in kept[name]] for name in "abc"}
    assert len({name for name, _, _ in said}) == 3 - waiting
