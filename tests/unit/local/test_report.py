"""The report: complete for a failed run, and harmless whatever the data says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.report import write_report
from local.summary import Summary
from mlplatform.contracts import RuleResult, ValidationReport
from pipelines.decisions import decisions

NOW = datetime(2014, 1, 2, tzinfo=UTC)
HOSTILE = "<script>alert('data')</script>"


def summary(**changes: Any) -> Summary:
    rule = RuleResult(
        table="flights",
        rule="origin is one of EWR, JFK, LGA",
        passed=False,
        rows=10,
        failed_rows=1,
        examples=(HOSTILE,),
    )
    report = ValidationReport(
        usecase="flight_delay", as_of=NOW, tables={"flights": 10}, results=(rule,)
    )
    journal: dict[str, Any] = {
        "validate": {
            "as_of": NOW.isoformat(),
            "identity": "abc",
            "git_commit": "def",
            "started_at": NOW.isoformat(),
            "seconds": 2.0,
            "report": report.model_dump(mode="json"),
            "error": f"flights: {HOSTILE}",
        }
    }
    rows = decisions("flight_delay", "run-1", journal, state="FAILED", error="", now=NOW)
    made = Summary.from_journal(
        journal, rows, seconds={"land raw events": 1.0}, registry_url="http://127.0.0.1:5000/#"
    )
    return made.model_copy(update=changes)


def test_a_failed_run_has_a_report_that_says_why(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", summary(), (), "on time")
    page = (tmp_path / "report.html").read_text()

    assert "1 rules, 1 broken" in page
    assert "origin is one of EWR, JFK, LGA" in page
    assert "Candidates on" not in page


def test_text_from_data_is_never_code_in_the_report(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", summary(), (), HOSTILE)

    assert HOSTILE not in (tmp_path / "report.html").read_text()


def test_a_summary_is_the_same_after_a_trip_through_its_file(tmp_path: Path) -> None:
    made = summary()
    made.write(tmp_path / "summary.json")

    assert made == Summary.model_validate_json((tmp_path / "summary.json").read_bytes())
    assert "failed" == made.verdict
    assert 3.0 == made.total_seconds
