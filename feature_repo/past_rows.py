"""Which rows of a view's history were in force at given moments, with the times of these rows.

The join for training (`feature_repo.store.join_features`) returns features alone. An audit of what
was served needs to know of which row each is: this is the same search in the same files, one view
at a time. It does not apply the time to live: the caller has both times.
"""

import dataclasses
from pathlib import Path
from typing import Any, Final

import polars as pl

from feature_repo import parts
from feature_repo.history import UTC_MICROSECONDS
from feature_repo.pit import lookup
from feature_repo.store import feast_errors

EVENT: Final = "event_timestamp"
CREATED: Final = "created_timestamp"


def past_rows(store: Any, view: str, asked: pl.DataFrame, *, known_only: bool) -> pl.DataFrame:
    """Return, for each row of `asked`, the newest row of a view's history by then.

    Args:
        store: From `feature_repo.store.open_store`, with the definitions applied.
        view: Name of the feature view.
        asked: The view's join keys and `event_timestamp`, UTC; a null matches nothing.
        known_only: Whether a row counts only once it was known (`created_timestamp`).

    Returns:
        As many rows in the same order: the view's features by name, `event_timestamp` and
        `created_timestamp` of the row found; nulls where there was none.

    Raises:
        DataError: `asked` lacks a key, or one is of another type than the history's.
        ServiceError: The registry has no such view, or Feast failed otherwise.
    """
    from feature_repo.translation import file_source, join_view

    with feast_errors(
        f"feature view {view}: its history cannot be read",
        "apply the definitions first (feature_repo.store.apply)",
    ):
        declared = store.get_feature_view(view)
        joined = join_view(declared, None, full_names=False, known_only=known_only)
        created = joined.created or joined.event
        wanted = dataclasses.replace(
            joined, ttl=None, features={**joined.features, joined.event: EVENT}
        )
        if created != joined.event:
            wanted = dataclasses.replace(wanted, features={**wanted.features, created: CREATED})
        base = Path(store.config.repo_path) if store.config.repo_path else None
        place = parts.folder(store.config.offline_store.root, file_source(declared).path, base)
        (found,) = lookup(asked, [(wanted, parts.pieces(place))])
    if CREATED not in found.columns:
        found = found.with_columns(pl.col(EVENT).alias(CREATED))
    return found.with_columns(pl.col(EVENT, CREATED).cast(UTC_MICROSECONDS))
