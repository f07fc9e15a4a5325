"""Rollouts that the loop asked for are told turn by turn, each once; others are not its own."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from local.followed import Followed
from mlplatform.contracts import Rollout
from mlplatform.contracts.rollout import Phase
from tests.unit.serving.rollout.builders import UNDER_WAY, reach


@dataclass
class Platform:
    """Serving, as far as a loop asks it for rollouts; a test says how the rollout is."""

    rollout: Rollout | None = None
    asked: list[int] = field(default_factory=list)

    def start_rollout(self, version: int, **_: object) -> Rollout:
        self.asked.append(version)
        self.reach("pending", len(self.asked))
        assert self.rollout is not None
        return self.rollout

    def reach(self, phase: Phase, number: int) -> None:
        found, _ = reach(phase)
        self.rollout = found.model_copy(update={"number": number})


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def followed(platform: Platform, told: list[str]) -> Followed:
    return Followed(platform, lambda _, text: told.append(text))  # type: ignore[arg-type]


def test_each_turn_is_told_once_and_the_line_of_progress_says_where_it_stands(
    platform: Platform, followed: Followed, told: list[str]
) -> None:
    followed.ask(4, "a newer version")
    platform.reach("canary", 1)
    line: dict[str, Any] = {}
    followed.watch(line)
    followed.watch({})

    assert platform.rollout is not None
    assert "version 4: canary" in line["rollout"]
    assert ["a newer version"] == told[:1]
    assert 1 + len(platform.rollout.story) == len(told)


def test_rollouts_are_kept_with_how_they_went(platform: Platform, followed: Followed) -> None:
    for number, (title, phase) in enumerate((("new", "promoted"), ("broken", "rolled_back")), 1):
        followed.ask(number + 3, title)
        platform.reach(phase, number)  # type: ignore[arg-type]
        followed.tell()

    assert [("new", "promoted"), ("broken", "rolled_back")] == [
        (rolled.title, rolled.phase) for rolled in followed.rolled
    ]
    assert not followed.under_way


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_rollout_that_is_not_over_is_under_way(
    platform: Platform, followed: Followed, phase: Phase
) -> None:
    platform.reach(phase, 1)

    assert followed.under_way


def test_somebody_elses_rollout_is_not_told_as_ours(
    platform: Platform, followed: Followed, told: list[str]
) -> None:
    platform.reach("canary", 7)
    line: dict[str, Any] = {}
    followed.watch(line)

    assert {} == line
    assert [] == told
    assert () == followed.rolled
