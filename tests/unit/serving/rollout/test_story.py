"""The story of a version: true to the ledger, and an answer whatever is asked."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.story_page import write_story
from local.story_text import curve, told
from mlplatform.contracts import (
    Counts,
    Decision,
    Evidence,
    Moments,
    Pair,
    Rollout,
    ServerStatus,
    Stage,
    Statistics,
)
from mlplatform.contracts.rollout import Version
from mlplatform.contracts.usecase.operation import Guardrail, RolloutPlan
from mlplatform.errors import NotFoundError
from mlplatform.ledger import Ledger
from serving.rollout import machine
from serving.rollout.effects import Record
from serving.rollout.store import Look, RolloutStore
from serving.rollout.story import Story, story, tell

NOW = datetime(2026, 1, 2, 14, tzinfo=UTC)
USECASE = "flight_delay"
FIRST, SECOND = Version(version=1, digest="a"), Version(version=2, digest="b")
READY = ServerStatus(state="ready", url="http://127.0.0.1:1")
PLAN = RolloutPlan(
    assignment_unit="flight",
    shadow_hours=1,
    weights=(0.05, 0.5),
    min_exposure=100,
    guardrails=(
        Guardrail(metric="error_rate", margin=0.02),
        Guardrail(metric="loss", margin=0.05),
    ),
    rollback_alpha=0.01,
    promotion_alpha=0.02,
    soak_hours=2,
    deadline_hours=200,
)


def decision(kind: Any, subject: str, verdict: str, reason: str, **evidence: Any) -> Decision:
    return Decision(
        key=f"{kind}/{subject}",
        usecase=USECASE,
        kind=kind,
        subject=subject,
        verdict=verdict,
        reason=reason,
        evidence=evidence,
        actor="pipelines.record",
        at=NOW,
    )


class Platform:
    """A ledger with two versions, and a driver that brings effects about at once."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'ledger.db'}"
        self.ledger, self.store = Ledger(url), RolloutStore(url)
        for version, run in ((1, "run-a"), (2, "run-b")):
            name = f"{USECASE}/{version}"
            for row in (
                decision("gate", f"xgboost-{run}", "accepted", f"better by {version}", run=run),
                decision("registration", name, "registered", f"{name} is signed", run=run),
            ):
                self.ledger.append(row)
        self.ledger.append(decision("route", "1", "promoted", "the first version"))
        self.now = NOW
        self.revision = 0

    def keep(self, rollout: Rollout) -> Rollout:
        self.revision = self.store.write(rollout, revision=self.revision)
        for effect in machine.effects(rollout):
            if isinstance(effect, Record):
                self.ledger.append(effect.decision)
        return rollout

    def roll_out(self, error_rate: float, hours: int) -> Rollout:
        rollout = machine.start(
            USECASE, 1, SECOND, FIRST, PLAN, 2, self.now, "ada", "the winter model"
        )
        self.keep(rollout)
        stages: dict[float, Stage] = {}
        pairs = Moments()
        for _ in range(hours):
            self.now += timedelta(hours=1)
            wanted = rollout.routes[-1]
            if 0 < wanted.weight < 1:
                seen = stages.get(wanted.weight, Stage(epoch=wanted.epoch, weight=wanted.weight))
                stages[wanted.weight] = grown(seen, error_rate)
            elif wanted.shadow:
                pairs = Moments(n=pairs.n + 4_000)
            found = Evidence(
                challenger=READY,
                champion=READY,
                acknowledged=wanted.epoch,
                statistics=Statistics(
                    usecase=USECASE,
                    number=1,
                    version=2,
                    digest="b",
                    at=self.now,
                    newest=dict.fromkeys(("error_rate", "loss"), self.now),
                    stages=tuple(stages.values()),
                    paired=dict.fromkeys(("error_rate", "loss"), pairs),
                ),
            )
            verdict = machine.look(rollout, found, self.now)
            if verdict is not None:
                at = {"at": self.now, "phase": rollout.phase, "step": rollout.step}
                self.store.note(Look(usecase=USECASE, number=1, verdict=verdict, **at))
            rollout = self.keep(machine.turn(rollout, found, verdict, self.now))
        return rollout

    def acknowledge(self, rollout: Rollout, seconds: float) -> None:
        found = Evidence(challenger=READY, champion=READY, acknowledged=rollout.epoch)
        self.keep(machine.turn(rollout, found, None, self.now + timedelta(seconds=seconds)))

    def story(self, version: int) -> Story:
        return tell(self.ledger, self.store, USECASE, version)


def grown(stage: Stage, error_rate: float, entities: int = 4_000) -> Stage:
    """Return a stage after an hour: 1 % errors on the champion, a loss of 0.1 on both."""
    arms = {
        "challenger": (round(entities * stage.weight), error_rate),
        "champion": (round(entities * (1 - stage.weight)), 0.01),
    }
    added = {name: n + getattr(stage.exposed, name) for name, (n, _) in arms.items()}
    errors = {name: round(added[name] * rate) for name, (_, rate) in arms.items()}
    rates = {name: Moments(added[name], errors[name], errors[name]) for name in arms}
    losses = {name: Moments(added[name], 0.1 * added[name], 0.02 * added[name]) for name in arms}
    return Stage(
        epoch=stage.epoch,
        weight=stage.weight,
        exposed=Counts(**added),
        values={"error_rate": Pair(**rates), "loss": Pair(**losses)},
        events={"error_rate": Counts(**errors)},
    )


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


def titles(found: Story) -> list[str]:
    return [passage.title for passage in found.passages]


def printed(found: Story) -> str:
    screen = io.StringIO()
    Console(file=screen, width=80).print(told(found))
    return screen.getvalue()


def test_a_promoted_version_tells_its_way_from_the_gates_to_all_traffic(platform: Platform) -> None:
    platform.roll_out(error_rate=0.01, hours=10)
    found = platform.story(2)

    assert [
        "Gates: xgboost-run-b accepted",
        "Registered",
        "Rollout 1 begins",
        "Its server starts",
        "Verified: answers that nobody sees",
        "To 5 % of traffic",
        "To 50 % of traffic",
        "Soak: 95 % of traffic",
        "Promoted: all traffic",
    ] == titles(found)
    assert found.outcome.startswith("Version 2 was promoted at 2026-01-")
    assert ("ada", "the winter model") == (found.passages[2].actor, found.passages[2].text)


def test_a_broken_version_tells_the_numbers_that_rolled_it_back(platform: Platform) -> None:
    rollout = platform.roll_out(error_rate=0.08, hours=10)
    found = platform.story(2)
    last = found.passages[-1]

    assert "rolled_back" == rollout.phase
    assert "Harm: all traffic goes back" == last.title
    assert last.looked is not None
    assert last.looked.log_harm >= 4.6
    assert "error_rate" in last.text
    assert "8 %" in last.text
    assert last.text.rstrip(".") in found.outcome


def test_the_end_says_how_fast_every_gateway_followed(platform: Platform) -> None:
    rollout = machine.order(
        platform.roll_out(error_rate=0.01, hours=5), "rollback", "ada", "a doubt", platform.now
    )
    platform.keep(rollout)
    before = platform.story(2).outcome
    platform.acknowledge(rollout, seconds=0.4)

    assert "Every gateway" not in before
    assert "a doubt. Every gateway followed within 0.4 s by" in platform.story(2).outcome


def test_a_rollout_under_way_says_what_it_waits_for(platform: Platform) -> None:
    rollout = platform.roll_out(error_rate=0.01, hours=7)
    found = platform.story(2)

    assert rollout.waits_for
    assert f"in phase {rollout.phase}" in found.outcome
    assert found.outcome.endswith(f"it waits for {rollout.waits_for}.")


def test_the_version_before_tells_who_took_its_traffic_and_gave_it_back(platform: Platform) -> None:
    rollout = platform.roll_out(error_rate=0.01, hours=10)
    taken = platform.story(1)
    platform.keep(machine.order(rollout, "rollback", "ada", "second thoughts", platform.now))
    given_back = platform.story(1)

    assert ["First champion: all traffic", "Version 2 takes over"] == titles(taken)[-2:]
    assert "Version 2 takes over at" in taken.outcome
    assert "Back from version 2: all traffic" == titles(given_back)[-1]
    assert "second thoughts" == given_back.passages[-1].text.removeprefix("by hand: ")


def test_a_version_that_was_never_rolled_out_says_how_to_begin(platform: Platform) -> None:
    found = platform.story(2)

    assert ["Gates: xgboost-run-b accepted", "Registered"] == titles(found)
    assert "never rolled out: `make rollout VERSION=2` begins" in found.outcome
    assert () == found.trials


def test_an_unknown_version_is_answered_with_the_known_ones(platform: Platform) -> None:
    with pytest.raises(
        NotFoundError, match="no version 7 of flight_delay; it knows flight_delay/1"
    ):
        platform.story(7)


def test_every_phase_is_a_band_that_begins_where_the_one_before_ended(platform: Platform) -> None:
    platform.roll_out(error_rate=0.01, hours=10)
    (trial,) = platform.story(2).trials

    assert ["pending", "verifying", "shadow", "5 % of traffic", "50 % of traffic", "soak"] == [
        band.title for band in trial.bands if band.title != "promoted"
    ]
    assert [band.end for band in trial.bands[:-1]] == [band.start for band in trial.bands[1:]]


def test_many_looks_are_thinned_and_the_deciding_ones_stay(platform: Platform) -> None:
    platform.roll_out(error_rate=0.08, hours=10)
    seen = platform.store.looks(USECASE, 1)
    copies = [
        look.model_copy(update={"at": look.at - timedelta(seconds=10_000 - index)})
        for look in seen
        for index in range(2_000)
    ]
    found = story(platform.ledger.entries(), [*copies, *seen[-1:]], USECASE, 2)

    assert len(found.trials[0].looks) < 500
    assert seen[-1] == found.trials[0].looks[-1]


@pytest.mark.parametrize("error_rate", [0.01, 0.08], ids=["promoted", "rolled back"])
def test_the_page_and_the_terminal_show_the_numbers_and_no_code_of_others(
    platform: Platform, tmp_path: Path, error_rate: float
) -> None:
    platform.roll_out(error_rate, hours=10)
    found = platform.story(2)
    hostile = "<script>alert('reason')</script> [bold]"
    passages = (found.passages[0].model_copy(update={"text": hostile}), *found.passages[1:])
    found = found.model_copy(update={"passages": passages})
    write_story(tmp_path / "story.html", found)
    page = (tmp_path / "story.html").read_text()
    text = printed(found)

    assert "<script>alert" not in page
    assert "[bold]" in text
    for shown in (page, text):
        assert all(title in shown for title in titles(found))
        assert "error rate" in shown
    assert "roll back at 100" in page
    assert "promote at 50" in page
    assert "safe / 50" in text


def test_a_story_without_a_look_has_no_curve_and_says_why(
    platform: Platform, tmp_path: Path
) -> None:
    platform.roll_out(error_rate=0.01, hours=1)
    write_story(tmp_path / "story.html", platform.story(2))

    assert "Nothing was looked at" in (tmp_path / "story.html").read_text()
    assert "Nothing was looked at" in printed(platform.story(2))


@pytest.mark.parametrize(
    ("logs", "shown"),
    [
        pytest.param([-5.0, 0.0, 0.3, 0.5, 1.0, 9.0], "▁▁▃▄██", id="as they are"),
        pytest.param([float(index) for index in range(1, 13)], "█" * 12, id="above the limit"),
        pytest.param([0.0] * 480 + [1.0], "▁" * 11 + "█", id="the last is always shown"),
    ],
)
def test_a_curve_is_as_tall_as_the_evidence_and_ends_at_the_limit(
    logs: list[float], shown: str
) -> None:
    assert shown == curve(logs, 1.0)
