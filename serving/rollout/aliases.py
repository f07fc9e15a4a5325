"""The registry's aliases: a view of the stored rollout, put right by one process at a time.

MLflow moves an alias without comparing, so nothing there stops an old write. Here a writer holds an
exclusive lock, reads the state that is stored by then and refuses when it is not what the caller
means: a process that slept through a promotion cannot move an alias back. The lock is a file's: it
is let go when its holder dies, and reaches the processes of one machine.

An alias `challenger` of a later version than the rollout's is left alone: the registration of that
version set it, and the rollout has no say about it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mlplatform.clients.registry import Registry
from mlplatform.contracts.rollout import Version
from mlplatform.errors import ServiceError, StaleError, shorten
from serving.rollout.effects import SetAliases
from serving.rollout.store import RolloutStore
from serving.rollout.wanted import effects

_CHAMPION: Final = "champion"
_CHALLENGER: Final = "challenger"


class RegistryAliases:
    """Sets the aliases of registered models that have the names of their use cases.

    Args:
        registry: Where they are.
        store: The states that they follow.
        lock_path: File to hold while writing; the same one for all processes.
    """

    def __init__(self, registry: Registry, store: RolloutStore, lock_path: Path) -> None:
        self._registry, self._store, self._lock_path = registry, store, lock_path

    def set(self, usecase: str, champion: Version, challenger: Version | None) -> None:
        """Make the aliases so; writes only what differs.

        Raises:
            StaleError: The stored state means other aliases by now; nothing was written.
            ServiceError: The registry is away, or another process is at it.
        """
        with self._alone():
            stored = self._store.read(usecase)
            meant = () if stored is None else effects(stored.rollout)
            if stored is None or SetAliases(champion, challenger) not in meant:
                raise StaleError(
                    f"the aliases of {usecase} are no longer to be champion {champion.version} "
                    "and what was its challenger: read the rollout and decide again"
                )
            self._point(usecase, _CHAMPION, champion.version)
            marked = self._marked(usecase, _CHALLENGER)
            if marked is not None and marked > stored.rollout.challenger.version:
                return
            if challenger is not None:
                self._point(usecase, _CHALLENGER, challenger.version)
            elif marked is not None:
                self._registry.remove_alias(usecase, _CHALLENGER)

    def _point(self, usecase: str, alias: str, version: int) -> None:
        if self._marked(usecase, alias) != version:
            self._registry.set_alias(usecase, alias, version)

    def _marked(self, usecase: str, alias: str) -> int | None:
        found = self._registry.by_alias(usecase, alias)
        return None if found is None else found.version

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; never waits, so that who has it cannot hold up anybody's rollback."""
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._lock_path.open("ab")
        except OSError as error:
            raise ServiceError(
                f"{self._lock_path} cannot be opened: {shorten(error)}; choose a folder that this "
                "process may write"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ServiceError(
                    f"another process is setting aliases (it holds {self._lock_path}): try again"
                ) from error
            except OSError as error:
                raise ServiceError(
                    f"{self._lock_path} cannot be locked: {shorten(error)}; choose a folder of a "
                    "file system that has locks"
                ) from error
            yield
