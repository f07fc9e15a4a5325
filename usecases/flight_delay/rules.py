"""The rules of `flight_delay`: the answer when no model answers in time.

They read only what the request itself says, so that they need no other service. They refuse
nothing: the gateway has checked the request.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from usecases.flight_delay.request import new_york_clock

_FIRST_HOUR: Final = 5
_LAST_HOUR: Final = 21
_AT_FIRST: Final = 0.10
_AT_LAST: Final = 0.39
"""Share of late flights at the first and at the last full hour of departures, New York's clock.
Delays build up over the day, nearly in a straight line (tests/data holds it against the data)."""


def score(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Return the share of late flights [N] at the local hour of departure.

    Args:
        columns: `event_timestamp`, UTC, datetime64 of any unit.
    """
    local = new_york_clock(np.asarray(columns["event_timestamp"]).astype("datetime64[s]"))
    hour = (local - local.astype("datetime64[D]")).astype(np.float64) / 3600
    shares: npt.NDArray[np.float64] = np.interp(
        hour, (_FIRST_HOUR, _LAST_HOUR), (_AT_FIRST, _AT_LAST)
    )
    return shares.astype(np.float32)
