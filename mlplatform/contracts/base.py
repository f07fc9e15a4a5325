"""What all contracts share: frozen, closed to unknown fields, times in UTC."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Contract(BaseModel):
    """A frozen value that crosses a boundary; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _to_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time without a zone is ambiguous: write it in UTC, ending in Z")
    return value.astimezone(UTC)


UtcDatetime = Annotated[datetime, AfterValidator(_to_utc)]
"""A moment; any zone is accepted and stored as UTC, a naive time is refused."""


class Window(Contract):
    """Half-open interval of event time, `[start, end)`."""

    start: UtcDatetime
    end: UtcDatetime
