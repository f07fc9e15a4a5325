"""Contradictions inside the rules of one raw table."""

import re
from collections.abc import Iterator

from mlplatform.contracts.usecase.data import ColumnRule, TableRule

Found = tuple[tuple[str | int, ...], str]
"""Path of the value to change; what is wrong and what to do."""


def broken_table_rules(table: TableRule) -> Iterator[Found]:
    """Yield what is wrong between the rules of `table` and its columns; paths start inside it."""
    yield from _names_known_columns(table)
    event_time = table.columns.get(table.event_time)
    if event_time is not None and event_time.type != "timestamp":
        yield (
            ("event_time",),
            f"{table.event_time} is declared as {event_time.type}; name a timestamp column",
        )
    for index, rule in enumerate(table.ordered):
        low, high = table.columns.get(rule.low), table.columns.get(rule.high)
        if low is None or high is None:
            continue  # reported as unknown
        if {low.type, high.type} - {"integer", "float"} and low.type != high.type:
            yield (
                ("ordered", index),
                (
                    f"{rule.low} is {low.type} and {rule.high} is {high.type}: they have no order; "
                    "compare columns of one type"
                ),
            )
    for name, column in table.columns.items():
        for key, message in broken_column_rules(column):
            yield ("columns", name, key), message


def _names_known_columns(table: TableRule) -> Iterator[Found]:
    known = ", ".join(sorted(table.columns)) or "none yet"
    used: list[tuple[tuple[str | int, ...], str]] = [(("event_time",), table.event_time)]
    used += [(("unique",), column) for column in table.unique]
    for index, rule in enumerate(table.ordered):
        used += [(("ordered", index, "low"), rule.low), (("ordered", index, "high"), rule.high)]
    for path, column in used:
        if column not in table.columns:
            yield path, f"{column} is not a declared column; declare it, or name one of {known}"


def broken_column_rules(rule: ColumnRule) -> Iterator[tuple[str, str]]:
    """Yield (key of the rule, message)."""
    numeric, text = rule.type in {"integer", "float"}, rule.type == "string"
    for key, value in (("min", rule.min), ("max", rule.max)):
        if value is not None and not numeric:
            yield key, f"a {rule.type} column has no {key}; remove it or change the type"
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        yield "min", f"is above the max of {rule.max:g}; swap or correct them"
    if rule.values and not text:
        yield "values", f"a {rule.type} column has no list of values; use min and max"
    if rule.pattern is None:
        return
    if not text:
        yield "pattern", f"a {rule.type} column has no pattern; remove it or change the type"
    try:
        re.compile(rule.pattern)
    except re.error as error:
        yield "pattern", f"is not a regular expression ({error}); correct it"
