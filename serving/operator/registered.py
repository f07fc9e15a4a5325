"""What the registry's aliases say, asked in a thread of its own.

A registry that hangs must not keep anybody from looking at a rollout: whoever looks reads what was
found last.
"""

import logging
import threading
from typing import Final, NamedTuple

from mlplatform.clients.registry import Registry
from mlplatform.errors import PlatformError

_log: Final = logging.getLogger(__name__)


class Marked(NamedTuple):
    """The versions that the aliases name; None: nobody has it."""

    challenger: int | None
    champion: int | None


class Registered(threading.Thread):
    """Asks for the aliases of a use case again and again."""

    def __init__(self, registry: Registry, usecase: str, every_seconds: float) -> None:
        super().__init__(name=f"aliases of {usecase}", daemon=True)
        self.marked: Marked | None = None
        """None: the registry has not answered yet."""
        self.trouble = ""
        self._registry, self._usecase, self._every = registry, usecase, every_seconds
        self._leave = threading.Event()

    def let_go(self) -> None:
        """End the thread; does not wait for an answer that is under way."""
        self._leave.set()

    def run(self) -> None:
        """Ask until it is let go."""
        while not self._leave.is_set():
            try:
                self.marked = Marked(self._version("challenger"), self._version("champion"))
                trouble = ""
            except PlatformError as error:
                trouble = str(error)
            except Exception as error:  # noqa: BLE001 (a thread that ends is missed by nobody)
                trouble = f"{type(error).__name__}: {error}"
            if trouble and trouble != self.trouble:
                _log.warning("%s: %s", self.name, trouble)
            self.trouble = trouble
            self._leave.wait(self._every)

    def _version(self, alias: str) -> int | None:
        found = self._registry.by_alias(self._usecase, alias)
        return None if found is None else found.version
