"""Past events as live traffic: the requests of a window, in the order of event time.

What a live client would know goes into a request: the fields that the spec declares, from the
use case's own label rows. What was known later (the label, a landing) does not.
It refuses a use case whose label rows lack a declared field.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from feature_repo.catalog import UseCaseCode
from feature_repo.labels import labels_of
from mlplatform.errors import DataError

_TIME = "event_timestamp"


@dataclass(frozen=True)
class Traffic:
    """Requests of a window, sorted by event time."""

    rows: pl.DataFrame
    """`request_id`, `event_timestamp` and the declared fields, one row for each request."""

    @property
    def times(self) -> list[int]:
        """Event time of each request, microseconds since 1970."""
        return self.rows[_TIME].dt.epoch("us").to_list()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the fields of each request, as JSON has them."""
        names = self.rows.columns
        for row in self.rows.iter_rows():
            yield dict(zip(names, map(_plain, row), strict=True))

    def bodies(self) -> Iterator[bytes]:
        """Yield the JSON body of each request."""
        yield from map(msgspec.json.encode, self.events())


def traffic(code: UseCaseCode, start: datetime, end: datetime) -> Traffic:
    """Return the requests with event time in `[start, end)`, read from the source.

    Raises:
        DataError: The label rows lack a field that a request declares, or the window is empty.
    """
    spec = code.spec
    labels = labels_of(code)(start, end)
    names = ["request_id", _TIME, *spec.serving.request]
    if missing := [name for name in names if name not in labels.columns]:
        raise DataError(
            f"{spec.name}: past events cannot be replayed: `labels` in sources.py does not give "
            f"{', '.join(missing)}, which serving.request declares"
        )
    inside = pl.col(_TIME).is_between(start, end, closed="left")
    rows = labels.filter(inside).select(names).sort(_TIME, "request_id")
    if rows.is_empty():
        raise DataError(
            f"{spec.name}: the source has no events from {start:%Y-%m-%d %H:%M} to "
            f"{end:%Y-%m-%d %H:%M} UTC: look from another time"
        )
    return Traffic(rows)


def rfc3339(moment: datetime) -> str:
    """Return a time as requests carry it: UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    return rfc3339(value) if isinstance(value, datetime) else value
