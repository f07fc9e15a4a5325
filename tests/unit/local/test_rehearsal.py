"""A replay's rollouts come one after the other, and what did not end as it should is not good."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feature_repo import catalog
from local import rehearsal
from local.rehearsal import Act, Rehearsal, abandon, acts
from local.workspace import Workspace
from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import Phase
from serving.rollout.store import RolloutStore
from tests.unit.serving.rollout.builders import UNDER_WAY, reach

USECASE = "flight_delay"
LINE = {"event_time": "2013-06-01T12:00:00+00:00"}
KEYS = (Path("key"), Path("key.pub"))


@dataclass
class Platform:
    """Serving, as far as a rehearsal asks for it; a test says how the rollout is."""

    usecase: str = USECASE
    rollout: Rollout | None = None
    registry: Any = None
    model: Any = field(default_factory=lambda: SimpleNamespace(version=3))
    clock: Any = field(
        default_factory=lambda: SimpleNamespace(
            seen=lambda _: None, now=lambda: datetime(2013, 6, 1, tzinfo=UTC)
        )
    )
    asked: list[int] = field(default_factory=list)

    def start_rollout(self, version: int, **_: object) -> Rollout:
        self.asked.append(version)
        self.reach("pending", len(self.asked))
        assert self.rollout is not None
        return self.rollout

    def reach(self, phase: Phase, number: int, *, in_force: bool = True) -> None:
        found, _ = reach(phase, in_force=in_force)
        self.rollout = found.model_copy(update={"number": number})


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def rehearse(platform: Platform, told: list[str]) -> Callable[..., Rehearsal]:
    def made(*expected: Phase) -> Rehearsal:
        planned = [
            Act(f"act {number}", lambda number=number: number + 3, phase)  # type: ignore[misc]
            for number, phase in enumerate(expected, 1)
        ]
        return Rehearsal(platform, planned, lambda _, text: told.append(text))  # type: ignore[arg-type]

    return made


def test_rollouts_are_asked_for_in_turn_and_the_replay_ends_with_the_last(
    platform: Platform, rehearse: Callable[..., Rehearsal], told: list[str]
) -> None:
    rehearsed = rehearse("promoted", "rolled_back")
    goes_on = []
    for number, phase in ((1, "promoted"), (2, "rolled_back")):
        goes_on.append(rehearsed.step(dict(LINE)))
        platform.reach(phase, number, in_force=False)  # type: ignore[arg-type]
        goes_on.append(rehearsed.step(line := dict(LINE)))
        assert f"version 4: {phase}" in line["rollout"]
        platform.reach(phase, number)  # type: ignore[arg-type]
    goes_on.append(rehearsed.step(dict(LINE)))

    assert [True, True, True, True, False] == goes_on
    assert [4, 5] == platform.asked
    ended = rehearsed.end()
    assert [("promoted", True), ("rolled_back", True)] == [(r.phase, r.good) for r in ended]
    assert () == rehearsed.missed
    turns = sum(len(rolled.turns) for rolled in ended)
    assert turns + 2 == len(told)  # each once, and what each rollout is about


def test_a_replay_without_rollouts_of_its_own_ends_at_once(
    rehearse: Callable[..., Rehearsal],
) -> None:
    assert not rehearse().step(dict(LINE))


def test_a_rollout_that_the_window_was_too_short_for_is_not_good_and_the_next_one_is_missed(
    platform: Platform, rehearse: Callable[..., Rehearsal]
) -> None:
    rehearsed = rehearse("promoted", "rolled_back")
    rehearsed.step(dict(LINE))
    platform.reach("canary", 1)
    rehearsed.step(dict(LINE))

    (rolled,) = rehearsed.end()
    assert ("canary", False) == (rolled.phase, rolled.good)
    assert ("act 2",) == rehearsed.missed


def test_a_rollout_that_somebody_elses_took_the_place_of_is_missed(
    platform: Platform, rehearse: Callable[..., Rehearsal]
) -> None:
    rehearsed = rehearse("promoted")
    rehearsed.step(dict(LINE))
    platform.reach("promoted", 7)

    assert rehearsed.step(dict(LINE))
    assert () == rehearsed.end()
    assert ("act 1",) == rehearsed.missed


@pytest.mark.parametrize(
    ("trained", "versions"),
    [
        pytest.param(4, [4, 9], id="a newer version"),
        pytest.param(3, [9], id="it serves"),
        pytest.param(2, [9], id="a newer one serves"),
        pytest.param(None, [9], id="none was registered"),
    ],
)
def test_what_was_trained_is_rolled_out_unless_it_serves_and_then_a_broken_version(
    platform: Platform, trained: int | None, versions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "register_broken", lambda *_, **__: SimpleNamespace(version=9))
    found = acts(platform, SimpleNamespace(keys=KEYS, replay=Path()), trained)  # type: ignore[arg-type]

    assert versions == [act.version() for act in found]
    assert ["promoted"] * (len(versions) - 1) + ["rolled_back"] == [act.expected for act in found]


@pytest.mark.parametrize(
    ("phase", "serves"), [(None, 3), ("promoted", 4), ("rolled_back", 3), ("held", 3)]
)
def test_the_broken_version_is_a_copy_of_what_serves_by_then(
    platform: Platform, phase: Phase | None, serves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []

    def register(registry: object, name: str, version: int, **_: object) -> SimpleNamespace:
        del registry, name
        copied.append(version)
        return SimpleNamespace(version=9)

    monkeypatch.setattr(rehearsal, "register_broken", register)
    (act,) = acts(platform, SimpleNamespace(keys=KEYS, replay=Path()), None)  # type: ignore[arg-type]
    if phase is not None:
        platform.reach(phase, 1)
    act.version()

    assert [serves] == copied


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_rollout_that_an_interrupted_replay_left_is_aborted(tmp_path: Path, phase: Phase) -> None:
    workspace = Workspace(tmp_path)
    rollouts = RolloutStore(workspace.ledger_url)
    rollouts.write(reach(phase)[0], revision=0)

    ended = abandon(workspace, catalog.spec(USECASE))

    stored = rollouts.read(USECASE)
    assert stored is not None
    assert ended == stored.rollout
    assert ("rolled_back", "aborted") == (stored.rollout.phase, stored.rollout.story[-1].verdict)


@pytest.mark.parametrize("phase", [None, "promoted", "rolled_back"])
def test_a_rollout_that_is_over_is_left_as_it_is(tmp_path: Path, phase: Phase | None) -> None:
    workspace = Workspace(tmp_path)
    rollouts = RolloutStore(workspace.ledger_url)
    if phase is not None:
        rollouts.write(reach(phase)[0], revision=0)
    before = rollouts.read(USECASE)

    assert None is abandon(workspace, catalog.spec(USECASE))
    assert before == rollouts.read(USECASE)
