"""How a command of one machine ends: with what went wrong in words, and an exit status."""

from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.text import Text

from mlplatform.errors import PlatformError

_INTERRUPTED: Final = 130
"""What a shell gives a command that Ctrl-C has ended."""
STOPPED: Final = "\nstopped; every process that was started has been ended"


def status_of(
    console: Console, work: Callable[[], int], *, stopped: str = "", interrupted: int = _INTERRUPTED
) -> int:
    """Return the exit status of a command's work: 1 when it cannot be done.

    Args:
        console: Where an error is told.
        work: Returns the status of what it did.
        stopped: Said when a person stops it; empty: nothing.
        interrupted: The status then.
    """
    try:
        return work()
    except PlatformError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        if stopped:
            console.print(stopped)
        return interrupted
