"""Planted faults each give their own clear message; sound data passes; nothing crashes."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML

from feature_repo.labels import matured
from mlplatform.contracts import RuleResult, UseCase, ValidationReport
from mlplatform.errors import DataError
from pipelines.steps.validate import check, describe, validate

START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS, PER_DAY = 20, 20
AS_OF = START + timedelta(days=DAYS)
TIME = pl.Datetime("us", "UTC")

TABLES = {
    "flights": {
        "event_time": "departure",
        "unique": ["carrier", "flight", "departure"],
        "columns": {
            "carrier": {"type": "string", "values": ["AA", "B6"]},
            "flight": {"type": "integer", "min": 1, "max": 9999},
            "tailnum": {"type": "string", "max_null_rate": 0.05, "pattern": r"N\d+"},
            "departure": {"type": "timestamp"},
            "landing": {"type": "timestamp", "max_null_rate": 0.5},
            "distance": {"type": "float", "max_null_rate": 0.05, "min": 0},
            "cancelled": {"type": "boolean"},
        },
        "ordered": [{"low": "departure", "high": "landing"}],
    }
}


@pytest.fixture(scope="module")
def spec() -> UseCase:
    path = Path(__file__).parents[3] / "usecases" / "flight_delay" / "usecase.yaml"
    values: dict[str, Any] = YAML(typ="safe").load(path)
    values["entities"] = [
        {"name": "flight", "keys": ["carrier"]},
        {"name": "aircraft", "keys": ["tailnum"]},
    ]
    values["rollout"]["assignment_unit"] = "flight"
    values["label"]["delay_hours"] = 0
    values["data"] |= {"label_rate": {"min": 0.1, "max": 0.5}, "tables": TABLES}
    return UseCase.model_validate(values)


@pytest.fixture
def flights() -> pl.DataFrame:
    rows = pl.int_range(DAYS * PER_DAY, eager=True)
    departure = pl.Series([START + timedelta(days=int(i) / PER_DAY) for i in rows], dtype=TIME)
    return pl.DataFrame(
        {
            "carrier": ["AA" if i % 2 else "B6" for i in rows],
            "flight": (rows % 300 + 1).cast(pl.Int64),
            "tailnum": [f"N{i % 50}" for i in rows],
            "departure": departure,
            "landing": departure + timedelta(hours=2),
            "distance": (rows % 100 + 100).cast(pl.Float64),
            "cancelled": (rows % 40) == 0,
        }
    ).with_columns(
        pl.when(pl.col("cancelled")).then(None).otherwise(pl.col("landing")).alias("landing"),
        # Within the allowed share, so that sound data holds nulls too.
        pl.when(pl.int_range(pl.len()) % 50 == 3).then(None).otherwise("tailnum").alias("tailnum"),
    )


def labels_of(flights: pl.DataFrame) -> pl.DataFrame:
    row = pl.int_range(pl.len())
    return flights.select(
        pl.format("request-{}", row).alias("request_id"),
        "carrier",
        "tailnum",
        pl.col("departure").alias("event_timestamp"),
        (pl.col("departure") + timedelta(hours=3)).alias("label_timestamp"),
        (row % 4 == 0).cast(pl.Int8).alias("late"),
    )


def run(
    spec: UseCase,
    flights: pl.DataFrame,
    *,
    labels: pl.DataFrame | None = None,
    as_of: datetime = AS_OF,
    previous: int | None = None,
) -> ValidationReport:
    made = labels_of(flights) if labels is None else labels
    return validate(spec, {"flights": flights}, made, as_of, previous)


def only_failure(report: ValidationReport) -> RuleResult:
    assert 1 == len(report.failures), [describe(failure) for failure in report.failures]
    return report.failures[0]


def failed_rules(report: ValidationReport) -> list[str]:
    return [failure.rule for failure in report.failures]


def test_sound_data_passes_every_rule(spec: UseCase, flights: pl.DataFrame) -> None:
    report = run(spec, flights)

    check(report)
    assert [] == failed_rules(report)
    assert {"flights": 400, "labels": 400} == report.tables


def test_the_first_run_says_so(spec: UseCase, flights: pl.DataFrame) -> None:
    report = run(spec, flights)
    size = next(result for result in report.results if "previous run" in result.rule)

    assert size.passed
    # The labels of the last three hours are not known yet.
    assert "first run: 398 known labels and nothing to compare with" == size.observed


def test_every_declared_rule_is_in_the_report(spec: UseCase, flights: pl.DataFrame) -> None:
    rules = {result.rule for result in run(spec, flights).results if result.table == "flights"}

    assert {
        *(f"column {name} is present" for name in TABLES["flights"]["columns"]),
        "carrier holds text",
        "flight holds whole numbers",
        "tailnum holds text",
        "departure holds times in UTC to the microsecond",
        "landing holds times in UTC to the microsecond",
        "distance holds real numbers",
        "cancelled holds true or false",
        "the table has rows",
        "carrier is never null",
        "carrier is one of AA, B6",
        "flight is never null",
        "flight is at least 1 and at most 9999",
        "tailnum is at most 5.00% null",
        r"tailnum matches N\d+",
        "departure is never null",
        "landing is at most 50.00% null",
        "distance is at most 5.00% null",
        "distance is at least 0",
        "cancelled is never null",
        "carrier, flight, departure name one row",
        "departure is at most landing",
        "the newest departure is at most 48 h old",
    } == rules


def test_a_duplicated_day_is_named(spec: UseCase, flights: pl.DataFrame) -> None:
    day = flights.filter(pl.col("departure").dt.ordinal_day() == 7)
    report = run(spec, pl.concat([flights, day]), labels=labels_of(flights))
    failure = only_failure(report)

    assert ("flights", "carrier, flight, departure name one row") == (failure.table, failure.rule)
    assert (40, 420, 5) == (failure.failed_rows, failure.rows, len(failure.examples))
    assert "carrier=B6, flight=121, departure=2013-01-07" in failure.examples[0]
    assert "was probably delivered twice" in describe(failure)


def test_ten_percent_null_keys_are_named(spec: UseCase, flights: pl.DataFrame) -> None:
    holed = flights.with_columns(
        pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("carrier").alias("carrier")
    )
    failure = only_failure(run(spec, holed, labels=labels_of(flights)))

    assert ("carrier is never null", 40, 400) == (failure.rule, failure.failed_rows, failure.rows)
    assert "row flight=1, departure=2013-01-01 00:00:00+00:00" == failure.examples[0]
    assert "40 of 400 rows break it (10.0%)" in describe(failure)


def test_nulls_above_the_allowed_share_are_named(spec: UseCase, flights: pl.DataFrame) -> None:
    holed = flights.with_columns(
        pl.when(pl.int_range(pl.len()) < 21).then(None).otherwise("distance").alias("distance")
    )
    failure = only_failure(run(spec, holed))

    assert ("distance is at most 5.00% null", 21) == (failure.rule, failure.failed_rows)


def test_nulls_at_the_allowed_share_pass(spec: UseCase, flights: pl.DataFrame) -> None:
    holed = flights.with_columns(
        pl.when(pl.int_range(pl.len()) < 20).then(None).otherwise("distance").alias("distance")
    )

    assert [] == failed_rules(run(spec, holed))


def test_a_number_that_is_none_counts_as_null(spec: UseCase, flights: pl.DataFrame) -> None:
    holed = flights.with_columns(
        pl.when(pl.int_range(pl.len()) < 30)
        .then(float("nan"))
        .otherwise("distance")
        .alias("distance")
    )
    failure = only_failure(run(spec, holed))

    assert ("distance is at most 5.00% null", 30) == (failure.rule, failure.failed_rows)
    assert 5 == len(failure.examples)


def test_a_dropped_column_is_named_once(spec: UseCase, flights: pl.DataFrame) -> None:
    failure = only_failure(run(spec, flights.drop("distance")))

    assert "column distance is present" == failure.rule
    assert "to do: deliver distance again at the source of flights" in describe(failure)


def test_stale_data_is_named_with_its_age(spec: UseCase, flights: pl.DataFrame) -> None:
    failure = only_failure(run(spec, flights, as_of=AS_OF + timedelta(hours=60)))

    assert "the newest departure is at most 48 h old" == failure.rule
    assert "the newest is of 2013-01-20 22:48 UTC, 61.2 h before the run" == failure.observed


def test_an_event_of_tomorrow_does_not_hide_a_stopped_feed(
    spec: UseCase, flights: pl.DataFrame
) -> None:
    late = AS_OF + timedelta(days=5)
    wrong_clock = flights.with_columns(
        pl.when(pl.int_range(pl.len()) == 0)
        .then(late + timedelta(days=1))
        .otherwise("departure")
        .alias("departure"),
        pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("landing").alias("landing"),
    )
    report = run(spec, wrong_clock, labels=labels_of(flights), as_of=late)

    assert ["the newest departure is at most 48 h old"] == failed_rules(report)


def test_data_exactly_as_old_as_allowed_passes(spec: UseCase, flights: pl.DataFrame) -> None:
    newest = flights.get_column("departure").max()
    assert isinstance(newest, datetime)

    assert [] == failed_rules(run(spec, flights, as_of=newest + timedelta(hours=48)))


def test_a_set_thirty_percent_smaller_is_named(spec: UseCase, flights: pl.DataFrame) -> None:
    smaller = flights.filter(pl.int_range(pl.len()) >= 120)
    failure = only_failure(run(spec, smaller, previous=398))

    assert "at least 80% as many known labels as in the previous run" == failure.rule
    assert "278 known labels against 398 before, 70%" == failure.observed


def test_a_set_of_exactly_the_allowed_size_passes(spec: UseCase, flights: pl.DataFrame) -> None:
    assert [] == failed_rules(run(spec, flights, previous=497))
    assert 1 == len(run(spec, flights, previous=498).failures)


def test_labels_that_become_known_later_are_not_counted(
    spec: UseCase, flights: pl.DataFrame
) -> None:
    labels = labels_of(flights)
    as_of = START + timedelta(days=10)

    assert 198 == matured(spec, labels, as_of).height


@pytest.mark.parametrize(
    ("late", "observed"),
    [
        pytest.param(pl.lit(0), "0 of 398 known labels are positive, 0.0%", id="none"),
        pytest.param(pl.lit(1), "398 of 398 known labels are positive, 100.0%", id="all"),
        pytest.param(
            pl.lit(None), "no label is known by the time of the run", id="all-labels-null"
        ),
    ],
)
def test_a_label_rate_outside_its_band_is_named(
    spec: UseCase, flights: pl.DataFrame, late: pl.Expr, observed: str
) -> None:
    labels = labels_of(flights).with_columns(late.cast(pl.Int8).alias("late"))
    failure = only_failure(run(spec, flights, labels=labels))

    assert "the rate of positive labels is between 10.0% and 50.0%" == failure.rule
    assert observed == failure.observed


@pytest.mark.parametrize(
    ("change", "rule", "example"),
    [
        pytest.param(
            pl.lit("XX").alias("carrier"), "carrier is one of AA, B6", "XX", id="unknown-value"
        ),
        pytest.param(
            pl.lit(0, pl.Int64).alias("flight"), "flight is at least 1 and at most 9999", "0",
            id="below-the-range",
        ),
        pytest.param(
            pl.lit(-1.5).alias("distance"), "distance is at least 0", "-1.5", id="negative"
        ),
        pytest.param(
            pl.lit("N12x").alias("tailnum"), r"tailnum matches N\d+", "N12x", id="longer-than-it"
        ),
        pytest.param(
            pl.lit("N12\n").alias("tailnum"), r"tailnum matches N\d+", "N12", id="line-feed"
        ),
        pytest.param(
            (pl.col("departure") - timedelta(hours=1)).alias("landing"),
            "departure is at most landing",
            "landing=2013-01-01T02:36:00.000000, departure=2013-01-01T03:36:00.000000",
            id="wrong-order",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_an_example(
    spec: UseCase, flights: pl.DataFrame, change: pl.Expr, rule: str, example: str
) -> None:
    name = change.meta.output_name()
    wrong = flights.with_columns(
        pl.when(pl.int_range(pl.len()).is_between(5, 11) & pl.col("landing").is_not_null())
        .then(change)
        .otherwise(name)
        .alias(name)
    )
    if name == "landing":
        wrong = flights.with_columns(
            pl.when(pl.int_range(pl.len()) == 3).then(change).otherwise(name).alias(name)
        )
    failure = only_failure(run(spec, wrong, labels=labels_of(flights)))

    assert rule == failure.rule
    assert (1 if name == "landing" else 7) == failure.failed_rows
    assert example == failure.examples[0]
    assert min(5, failure.failed_rows) == len(failure.examples)


@pytest.mark.parametrize(
    ("column", "dtype", "rule"),
    [
        pytest.param("flight", pl.String, "flight holds whole numbers", id="number-as-text"),
        pytest.param("flight", pl.Float64, "flight holds whole numbers", id="integer-as-float"),
        pytest.param("distance", pl.Int64, "distance holds real numbers", id="float-as-integer"),
        pytest.param(
            "landing",
            pl.Datetime("us"),
            "landing holds times in UTC to the microsecond",
            id="no-time-zone",
        ),
        pytest.param(
            "landing",
            pl.Datetime("ns", "UTC"),
            "landing holds times in UTC to the microsecond",
            id="nanoseconds",
        ),
        pytest.param("cancelled", pl.Int8, "cancelled holds true or false", id="flag-as-number"),
        pytest.param("tailnum", pl.Categorical, "tailnum holds text", id="categories"),
    ],
)
def test_a_wrong_type_is_named_once(
    spec: UseCase, flights: pl.DataFrame, column: str, dtype: pl.DataType, rule: str
) -> None:
    labels = labels_of(flights)
    failure = only_failure(
        run(spec, flights.with_columns(pl.col(column).cast(dtype)), labels=labels)
    )

    assert rule == failure.rule
    assert failure.observed.startswith("its type is ")


def test_a_column_of_nothing_but_nulls_is_named(spec: UseCase, flights: pl.DataFrame) -> None:
    labels = labels_of(flights)
    typed = flights.with_columns(pl.lit(None, pl.Int64).alias("flight"))
    untyped = flights.with_columns(pl.lit(None).alias("flight"))

    assert ["flight is never null"] == failed_rules(run(spec, typed, labels=labels))
    assert ["flight holds whole numbers"] == failed_rules(run(spec, untyped, labels=labels))


def test_an_empty_table_fails_without_a_crash(spec: UseCase, flights: pl.DataFrame) -> None:
    report = run(spec, flights.clear(), labels=labels_of(flights))

    assert ["the table has rows", "the newest departure is at most 48 h old"] == failed_rules(
        report
    )


def test_a_table_without_columns_fails_without_a_crash(
    spec: UseCase, flights: pl.DataFrame
) -> None:
    report = run(spec, pl.DataFrame(), labels=labels_of(flights))

    assert 9 == len(report.failures)
    assert "column carrier is present" == report.failures[0].rule


def test_a_missing_table_is_named(spec: UseCase, flights: pl.DataFrame) -> None:
    report = validate(spec, {"planes": flights}, labels_of(flights), AS_OF, None)
    failure = only_failure(report)

    assert ("flights", "the table is present") == (failure.table, failure.rule)
    assert "delivered were planes" == failure.observed


def test_empty_labels_fail_without_a_crash(spec: UseCase, flights: pl.DataFrame) -> None:
    report = run(spec, flights, labels=labels_of(flights).clear(), previous=100)

    assert [
        "the table has rows",
        "at least 80% as many known labels as in the previous run",
        "the rate of positive labels is between 10.0% and 50.0%",
    ] == failed_rules(report)


@pytest.mark.parametrize("column", ["late", "label_timestamp"])
def test_labels_without_their_columns_fail_without_a_crash(
    spec: UseCase, flights: pl.DataFrame, column: str
) -> None:
    report = run(spec, flights, labels=labels_of(flights).drop(column))

    assert f"column {column} is present" == report.failures[0].rule
    assert 4 == len(report.failures)


Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.mark.parametrize(
    ("change", "rule", "rows"),
    [
        pytest.param(
            lambda labels: pl.concat([labels, labels.head(3)]),
            "request_id names one row",
            6,
            id="request-twice",
        ),
        pytest.param(
            lambda labels: labels.with_columns(
                pl.when(pl.int_range(pl.len()) < 2)
                .then(pl.lit(2, pl.Int8))
                .otherwise("late")
                .alias("late")
            ),
            "late is one of 0, 1",
            2,
            id="a-third-class",
        ),
        pytest.param(
            lambda labels: labels.with_columns(
                pl.when(pl.int_range(pl.len()) < 2)
                .then(pl.col("event_timestamp") - timedelta(hours=1))
                .otherwise("label_timestamp")
                .alias("label_timestamp")
            ),
            "event_timestamp is at most label_timestamp",
            2,
            id="known-before-it-happened",
        ),
        pytest.param(
            lambda labels: labels.with_columns(
                pl.when(pl.int_range(pl.len()) < 2)
                .then(None)
                .otherwise("label_timestamp")
                .alias("label_timestamp")
            ),
            "late is known only where label_timestamp says since when",
            2,
            id="known-since-when",
        ),
        pytest.param(
            lambda labels: labels.drop("tailnum"),
            "column tailnum is present",
            0,
            id="no-entity-key",
        ),
    ],
)
def test_a_wrong_label_is_named(
    spec: UseCase, flights: pl.DataFrame, change: Change, rule: str, rows: int
) -> None:
    failure = only_failure(run(spec, flights, labels=change(labels_of(flights))))

    assert ("labels", rule, rows) == (failure.table, failure.rule, failure.failed_rows)


def test_unknown_labels_are_sound(spec: UseCase, flights: pl.DataFrame) -> None:
    labels = labels_of(flights).with_columns(
        pl.when(pl.int_range(pl.len()) % 5 == 0).then(None).otherwise(column).alias(column)
        for column in ("late", "label_timestamp")
    )

    assert [] == failed_rules(run(spec, flights, labels=labels))


def test_the_error_has_a_line_for_each_failed_rule(spec: UseCase, flights: pl.DataFrame) -> None:
    faulty = flights.drop("distance").with_columns(pl.lit("XX").alias("carrier"))
    report = run(spec, faulty, labels=labels_of(flights))

    with pytest.raises(DataError) as caught:
        check(report)
    lines = str(caught.value).splitlines()

    total = len(report.results)
    assert f"the data of flight_delay is refused: 2 of {total} rules do not hold" == lines[0]
    assert (
        "  flights: column distance is present; to do: deliver distance again at the source of "
        "flights, or take it out of the spec"
    ) == lines[1]
    assert (
        "  flights: carrier is one of AA, B6; 400 of 400 rows break it (100.0%); for example "
        "XX | XX | XX | XX | XX; to do: add the new value of carrier to the spec if it is right"
    ) == lines[2]


def test_a_rule_that_cannot_be_asked_fails_with_the_reason(
    spec: UseCase, flights: pl.DataFrame
) -> None:
    tables: Mapping[str, Any] = {
        "flights": TABLES["flights"]
        | {"columns": {"carrier": {"type": "string", "pattern": "(unclosed"}}, "ordered": []}
        | {"unique": ["carrier"], "event_time": "departure"}
    }
    rules = spec.data.model_validate(spec.data.model_dump() | {"tables": tables})
    broken = spec.model_copy(update={"data": rules})
    report = run(broken, flights.unique("carrier", maintain_order=True), labels=labels_of(flights))
    failure = next(failed for failed in report.failures if "matches" in failed.rule)

    assert failure.observed.startswith("the rule could not be checked: ")


def test_each_table_is_logged_with_rules_rows_and_seconds(
    spec: UseCase, flights: pl.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mlplatform.validate"):
        run(spec, flights)
    lines = [record.message for record in caplog.records if record.name == "mlplatform.validate"]

    assert ["flights: 28 rules on 400 rows", "labels: 18 rules on 400 rows"] == [
        line.partition(", 0 failed (")[0] for line in lines
    ]
