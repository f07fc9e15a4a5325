"""The first step: is the data fit to be trained on?

It runs before anything costly and looks at the raw events and at the labels: schema, nulls,
ranges, sets, uniqueness and order by Great Expectations, then freshness, size against the
previous run, and the rate of positive labels. It never stops at the first fault and never raises
on bad data: a report with every rule is returned, and `check` turns a failed one into an error.
"""

import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import polars as pl

from feature_repo.labels import matured
from mlplatform.contracts import RuleResult, UseCase, ValidationReport
from mlplatform.contracts.usecase.data import ColumnRule, ColumnType, Ordering, TableRule
from mlplatform.errors import DataError
from pipelines.steps import expectations

_LOGGER = logging.getLogger("mlplatform.validate")

LABELS: Final = "labels"
"""The name under which the rules on labels are reported."""

_SECONDS_PER_HOUR: Final = 3600


def validate(
    spec: UseCase,
    raw: Mapping[str, pl.DataFrame],
    labels: pl.DataFrame,
    as_of: datetime,
    previous_rows: int | None,
) -> ValidationReport:
    """Check all rules of the spec.

    Args:
        spec: The use case.
        raw: Raw events by table name.
        labels: One row for each prediction: `request_id`, `event_timestamp`, `label_timestamp`,
            the label (0, 1 or null) and more.
        as_of: The time of the run; labels that became known later are not counted.
        previous_rows: Known labels of the previous run; None when there was none.

    Returns:
        Every rule with its result, also where the data is empty, absent or of the wrong type.
    """
    library = expectations.Library()
    results: list[RuleResult] = []
    for table, rule in spec.data.tables.items():
        frame = raw.get(table)
        if frame is None:
            results.append(_missing_table(table, sorted(raw)))
            _LOGGER.info("%s: the table is missing", table)
            continue
        results += _check_table(library, table, frame, rule)
        results.append(_freshness(table, frame, rule, as_of, spec.data.freshness_hours))
    results += _check_table(library, LABELS, labels, _label_rule(spec, labels))
    results += _label_results(spec, labels, as_of, previous_rows)
    rows = {table: frame.height for table, frame in raw.items()} | {LABELS: labels.height}
    return ValidationReport(usecase=spec.name, as_of=as_of, tables=rows, results=tuple(results))


def check(report: ValidationReport) -> None:
    """Stop the run when a rule does not hold.

    Raises:
        DataError: With one line for each failed rule: table, rule, rows, examples, what to do.
    """
    if report.passed:
        return
    failures = report.failures
    count = f"{len(failures)} of {len(report.results)} rules do"
    lines = [f"the data of {report.usecase} is refused: {count} not hold"]
    lines += [f"  {describe(failure)}" for failure in failures]
    raise DataError("\n".join(lines))


def describe(result: RuleResult) -> str:
    """Return one line: table, rule, n of m rows, what was seen, examples, what to do."""
    parts = [f"{result.table}: {result.rule}"]
    if result.failed_rows:
        share = result.failed_rows / max(result.rows, 1)
        parts.append(f"{result.failed_rows:,} of {result.rows:,} rows break it ({share:.1%})")
    if result.observed:
        parts.append(result.observed)
    if result.examples:
        parts.append("for example " + " | ".join(result.examples))
    if result.advice:
        parts.append(f"to do: {result.advice}")
    return "; ".join(parts)


def _check_table(
    library: expectations.Library, table: str, frame: pl.DataFrame, rule: TableRule
) -> list[RuleResult]:
    started = time.perf_counter()
    results = expectations.check_types(table, frame, rule)
    rules = expectations.build(library, table, frame, rule)
    results += expectations.run(library, table, frame, rules, rule.unique)
    failed = sum(not result.passed for result in results)
    _LOGGER.info(
        "%s: %d rules on %s rows, %d failed (%.1f s)",
        table, len(results), f"{frame.height:,}", failed, time.perf_counter() - started,
    )  # fmt: skip
    return results


def _missing_table(table: str, delivered: list[str]) -> RuleResult:
    return RuleResult(
        table=table,
        rule="the table is present",
        passed=False,
        rows=0,
        failed_rows=0,
        observed=f"delivered were {', '.join(delivered) or 'no tables'}",
        advice=f"deliver {table} in the use case's sources.py, or take it out of the spec",
    )


def _freshness(
    table: str, frame: pl.DataFrame, rule: TableRule, as_of: datetime, allowed: float
) -> RuleResult:
    """Compare the newest event with the time of the run.

    An event after the run's time is left out: a wrong clock must not hide that the feed stopped.
    """
    newest = None
    if frame.schema.get(rule.event_time) == pl.Datetime("us", "UTC"):
        times = frame.get_column(rule.event_time)
        newest = times.filter(times <= as_of).max()
    if isinstance(newest, datetime):
        age = (as_of - newest).total_seconds() / _SECONDS_PER_HOUR
        passed = age <= allowed
        observed = f"the newest is of {newest:%Y-%m-%d %H:%M} UTC, {age:,.1f} h before the run"
    else:
        passed = False
        observed = f"{rule.event_time} has no time at or before the run"
    return RuleResult(
        table=table,
        rule=f"the newest {rule.event_time} is at most {allowed:g} h old",
        passed=passed,
        rows=frame.height,
        failed_rows=0,
        observed=observed,
        advice=f"check that the feed of {table} still delivers, then run again",
    )


def _label_rule(spec: UseCase, labels: pl.DataFrame) -> TableRule:
    keys = {key for entity in spec.entities for key in entity.keys}
    columns = {
        "request_id": ColumnRule(type="string"),
        "event_timestamp": ColumnRule(type="timestamp"),
        "label_timestamp": ColumnRule(type="timestamp", max_null_rate=1),
        spec.label.name: ColumnRule(type="integer", max_null_rate=1, values=("0", "1")),
    }
    # Keys may have any type and be null (an aircraft without a number): they must be there.
    columns |= {key: ColumnRule(type=_kind(labels, key), max_null_rate=1) for key in sorted(keys)}
    return TableRule(
        event_time="event_timestamp",
        unique=("request_id",),
        columns=columns,
        ordered=(Ordering(low="event_timestamp", high="label_timestamp"),),
    )


def _kind(frame: pl.DataFrame, column: str) -> ColumnType:
    dtype = frame.schema.get(column)
    if dtype is not None and dtype.is_integer():
        return "integer"
    return "string"


def _label_results(
    spec: UseCase, labels: pl.DataFrame, as_of: datetime, previous_rows: int | None
) -> list[RuleResult]:
    ratio, band = spec.data.min_size_ratio, spec.data.label_rate
    size_rule = f"at least {ratio:.0%} as many known labels as in the previous run"
    rate_rule = f"the rate of positive labels is between {band.min:.1%} and {band.max:.1%}"
    known_rule = f"{spec.label.name} is known only where label_timestamp says since when"
    dtype = labels.schema.get(spec.label.name)
    if (
        dtype is None
        or not (dtype.is_integer() or dtype == pl.Null)
        or labels.schema.get("label_timestamp") != pl.Datetime("us", "UTC")
        or labels.schema.get("event_timestamp") != pl.Datetime("us", "UTC")
    ):
        wrong = (
            f"it needs {spec.label.name} as integer, event_timestamp and label_timestamp as times"
        )
        advice = f"correct {spec.label.name} and both times in the use case's sources.py"
        return [
            _label_result(labels, text, passed=False, observed=wrong, advice=advice)
            for text in (known_rule, size_rule, rate_rule)
        ]
    undated = labels.filter(
        pl.col(spec.label.name).is_not_null() & pl.col("label_timestamp").is_null()
    )
    known = matured(spec, labels, as_of)
    positives = int((known.get_column(spec.label.name) == 1).sum())
    rate = positives / known.height if known.height else None
    return [
        _label_result(
            labels,
            known_rule,
            passed=undated.is_empty(),
            failed_rows=undated.height,
            examples=_request_ids(undated),
            advice="give each known label the time at which it became known, else it may leak",
        ),
        _label_result(
            labels,
            size_rule,
            passed=not previous_rows or known.height >= ratio * previous_rows,
            observed=_size(known.height, previous_rows),
            advice="find the missing part of the window at the source; a smaller set on purpose "
            "needs a new version of feature_service in usecase.yaml",
        ),
        _label_result(
            labels,
            rate_rule,
            passed=rate is not None and band.min <= rate <= band.max,
            observed="no label is known by the time of the run"
            if rate is None
            else f"{positives:,} of {known.height:,} known labels are positive, {rate:.1%}",
            advice="check the label's definition and its sources; change the band in the spec only "
            "if the world has changed",
        ),
    ]


def _label_result(
    labels: pl.DataFrame,
    rule: str,
    *,
    passed: bool,
    advice: str,
    observed: str = "",
    failed_rows: int = 0,
    examples: tuple[str, ...] = (),
) -> RuleResult:
    return RuleResult(
        table=LABELS,
        rule=rule,
        passed=passed,
        rows=labels.height,
        failed_rows=failed_rows,
        observed=observed,
        examples=examples,
        advice=advice,
    )


def _size(rows: int, previous: int | None) -> str:
    if not previous:
        return f"first run: {rows:,} known labels and nothing to compare with"
    return f"{rows:,} known labels against {previous:,} before, {rows / previous:.0%}"


def _request_ids(rows: pl.DataFrame) -> tuple[str, ...]:
    if "request_id" not in rows.columns:
        return ()
    ids = rows.get_column("request_id").head(expectations.EXAMPLES)
    return tuple(f"request_id={value}" for value in ids.to_list())
