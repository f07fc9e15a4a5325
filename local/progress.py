"""Live progress of a run: the steps' own lines, with the time since the start.

Steps log `mlplatform.<step> | LEVEL | text`. What else they or their libraries print goes to the
log file only, where a person looks when something breaks.
"""

import re
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

_LINE: Final = re.compile(r"^\s*mlplatform\.(?P<step>\w+) \| (?P<level>[A-Z]+) \| (?P<text>.*)$")
_STYLES: Final = {"WARNING": "yellow", "ERROR": "bold red"}


class Progress:
    """Prints one line per thing done: time since the start, the step, what it says."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def say(self, step: str, text: str, style: str = "") -> None:
        """Print a line under the name of a step."""
        minutes, seconds = divmod(int(self.seconds), 60)
        line = Text(f"{minutes}:{seconds:02d}  ", style="dim")
        line.append(f"{step.replace('_', ' '):<13} ", style="cyan")
        line.append(text, style=style)
        self._console.print(line, soft_wrap=True, highlight=False)

    def follow(self, process: "subprocess.Popen[str]", log: Path) -> list[str]:
        """Show the steps' lines until the process ends; all output goes to `log`.

        Returns:
            The last lines of the output, for a message when the process failed.
        """
        tail: deque[str] = deque(maxlen=15)
        broken = False  # inside a step's multi-line error message
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                tail.append(line.rstrip())
                found = _LINE.match(line)
                if found:
                    broken = found["level"] == "ERROR"
                    self.say(found["step"], found["text"], _STYLES.get(found["level"], ""))
                elif broken and line.strip():
                    self._console.print(Text(line.rstrip(), style="red"), soft_wrap=True)
                else:
                    broken = False
        return list(tail)
