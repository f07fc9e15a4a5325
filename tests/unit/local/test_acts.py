"""The story: acts follow each other as long as there are windows, and claims say what was seen."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.acts import BROKEN, FEED, WORLD, Act, acts, claims, play
from local.told import Day
from mlplatform.contracts import Window
from tests.unit.local import stories
from tests.unit.local.replays import replayed


@dataclass
class Loop:
    """A loop in which nothing happens but what a test says."""

    retrained: bool = False
    rolling_out: bool = False
    lived: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def live(self, window: Window, act: str, withheld: Collection[str] = ()) -> Day:
        self.lived.append((act, tuple(withheld)))
        day = stories.day((window.start - stories.START).days)
        return day.model_copy(update={"act": act, "withheld": tuple(withheld)})


def windows(count: int) -> list[Window]:
    return [stories.window(number) for number in range(count)]


def after(windows: int, loop: Loop, **changes: bool) -> Callable[[Day], None]:
    """Change the loop when so many windows have been lived through."""

    def tell(_: Day) -> None:
        if len(loop.lived) == windows:
            for name, value in changes.items():
                setattr(loop, name, value)

    return tell


@pytest.mark.parametrize(
    ("retrained", "first"), [pytest.param(4, 15, id="early"), pytest.param(16, 16, id="late")]
)
def test_the_feed_stops_on_the_same_day_and_only_when_a_retraining_is_over(
    retrained: int, first: int
) -> None:
    loop = Loop()
    broken: list[int] = []
    planned = acts(loop, "weather", 2, lambda: broken.append(len(loop.lived)))  # type: ignore[arg-type]

    # What a window showed is known before it is asked whether the act is over.
    lived = play(loop, planned, windows(25), after(retrained, loop, retrained=True))  # type: ignore[arg-type]

    stopped = (FEED, ("weather",))
    assert [(WORLD, ())] * first + [stopped, stopped, (FEED, ()), (BROKEN, ())] == loop.lived
    assert [first + 3] == broken
    assert first + 4 == len(lived)


def test_a_use_case_without_a_required_feed_has_two_acts() -> None:
    planned = acts(Loop(), None, 2, lambda: None)  # type: ignore[arg-type]

    assert [WORLD, BROKEN] == [act.title for act in planned]


def test_the_story_ends_with_the_windows_and_starts_no_act_that_has_none_left() -> None:
    loop = Loop()
    begun: list[str] = []
    planned = [
        Act("first", lambda _: False, begin=lambda: begun.append("first")),
        Act("second", lambda _: False, begin=lambda: begun.append("second")),
    ]

    lived = play(loop, planned, windows(3), lambda _: None)  # type: ignore[arg-type]

    assert 3 == len(lived)
    assert ["first"] == begun


def story(**changes: Any) -> dict[str, bool]:
    """Return which claims hold in the full story, with some of it changed."""
    told = stories.full()
    renamed = {stories.WORLD: WORLD, stories.FEED: FEED, stories.BROKEN: BROKEN}
    days = [day.model_copy(update={"act": renamed[day.act]}) for day in told.days]
    run = stories.line(8, "run", "training-1", "registered", "flight_delay version 2")
    days[8] = days[8].model_copy(update={"decisions": (*days[8].decisions, run)})
    given = {"days": days, "rolled": told.rollouts, "traffic": told.traffic}
    given |= {"feed": "weather", "broken": 3}
    found = claims(**given | changes)  # type: ignore[arg-type]
    return {claim.text: claim.held for claim in found}


def test_in_the_full_story_every_claim_holds() -> None:
    assert {True} == set(story().values())
    assert 8 == len(story())


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"days": stories.full().days[:5]}, ("drift is named", "one retraining", "registers")),
        ({"rolled": ()}, ("takes over", "rolled back")),
        ({"broken": 2}, ("takes over", "rolled back")),
        ({"feed": "another"}, ("data fault",)),
        ({"traffic": replayed(lost=1)}, ("No request is lost",)),
        ({"traffic": replayed(equal=9)}, ("what training computes",)),
        ({"traffic": replayed(compared=0, equal=0)}, ("what training computes",)),
    ],
    ids=[
        "the days end early",
        "nothing rolled out",
        "another version is the broken one",
        "another feed",
        "a request lost",
        "a vector differs",
        "no vector compared",
    ],
)
def test_a_claim_that_was_not_so_does_not_hold(
    changes: dict[str, Any], broken: tuple[str, ...]
) -> None:
    found = story(**changes)

    for text in broken:
        (claim,) = [name for name in found if text in name]
        assert not found[claim], claim


def test_where_no_new_version_came_the_broken_one_is_not_told_in_its_place() -> None:
    told = stories.full()
    found = claims(told.days, told.rollouts[1:], told.traffic, feed="weather", broken=3)

    seen = {claim.text: claim.seen for claim in found}
    assert "it was not rolled out" == seen["The new version takes over on evidence"]
    assert "version 3 rolled back after 14 h" in seen["The broken version is rolled back"]


def test_a_second_request_breaks_the_claim_that_the_trigger_asks_once() -> None:
    told = stories.full()
    again = stories.line(9, "retrain", "1f" * 16, "requested")
    days = [day.model_copy(update={"act": WORLD}) for day in told.days]
    days[9] = days[9].model_copy(update={"decisions": (again,)})

    assert not story(days=days)["The trigger asks for one retraining, when windows agree"]
