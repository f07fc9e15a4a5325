"""Decisions are added once, kept exactly, and found again; on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mlplatform.contracts import Decision
from mlplatform.errors import LedgerError
from mlplatform.ledger import Ledger

Decide = Callable[..., Decision]


def test_a_decision_comes_back_exactly(url: str, decide: Decide) -> None:
    decision = decide("a")

    entry = Ledger(url).append(decision)

    assert entry.seq == 1
    assert entry.prev_hash == "0" * 64
    assert (entry,) == Ledger(url).entries()
    assert decision == Ledger(url).entries()[0].decision


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(datetime(2013, 12, 31, 23, 59, 59, 999_999, UTC), id="microseconds"),
        pytest.param(datetime(2014, 1, 1, tzinfo=UTC), id="midnight"),
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), id="the first year"),
        pytest.param(
            datetime(2013, 3, 10, 2, 30, tzinfo=timezone(timedelta(hours=-5))), id="another zone"
        ),
    ],
)
def test_times_come_back_to_the_microsecond(url: str, decide: Decide, at: datetime) -> None:
    ledger = Ledger(url)
    ledger.append(decide("a", at=at))

    (entry,) = ledger.entries()

    assert at == entry.decision.at
    assert entry.decision.at.tzinfo == UTC


def test_a_row_is_found_by_its_key(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    entries = [ledger.append(decide(key)) for key in "abc"]

    assert entries == [ledger.get(key) for key in "abc"]
    assert None is ledger.get("d")


def test_rows_are_numbered_and_chained(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    entries = [ledger.append(decide(key)) for key in "abc"]

    assert [1, 2, 3] == [entry.seq for entry in entries]
    assert [entry.hash for entry in entries[:-1]] == [entry.prev_hash for entry in entries[1:]]
    assert ledger.verify() == 3
    assert (3, entries[-1].hash) == (ledger.head().count, ledger.head().hash)


def test_an_empty_ledger_is_whole(url: str) -> None:
    ledger = Ledger(url)

    assert ledger.verify() == 0
    assert ledger.entries() == ()
    assert ledger.last("flight_delay", "gate") is None


def test_the_same_decision_again_returns_the_first_row(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    first = ledger.append(decide("a"))
    ledger.append(decide("b"))

    again = ledger.append(decide("a"))

    assert first == again
    assert ledger.verify() == 2


def test_the_same_decision_at_a_later_time_returns_the_first_row(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    first = ledger.append(decide("a"))

    again = ledger.append(decide("a", at="2014-01-01T00:00:00Z"))

    assert first == again
    assert ledger.verify() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("verdict", "rejected", id="verdict"),
        pytest.param("evidence", {"margin": 0.02}, id="evidence"),
        pytest.param("usecase", "other", id="use case"),
        pytest.param("actor", "someone", id="actor"),
    ],
)
def test_another_decision_under_a_taken_key_is_refused(
    url: str, decide: Decide, field: str, value: object
) -> None:
    ledger = Ledger(url)
    ledger.append(decide("a"))

    with pytest.raises(LedgerError, match=f"key 'a' is taken by row 1 with another {field}:"):
        ledger.append(decide("a", **{field: value}))

    assert ledger.verify() == 1


def test_entries_are_found_by_use_case_kind_and_subject(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    ledger.append(decide("a"))
    ledger.append(decide("b", usecase="other"))
    ledger.append(decide("c", kind="run"))
    ledger.append(decide("d", subject="lightgbm"))

    def keys(**filters: str) -> str:
        return "".join(entry.decision.key for entry in ledger.entries(**filters))  # type: ignore[arg-type]  # filters are text

    assert keys() == "abcd"
    assert keys(usecase="flight_delay") == "acd"
    assert keys(kind="gate") == "abd"
    assert keys(subject="xgboost") == "abc"
    assert keys(usecase="flight_delay", kind="gate", subject="xgboost") == "a"
    assert keys(usecase="none") == ""


def test_a_limit_keeps_the_newest_and_their_order(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    for key in "abcd":
        ledger.append(decide(key))

    assert ["c", "d"] == [entry.decision.key for entry in ledger.entries(limit=2)]
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        ledger.entries(limit=0)


def test_last_is_the_newest_of_its_kind_and_use_case(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    for key, usecase in ("a", "one"), ("b", "one"), ("c", "two"):
        ledger.append(decide(key, usecase=usecase))

    last = ledger.last("one", "gate")

    assert last is not None
    assert last.decision.key == "b"
    assert ledger.last("one", "run") is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\0b", id="null character"),
        pytest.param("a\ud800b", id="half a character"),
    ],
)
def test_text_that_no_database_keeps_is_refused(url: str, decide: Decide, text: str) -> None:
    ledger = Ledger(url)

    with pytest.raises(LedgerError, match="remove"):
        ledger.append(decide("a", subject=text))

    assert ledger.verify() == 0


def test_any_other_text_is_kept(url: str, decide: Decide) -> None:
    ledger = Ledger(url)
    decision = decide("'; DROP TABLE ledger_entries; --", subject="Zürich 🛫 \u2028", reason="a\0b")
    ledger.append(decision)

    assert decision == ledger.entries(subject="Zürich 🛫 \u2028")[0].decision
    assert ledger.verify() == 1
