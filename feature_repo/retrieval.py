"""The job that Feast hands out for a retrieval: nothing is read until the result is asked for.

It adds to Feast's own job what that leaves to each store: the result as an Arrow table, its
description, and writing it out as a saved dataset. It refuses to write over a saved dataset
unless told to.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from feature_repo import parts
from mlplatform.errors import DataError


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]  # Feast ships no types
    """A retrieval that runs on each `to_arrow()` or `to_df()`.

    Args:
        evaluate: Returns the result as a `pyarrow.Table`.
        place: Resolves a source's path to its folder, for `persist`.
        metadata: What was asked for; None for reads of a whole source.
        full_feature_names: Whether columns are named `view__feature`.
        on_demand_feature_views: Views that Feast computes from the result.
    """

    def __init__(
        self,
        evaluate: Callable[[], Any],
        place: Callable[[str], parts.Folder],
        *,
        metadata: RetrievalMetadata | None = None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[Any] | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._place = place
        self._metadata = metadata
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []

    @property
    def full_feature_names(self) -> bool:
        """Return whether columns are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """Return the views that Feast computes from the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Return what was asked for, and the range of label times."""
        return self._metadata

    def persist(
        self,
        storage: Any,
        allow_overwrite: bool = False,  # noqa: FBT001, FBT002  # Feast's signature
        timeout: int | None = None,
    ) -> None:
        """Write the result as one Parquet file to a saved dataset's file storage.

        Args:
            storage: A `SavedDatasetFileStorage`; a relative path is under the store's root.
            allow_overwrite: Whether what lies there already may be replaced.
            timeout: Seconds; not used, the join runs in this process.

        Raises:
            DataError: Another kind of storage, or something is there already.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise DataError(
                f"saved datasets of this store lie in files, not in {type(storage).__name__}: "
                "use SavedDatasetFileStorage"
            )
        path = storage.file_options.uri
        target = self._place(path)
        exists = target.files.get_file_info(target.path).type != pafs.FileType.NotFound
        if exists and not allow_overwrite:
            raise DataError(
                f"a saved dataset lies at {path} already: choose another path or pass "
                "allow_overwrite=True"
            )
        target.files.create_dir(target.path.rpartition("/")[0], recursive=True)
        table = self.to_arrow(timeout=timeout)
        pq.write_table(table, target.path, filesystem=target.files, compression="lz4")

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _to_arrow_internal(self, timeout: int | None = None) -> Any:  # noqa: ARG002  # Feast's
        return self._evaluate()
