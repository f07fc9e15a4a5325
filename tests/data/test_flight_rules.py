"""The data rules of the use case: the real data keeps them, damaged data does not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform import spec
from mlplatform.contracts.usecase.data import ColumnRule, TableRule
from usecases.flight_delay import sources

TYPES = {
    "string": pl.String,
    "integer": pl.Int64,
    "float": pl.Float64,
    "timestamp": pl.Datetime("us", "UTC"),
    "boolean": pl.Boolean,
}
TENTH = 0.1
A_FEW_DAYS = 1_000
"""Rows; the last month of the flights, in UTC, is one evening."""


@pytest.fixture(scope="module")
def raw() -> dict[str, pl.DataFrame]:
    return sources.read(datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 2, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def rules() -> dict[str, TableRule]:
    return spec.load(Path(str(sources.__file__)).with_name("usecase.yaml")).data.tables


def broken(values: pl.Series, rule: ColumnRule) -> list[str]:
    """Name the parts of a column's rule that its values break."""
    known = values.drop_nulls()
    parts = {
        "type": values.dtype != TYPES[rule.type],
        "null rate": values.null_count() > rule.max_null_rate * max(len(values), 1),
        "min": rule.min is not None and (known < rule.min).any(),
        "max": rule.max is not None and (known > rule.max).any(),
        "values": bool(rule.values) and not known.is_in(list(rule.values)).all(),
        "pattern": rule.pattern is not None
        and not known.str.contains(f"^(?:{rule.pattern})$").all(),
    }
    return [part for part, wrong in parts.items() if wrong]


@pytest.mark.parametrize("table", sources.TABLES)
def test_the_spec_declares_exactly_the_columns_that_the_source_returns(
    raw: dict[str, pl.DataFrame], rules: dict[str, TableRule], table: str
) -> None:
    assert list(rules[table].columns) == raw[table].columns
    assert set(sources.TABLES) == set(rules)


@pytest.mark.parametrize("table", sources.TABLES)
def test_the_real_data_keeps_every_rule(
    raw: dict[str, pl.DataFrame], rules: dict[str, TableRule], table: str
) -> None:
    rows, rule = raw[table], rules[table]
    faults = {name: broken(rows[name], column) for name, column in rule.columns.items()}
    disorder = [(pair.low, (rows[pair.low] > rows[pair.high]).sum()) for pair in rule.ordered]

    assert {} == {name: parts for name, parts in faults.items() if parts}
    assert 0 == rows.select(rule.unique).is_duplicated().sum()
    assert [(pair.low, 0) for pair in rule.ordered] == disorder


@pytest.mark.parametrize("table", sources.TABLES)
def test_every_single_month_from_the_first_on_keeps_the_null_rates(
    raw: dict[str, pl.DataFrame], rules: dict[str, TableRule], table: str
) -> None:
    """A run after one month, or a month of storms, must not stop for nothing."""
    rule = rules[table]
    month = pl.col(rule.event_time).dt.truncate("1mo").alias("__month")
    exceeded = [
        (name, rows[rule.event_time][0])
        for rows in raw[table].with_columns(month).partition_by("__month")
        for name, column in rule.columns.items()
        if rows.height > A_FEW_DAYS and rows[name].null_count() > column.max_null_rate * rows.height
    ]

    assert [] == exceeded


def test_ten_percent_null_keys_break_the_rule_of_each_key(rules: dict[str, TableRule]) -> None:
    keys = ("flight_key", "carrier", "origin", "dest", "tailnum")
    allowed = [rules["flights"].columns[key].max_null_rate for key in keys]

    assert all(rate < TENTH for rate in allowed)
    assert rules["weather"].columns["origin"].max_null_rate < TENTH


@pytest.mark.parametrize("table", sources.TABLES)
def test_a_duplicated_day_breaks_uniqueness(
    raw: dict[str, pl.DataFrame], rules: dict[str, TableRule], table: str
) -> None:
    rows, rule = raw[table], rules[table]
    day = datetime(2013, 6, 1, tzinfo=UTC)
    again = rows.filter(pl.col(rule.event_time).is_between(day, day + timedelta(days=1)))
    doubled = pl.concat([rows, again])

    assert 0 < again.height
    assert 2 * again.height == doubled.select(rule.unique).is_duplicated().sum()


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        pytest.param("flights", "carrier", "United", id="a name instead of a code"),
        pytest.param("flights", "origin", "PHL", id="an airport that we do not serve"),
        pytest.param("flights", "flight_key", "UA-1545", id="a key without its day"),
        pytest.param("flights", "tailnum", "unknown", id="a word instead of a registration"),
        pytest.param("flights", "dep_delay", 99_999, id="a marker instead of minutes"),
        pytest.param("weather", "wind_speed", 1048.36, id="a broken anemometer"),
        pytest.param("weather", "temp", -273.0, id="absolute zero"),
    ],
)
def test_an_impossible_value_breaks_its_columns_rule(
    raw: dict[str, pl.DataFrame],
    rules: dict[str, TableRule],
    table: str,
    column: str,
    value: float | str,
) -> None:
    values = raw[table][column].head(100)
    damaged = pl.concat([values, pl.Series(column, [value], dtype=values.dtype)])

    assert [] == broken(values, rules[table].columns[column])
    assert [] != broken(damaged, rules[table].columns[column])
