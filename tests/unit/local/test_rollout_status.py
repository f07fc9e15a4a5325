"""What a person reads of a rollout is what its state and its evidence say."""

from datetime import timedelta

import pytest
from rich.console import Console, RenderableType

from local.rollout_status import shown as status
from mlplatform.contracts.rollout import Phase
from serving.rollout.judge import judge
from tests.unit.serving.rollout.builders import PLAN, reach, shown


def text(found: RenderableType, width: int = 160) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(found)
    return captured.get()


def row(said: str, name: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith(name)]
    return line.removeprefix(name).strip()


def test_a_canary_is_shown_with_its_traffic_evidence_and_thresholds() -> None:
    rollout, now = reach("canary", step=1)
    statistics = shown(rollout, now)
    said = text(status(rollout, statistics, judge(rollout, statistics, now), now))

    assert "canary, step 2 of 3" == row(said, "phase")
    assert "20 % of entities to the new version; it sees 100 % besides" == row(said, "traffic")
    assert f"epoch {rollout.epoch}, every gateway follows it" == row(said, "route")
    assert "32,000 entities before, 8,000 new; 500 each needed" == row(said, "seen at 20 %")
    assert row(said, "deadline").endswith(f"in {rollout.deadline_at - now}")
    assert "harm / 100" in said
    assert "safe / 100" in said
    assert all(guardrail.metric.replace("_", " ") in said for guardrail in PLAN.guardrails)


def test_what_the_evidence_says_fits_a_terminal_of_80_columns() -> None:
    rollout, now = reach("canary", step=1)
    statistics = shown(rollout, now)
    verdict = judge(rollout, statistics, now)
    said = text(status(rollout, statistics, verdict, now), width=80)

    assert all(row(said, r.metric.replace("_", " ")).endswith("yes") for r in verdict.readings)
    assert " ".join(said.split()).endswith(verdict.reason)


def test_evidence_that_is_old_is_marked_as_such() -> None:
    rollout, now = reach("canary")
    statistics = shown(rollout, now - timedelta(hours=PLAN.stale_hours + 1))
    said = text(status(rollout, statistics, judge(rollout, statistics, now), now))

    assert "evidence: inconclusive" in said
    assert row(said, "error rate").endswith("no")
    assert "more than 24 hours from now" in said


def test_evidence_that_is_missing_is_said() -> None:
    rollout, now = reach("shadow")
    said = text(status(rollout, None, judge(rollout, None, now), now))

    assert "could not be read" in said


@pytest.mark.parametrize(
    ("phase", "serves"), [("promoted", 4), ("rolled_back", 3), ("held", 3), ("superseded", 3)]
)
def test_a_rollout_that_is_over_says_who_serves_and_has_no_deadline(
    phase: Phase, serves: int
) -> None:
    rollout, now = reach(phase)
    said = text(status(rollout, None, rollout.story[-1].looked, now))

    assert phase.replace("_", " ") == row(said, "phase")
    assert f"version {serves}" == row(said, "serves")
    assert "deadline" not in said.split("evidence:")[0].replace(rollout.story[-1].reason, "")
