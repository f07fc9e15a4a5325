"""Trailing windows against a slow count."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from usecases.flight_delay import windows

START = datetime(2013, 5, 1, tzinfo=UTC)
SCHEMA: dict[str, Any] = {"key": pl.String, "known_at": pl.Datetime("us", "UTC"), "n": pl.Int64}
FACTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 300), st.integers(-50, 50)), max_size=30
)


def facts(rows: list[tuple[str, int, int]]) -> pl.DataFrame:
    moments = [(key, START + timedelta(minutes=minute), n) for key, minute, n in rows]
    return pl.DataFrame(moments, schema=SCHEMA, orient="row")


@given(rows=FACTS, window=st.one_of(st.none(), st.integers(1, 200)))
def test_sums_are_those_of_the_facts_in_the_half_open_window(
    rows: list[tuple[str, int, int]], window: int | None
) -> None:
    length = None if window is None else timedelta(minutes=window)
    table = facts(rows)
    snapshots = windows.grid(table, ["key"], timedelta(minutes=15), timedelta(hours=1))
    expected = []
    for key, moment in snapshots.iter_rows():
        seen = table.filter((pl.col("key") == key) & (pl.col("known_at") <= moment))
        old = [length is not None and when <= moment - length for when in seen["known_at"]]
        expected.append(sum(n for n, gone in zip(seen["n"], old, strict=True) if not gone))

    assert expected == windows.trailing(snapshots, table, ["key"], ["n"], length)["n"].to_list()


def test_a_key_has_snapshots_from_its_first_fact_until_some_time_after_the_last_of_all() -> None:
    table = facts([("a", 7, 1), ("b", 31, 1)])
    snapshots = windows.grid(table, ["key"], timedelta(minutes=15), timedelta(minutes=20))
    minutes = [
        (key, (moment - START) // timedelta(minutes=1)) for key, moment in snapshots.iter_rows()
    ]

    assert [
        ("a", 15),
        ("a", 30),
        ("a", 45),
        ("b", 45),
    ] == minutes


@given(rows=FACTS, later=FACTS)
def test_facts_that_come_later_change_no_earlier_snapshot(
    rows: list[tuple[str, int, int]], later: list[tuple[str, int, int]]
) -> None:
    cut = START + timedelta(minutes=300)
    before = facts(rows)
    after = pl.concat([before, facts([(key, 301 + minute, n) for key, minute, n in later])])

    def until_cut(table: pl.DataFrame) -> list[tuple[object, ...]]:
        grid = windows.grid(table, ["key"], timedelta(minutes=15), timedelta(hours=10))
        sums = windows.trailing(grid, table, ["key"], ["n"], timedelta(hours=1))
        return grid.hstack(sums).filter(pl.col("snapshot") <= cut).rows()

    assert until_cut(before) == until_cut(after)


def test_no_facts_give_no_snapshots() -> None:
    snapshots = windows.grid(facts([]), ["key"], timedelta(minutes=15), timedelta(hours=1))

    assert 0 == snapshots.height
    assert ["key", "snapshot"] == snapshots.columns
