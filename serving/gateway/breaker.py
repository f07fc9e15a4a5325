"""A circuit breaker: a dead dependency costs a request nothing.

Closed, every call goes through. After some failures in a row it opens: calls are refused without
being tried. After a pause one call goes through as a probe; its success closes the breaker, its
failure doubles the pause. It is a pure state machine over a clock: it makes no calls and has no
timers, and it refuses to judge what a failure is.
"""

import time
from collections.abc import Callable
from typing import Final, Literal

_FAILURES: Final = 5
"""In a row until it opens: one slow answer is no outage, and at 100 requests/s five take 50 ms."""
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0
"""Between two probes: a dependency that is back is used again within a second."""
_PROBE_SECONDS: Final = 1.0
"""A probe without a result for this long is forgotten: whoever made it is gone."""

State = Literal["closed", "open", "half_open"]


class Breaker:
    """The breaker of one dependency.

    Args:
        clock: Seconds; only its differences count.
    """

    __slots__ = ("_clock", "_failures", "_next", "_pause", "state")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause = _FIRST_PAUSE_SECONDS
        self._next = 0.0
        self.state: State = "closed"

    def allows(self) -> bool:
        """Return whether a call may be made now; its result must then be told."""
        if self.state == "closed":
            return True
        now = self._clock()
        if now < self._next:
            return False
        self.state = "half_open"
        self._next = now + _PROBE_SECONDS
        return True

    def succeeded(self) -> None:
        """Tell that a call worked; a late one that was made before it opened counts too."""
        if self._failures:
            self._failures = 0
            self._pause = _FIRST_PAUSE_SECONDS
            self.state = "closed"

    def failed(self) -> None:
        """Tell that a call failed or was too late."""
        self._failures += 1
        if self.state == "closed":
            if self._failures >= _FAILURES:
                self._open()
        elif self.state == "half_open":
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            self._open()
        # Open: a call that was made before it opened; nothing new.

    def _open(self) -> None:
        self.state = "open"
        self._next = self._clock() + self._pause
