"""A history of features for the skew audit alone: landed and computed here, up to each window.

The training pipeline extends the platform's history when it trains, and a data root has one writer
(`feature_repo.ingest`). So an audit between two trainings needs a root of its own; it is made from
the same source by the same code.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_repo import ingest
from feature_repo import store as stores


def history(usecase: str, root: Path) -> Callable[[datetime], Any]:
    """Return what opens the feature store of a root whose offline history reaches a time.

    Args:
        usecase: Name of the use case.
        root: Data root that nobody else writes to; made if it is not there.
    """

    def reaching(until: datetime) -> Any:
        store = stores.open_store(str(root))
        stores.apply(store)
        ingest.extend(usecase, store, str(root), until)
        return store

    return reaching
