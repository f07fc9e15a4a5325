"""From the spec's table rules to Great Expectations suites, and from their results to ours.

The suites are built from `spec.data` for each run and kept in memory: a suite that is stored
beside the spec would drift from it. Great Expectations sees pandas, so the types of the columns
are compared on the polars frame before the conversion (pandas has no integer or boolean column
with nulls of its own, and its time zones are not part of the type that the library compares);
a rule that needs an absent or wrongly typed column is not asked, because its answer would only
repeat that first failure in a stranger way.

The library is told to send no analytics, and is imported on first use: its import takes seconds.
"""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from mlplatform.contracts import RuleResult
from mlplatform.contracts.usecase.data import ColumnRule, ColumnType, TableRule
from mlplatform.errors import shorten

EXAMPLES: Final = 5
"""Offending values shown for a rule: enough to recognise the fault, short enough to read."""

_TYPE_NAMES: Final[dict[ColumnType, Callable[[pl.DataType], bool]]] = {
    "string": lambda dtype: dtype == pl.String,
    "integer": lambda dtype: dtype.is_integer(),
    "float": lambda dtype: dtype.is_float(),
    "timestamp": lambda dtype: dtype == pl.Datetime("us", "UTC"),
    "boolean": lambda dtype: dtype == pl.Boolean,
}

_SHAPES: Final[dict[ColumnType, str]] = {
    "string": "text",
    "integer": "whole numbers",
    "float": "real numbers",
    "timestamp": "times in UTC to the microsecond",
    "boolean": "true or false",
}


@dataclass(frozen=True)
class Rule:
    """One expectation with the words that a person reads when it does not hold."""

    text: str
    advice: str
    expectation: Any
    columns: tuple[str, ...] = ()
    shows_rows: bool = False
    """The values are null: show the rows' keys as examples instead."""


class Library:
    """Great Expectations, imported quietly; one ephemeral context for a run."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the library when it is imported
        with warnings.catch_warnings():
            # Its import uses sre_constants, which Python 3.11 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            import great_expectations as gx
            import great_expectations.expectations as gxe
            from great_expectations.data_context.types.base import ProgressBarsConfig
        self._gx = gx
        self.expectations = gxe
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._source = self._context.data_sources.add_pandas("frames")

    def ask(self, table: str, frame: Any, rules: list[Rule]) -> dict[int, Any]:
        """Validate a pandas frame; return the library's result by the rule's position."""
        suite = self._gx.ExpectationSuite(table)
        for position, rule in enumerate(rules):
            rule.expectation.meta = {"position": position}
            suite.add_expectation(rule.expectation)
        asset = self._source.add_dataframe_asset(table)
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
        form = {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES}
        answer = batch.validate(suite, result_format=form)
        return {
            result.expectation_config.meta["position"]: result.to_json_dict()
            for result in answer.results
        }


def check_types(table: str, frame: pl.DataFrame, rule: TableRule) -> list[RuleResult]:
    """Compare the declared columns that are present with their declared types."""
    return [
        RuleResult(
            table=table,
            rule=f"{name} holds {_SHAPES[column.type]}",
            passed=_TYPE_NAMES[column.type](frame.schema[name]),
            rows=frame.height,
            failed_rows=0,
            observed=f"its type is {frame.schema[name]}",
            advice=f"read {name} as {column.type} at the source, or change its type in the spec",
        )
        for name, column in rule.columns.items()
        if name in frame.columns
    ]


def build(library: Library, table: str, frame: pl.DataFrame, rule: TableRule) -> list[Rule]:
    """Return the suite of a table: existence first, then what each usable column allows."""
    gxe = library.expectations
    usable = {
        name
        for name, column in rule.columns.items()
        if name in frame.columns and _TYPE_NAMES[column.type](frame.schema[name])
    }
    rules = [
        Rule(
            text=f"column {name} is present",
            advice=f"deliver {name} again at the source of {table}, or take it out of the spec",
            expectation=gxe.ExpectColumnToExist(column=name),
        )
        for name in rule.columns
    ]
    rules.append(
        Rule(
            text="the table has rows",
            advice="check that the source delivered and that the window is right",
            expectation=gxe.ExpectTableRowCountToBeBetween(min_value=1),
        )
    )
    if frame.height == 0:
        return rules
    for name, column in rule.columns.items():
        if name in usable:
            rules += _column_rules(gxe, name, column)
    if rule.unique and usable.issuperset(rule.unique):
        rules.append(_uniqueness(gxe, rule.unique))
    rules += [
        Rule(
            text=f"{pair.low} is at most {pair.high}",
            advice=f"correct or remove the rows where {pair.low} exceeds {pair.high}",
            expectation=gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=pair.high,
                column_B=pair.low,
                or_equal=True,
                ignore_row_if="either_value_is_missing",
            ),
            columns=(pair.high, pair.low),
        )
        for pair in rule.ordered
        if usable.issuperset((pair.low, pair.high))
    ]
    return rules


def run(
    library: Library, table: str, frame: pl.DataFrame, rules: list[Rule], keys: tuple[str, ...]
) -> list[RuleResult]:
    """Ask all rules of one table at once.

    Args:
        library: The loaded library.
        table: The table's name, unique within the run.
        frame: The table.
        rules: From `build`.
        keys: Columns that name a row; shown as examples where the offending value is a null.

    Returns:
        One result for each rule, in order. A rule that the library could not answer fails.
    """
    answers = library.ask(table, _to_pandas(frame, rules), rules)
    return [
        _result(table, frame, rule, answers.get(position), keys)
        for position, rule in enumerate(rules)
    ]


def _column_rules(gxe: Any, name: str, column: ColumnRule) -> list[Rule]:
    rules = []
    if column.max_null_rate < 1:
        share = f"at most {column.max_null_rate:.2%} null" if column.max_null_rate else "never null"
        rules.append(
            Rule(
                text=f"{name} is {share}",
                advice=f"repair {name} at the source, or raise max_null_rate if nulls are right",
                expectation=gxe.ExpectColumnValuesToNotBeNull(
                    column=name, mostly=1 - column.max_null_rate
                ),
                columns=(name,),
                shows_rows=True,
            )
        )
    if column.min is not None or column.max is not None:
        low = "" if column.min is None else f" at least {column.min:g}"
        high = "" if column.max is None else f" at most {column.max:g}"
        rules.append(
            Rule(
                text=f"{name} is{low}{' and' if low and high else ''}{high}",
                advice=f"check the unit of {name} at the source; widen the bounds if it is right",
                expectation=gxe.ExpectColumnValuesToBeBetween(
                    column=name, min_value=column.min, max_value=column.max
                ),
                columns=(name,),
            )
        )
    if column.values:
        rules.append(
            Rule(
                text=f"{name} is one of {', '.join(column.values)}",
                advice=f"add the new value of {name} to the spec if it is right",
                expectation=gxe.ExpectColumnValuesToBeInSet(
                    column=name, value_set=[_typed(value, column.type) for value in column.values]
                ),
                columns=(name,),
            )
        )
    if column.pattern is not None:
        rules.append(
            Rule(
                text=f"{name} matches {column.pattern}",
                advice=f"correct {name} at the source, or the pattern in the spec",
                expectation=gxe.ExpectColumnValuesToMatchRegex(
                    # Anchored: the library searches, the spec's pattern is of the whole value.
                    column=name,
                    regex=rf"\A(?:{column.pattern})\Z",
                ),
                columns=(name,),
            )
        )
    return rules


def _uniqueness(gxe: Any, unique: tuple[str, ...]) -> Rule:
    text = f"{', '.join(unique)} name{'s' if len(unique) == 1 else ''} one row"
    advice = "remove the repeated rows: a day or a file was probably delivered twice"
    expectation = (
        gxe.ExpectColumnValuesToBeUnique(column=unique[0])
        if len(unique) == 1
        else gxe.ExpectCompoundColumnsToBeUnique(
            # Rows with a null key are the null rule's: they are not known to be the same row.
            column_list=list(unique),
            ignore_row_if="any_value_is_missing",
        )
    )
    return Rule(text=text, advice=advice, expectation=expectation, columns=unique)


def _typed(value: str, kind: ColumnType) -> object:
    if kind == "integer":
        return int(value)
    if kind == "float":
        return float(value)
    if kind == "boolean":
        return value.lower() == "true"
    return value


def _to_pandas(frame: pl.DataFrame, rules: list[Rule]) -> Any:
    """Convert only what the rules read; other columns are there by name, to be found."""
    import pandas as pd
    import pyarrow as pa

    nullable: Mapping[pa.DataType, Any] = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    read = {column for rule in rules for column in rule.columns}
    # Added to the frame, not selected alone: literals by themselves would make one row of none.
    names = [pl.lit(None, dtype=pl.Boolean).alias(name) for name in set(frame.columns) - read]
    return frame.with_columns(names).to_arrow().to_pandas(types_mapper=nullable.get)


def _result(
    table: str, frame: pl.DataFrame, rule: Rule, answer: Any, keys: tuple[str, ...]
) -> RuleResult:
    said: dict[str, Any] = (answer or {}).get("result", {})
    passed = bool(answer and answer["success"])
    examples: tuple[str, ...] = ()
    observed = ""
    if not passed:
        examples = tuple(_show(value, rule) for value in said.get("partial_unexpected_list", []))
        if rule.shows_rows:
            examples = _null_rows(frame, rule.columns[0], keys)
        observed = _trouble(answer)
    return RuleResult(
        table=table,
        rule=rule.text,
        passed=passed,
        rows=frame.height,
        failed_rows=0 if passed else int(said.get("unexpected_count") or 0),
        observed=observed,
        examples=examples[:EXAMPLES],
        advice=rule.advice,
    )


def _trouble(answer: Any) -> str:
    """Say why the library could not answer; empty when it did."""
    if answer is None:
        return "the rule was not answered"
    info = answer.get("exception_info") or {}
    nested = [info, *[value for value in info.values() if isinstance(value, dict)]]
    messages = [entry["exception_message"] for entry in nested if entry.get("raised_exception")]
    return f"the rule could not be checked: {shorten(messages[0])}" if messages else ""


def _null_rows(frame: pl.DataFrame, column: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    missing = pl.col(column).is_null()
    if frame.schema[column].is_float():
        missing |= pl.col(column).is_nan()
    names = [key for key in keys if key in frame.columns and key != column]
    if not names:
        return ()
    rows = frame.lazy().filter(missing).select(names).head(EXAMPLES).collect()
    return tuple("row " + _pairs(row) for row in rows.to_dicts())


def _show(value: object, rule: Rule) -> str:
    if isinstance(value, dict):
        return _pairs(value)
    if isinstance(value, list | tuple) and len(value) == len(rule.columns):
        return _pairs(dict(zip(rule.columns, value, strict=True)))
    return shorten(value)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={shorten(value)}" for name, value in values.items())
