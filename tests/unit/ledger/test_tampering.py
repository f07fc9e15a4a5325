"""Whatever is done to the rows behind the ledger's back is found, and the first bad row named."""

from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError

from mlplatform import canonical
from mlplatform.contracts import Decision
from mlplatform.errors import LedgerError, ServiceError
from mlplatform.ledger import Head, Ledger, chain

Decide = Callable[..., Decision]
Execute = Callable[..., None]

COPY = """
    INSERT INTO ledger_entries (seq, key, usecase, kind, subject, decision, prev_hash, hash)
    SELECT TO, usecase, kind, subject, decision, prev_hash, hash
    FROM ledger_entries WHERE seq = FROM_SEQ
"""
INSERT = """
    INSERT INTO ledger_entries (seq, key, usecase, kind, subject, decision, prev_hash, hash)
    VALUES (:seq, :key, :usecase, :kind, :subject, :decision, :prev_hash, :hash)
"""

DROP = {
    "sqlite": (
        "DROP TRIGGER ledger_entries_update",
        "DROP TRIGGER ledger_entries_delete",
        "DROP TRIGGER ledger_head_delete",
        "DROP TRIGGER ledger_head_forward",
    ),
    "postgresql": (
        "DROP TRIGGER ledger_entries_keep ON ledger_entries",
        "DROP TRIGGER ledger_head_keep ON ledger_head",
        "DROP TRIGGER ledger_head_forward ON ledger_head",
    ),
}


@pytest.fixture
def ledger(url: str, decide: Decide) -> Ledger:
    """A ledger of five rows, with keys a to e."""
    ledger = Ledger(url)
    for key in "abcde":
        ledger.append(decide(key))
    return ledger


@pytest.fixture
def unguarded(url: str, ledger: Ledger, execute: Execute) -> Ledger:
    """The same ledger after somebody dropped the triggers."""
    for statement in DROP[url.partition(":")[0]]:
        execute(statement)
    return ledger


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE ledger_entries SET usecase = 'x' WHERE seq = 3", id="edit a row"),
        pytest.param("UPDATE ledger_entries SET seq = 9 WHERE seq = 5", id="move a row"),
        pytest.param("DELETE FROM ledger_entries WHERE seq = 5", id="remove a row"),
        pytest.param("DELETE FROM ledger_entries", id="remove all rows"),
        pytest.param("DELETE FROM ledger_head", id="remove the head"),
        pytest.param("UPDATE ledger_head SET count = 4", id="move the head back"),
        pytest.param("UPDATE ledger_head SET hash = 'x'", id="edit the head"),
    ],
)
def test_the_database_refuses_to_change_what_is_there(
    ledger: Ledger, execute: Execute, statement: str
) -> None:
    with pytest.raises(DBAPIError, match="the ledger is append-only"):
        execute(statement)

    assert ledger.verify() == 5


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has no TRUNCATE
def test_postgresql_refuses_to_empty_the_table(ledger: Ledger, execute: Execute) -> None:
    with pytest.raises(DBAPIError, match="the ledger is append-only"):
        execute("TRUNCATE ledger_entries")

    assert ledger.verify() == 5


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        pytest.param(
            ["UPDATE ledger_entries SET decision = replace(decision, '1', '2') WHERE seq = 3"],
            r"row 3 \(key 'c'\) was edited",
            id="evidence edited",
        ),
        pytest.param(
            ["UPDATE ledger_entries SET decision = decision || ' ' WHERE seq = 3"],
            r"row 3 \(key 'c'\) was edited",
            id="a space added",
        ),
        pytest.param(
            ["UPDATE ledger_entries SET decision = 'x' WHERE seq = 1"],
            r"row 1 \(key 'a'\) was edited",
            id="decision replaced by nonsense",
        ),
        pytest.param(
            ["UPDATE ledger_entries SET hash = 'ffff' WHERE seq = 2"],
            r"row 2 \(key 'b'\) was edited",
            id="hash edited",
        ),
        pytest.param(
            ["UPDATE ledger_entries SET prev_hash = 'ffff' WHERE seq = 2"],
            r"row 2 \(key 'b'\) was edited",
            id="previous hash edited",
        ),
        *(
            pytest.param(
                [statement],
                r"row 4 .* was edited: its column \w+ is another",
                id=statement,
            )
            for statement in (
                "UPDATE ledger_entries SET key = 'x' WHERE seq = 4",
                "UPDATE ledger_entries SET usecase = 'x' WHERE seq = 4",
                "UPDATE ledger_entries SET kind = 'x' WHERE seq = 4",
                "UPDATE ledger_entries SET subject = 'x' WHERE seq = 4",
            )
        ),
        pytest.param(
            ["DELETE FROM ledger_entries WHERE seq = 1"],
            r"row 1 was removed: row 2 \(key 'b'\) comes in its place",
            id="first row removed",
        ),
        pytest.param(
            ["DELETE FROM ledger_entries WHERE seq = 3"],
            r"row 3 was removed: row 4 \(key 'd'\) comes in its place",
            id="middle row removed",
        ),
        pytest.param(
            [
                "DELETE FROM ledger_entries WHERE seq = 3",
                "UPDATE ledger_entries SET seq = 3 WHERE seq = 4",
                "UPDATE ledger_entries SET seq = 4 WHERE seq = 5",
            ],
            r"row 3 \(key 'd'\) was edited or moved",
            id="middle row removed, the others renumbered",
        ),
        pytest.param(
            ["DELETE FROM ledger_entries WHERE seq = 5"],
            r"row 5 was removed from the end: 4 of 5 rows are left",
            id="last row removed",
        ),
        pytest.param(
            ["DELETE FROM ledger_entries"],
            r"row 1 was removed from the end: 0 of 5 rows are left",
            id="all rows removed",
        ),
        pytest.param(
            ["DELETE FROM ledger_entries WHERE seq = 5", "UPDATE ledger_head SET count = 4"],
            r"row 4 is not the one that the head knows",
            id="last row removed, the head's count corrected",
        ),
        pytest.param(
            [
                "UPDATE ledger_entries SET seq = 99 WHERE seq = 2",
                "UPDATE ledger_entries SET seq = 2 WHERE seq = 3",
                "UPDATE ledger_entries SET seq = 3 WHERE seq = 99",
            ],
            r"row 2 \(key 'c'\) was edited or moved",
            id="two rows swapped",
        ),
        pytest.param(
            [COPY.replace("SELECT TO", "SELECT 6, 'f'").replace("FROM_SEQ", "5")],
            r"row 6 \(key 'f'\) was edited or moved",
            id="a copy inserted at the end",
        ),
        pytest.param(
            [COPY.replace("SELECT TO", "SELECT 0, 'z'").replace("FROM_SEQ", "1")],
            r"row 0 \(key 'z'\) was inserted: rows are numbered from 1",
            id="a copy inserted at the start",
        ),
        pytest.param(
            ["DELETE FROM ledger_head"],
            r"the ledger's head is gone",
            id="head removed",
        ),
        pytest.param(
            ["UPDATE ledger_head SET count = 4"],
            r"row 5 was inserted at the end: the head knows 4 rows",
            id="head moved back",
        ),
        pytest.param(
            ["UPDATE ledger_head SET hash = 'ffff'"],
            r"row 5 is not the one that the head knows",
            id="head's hash edited",
        ),
    ],
)
def test_tampering_is_found_without_the_triggers(
    unguarded: Ledger, execute: Execute, statements: list[str], message: str
) -> None:
    assert unguarded.verify() == 5
    for statement in statements:
        execute(statement)

    with pytest.raises(LedgerError, match=message):
        unguarded.verify()


def forged(seq: int, prev_hash: str, decision: Decision) -> dict[str, object]:
    """Return a row whose hashes are right for it."""
    text = chain.text(decision)
    columns = {name: getattr(decision, name) for name in chain.COLUMNS}
    digest = chain.link(seq, prev_hash, text)
    return columns | {"seq": seq, "decision": text, "prev_hash": prev_hash, "hash": digest}


def test_a_forged_row_that_continues_the_chain_is_found_by_the_head(
    unguarded: Ledger, execute: Execute, decide: Decide
) -> None:
    execute(INSERT, **forged(6, unguarded.head().hash, decide("f")))

    with pytest.raises(LedgerError, match="row 6 was inserted at the end"):
        unguarded.verify()


def test_a_forged_row_in_place_of_another_breaks_the_next_link(
    unguarded: Ledger, execute: Execute, decide: Decide
) -> None:
    before = unguarded.entries()[2].prev_hash
    execute("DELETE FROM ledger_entries WHERE seq = 3")
    execute(INSERT, **forged(3, before, decide("c", verdict="rejected")))

    with pytest.raises(LedgerError, match=r"row 4 \(key 'd'\) does not continue the row before"):
        unguarded.verify()


def test_a_row_that_is_no_decision_is_found_though_its_hashes_are_right(
    unguarded: Ledger, execute: Execute
) -> None:
    previous = unguarded.head().hash
    digest = canonical.sha256(f'{previous}{{"decision":1,"seq":6}}')
    row = {"seq": 6, "key": "f", "usecase": "u", "kind": "k", "subject": "s", "decision": "1"}
    execute(INSERT, **row, prev_hash=previous, hash=digest)
    execute("UPDATE ledger_head SET count = 6, hash = :hash", hash=digest)

    with pytest.raises(LedgerError, match=r"row 6 \(key 'f'\) holds no decision"):
        unguarded.verify()
    with pytest.raises(LedgerError, match=r"row 6 \(key 'f'\) holds no decision"):
        unguarded.entries()


def test_a_rewritten_end_is_found_by_a_head_that_was_kept_elsewhere(
    unguarded: Ledger, execute: Execute
) -> None:
    kept, fourth = unguarded.head(), unguarded.entries()[3]
    execute("DELETE FROM ledger_entries WHERE seq = 5")
    execute("UPDATE ledger_head SET count = 4, hash = :hash", hash=fourth.hash)

    assert unguarded.verify() == 4  # nothing in the database can tell
    with pytest.raises(LedgerError, match="row 5 was removed from the end: 5 rows were known"):
        unguarded.verify(kept)


def test_a_row_that_was_replaced_at_the_end_is_found_by_a_kept_head(
    unguarded: Ledger, execute: Execute, decide: Decide
) -> None:
    kept, fourth = unguarded.head(), unguarded.entries()[3]
    execute("DELETE FROM ledger_entries WHERE seq = 5")
    execute("UPDATE ledger_head SET count = 4, hash = :hash", hash=fourth.hash)
    unguarded.append(decide("other"))

    with pytest.raises(LedgerError, match="row 5 is not the one whose hash was kept"):
        unguarded.verify(kept)


def test_a_kept_head_of_the_past_is_continued(ledger: Ledger, decide: Decide) -> None:
    kept = ledger.head()
    ledger.append(decide("f"))

    assert ledger.verify(kept) == 6
    assert ledger.verify(Head(count=0, hash="")) == 6


def test_appending_without_a_head_is_refused(
    unguarded: Ledger, execute: Execute, decide: Decide
) -> None:
    execute("DELETE FROM ledger_head")

    with pytest.raises(LedgerError, match="the ledger's head is gone"):
        unguarded.append(decide("f"))


def test_a_row_beyond_the_head_stops_appending(
    unguarded: Ledger, execute: Execute, decide: Decide
) -> None:
    execute("UPDATE ledger_head SET count = 4")

    with pytest.raises(ServiceError, match="refused what the ledger asked"):
        unguarded.append(decide("f"))
