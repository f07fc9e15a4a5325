"""What a command says while it works: one line for each step, with the seconds that it took."""

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.text import Text

_WIDTH: Final = 16


class Progress:
    """Prints the lines of one command.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def step(self, name: str, work: Callable[[], str]) -> None:
        """Do a step and print what it did, with its seconds."""
        started = time.perf_counter()
        with self.console.status(f"{name}…"):
            done = work()
        self.say(name, done, seconds=time.perf_counter() - started)

    def say(self, name: str, text: str, *, seconds: float | None = None, style: str = "") -> None:
        """Print a line under the name of a step."""
        minutes, rest = divmod(int(self.seconds), 60)
        line = Text(f"{minutes}:{rest:02d}  ", style="dim")
        line.append(f"{name:<{_WIDTH}} ", style="cyan")
        line.append(text, style=style)
        if seconds is not None:
            line.append(f"  {seconds:.1f} s", style="dim")
        self.console.print(line, soft_wrap=True, highlight=False)
