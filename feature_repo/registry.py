"""Feast's registry file in a folder that may not exist yet.

Feast creates the last folder of the registry's path and no other, so that `feast apply` in a fresh
clone would fail on `../build/demo/data`. It refuses nothing that Feast accepts.
"""

from typing import Any

from feast.infra.registry.file import FileRegistryStore


class FolderRegistryStore(FileRegistryStore):  # type: ignore[misc]  # Feast ships no types
    """The registry file, with its folders; `registry_store_type` in feature_store.yaml."""

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Write the registry."""
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        super().update_registry_proto(registry_proto)
