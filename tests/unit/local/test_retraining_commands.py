"""What a person asks of the trigger is done within its limits, once, and shown."""

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.clock import Clock
from local.orchestrator import LocalOrchestrator
from local.progress import Progress
from local.retraining import main
from local.workspace import Workspace
from mlplatform.contracts.retrain import History
from mlplatform.contracts.review import ReviewItem
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from monitoring.requests import RequestStore
from tests.unit.local.retraining_processes import orchestrator
from tests.unit.monitoring.signals import USECASE, at, began, last, reach
from tests.unit.people.nameless import take_the_name

Run = Callable[..., str]


class Desk:
    """A workspace with a ledger, whose pipelines are the stand-in."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.ledger = Ledger(self.workspace.ledger_url)
        self.store = RequestStore(self.workspace.ledger_url)
        Clock(at(5), self.workspace.clock)

    @property
    def history(self) -> History:
        stored = self.store.read(USECASE)
        assert stored is not None
        return stored.history

    @property
    def runs(self) -> int:
        effects = self.workspace.root / "effects"
        return len(effects.read_text().splitlines()) if effects.exists() else 0

    def verdicts(self) -> list[str]:
        return [row.decision.verdict for row in self.ledger.entries(USECASE, "retrain")]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    def stand_in(workspace: Workspace, _progress: Progress) -> LocalOrchestrator:
        return orchestrator(workspace.root)

    monkeypatch.setattr("local.retraining.LocalOrchestrator", stand_in)
    return Desk(tmp_path)


@pytest.fixture
def run(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; return what it said, on one line."""

    def ran(*arguments: str, code: int = 0) -> str:
        assert code == main([*arguments, "--root", str(desk.workspace.root)])
        return " ".join(capsys.readouterr().out.split())

    return ran


def test_what_a_model_must_learn_of_is_trained_on_here_and_followed_to_its_end(
    desk: Desk, run: Run
) -> None:
    said = run("retrain", "--reason", "it's a [bold] route & $HOME")

    assert 1 == desk.runs
    assert ["no_gain", "requested", "running", "submitted"] == sorted(desk.verdicts())
    asked = last(desk.history)
    assert f"it's a [bold] route & $HOME ({getpass.getuser()})" == asked.request.why
    assert at(5).date() == asked.request.asked_at.date()  # the servers' time
    assert f"request {asked.request.key} no_gain" in said
    assert "without gain 1 runs in a row" in said


def test_asked_again_at_once_the_cooldown_holds(desk: Desk, run: Run) -> None:
    run("retrain", "--reason", "a new route")
    said = run("retrain", "--reason", "another one")

    assert 1 == desk.runs
    assert "decision waits, cooldown" in said
    assert "another one" in said


def test_servers_in_another_process_are_not_in_the_way(desk: Desk, run: Run) -> None:
    with desk.workspace.lock(), desk.workspace.serving_lock():
        run("retrain", "--reason", "a new route")

    assert 1 == desk.runs


def test_a_run_that_uses_the_workspace_is_waited_for_by_the_person(desk: Desk, run: Run) -> None:
    with desk.workspace.lock():
        said = run("retrain", "--reason", "a new route", code=1)

    assert "another run is using" in said
    assert "ready" == last(desk.history).phase
    run("retrain")  # goes on with what was asked for
    assert (1, "no_gain") == (desk.runs, last(desk.history).phase)


def test_without_a_reason_and_without_a_request_nothing_is_trained(desk: Desk, run: Run) -> None:
    assert "say what the model of flight_delay must learn of" in run("retrain", code=1)
    assert 0 == desk.runs


@pytest.mark.parametrize(
    ("command", "phase", "runs"), [("approve", "no_gain", 1), ("deny", "denied", 0)]
)
def test_a_person_answers_the_request_that_waits(
    desk: Desk, run: Run, command: str, phase: str, runs: int
) -> None:
    desk.store.write(reach("awaiting_approval"), revision=0)
    assert "next: `make approve` or `make deny`" in run("trigger")

    run(command, "--reason", "checked")

    assert (phase, runs) == (last(desk.history).phase, desk.runs)
    assert {"approve": "approved", "deny": "denied"}[command] in desk.verdicts()


def test_a_user_without_a_name_may_look_and_gives_no_order(
    desk: Desk, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.store.write(reach("awaiting_approval"), revision=0)
    take_the_name(monkeypatch)

    assert "next: `make approve` or `make deny`" in run("trigger")
    assert "no decision of flight_delay waits for a person" in run("review")
    assert "error: this user has no name" in run("approve", code=1)
    assert ("awaiting_approval", 0) == (last(desk.history).phase, desk.runs)


def test_the_trigger_follows_a_run_whose_end_nobody_has_told_it(desk: Desk, run: Run) -> None:
    desk.store.write(reach("submitted"), revision=0)

    said = run("trigger")

    assert "failed" == last(desk.history).phase  # no process and no row knows of the run
    assert f"request {last(desk.history).request.key} failed" in said


def test_a_trigger_that_was_never_asked_says_so(run: Run) -> None:
    assert "no window has been judged and no event told" in run("trigger")
    assert "was never asked" in run("approve", code=1)
    assert "was never asked" in run("reset", code=1)


def test_a_person_lets_the_trigger_go_on(desk: Desk, run: Run) -> None:
    desk.store.write(began(without_gain=3), revision=0)

    assert "without gain 0 runs in a row" in run("reset", "--reason", "the gate was wrong")
    assert ["reset"] == desk.verdicts()


def test_without_a_ledger_the_next_step_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == main(["trigger", "--root", str(tmp_path / "none")])
    assert "there is no ledger" in capsys.readouterr().out


def test_a_decision_that_waits_is_shown_and_answered(desk: Desk, run: Run) -> None:
    reviews = ReviewStore(desk.workspace.ledger_url)
    item = ReviewItem(
        usecase=USECASE,
        request_id="r-[1]",
        event_time=at(1),
        entity="2013-07-01-UA-1-EWR",
        request="{}",
        version=2,
        score=0.512,
        decision=True,
        reason="uncertain",
        queued_at=at(2),
    )
    reviews.add([item])

    said = run("review")
    assert "r-[1] 2013-07-01 01:00 0.512 2 uncertain 1 wait" in said
    assert "say what the outcome was" in run("review", "--request", "r-[1]", code=1)
    assert "r-[1]: 1, says" in run("review", "--request", "r-[1]", "--label", "1")
    assert "no decision of flight_delay waits for a person" in run("review")
    (answered,) = reviews.labels(USECASE, datetime.now(UTC))
    assert (1, getpass.getuser(), at(5).date()) == (
        answered.label,
        answered.reviewer,
        answered.reviewed_at and answered.reviewed_at.date(),
    )
