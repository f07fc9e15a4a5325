"""Waiting on conditions, with what is the case instead said when they do not come."""

import time
from collections.abc import Callable
from typing import Final

from mlplatform.errors import PlatformError

_POLL_SECONDS: Final = 0.5


def wait(condition: Callable[[], bool], seconds: float, told: Callable[[], str] = str) -> float:
    """Return when a condition holds, by the monotonic clock; an API that is away is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        trouble = ""
        try:
            if condition():
                return time.monotonic()
        except PlatformError as error:
            trouble = str(error)
        assert time.monotonic() < deadline, trouble or told()
        time.sleep(_POLL_SECONDS)
