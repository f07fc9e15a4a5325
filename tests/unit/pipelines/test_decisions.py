"""From a journal to the ledger's rows."""

from datetime import UTC, datetime
from typing import Any

from mlplatform.contracts import Decision
from pipelines.decisions import decisions

NOW = datetime(2014, 1, 2, tzinfo=UTC)
BEGUN: dict[str, Any] = {
    "as_of": "2014-01-02T00:00:00+00:00",
    "identity": "abc",
    "git_commit": "def",
    "seconds": 1.5,
}
RULE = {"table": "flights", "rule": "origin is never null", "rows": 10}
DATA = {
    "path": "rows.parquet",
    "rows": 900,
    "window": {"start": "2013-01-01T00:00:00Z", "end": "2013-12-31T00:00:00Z"},
    "feature_service": "flight_delay_v1",
    "features": ["temp"],
    "digest": "d" * 64,
    "data_age_hours": 24.0,
    "positive_rate": 0.2,
    "immature_rows": 3,
}
MODEL = {
    "name": "flight_delay",
    "version": 3,
    "digest": "e" * 64,
    "uri": "models:/flight_delay/3",
    "signature": "f" * 64,
    "run_id": "r",
    "created": True,
    "registered_at": "2014-01-02T00:00:00Z",
}


def gates(*, passed: bool) -> dict[str, Any]:
    result = {
        "gate": "beats_baseline",
        "passed": passed,
        "reason": "0.02 against a margin of 0.01",
        "metric": "pr_auc",
        "observed": 0.02,
        "required": 0.01,
    }
    return {"report": {"candidate": "xgboost", "results": [result]}, "seconds": 0.1}


def report(*, passed: bool) -> dict[str, Any]:
    rule = RULE | {"passed": passed, "failed_rows": 0 if passed else 1}
    usecase = {"usecase": "flight_delay", "as_of": "2014-01-02T00:00:00Z"}
    return {"report": usecase | {"tables": {"flights": 10}, "results": [rule]}}


def record(journal: dict[str, Any], state: str = "SUCCEEDED", error: str = "") -> list[Decision]:
    return list(decisions("flight_delay", "run-1", journal, state=state, error=error, now=NOW))


def test_a_registered_model_leaves_a_row_for_each_decision() -> None:
    rows = record(
        {
            "validate": BEGUN | report(passed=True),
            "training_set": {"training_set": DATA},
            "gate": gates(passed=True),
            "register": {"model": MODEL},
        }
    )

    verdicts = {row.kind: row.verdict for row in rows}
    assert {
        "validation": "passed",
        "training_set": "built",
        "gate": "accepted",
        "registration": "registered",
        "run": "registered",
    } == verdicts
    assert {"abc"} == {row.evidence["identity"] for row in rows}


def test_a_broken_gate_is_named_and_nothing_is_registered() -> None:
    rows = record(
        {
            "validate": BEGUN | report(passed=True),
            "training_set": {"training_set": DATA},
            "gate": gates(passed=False),
        }
    )

    assert ["validation", "training_set", "gate", "run"] == [row.kind for row in rows]
    assert "beats_baseline: 0.02 against a margin of 0.01" == rows[2].reason
    assert "rejected" == rows[3].verdict


def test_a_failed_rule_is_the_reason_of_the_run() -> None:
    failed = BEGUN | report(passed=False) | {"error": "flights: origin is never null: 1 of 10 rows"}
    rows = record({"validate": failed}, state="FAILED")

    assert ["failed", "failed"] == [row.verdict for row in rows]
    assert "validate: flights: origin is never null: 1 of 10 rows" == rows[-1].reason


def test_a_step_that_was_killed_is_named_by_the_last_that_ended() -> None:
    rows = record({"validate": BEGUN | report(passed=True)}, "FAILED", "task train failed")

    assert "failed after validate: task train failed" == rows[-1].reason


def test_a_run_without_a_journal_is_recorded_as_failed() -> None:
    (row,) = record({}, "CANCELLED")

    assert "failed" == row.verdict
    assert row.reason.startswith("cancelled before the first step ended")


def test_keys_depend_on_the_run_alone_so_that_recording_twice_adds_nothing() -> None:
    journal = {"validate": BEGUN | report(passed=True)}

    assert [row.key for row in record(journal)] == [row.key for row in record(journal)]
