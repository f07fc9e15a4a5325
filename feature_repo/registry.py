"""Feast's registry file in a folder that may not exist yet, and never half written.

Feast creates the last folder of the registry's path and no other, so that `feast apply` in a fresh
clone would fail on `../build/demo/data`. It writes the file in place, so that whoever reads it
meanwhile would find half of it. It refuses nothing that Feast accepts.
"""

import os
import uuid
from datetime import UTC, datetime
from typing import Any

from feast.infra.registry.file import FileRegistryStore


class FolderRegistryStore(FileRegistryStore):  # type: ignore[misc]  # Feast ships no types
    """The registry file, with its folders; `registry_store_type` in feature_store.yaml."""

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Write the registry; it appears whole."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        partial = self._filepath.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            file.write(registry_proto.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._filepath)
