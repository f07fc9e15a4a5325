"""A container's shell whose container is this machine."""

from pathlib import Path

from deploy.backups.shell import Shell
from deploy.target import Target


class LocalShell(Shell):
    """Runs programs here.

    Args:
        root: What the container calls /volume.
        python: What the container calls python.
    """

    def __init__(self, root: Path = Path("/volume"), python: str = "python") -> None:
        super().__init__(Target("none"), "pod", "container")
        self._root, self._python = root, python

    def _arguments(self, command: tuple[str, ...]) -> list[str]:
        mapped = {"/volume": str(self._root), "python": self._python}
        return [mapped.get(word, word) for word in command]
