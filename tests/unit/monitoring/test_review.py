"""Which decisions people are asked to look at: drawn fairly, or nearest to the threshold."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import predictions
from mlplatform import spec as specs
from mlplatform.contracts import UseCase, Window
from mlplatform.contracts.usecase.operation import Review
from monitoring.review import COLUMNS, select

START: Final = datetime(2013, 6, 1, tzinfo=UTC)
WINDOW: Final = Window(start=START, end=START + timedelta(days=1))
ROOT: Final = Path(__file__).resolve().parents[3]
PLAIN: Final = specs.load(ROOT / "usecases" / "flight_delay" / "usecase.yaml")


def spec(uncertain: int, sampled: int) -> UseCase:
    review = Review(uncertain=uncertain, sampled=sampled)
    return PLAIN.model_copy(
        update={"monitoring": PLAIN.monitoring.model_copy(update={"review": review})}
    )


def row(name: str, score: float | None, minute: float = 0, **changes: Any) -> dict[str, Any]:
    moment = START + timedelta(minutes=minute)
    return {
        "gateway": "g",
        "sequence": 1,
        "request_id": name,
        "event_time": moment,
        "received_at": moment,
        "entity": f"e-{name}",
        "request": "{}",
        "arm": "champion",
        "version": 3,
        "score": score,
        "decision": score is not None and score >= 0.5,
        "degraded": False,
        "fallback": False,
    } | changes


def archive(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(
        list(rows), schema={name: predictions.SCHEMA[name] for name in COLUMNS}, orient="row"
    )


def chosen(spec: UseCase, rows: pl.DataFrame, window: Window = WINDOW) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"sampled": [], "uncertain": []}
    for item in select(spec, rows, window):
        found[item.reason].append(item.request_id)
    return found


def test_an_item_is_the_answer_as_it_was_logged() -> None:
    (item,) = select(spec(1, 0), archive(row("a", 0.6, 5, arm="challenger")), WINDOW)

    assert ("flight_delay", "a", "e-a", "{}", 3, 0.6, True, "uncertain") == (
        item.usecase, item.request_id, item.entity, item.request, item.version, item.score,
        item.decision, item.reason,
    )  # fmt: skip
    assert (START + timedelta(minutes=5), WINDOW.end) == (item.event_time, item.queued_at)
    assert (None, "", None) == (item.label, item.reviewer, item.reviewed_at)


@pytest.mark.parametrize(
    "change",
    [
        {"arm": "shadow"},
        {"arm": "rules", "version": 0, "fallback": True},
        {"degraded": True},
        {"score": None},
        {"score": float("nan")},
        {"score": 1.5},
        {"event_time": WINDOW.end},
        {"event_time": WINDOW.start - timedelta(microseconds=1)},
    ],
    ids=lambda change: " ".join(f"{name} {value}" for name, value in change.items()),
)
def test_what_says_nothing_of_the_model_is_not_shown(change: dict[str, Any]) -> None:
    assert () == select(spec(5, 5), archive(row("a", 0.5) | change), WINDOW)


def test_a_request_counts_by_its_first_live_answer() -> None:
    rows = archive(
        row("a", 0.5, 2, event_time=START),
        row("a", 0.1, 1, event_time=START, degraded=True),
        row("b", 0.9, 1),
        row("b", 0.5, 1, sequence=2),
        row("b", 0.5, 0, arm="shadow", version=4),
    )

    (item,) = select(spec(5, 5), rows, WINDOW)

    assert ("b", 0.9) == (item.request_id, item.score)


def test_an_entity_is_shown_once_even_where_all_its_answers_are_uncertain() -> None:
    rows = archive(
        *(row(f"a{number}", 0.5 + number / 1000, number, entity="one") for number in range(9)),
        row("b", 0.9, 20),
    )

    assert {"sampled": [], "uncertain": ["a0", "b"]} == chosen(spec(5, 0), rows)
    assert {"sampled": ["a0", "b"], "uncertain": []} == {
        reason: sorted(names) for reason, names in chosen(spec(5, 5), rows).items()
    }


def test_no_rows_and_no_wish_are_no_items() -> None:
    assert () == select(spec(5, 5), archive(), WINDOW)
    assert () == select(spec(0, 0), archive(row("a", 0.5)), WINDOW)


SCORES = st.one_of(st.sampled_from([0.49, 0.5, 0.51]), st.floats(0, 1))
ROWS = st.lists(
    st.tuples(SCORES, st.integers(0, 6), st.booleans(), st.sampled_from(["champion", "shadow"])),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(0, 4), st.integers(0, 4), st.randoms(use_true_random=False))
def test_the_nearest_of_those_not_drawn_whatever_the_order_of_rows(
    drawn: list[tuple[float, int, bool, str]], uncertain: int, sampled: int, chance: Any
) -> None:
    rows = [
        row(f"r{number}", score, number, entity=f"e{entity}", degraded=degraded, arm=arm)
        for number, (score, entity, degraded, arm) in enumerate(drawn)
    ]
    shuffled = chance.sample(rows, len(rows))
    found = chosen(spec(uncertain, sampled), archive(*shuffled))

    counts = [one for one in rows if not one["degraded"] and one["arm"] != "shadow"]
    entity = {one["request_id"]: one["entity"] for one in counts}
    first = {one["entity"]: one["request_id"] for one in reversed(counts)}
    others = [one for one in counts if one["entity"] not in map(entity.get, found["sampled"])]
    nearest: list[str] = []
    for one in sorted(others, key=lambda one: (abs(one["score"] - 0.5), one["request_id"])):
        if one["entity"] not in map(entity.get, nearest) and len(nearest) < uncertain:
            nearest.append(one["request_id"])

    assert nearest == found["uncertain"]
    assert set(found["sampled"]) <= set(first.values())
    assert min(sampled, len(first)) == len(set(found["sampled"]))
    assert found == chosen(spec(uncertain, sampled), archive(*rows))


def test_each_decision_is_drawn_equally_often_whatever_its_score() -> None:
    """300 windows of the same 40 requests, 8 drawn in each: 60 times each on average."""
    counts: Counter[str] = Counter()
    for day in range(300):
        start = START + timedelta(days=day)
        rows = archive(*(row(f"r{n}", n / 40, day * 1440 + n) for n in range(40)))
        counts.update(
            chosen(spec(3, 8), rows, Window(start=start, end=start + timedelta(days=1)))["sampled"]
        )

    # Pearson's statistic for draws without replacement (variance 300 p (1 - p), p = 8/40):
    # chi-square with 39 degrees of freedom, which exceeds 72.1 once in a thousand times.
    squares = sum((counts[f"r{n}"] - 60) ** 2 for n in range(40))
    statistic = squares / (60 * (1 - 8 / 40)) * 39 / 40
    assert 300 * 8 == sum(counts.values())
    assert statistic < 72.1


def test_rows_that_arrive_late_take_at_most_their_own_place() -> None:
    early = archive(*(row(f"r{n}", n / 100, n) for n in range(100)))
    before = set(chosen(spec(0, 10), early)["sampled"])
    came = set()
    for number in range(40):
        rows = pl.concat([early, archive(row(f"late{number}", 0.95, 100))])
        after = set(chosen(spec(0, 10), rows)["sampled"])
        came |= after - before

        assert after - before <= {f"late{number}"}
        assert len(before - after) == len(after - before)

    assert 0 < len(came) < 40
