"""The search behind the point-in-time join, on plain arrays: which row was the newest known one.

It exists apart from the join so that the part that must be both exact and fast is small. A piece
of history is given in segments (the rows of one key, next to each other); within a segment rows
are in the order of `known`, the time from which a row may be used, then of event time, then of
creation time. For a label at time t the usable rows are then a prefix of the segment, found by
binary search, and the answer is the prefix's row with the latest event time.

Among rows of one event time the later one in this order also has the later creation time, so the
walk of DESIGN.md ("keep only rows that set a new maximum") needs the running maximum of the event
time alone. It refuses nothing: callers check and sort (`in_order`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

NEVER: Final = np.iinfo(np.int64).max
"""`known` of a row that no label may see: an event or creation time is missing."""

_CODE_LIMIT: Final = 2**62
"""Above it, a segment's number and a time no longer share one int64."""


@dataclass(frozen=True, slots=True)
class History:
    """Rows of one piece; times in microseconds since 1970, all arrays of one length.

    Attributes:
        known: From when a row may be used; `NEVER` where it may not.
        event: Event time.
        created: Creation time; the tie-break between rows of one event time.
        starts: First row of each segment, rising from 0.
    """

    known: Ints
    event: Ints
    created: Ints
    starts: Ints

    @property
    def ends(self) -> Ints:
        """Return the row after the last of each segment."""
        return np.append(self.starts[1:], len(self.known))


def in_order(history: History) -> bool:
    """Return whether each segment's rows are in the order of (known, event, created)."""
    known = history.known
    back = known[1:] < known[:-1]
    heads = history.starts[1:] - 1
    back[heads] = False
    if back.any():
        return False
    level = known[1:] == known[:-1]
    level[heads] = False
    ties = np.flatnonzero(level)
    before, after = history.event[ties], history.event[ties + 1]
    created = history.created[ties + 1] < history.created[ties]
    return not bool(((after < before) | ((after == before) & created)).any())


def leaders(history: History) -> Ints | None:
    """Return, for each row, the row with the latest event time up to it in its segment.

    Rows of equal event time: the last one leads. None means that each row leads itself, which is
    so whenever no row arrived after a row with a later event time.
    """
    event, starts = history.event, history.starts
    back = event[1:] < event[:-1]
    back[starts[1:] - 1] = False
    if not back.any():
        return None
    lowest = int(event.min())
    span = int(event.max()) - lowest + 1
    if span * len(starts) < _CODE_LIMIT:
        code = event - lowest
    else:
        # Times too far apart to share an int64 with a segment's number: ranks are dense.
        code = np.unique(event, return_inverse=True)[1].astype(np.int64)
        span = len(event)
    # Lifting each segment above the one before makes one running maximum serve them all.
    lift = np.repeat(np.arange(len(starts), dtype=np.int64) * span, history.ends - starts)
    code += lift
    rows = np.arange(len(event), dtype=np.int64)
    rows[code < np.maximum.accumulate(code)] = 0
    return np.maximum.accumulate(rows)


def newest_known(history: History, segment: Ints, time: Ints) -> Ints:
    """Return the row that counts for each label, or -1.

    Args:
        history: A piece in order (`in_order`).
        segment: Segment of each label's key.
        time: Time of each label; a row counts when `known <= time`.
    """
    if not len(segment):
        return np.empty(0, dtype=np.int64)
    first = history.starts[segment]
    end = history.ends[segment]
    rows = first - 1
    step = 1 << int((end - first).max()).bit_length() - 1
    while step:
        # Halving steps towards the last usable row; a step beyond the segment is not taken.
        ahead = rows + step
        usable = history.known.take(ahead, mode="clip") <= time
        usable &= ahead < end
        rows += usable * step
        step >>= 1
    none = rows < first
    leader = leaders(history)
    if leader is not None:
        rows = leader[np.maximum(rows, 0)]
    rows[none] = -1
    return rows
