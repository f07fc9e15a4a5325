"""Times and windows as whoever starts a run writes them."""

from datetime import UTC, datetime

from mlplatform.contracts import Window
from mlplatform.errors import DataError, PlatformError


def moment(text: str) -> datetime:
    """Return the time that a parameter names, in UTC.

    Raises:
        PlatformError: It is no time, or has no zone.
    """
    try:
        named = datetime.fromisoformat(text)
    except ValueError as error:
        raise PlatformError(f"{text!r} is not a time: write it as 2014-01-02T00:00:00Z") from error
    if named.tzinfo is None:
        raise PlatformError(f"{text!r} has no zone: write it in UTC, ending in Z")
    return named.astimezone(UTC)


def window(start: str, end: str) -> Window:
    """Return the window between two times.

    Raises:
        PlatformError: One of them is no time, or has no zone.
        DataError: The window is empty.
    """
    first, last = moment(start), moment(end)
    if first >= last:
        raise DataError(
            f"the window from {start} to {end} is empty: its end is not after its start"
        )
    return Window(start=first, end=last)


def folder_name(of: Window) -> str:
    """Return a window as the name of a folder; names sort as windows do."""
    return "-".join(f"{at:%Y%m%dT%H%M%S%fZ}" for at in (of.start, of.end))
