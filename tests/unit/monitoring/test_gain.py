"""A run brought something when its model serves; until its rollout has ended that is open."""

from pathlib import Path
from typing import Any

import pytest

from mlplatform.contracts import Decision
from mlplatform.contracts.decision import DecisionKind
from mlplatform.ledger import Ledger
from monitoring.gain import gain
from tests.unit.monitoring.signals import USECASE, at


class Story:
    """A ledger that is told what happened, one word each."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(url)
        self.rows = 0

    def tell(
        self,
        kind: DecisionKind,
        subject: str,
        verdict: str,
        usecase: str = USECASE,
        **evidence: Any,
    ) -> None:
        self.rows += 1
        self.ledger.append(
            Decision(
                key=str(self.rows),
                usecase=usecase,
                kind=kind,
                subject=subject,
                verdict=verdict,
                reason="a test",
                evidence=evidence,
                actor="test",
                at=at(self.rows),
            )
        )

    def ran(self, run: str, version: int | None = None, verdict: str = "registered") -> None:
        if version is not None:
            subject = f"{USECASE}/{version}"
            self.tell("registration", subject, verdict, run=run, version=version)
        self.tell("run", run, "registered" if version else verdict, run=run)

    def rolled(self, version: int, *phases: str, usecase: str = USECASE) -> None:
        for phase in phases:
            self.tell("rollout", str(version), "a turn", usecase, phase=phase, rollout=1)

    def gain(self, run: str) -> bool | None:
        return gain(self.ledger, USECASE, run)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.parametrize(
    ("phases", "gained"),
    [
        ((), None),
        (("pending",), None),
        (("pending", "verifying", "shadow", "canary"), None),
        (("canary", "soak"), None),
        (("soak", "promoted"), True),
        (("canary", "rolled_back"), False),
        (("canary", "held"), False),
        (("canary", "superseded"), False),
        (("soak", "promoted", "rolled_back"), False),
        (("held", "pending"), None),
        (("held", "pending", "promoted"), True),
    ],
)
def test_a_registered_model_gained_when_its_newest_rollout_promoted_it(
    story: Story, phases: tuple[str, ...], gained: bool | None
) -> None:
    story.ran("r1", 1)
    story.ran("r2", 2)
    story.rolled(1, "promoted")
    story.rolled(2, "promoted", usecase="another")
    story.rolled(2, *phases)

    assert gained is story.gain("r2")


@pytest.mark.parametrize("phase", ["pending", "promoted", "rolled_back"])
def test_a_version_that_a_later_one_overtook_before_its_rollout_gained_nothing(
    story: Story, phase: str
) -> None:
    story.ran("r9", 9)
    story.ran("r10", 10)
    story.rolled(10, phase)

    assert False is story.gain("r9"), "or its request would be in flight for ever"
    story.rolled(9, "promoted")
    assert True is story.gain("r9"), "its own rollout tells more"


@pytest.mark.parametrize("verdict", ["rejected", "failed", "duplicate"])
def test_a_run_that_left_no_model_gained_nothing(story: Story, verdict: str) -> None:
    story.ran("r1", verdict=verdict)

    assert False is story.gain("r1")


def test_a_run_that_has_not_ended_is_open(story: Story) -> None:
    story.tell("retrain", "key", "running", run="r1")
    story.ran("r2", verdict="rejected")

    assert None is story.gain("r1")


def test_the_first_champion_of_all_gained_without_a_rollout(story: Story) -> None:
    story.ran("r1", 1)
    assert None is story.gain("r1")
    story.tell("route", "1", "promoted")

    assert True is story.gain("r1")


def test_an_earlier_runs_model_again_is_no_gain_though_it_serves(story: Story) -> None:
    story.ran("r1", 1)
    story.rolled(1, "promoted")
    story.ran("r2", 1, verdict="unchanged")

    assert False is story.gain("r2")
    assert True is story.gain("r1")


def test_a_run_that_finds_what_it_registered_before_it_was_cut_off_made_it(story: Story) -> None:
    story.ran("r1", 1, verdict="unchanged")
    story.rolled(1, "promoted")

    assert True is story.gain("r1")
