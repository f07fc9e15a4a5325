"""The story that the demonstration tells, in three acts, and whether it held.

The first act is what the data hold. The other two are planted, and the story says so: a feed that
is stopped, and a version that reads its inputs in the wrong unit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from local.followed import Rolled
from local.loop import Loop
from local.replayed import Replayed
from local.told import Claim, Day, Line
from mlplatform.contracts import Window

WORLD: Final = "the world moves"
FEED: Final = "a feed is stopped (planted)"
BROKEN: Final = "a broken version is rolled out (planted)"

_SETTLED: Final = 15
"""Windows that the first act lasts at least. Its rollout ends a day earlier or later, as quickly as
the machine answers; what follows falls on the same days in every run."""
_DAYS: Final = "%d %b"


@dataclass(frozen=True)
class Act:
    """A part of the story.

    Attributes:
        title: What it is about.
        over: Whether it is, after so many windows.
        withheld: Feature views whose feed is stopped.
        begin: What happens before its first window.
    """

    title: str
    over: Callable[[int], bool]
    withheld: tuple[str, ...] = ()
    begin: Callable[[], None] = lambda: None


def acts(
    loop: Loop, feed: str | None, agreeing: int, broken: Callable[[], None]
) -> tuple[Act, ...]:
    """Return the acts.

    Args:
        loop: Says when a retraining and a rollout are over.
        feed: Feature view that is stopped; None: the use case requires none.
        agreeing: For so many windows: as many as must agree before anything is retrained, or
            nobody would see that a fault does not pass for a drift.
        broken: Rolls a broken version out.
    """
    first = Act(WORLD, lambda windows: windows >= _SETTLED and loop.retrained)
    stopped = (
        Act(FEED, lambda windows: windows >= agreeing, withheld=(feed,)),
        Act(FEED, lambda _: True),
    ) if feed else ()  # fmt: skip
    return first, *stopped, Act(BROKEN, lambda _: not loop.rolling_out, begin=broken)


def play(
    loop: Loop, planned: Sequence[Act], windows: Sequence[Window], tell: Callable[[Day], None]
) -> tuple[Day, ...]:
    """Live through the acts, as long as there are windows; return the days."""
    days: list[Day] = []
    for act in planned:
        left = windows[len(days) :]
        if left:
            act.begin()
        for number, window in enumerate(left, 1):
            days.append(loop.live(window, act.title, act.withheld))
            tell(days[-1])
            if act.over(number):
                break
    return tuple(days)


def claims(
    days: Sequence[Day],
    rolled: Sequence[Rolled],
    traffic: Replayed,
    *,
    feed: str | None,
    broken: int | None,
) -> tuple[Claim, ...]:
    """Return what the story says, each with whether it was so.

    Args:
        days: That were lived through.
        rolled: The rollouts.
        traffic: What became of the requests.
        feed: That was stopped; None: none was to be.
        broken: Version that was broken on purpose; None: there was no time for it.
    """
    found = [_drift(days), _once(days), _retrained(days), *_rollouts(rolled, broken)]
    if feed:
        found.append(_feed(days, feed))
    lost = traffic.lost + traffic.refused + traffic.unlogged + traffic.doubled + traffic.mislogged
    told = f"{traffic.answered:,} of {traffic.sent:,} answered, {lost} lost or not logged once"
    found.append(Claim(text="No request is lost, all along", held=not lost, seen=told))
    same = f"{traffic.equal:,} of {traffic.compared:,} vectors equal the point-in-time join"
    held = traffic.equal == traffic.compared > 0
    found.append(Claim(text="Serving computes what training computes", held=held, seen=same))
    return tuple(found)


def _drift(days: Sequence[Day]) -> Claim:
    moved = {
        f"{day.window.start:{_DAYS}}": found.blamed
        for day in days
        for found in day.report.findings
        if day.act == WORLD and found.cause == "input_drift"
    }
    names = sorted({name for blamed in moved.values() for name in blamed})
    seen = f"{', '.join(names)} on {', '.join(moved)}" if moved else "no drift was found"
    return Claim(text="The world moves, and drift is named", held=bool(moved), seen=seen)


def _once(days: Sequence[Day]) -> Claim:
    asked = [row for row in _rows(days, "retrain") if row.verdict == "requested"]
    seen = "; ".join(
        f"{row.window:{_DAYS}}: {row.reason}" for row in asked if row.window is not None
    )
    return Claim(
        text="The trigger asks for one retraining, when windows agree",
        held=len(asked) == 1,
        seen=seen or "it never asked",
    )


def _retrained(days: Sequence[Day]) -> Claim:
    runs = _rows(days, "run")
    sets = [row.reason for row in _rows(days, "training_set")]
    seen = "; ".join([*sets, *(f"{row.verdict}: {row.reason}" for row in runs)])
    held = len(runs) == 1 and runs[0].verdict == "registered"
    text = "The pipeline trains on matured labels and registers what passes its gates"
    return Claim(text=text, held=held, seen=seen or "no pipeline ran")


def _rollouts(rolled: Sequence[Rolled], broken: int | None) -> Iterator[Claim]:
    sound = next((one for one in rolled if one.version != broken), None)
    bad = next((one for one in rolled if one.version == broken), None)
    expected = (
        ("The new version takes over on evidence", sound, "promoted"),
        ("The broken version is rolled back", bad, "rolled_back"),
    )
    for text, one, phase in expected:
        seen = "it was not rolled out"
        if one is not None:
            ended = one.phase.replace("_", " ")
            seen = f"version {one.version} {ended} after {one.hours:g} h: {one.reason}"
        yield Claim(text=text, held=one is not None and one.phase == phase, seen=seen)


def _feed(days: Sequence[Day], feed: str) -> Claim:
    stopped = [day for day in days if day.withheld]
    found = [
        f"{day.window.start:{_DAYS}}: {finding.cause} of {', '.join(finding.blamed) or 'nothing'}"
        for day in stopped
        for finding in day.report.findings
        if finding.watch == "inputs"
    ]
    named = [
        finding
        for day in stopped
        for finding in day.report.findings
        if finding.cause == "data_fault" and feed in finding.blamed
    ]
    asked = [row for day in days if day.act == FEED for row in _rows([day], "retrain")]
    held = bool(stopped) and len(named) == len(stopped)
    held = held and not any(row.verdict == "requested" for row in asked)
    text = "A stopped feed is a data fault, and nothing is trained on it"
    return Claim(text=text, held=held, seen="; ".join(found) or "there was no time for it")


def _rows(days: Sequence[Day], kind: str) -> list[Line]:
    return [row for day in days for row in day.decisions if row.kind == kind]
