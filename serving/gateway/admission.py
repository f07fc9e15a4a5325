"""How much a process takes on at once: beyond it requests are refused at once, not served late.

The limit is Little's law with head room: at its peak a use case has peak_qps times the time of a
request open at once. A batch counts for more, because its rows cost more; one request is always
taken. Shadow traffic is given up at half the limit, so it never takes room from a live request. It
refuses a use case whose largest batch would not fit.
"""

import math
from typing import Final, Self

from mlplatform.contracts.usecase.operation import Serving
from mlplatform.errors import SpecError

_HEAD_ROOM: Final = 8
"""Bursts, and processes that take over the traffic of dead ones. At 200 requests/s and 50 ms it
gives 80 open requests; at 0.3 ms of CPU each the last of them waits 24 ms, within the budget."""
_LEAST: Final = 16
"""A rare use case gets bursts too."""
_ROWS: Final = 32
"""Rows of a batch that count as one request: a row costs a thirtieth of a request."""


def limit_of(serving: Serving) -> int:
    """Return the units of work that one process has open at most."""
    open_at_peak = serving.peak_qps * serving.latency_ms.total / 1000
    return max(_LEAST, math.ceil(open_at_peak * _HEAD_ROOM))


def units_of(rows: int) -> int:
    """Return how much a request of so many rows counts."""
    return 1 + (rows - 1) // _ROWS


class Admission:
    """The open work of one use case in this process.

    Args:
        limit: Units that may be open.
    """

    __slots__ = ("limit", "units")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.units = 0

    @classmethod
    def of(cls, usecase: str, serving: Serving) -> Self:
        """Return the admission of a use case.

        Raises:
            SpecError: Its largest batch needs more than the limit: it would block everything else.
        """
        limit, needed = limit_of(serving), units_of(serving.max_rows)
        if needed > limit:
            raise SpecError(
                f"{usecase}: a batch of serving.max_rows {serving.max_rows} is {needed} units of "
                f"work and a process takes on {limit}: set max_rows to at most {limit * _ROWS}, "
                "or raise peak_qps if the traffic is higher"
            )
        return cls(limit)

    def enter(self, units: int) -> bool:
        """Take on work if there is room; return whether it was taken."""
        if self.units and self.units + units > self.limit:
            return False
        self.units += units
        return True

    def leave(self, units: int) -> None:
        """Tell that work has ended."""
        self.units -= units

    @property
    def full(self) -> bool:
        """Whether there is no room for any request."""
        return self.units >= self.limit

    @property
    def busy(self) -> bool:
        """Whether there is no room for work that can be given up."""
        return 2 * self.units >= self.limit
