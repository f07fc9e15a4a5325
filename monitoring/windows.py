"""Which windows there are: whole multiples of a length since 1970, so that everybody cuts alike.

Two monitors, or one that was restarted, judge the same windows, and none of them overlap. Pure.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from mlplatform.contracts import Window

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EVIDENCE: Final = timedelta(days=7)
_FEWEST: Final = 7
"""Windows of evidence, where seven of them are longer than the days above."""


def windows(length_hours: float, since: datetime, until: datetime) -> tuple[Window, ...]:
    """Return the whole windows in `[since, until]`, oldest first."""
    length = timedelta(hours=length_hours)
    first, end = -((_EPOCH - since) // length), (until - _EPOCH) // length
    return tuple(
        Window(start=_EPOCH + number * length, end=_EPOCH + (number + 1) * length)
        for number in range(first, end)
    )


def due(length_hours: float, after: datetime, now: datetime, most: int) -> tuple[Window, ...]:
    """Return the newest windows that have ended, oldest first.

    Args:
        length_hours: Of each.
        after: When the first request came, or the first window that was judged began.
        now: The time.
        most: Of them; the newest count, as what came long before says nothing of today.
    """
    length = timedelta(hours=length_hours)
    earliest = now - (most + 1) * length
    return windows(length_hours, max(after, earliest), now)[-most:]


def holding(length_hours: float, moment: datetime) -> Window:
    """Return the window that a moment lies in."""
    length = timedelta(hours=length_hours)
    start = _EPOCH + ((moment - _EPOCH) // length) * length
    return Window(start=start, end=start + length)


def matured(length_hours: float, delay_hours: float, by: datetime) -> Window:
    """Return the newest window of whose requests all labels are due by then."""
    length = timedelta(hours=length_hours)
    end = holding(length_hours, by - timedelta(hours=delay_hours)).start
    return Window(start=end - length, end=end)


def evidence(window: Window) -> Window:
    """Return the stretch that a window's performance is measured on.

    One day has too few positives for an interval. So it is the seven days, or seven windows if
    these are longer, that end with the window.
    """
    length = max(_EVIDENCE, _FEWEST * (window.end - window.start))
    return Window(start=window.end - length, end=window.end)
