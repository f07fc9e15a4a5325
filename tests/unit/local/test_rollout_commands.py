"""What a person asks of a rollout is written into its state, or refused with what is the case."""

import getpass
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feature_repo import catalog
from local import clock
from local.clock import Clock
from local.rollout import main
from local.workspace import Workspace
from mlplatform.contracts import Decision, ModelRef, Rollout
from mlplatform.errors import NotFoundError, RolloutError, ServiceError
from mlplatform.ledger import Ledger
from serving.rollout import machine
from serving.rollout.desk import Orders
from serving.rollout.store import RolloutStore

USECASE = "flight_delay"
NOW = datetime(2013, 6, 1, 12, tzinfo=UTC)


class Registered:
    """The versions 1 to `count`; the first one is the champion. Stands for MLflow's registry."""

    def __init__(self, count: int) -> None:
        self.refs = {number: self._ref(number) for number in range(1, count + 1)}

    def _ref(self, number: int) -> ModelRef:
        return ModelRef(
            name=USECASE,
            version=number,
            digest=str(number) * 64,
            uri="models:/x",
            signature="s",
            run_id="r",
            created=False,
            registered_at=NOW,
        )

    def get(self, name: str, version: int) -> ModelRef:
        if version not in self.refs:
            raise NotFoundError(f"{name} has no version {version}")
        return self.refs[version]

    def newest(self, name: str) -> ModelRef | None:
        del name
        return self.refs[max(self.refs)] if self.refs else None

    def by_alias(self, name: str, alias: str) -> ModelRef | None:
        del name
        return self.refs.get(1) if alias == "champion" else None


class Desk:
    """The orders of one workspace, its state and its ledger."""

    def __init__(self, root: Path, versions: int = 4) -> None:
        self.workspace = Workspace(root)
        self.registry = Registered(versions)
        self.ledger = Ledger(self.workspace.ledger_url)
        self.rollouts = RolloutStore(self.workspace.ledger_url)
        self.driven = False
        spec = catalog.spec(USECASE)
        self.orders = Orders(spec, self.rollouts, self.ledger, lambda: NOW, lambda: self.driven)

    def start(self, version: int | None = None, *, again: bool = False) -> Rollout:
        return self.orders.start(
            self.registry,  # type: ignore[arg-type]  # what it asks of a registry
            version,
            actor="somebody",
            reason="a test",
            again=again,
        )

    @property
    def rollout(self) -> Rollout:
        stored = self.rollouts.read(USECASE)
        assert stored is not None
        return stored.rollout

    def write(self, rollout: Rollout) -> None:
        stored = self.rollouts.read(USECASE)
        self.rollouts.write(rollout, revision=0 if stored is None else stored.revision)

    def settle(self) -> None:
        """What a driver does: the route is in force."""
        self.write(self.rollout.model_copy(update={"committed": self.rollout.epoch}))

    def promote(self) -> None:
        """What a rollout comes to when all goes well."""
        soak = self.rollout.model_copy(update={"phase": "soak"})
        self.write(machine.order(soak, "promote", "somebody", "", NOW))

    def verdicts(self) -> list[tuple[str, str]]:
        rows = self.ledger.entries(USECASE, "rollout")
        return [(row.decision.subject, row.decision.verdict) for row in rows]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_first_rollout_is_against_the_champion(desk: Desk) -> None:
    started = desk.start(2)

    assert desk.rollout == started
    assert (1, 2, 1) == (started.number, started.challenger.version, started.champion.version)
    assert "pending" == started.phase
    assert 2 == started.epoch  # the champion's own route has epoch 1
    assert ("somebody", "a test") == (started.story[0].actor, started.story[0].reason)
    assert NOW == started.started_at


def test_the_newest_version_is_rolled_out_by_default(desk: Desk) -> None:
    assert 4 == desk.start().challenger.version


def test_a_version_that_nobody_registered_is_refused(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match="no version 9"):
        desk.start(9)

    assert desk.rollouts.read(USECASE) is None


def test_where_nothing_is_registered_or_serves_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run `make demo`"):
        Desk(tmp_path / "none", versions=0).start()
    unserved = Desk(tmp_path / "unserved")
    del unserved.registry.refs[1]
    with pytest.raises(NotFoundError, match="promoted by `make serve`"):
        unserved.start(2)


def test_the_version_that_serves_is_refused(desk: Desk) -> None:
    with pytest.raises(RolloutError, match="version 1 of flight_delay serves already"):
        desk.start(1)

    assert desk.rollouts.read(USECASE) is None


@pytest.mark.parametrize(("asked", "ended"), [("rollback", "rolled back"), ("promote", "promoted")])
def test_a_model_that_had_its_rollout_gets_another_one_only_where_that_is_meant(
    desk: Desk, asked: str, ended: str
) -> None:
    for version in (2, 3):  # the last one may serve, which is another reason
        desk.start(version)
        if asked == "promote":
            desk.promote()
        else:
            desk.orders.give("rollback", actor="somebody", reason="")

    with pytest.raises(RolloutError, match=f"was {ended} on 2013-06-01 12:00 UTC .* AGAIN=1"):
        desk.start(2)
    assert 3 == desk.rollout.challenger.version

    assert 2 == desk.start(2, again=True).challenger.version


def test_what_no_driver_has_recorded_yet_counts_as_well(desk: Desk) -> None:
    desk.start(2)
    desk.orders.give("rollback", actor="somebody", reason="")

    with pytest.raises(RolloutError, match="version 2 was rolled back"):
        desk.start(2)


def test_the_same_bytes_under_another_number_are_the_same_model(desk: Desk) -> None:
    desk.start(2)
    desk.orders.give("abort", actor="somebody", reason="")
    twin = desk.registry.refs[3].model_copy(update={"digest": desk.registry.refs[2].digest})
    desk.registry.refs[3] = twin
    desk.start(4)

    with pytest.raises(RolloutError, match=r"the model of version 3 was rolled back .* version 2"):
        desk.start(3)


def test_the_first_champion_is_refused_when_a_later_version_serves(desk: Desk) -> None:
    first = Decision(
        key="flight_delay/route/1",
        usecase=USECASE,
        kind="route",
        subject="1",
        verdict="promoted",
        reason="the first version",
        evidence={"digest": "1" * 64},
        actor="local",
        at=NOW,
    )
    desk.ledger.append(first)
    desk.start(2)
    desk.promote()
    desk.start(3)

    with pytest.raises(RolloutError, match=r"was promoted .*the first version"):
        desk.start(1)


def test_a_newer_version_supersedes_the_rollout_under_way(desk: Desk) -> None:
    first = desk.start(2)
    second = desk.start(3)

    assert (2, 1) == (second.number, second.champion.version)
    assert second.epoch > first.epoch
    assert [("2", "started"), ("2", "superseded")] == desk.verdicts()
    with pytest.raises(RolloutError, match="rolls out version 3 itself"):
        desk.start(3)


def test_a_rollout_begins_when_the_one_before_has_given_its_traffic_back(desk: Desk) -> None:
    desk.start(2)
    desk.driven = True
    seen: list[int] = []

    def begin() -> None:
        seen.append(desk.start(3).challenger.version)

    thread = threading.Thread(target=begin)
    thread.start()
    wait(lambda: desk.rollout.phase == "superseded")
    time.sleep(0.1)
    waited = list(seen)
    desk.settle()
    thread.join(10)

    assert ([], [3]) == (waited, seen)


def test_a_rollout_that_does_not_come_to_rest_is_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.rollout.desk._SETTLE_SECONDS", 0.1)
    desk.start(2)
    desk.driven = True

    with pytest.raises(ServiceError, match="superseded but not at rest"):
        desk.start(3)


def test_an_order_is_decided_anew_when_the_driver_was_faster(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start(2)
    write = desk.rollouts.write
    raced: list[int] = []

    def slower(rollout: Rollout, *, revision: int) -> int:
        if not raced:
            raced.append(revision)
            moved = desk.rollout.model_copy(update={"phase": "verifying"})
            write(moved, revision=revision)
        return write(rollout, revision=revision)

    monkeypatch.setattr(desk.rollouts, "write", slower)
    desk.orders.give("pause", actor="somebody", reason="")

    assert ("verifying", True) == (desk.rollout.phase, desk.rollout.paused)


def test_the_servers_time_runs_on_and_never_back(tmp_path: Path) -> None:
    time_of = Clock(NOW, tmp_path / "clock.json")
    time_of.seen(NOW + timedelta(days=2))
    time_of.seen(NOW + timedelta(days=1))

    assert timedelta() <= time_of.now() - (NOW + timedelta(days=2)) < timedelta(minutes=1)
    assert abs(clock.read(tmp_path / "clock.json") - time_of.now()) < timedelta(seconds=10)
    assert abs(clock.read(tmp_path / "none") - datetime.now(UTC)) < timedelta(seconds=10)


# --- The command line ----------------------------------------------------------------------------


def run(desk: Desk, *arguments: str) -> int:
    return main([*arguments, "--root", str(desk.workspace.root)])


def test_status_shows_how_far_the_rollout_is(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.start(2)

    assert 0 == run(desk, "status")
    said = capsys.readouterr().out
    assert "flight_delay/1: version 2 after 1" in said
    assert "pending" in said
    assert "started, by somebody: a test" in said
    assert "epoch 2, not every gateway follows it yet" in said
    assert "no servers run in" in said

    with desk.workspace.serving_lock():
        assert 0 == run(desk, "status")
    assert "no servers run in" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "phase", "verdict"),
    [
        ("rollback", "rolled_back", "rolled_back"),
        ("abort", "rolled_back", "aborted"),
        ("pause", "pending", "paused"),
    ],
)
def test_an_order_is_written_with_who_gave_it_and_why(
    desk: Desk, capsys: pytest.CaptureFixture[str], command: str, phase: str, verdict: str
) -> None:
    desk.start(2)

    assert 0 == run(desk, command, "--reason", "it's [bold] & $HOME")
    last = desk.rollout.story[-1]
    assert (phase, verdict, getpass.getuser()) == (last.phase, last.verdict, last.actor)
    assert last.reason.endswith("it's [bold] & $HOME")
    said = capsys.readouterr().out
    assert "it's [bold] & $HOME" in said
    assert "it goes on with `make serve`" in " ".join(said.split())


def test_a_paused_rollout_is_resumed_and_one_that_is_not_is_refused(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.start(2)
    run(desk, "pause")

    assert 0 == run(desk, "resume")
    assert not desk.rollout.paused
    assert 1 == run(desk, "resume")
    assert "where resume is not possible: it is not paused" in capsys.readouterr().out


def test_what_cannot_be_promoted_says_why(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.start(2)

    assert 1 == run(desk, "promote")
    assert "its server is not verified" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "rollback"])
def test_without_a_rollout_the_command_that_begins_one_is_named(
    desk: Desk, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert 1 == run(desk, command)
    assert "ask for one with `make rollout`" in capsys.readouterr().out


def test_a_workspace_where_nothing_ran_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == main(["status", "--root", str(tmp_path / "nothing")])
    assert "there is no ledger" in capsys.readouterr().out


def test_why_tells_the_story_and_leaves_a_page(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.start(2)
    desk.start(3)

    assert 0 == run(desk, "why", "--version", "2")
    assert "superseded" in capsys.readouterr().out
    assert (desk.workspace.root / "why-flight_delay-v2.html").exists()
    assert 1 == run(desk, "why", "--version", "9")
    assert "knows no version 9" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["rollout", "status", "promote", "rollback", "abort", "pause", "resume", "why"],
)
def test_every_command_has_a_target_and_says_what_it_takes(
    root: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert f"-m local.rollout {command} " in (root / "Makefile").read_text()
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert 0 == ended.value.code
    assert "--root" in capsys.readouterr().out


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
