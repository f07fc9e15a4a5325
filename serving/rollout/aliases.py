"""The registry's aliases: a view of the stored rollout, put right by one process at a time.

MLflow moves an alias without comparing, so nothing there stops an old write. Here a writer holds an
exclusive lock, reads the state that is stored by then and refuses when it is not what the caller
means: a process that slept through a promotion cannot move an alias back. The lock is a file's on
one machine (`locks`), and the operator's lease in a cluster.

An alias `challenger` of a later version than the rollout's is left alone: the registration of that
version set it, and the rollout has no say about it.
"""

from typing import Final

from mlplatform.clients.registry import Registry
from mlplatform.contracts.rollout import Version
from mlplatform.errors import StaleError
from serving.rollout.effects import SetAliases
from serving.rollout.ports import Lock, States
from serving.rollout.wanted import effects

_CHAMPION: Final = "champion"
_CHALLENGER: Final = "challenger"


class RegistryAliases:
    """Sets the aliases of registered models that have the names of their use cases.

    Args:
        registry: Where they are.
        store: The states that they follow.
        lock: To hold while writing; the same one for all processes.
    """

    def __init__(self, registry: Registry, store: States, lock: Lock) -> None:
        self._registry, self._store, self._lock = registry, store, lock

    def set(self, usecase: str, champion: Version, challenger: Version | None) -> None:
        """Make the aliases so; writes only what differs.

        Raises:
            StaleError: The stored state means other aliases by now; nothing was written.
            ServiceError: The registry is away, or another process is at it.
        """
        with self._lock.alone():
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
