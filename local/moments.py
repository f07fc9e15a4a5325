"""The times that the commands of one machine look from."""

import argparse
from datetime import UTC, datetime
from typing import Final

from feature_repo.catalog import UseCaseCode

_SHARE: Final = 1 / 4
"""Of the source's span: enough before it to learn from, and enough after it to live through."""


def moment_of(text: str) -> datetime:
    """Return a time of the command line, UTC unless it says otherwise.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 2013-04-01 or 2013-04-01T12:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def default_moment(code: UseCaseCode) -> datetime:
    """Return the last midnight of the first quarter of the source's time, at most now."""
    now = datetime.now(UTC)
    times = code.labels(code.read(datetime.fromtimestamp(0, UTC), now))["event_timestamp"]
    first, last = times.min(), times.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return now
    moment = first + _SHARE * (min(last, now) - first)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
