"""Whether online rows kept step with the offline history: the times of one view, and what they say.

Times tell faults apart that values cannot. A stopped materializer leaves one newest row, and all
requests that should have seen later ones are behind. A clock or time zone that is off moves all
times by one constant. An offline history that ends too early makes the online store look ahead.
"""

from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from mlplatform.contracts import OnlineView
from mlplatform.contracts.skew import ViewFinding, ViewSkew
from monitoring.replay import Replay, Times, alive, same

Flags = npt.NDArray[np.bool_]

_MISSED: Final = 3
"""Updates that must be missing before a feed counts as stopped: the newest one or two of a window
may only be on their way."""
_MOST: Final = 0.95
"""Share of the differing rows that must agree on an explanation."""
_QUARTER_HOUR_US: Final = 15 * 60 * 1_000_000
"""Offsets of all time zones are multiples of it (IANA time zone database, since 1972)."""
_LARGEST_OFFSET_US: Final = 26 * 60 * 60 * 1_000_000
"""Between UTC-12 and UTC+14."""
_HOUR_US: Final = 3_600_000_000.0


def older(replay: Replay, view: OnlineView, number: int) -> Flags:
    """Return where the served row was older than the offline one, or absent, [N]."""
    return _alive(replay, view, number) < replay.offline_us[:, number]


def newer(replay: Replay, view: OnlineView, number: int) -> Flags:
    """Return where the served row was newer than the offline one, [N]."""
    return _alive(replay, view, number) > replay.offline_us[:, number]


def shifts(replay: Replay, views: tuple[OnlineView, ...]) -> dict[str, float]:
    """Return by view the constant by which its times are off, hours; only where that is certain.

    A constant difference of full quarter hours may also be a feed that is exactly that late. It is
    a shift where the rows hold the right values nevertheless, where they come from after the
    request, or where views that are written at different intervals are off by the same.
    """
    found: dict[str, int] = {}
    every: dict[str, int] = {}
    certain: set[str] = set()
    for number, view in enumerate(views):
        online, offline = replay.online_us[:, number], replay.offline_us[:, number]
        both = (online > 0) & (offline > 0)
        off = both & (online != offline)
        constant = _constant(online[off], offline[off])
        # A clock that is off is off for every row.
        if constant is None or off.sum() < _MOST * both.sum():
            continue
        found[view.name] = constant
        every[view.name] = int(np.diff(np.unique(offline[off])).min())
        future = off & (online > replay.at_us)
        if future.sum() >= _MOST * off.sum() or _values_agree(replay, view, number, off):
            certain.add(view.name)
    for name, constant in found.items():
        like = {every[other] for other, same in found.items() if same == constant}
        if len(like) > 1:
            certain.add(name)
    return {name: found[name] / _HOUR_US for name in found if name in certain}


def judge(replay: Replay, view: OnlineView, number: int, shift: float | None) -> ViewSkew:
    """Return how the rows of one view kept step.

    Args:
        replay: The requests.
        view: The view.
        number: Its place in the layout.
        shift: From `shifts`.
    """
    online, offline = replay.online_us[:, number], replay.offline_us[:, number]
    behind, ahead = older(replay, view, number), newer(replay, view, number)
    absent = behind & (online == 0)
    both = (behind | ahead) & (online > 0) & (offline > 0)
    lag = float(np.median(offline[both] - online[both])) / 1e6 if both.any() else None
    finding: ViewFinding = "in_step"
    since = None
    detail = "online and offline rows have the same times"
    if shift is not None:
        finding = "time_shift"
        detail = f"its online times are {shift:+g} h off: check the clock and the zone of its feed"
    elif (last := _ended(online, offline, behind)) is not None:
        finding, since = "stopped", last
        detail = (
            f"nothing newer than {last:%Y-%m-%d %H:%M} UTC reached the online store: is its "
            "materializer running?"
        )
    elif (last := _ended(offline, online, ahead)) is not None:
        finding, since = "history_behind", last
        detail = (
            f"the offline history ends at {last:%Y-%m-%d %H:%M} UTC: bring it up to the last "
            "request and audit again"
        )
    elif behind.sum() > ahead.sum():
        finding = "lagging"
        detail = "its rows reach the online store too late"
    elif ahead.any():
        finding = "ahead"
        detail = "the online store had its rows before, offline, they count as known"
    return ViewSkew(
        view=view.name,
        rows=int(((online > 0) | (offline > 0)).sum()),
        older=int(behind.sum()),
        absent=int(absent.sum()),
        newer=int(ahead.sum()),
        median_lag_seconds=lag,
        finding=finding,
        since=since,
        shift_hours=shift,
        detail=detail,
    )


def _alive(replay: Replay, view: OnlineView, number: int) -> Times:
    online = replay.online_us[:, number]
    return np.where(alive(view, online, replay.at_us), online, 0)


def _constant(online: Times, offline: Times) -> int | None:
    """Return what most rows are off by, if time zones may differ by it; else None."""
    if len(np.unique(offline)) < _MISSED:
        return None
    values, counts = np.unique(online - offline, return_counts=True)
    value = int(values[counts.argmax()])
    if counts.max() < _MOST * len(online) or value % _QUARTER_HOUR_US:
        return None
    return value if abs(value) <= _LARGEST_OFFSET_US else None


def _values_agree(replay: Replay, view: OnlineView, number: int, off: Flags) -> bool:
    """Return whether rows with other times hold the offline values all the same."""
    names = {field.name for field in view.fields}
    columns = [place for place, name in enumerate(replay.features) if name in names]
    rows = off & alive(view, replay.online_us[:, number], replay.at_us)
    if not columns or not rows.any():
        return False
    agree = same(replay.served, replay.offline)[rows][:, columns].all(axis=1)
    return bool(agree.mean() >= _MOST)


def _ended(ours: Times, theirs: Times, worse: Flags) -> datetime | None:
    """Return our newest time if we miss all that came after it, and that is more than chance."""
    newest = int(ours.max(initial=0))
    missed = theirs[worse & (theirs > newest)]
    if len(missed) < _MOST * worse.sum() or len(np.unique(missed)) < _MISSED:
        return None
    return datetime.fromtimestamp(newest / 1_000_000, tz=UTC)
