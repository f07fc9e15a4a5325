"""What the join promises, one case each."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pandas as pd
import polars as pl
import pytest

from feature_repo.history import FramePiece, View
from feature_repo.pit import join
from mlplatform.errors import DataError

DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
TIME: Final = pl.Datetime("us", "UTC")


def at(hour: float) -> datetime:
    return DAY + timedelta(hours=hour)


def history(rows: list[tuple[Any, float | None, float | None, str]]) -> pl.DataFrame:
    """Rows of key, event hour, creation hour, value."""
    return pl.DataFrame(
        {
            "account": [row[0] for row in rows],
            "event_timestamp": pl.Series(
                [None if row[1] is None else at(row[1]) for row in rows], dtype=TIME
            ),
            "created_timestamp": pl.Series(
                [None if row[2] is None else at(row[2]) for row in rows], dtype=TIME
            ),
            "value": pl.Series([row[3] for row in rows], dtype=pl.String),
        }
    )


def labels(rows: list[tuple[Any, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "account": [row[0] for row in rows],
            "event_timestamp": pl.Series([at(row[1]) for row in rows], dtype=TIME),
        }
    )


def view(**changes: Any) -> View:
    fields: dict[str, Any] = {
        "name": "activity",
        "keys": {"account": "account"},
        "features": {"value": "value"},
    }
    return View(**(fields | changes))


def values(asked: pl.DataFrame, *parts: pl.DataFrame, **changes: Any) -> list[Any]:
    joined = join(asked, [(view(**changes), [FramePiece(part) for part in parts])])
    return joined["value"].to_list()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(1, 5, 5, "at"), (1, 6, 6, "after")], "at", id="at its own time"),
        pytest.param([(1, 3, 3, "old"), (1, 4, 4, "new")], "new", id="the latest event"),
        pytest.param([(1, 3, 3, "on time"), (1, 4, 6, "late")], "on time", id="not yet known"),
        pytest.param([(1, 4, 4, "newer"), (1, 2, 5, "late")], "newer", id="late but older"),
        pytest.param(
            [(1, 4, 4, "newer"), (1, 2, 4.5, "late"), (1, 3, 5, "late too")],
            "newer",
            id="two late rows behind a newer one",
        ),
        pytest.param([(1, 4, 4, "first"), (1, 4, 5, "corrected")], "corrected", id="correction"),
        pytest.param([(1, 4, 4, "one"), (1, 4, 4, "two")], "two", id="equal: last written"),
        pytest.param([(1, 4, 2, "announced"), (1, 3, 3, "past")], "announced", id="known before"),
        pytest.param([(1, 5, 3, "tied b"), (1, 4, 5, "tied a")], "tied b", id="known at once"),
        pytest.param([(1, 5, 4, "tied b"), (1, 5, 1, "tied a")], "tied b", id="known at once: tie"),
        pytest.param([(1, None, 4, "timeless"), (1, 4, None, "unknown")], None, id="missing times"),
        pytest.param([(1, 4, 4, "whole"), (1, None, 4, "timeless")], "whole", id="missing event"),
        pytest.param([(2, 4, 4, "other")], None, id="another key"),
    ],
)
def test_the_latest_event_that_was_known_counts(
    rows: list[tuple[Any, float | None, float | None, str]], expected: str | None
) -> None:
    one_part = values(labels([(1, 5)]), history(rows))
    a_part_each = values(labels([(1, 5)]), *(history([row]) for row in rows))

    assert [expected] == one_part
    assert [expected] == a_part_each


def test_among_many_equal_rows_the_one_written_last_wins() -> None:
    rows = history([(1 + number % 3, 2, 2, str(number)) for number in range(30_000)])

    assert ["29999", "29997"] == values(labels([(3, 5), (1, 5)]), rows)


def test_without_knowledge_time_creation_only_breaks_ties() -> None:
    rows = history([(1, 3, 9, "late"), (1, 3, None, "when?"), (1, 2, 2, "known")])

    assert ["known"] == values(labels([(1, 5)]), rows)
    assert ["late"] == values(labels([(1, 5)]), rows, known_only=False)


def test_without_a_creation_column_rows_are_known_at_their_event() -> None:
    rows = history([(1, 3, 9, "late"), (1, 6, 6, "after")])

    assert ["late"] == values(labels([(1, 5)]), rows, created=None)


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        pytest.param(timedelta(hours=2), "seen", id="exactly as old as allowed"),
        pytest.param(timedelta(hours=2, microseconds=-1), None, id="a microsecond too old"),
        pytest.param(timedelta(0), "seen", id="zero is no limit, as in Feast"),
        pytest.param(None, "seen", id="no limit"),
    ],
)
def test_a_value_older_than_its_ttl_is_null(ttl: timedelta | None, expected: str | None) -> None:
    # A late row changes nothing: the age is that of the latest event.
    rows = history([(1, 3, 3, "seen"), (1, 1, 4, "late")])

    assert [expected] == values(labels([(1, 5)]), rows, ttl=ttl)


def test_labels_come_out_once_in_their_order_with_their_duplicates() -> None:
    asked = labels([(2, 9), (1, 9), (2, 9), (3, 9), (1, 1)]).with_columns(
        note=pl.Series(["e", "d", "c", "b", "a"])
    )
    rows = history([(1, 2, 2, "one"), (2, 2, 2, "two")])

    joined = join(asked, [(view(), [FramePiece(rows)])])

    assert asked.equals(joined.select(asked.columns))
    assert ["two", "one", "two", None, None] == joined["value"].to_list()


def test_composite_keys_that_read_the_same_side_by_side_stay_apart() -> None:
    rows = pl.DataFrame(
        {
            "a": [1, 11],
            "b": [12, 2],
            "event_timestamp": pl.Series([at(1), at(1)], dtype=TIME),
            "created_timestamp": pl.Series([at(1), at(1)], dtype=TIME),
            "value": ["1|12", "11|2"],
        }
    )
    asked = pl.DataFrame(
        {
            "a": [11, 1, 1],
            "b": [2, 12, 2],
            "event_timestamp": pl.Series([at(2)] * 3, dtype=TIME),
        }
    )

    found = values(asked, rows, keys={"a": "a", "b": "b"})

    assert ["11|2", "1|12", None] == found


def test_a_null_key_matches_nothing_not_even_a_null() -> None:
    rows = history([(None, 1, 1, "nobody"), (1, 1, 1, "one")])

    assert [None, "one"] == values(labels([(None, 5), (1, 5)]), rows)


def test_keys_that_pandas_made_floats_match_the_integers_they_were() -> None:
    asked = pl.from_pandas(
        pd.DataFrame({"account": [1, None, 1.5], "event_timestamp": [pd.Timestamp(at(5))] * 3})
    )
    rows = history([(1, 1, 1, "one")])

    assert ["one", None, None] == values(asked, rows)


def test_a_key_that_the_histories_type_cannot_hold_matches_nothing() -> None:
    rows = history([(44, 1, 1, "small")]).cast({"account": pl.Int8})

    assert ["small", None] == values(labels([(44, 5), (300, 5)]), rows)


def test_categorical_keys_match_the_text_they_stand_for() -> None:
    rows = history([("a", 1, 1, "one"), ("b", 1, 1, "two")])
    asked = labels([("b", 5), ("c", 5)]).cast({"account": pl.Categorical})

    assert ["two", None] == values(asked, rows)
    assert ["two", None] == values(asked, rows.cast({"account": pl.Categorical}))


@pytest.mark.parametrize("rows", [[], [(1, 9, 9, "later")]], ids=["no row", "no row yet"])
def test_an_empty_history_gives_nulls(
    rows: list[tuple[Any, float | None, float | None, str]],
) -> None:
    part = history(rows).cast({"account": pl.Int64})

    assert [None, None] == values(labels([(1, 5), (2, 5)]), part)
    assert [None, None] == values(labels([(1, 5), (2, 5)]))


def test_no_labels_give_no_rows() -> None:
    none = labels([]).cast({"account": pl.Int64})

    assert [] == values(none, history([(1, 1, 1, "one")]))


def test_a_view_without_keys_is_one_history_for_all() -> None:
    rows = history([(1, 1, 1, "old"), (2, 2, 2, "new")])

    assert ["new", "old"] == values(labels([(7, 3), (8, 1)]), rows, keys={})


def test_a_column_of_the_labels_may_have_another_name_than_the_key() -> None:
    asked = labels([(1, 5)]).rename({"account": "payer"})

    assert ["one"] == values(asked, history([(1, 1, 1, "one")]), keys={"payer": "account"})


def test_zones_are_one_instant_whatever_they_are_called() -> None:
    rows = history([(1, 5, 5, "at five"), (1, 6, 6, "at six")]).with_columns(
        pl.col("event_timestamp").dt.convert_time_zone("Asia/Kolkata")
    )
    asked = labels([(1, 5)]).with_columns(
        pl.col("event_timestamp").dt.convert_time_zone("America/New_York").dt.cast_time_unit("ns")
    )

    assert ["at five"] == values(asked, rows)


def test_times_centuries_apart_do_not_disturb_each_other() -> None:
    centuries = 5000 * 365 * 24
    rows = history(
        [
            (1, centuries, centuries, "future"),
            (1, -centuries / 3, centuries + 1, "past"),
            (2, 3, 3, "now"),
            (2, 1, 4, "late"),
            (3, -centuries / 3, 0, "long ago"),
        ]
    )

    found = values(labels([(1, centuries + 2), (2, 5), (3, 5)]), rows)

    assert ["future", "now", "long ago"] == found


@pytest.mark.parametrize(
    ("asked", "part", "changes", "message"),
    [
        pytest.param(
            labels([(1, 5)]).with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)),
            history([(1, 1, 1, "one")]),
            {},
            "event_timestamp in the labels has no time zone",
            id="labels without a zone",
        ),
        pytest.param(
            labels([(1, 5)]),
            history([(1, 1, 1, "one")]).with_columns(
                pl.col("created_timestamp").dt.replace_time_zone(None)
            ),
            {},
            "created_timestamp in the history of view activity has no time zone",
            id="history without a zone",
        ),
        pytest.param(
            labels([(1, 5)]).cast({"event_timestamp": pl.String}),
            history([(1, 1, 1, "one")]),
            {},
            "not a timestamp",
            id="time as text",
        ),
        pytest.param(
            labels([(1, 5)]).drop("account"),
            history([(1, 1, 1, "one")]),
            {},
            r"the labels lack \['account'\]",
            id="no key",
        ),
        pytest.param(
            labels([("1", 5)]),
            history([(1, 1, 1, "one")]),
            {},
            "key account is String but the history's is Int64",
            id="key of another type",
        ),
        pytest.param(
            labels([(1, 5)]).with_columns(value=pl.lit(1)),
            history([(1, 1, 1, "one")]),
            {},
            r"would write \['value'\]",
            id="a column twice",
        ),
    ],
)
def test_input_that_would_be_guessed_at_is_refused(
    asked: pl.DataFrame, part: pl.DataFrame, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        values(asked, part, **changes)
