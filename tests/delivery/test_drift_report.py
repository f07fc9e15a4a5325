"""The issue that the nightly comparison keeps for each environment."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.delivery.workflows import GITHUB

TITLE = "The infrastructure of prod differs from its description"
STAND_IN = """#!/usr/bin/env python3
# GitHub's client, as far as the script needs it: issues are in a file.
import json, os, pathlib, sys
store = pathlib.Path(os.environ["ISSUES"])
issues = json.loads(store.read_text())
command, given = sys.argv[1:3], sys.argv[3:]
def option(name):
    return given[given.index(name) + 1] if name in given else None
if command == ["issue", "list"]:
    assert option("--state") == "open" and "env.TITLE" in option("--jq"), given
    found = [one for one in issues if one["open"] and one["title"] == os.environ["TITLE"]]
    print(found[0]["number"] if found else "")
elif command == ["issue", "create"]:
    issues.append({"number": len(issues) + 1, "open": True, "title": option("--title"),
                   "body": pathlib.Path(option("--body-file")).read_text()})
elif command in (["issue", "edit"], ["issue", "close"]):
    one = issues[int(given[0]) - 1]
    if command[1] == "edit":
        one["body"] = pathlib.Path(option("--body-file")).read_text()
    else:
        one["open"] = False
elif command != ["label", "create"]:
    sys.exit(f"unknown: {command}")
store.write_text(json.dumps(issues))
"""


class Nights:
    """A repository with its issues, in which the comparison is made night after night."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        program = folder / "bin" / "gh"
        program.write_text(STAND_IN)
        program.chmod(0o755)
        (folder / "issues.json").write_text("[]")

    def night(self, outcome: str, difference: str = "") -> subprocess.CompletedProcess[str]:
        written = self.folder / "build" / "infra" / "prod" / "drift.md"
        written.parent.mkdir(parents=True, exist_ok=True)
        written.unlink(missing_ok=True)
        if difference:
            written.write_text(difference)
        return subprocess.run(
            [str(GITHUB / "report-drift.sh")],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "ISSUES": str(self.folder / "issues.json"),
                "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
                "ENVIRONMENT": "prod",
                "OUTCOME": outcome,
            },
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip

    @property
    def issues(self) -> list[tuple[str, str, bool]]:
        found = json.loads((self.folder / "issues.json").read_text())
        return [(one["title"], one["body"], one["open"]) for one in found]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def test_a_difference_becomes_one_issue_that_says_what_differs_now(nights: Nights) -> None:
    nights.night("failure", "aws_db_instance.this: update")
    nights.night("failure", "aws_db_instance.this: delete")

    assert [(TITLE, "aws_db_instance.this: delete", True)] == nights.issues
    assert "aws_db_instance.this: delete" in (nights.folder / "summary.md").read_text()


def test_the_issue_is_closed_when_there_is_no_difference_any_more(nights: Nights) -> None:
    nights.night("failure", "aws_db_instance.this: update")
    done = nights.night("success")

    assert 0 == done.returncode, done.stderr
    assert [(TITLE, "aws_db_instance.this: update", False)] == nights.issues


def test_a_night_without_a_difference_writes_no_issue(nights: Nights) -> None:
    assert 0 == nights.night("success").returncode
    assert [] == nights.issues


def test_a_comparison_that_failed_is_no_difference_but_a_failed_run(nights: Nights) -> None:
    done = nights.night("failure")

    assert 1 == done.returncode
    assert "prod could not be compared" in done.stdout
    assert [] == nights.issues
