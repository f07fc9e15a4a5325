"""Days of rows to watch: real flights, or drawn.

Real days are drawn at random from the year without replacement, so that none differs from the
others by more than days do: a season is no change here. The first month is left out: the trailing
windows of its features are still filling. A reference keeps as many days as a registered model's.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from feature_repo.profile.reference import WINDOWS

TIME: Final = "event_timestamp"
START: Final = datetime(2013, 1, 1, tzinfo=UTC)
ROWS: Final = 900
"""In a drawn day; a real one has 670 to 1,000."""

_MORNING: Final = timedelta(hours=9)
"""UTC: between the last flight of a New York day and the first of the next."""
_WARM_UP: Final = 31
"""Days until the longest trailing window of a feature is full."""
_CLOCK: Final = ("departure_month",)
"""Says which month it is, not how requests are: constant on every day."""
_CHANGED: Final = (
    date(2013, 2, 8),  # the blizzard "Nemo" closes the airports on the 8th and 9th
    date(2013, 2, 9),
    date(2013, 6, 7),  # tropical storm Andrea: the wettest 7 June of New York
    date(2013, 11, 28),  # Thanksgiving: another timetable
    date(2013, 11, 29),
)
"""Days on which something did change: told apart from days without a change."""


@dataclass(frozen=True)
class Days:
    """A reference and days like it.

    Attributes:
        name: Where they come from.
        reference: With times, day after day.
        windows: Days that are not in the reference.
        changed: Days on which something is known to have changed.
    """

    name: str
    reference: pl.DataFrame
    windows: tuple[pl.DataFrame, ...]
    changed: tuple[pl.DataFrame, ...] = ()


def flights(path: Path, rng: np.random.Generator) -> tuple[Days, Days]:
    """Return two halves of a year's days, each the other's reference.

    Args:
        path: `rows.parquet` of a training set of `flight_delay`.
        rng: Draws the halves.
    """
    rows = pl.read_parquet(path)
    features = rows.columns[rows.columns.index("hour") + 1 :]
    kept = ["carrier", *(name for name in features if name not in _CLOCK)]
    rows = rows.select(pl.col(TIME) - _MORNING, *kept).with_columns(day=pl.col(TIME).dt.date())
    parts = rows.sort(TIME).partition_by("day", include_key=False, maintain_order=True)
    days = rows["day"].unique().sort()[_WARM_UP:-1].to_list()
    parts = parts[_WARM_UP:-1]
    changed = tuple(part for day, part in zip(days, parts, strict=True) if day in _CHANGED)
    parts = [part for day, part in zip(days, parts, strict=True) if day not in _CHANGED]
    order = rng.permutation(len(parts))
    halves = [[parts[at] for at in order[first::2]] for first in (0, 1)]
    first, other = (
        Days("flights", _one_after_another(mine[:WINDOWS]), tuple(others), changed)
        for mine, others in (halves, halves[::-1])
    )
    return first, other


def drawn(rng: np.random.Generator, windows: int = 300) -> Days:
    """Return days of independent rows: light and heavy tails, whole numbers, categories, nulls."""
    days = [_drawn_day(rng) for _ in range(WINDOWS + windows)]
    return Days("drawn", _one_after_another(days[:WINDOWS]), tuple(days[WINDOWS:]))


def _drawn_day(rng: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame(
        {
            TIME: [START + timedelta(days=float(one)) for one in np.sort(rng.random(ROWS))],
            "normal": rng.normal(size=ROWS),
            "uniform": rng.random(ROWS),
            "exponential": _holes(rng.exponential(size=ROWS), 0.25, rng),
            "lognormal": rng.lognormal(0, 1, ROWS),
            "count": rng.poisson(20, ROWS).astype(float),
            "gap": _holes(rng.gamma(2, 30, ROWS), 0.06, rng),
            "carrier": rng.choice(list("ABCDEFGH"), ROWS, p=np.arange(8, 0, -1) / 36),
            "flag": rng.random(ROWS) < 0.05,
        }
    )


def _holes(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], share: float, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.where(rng.random(len(values)) < share, np.nan, values)


def _one_after_another(days: list[pl.DataFrame]) -> pl.DataFrame:
    """Return days under new dates, in their order."""
    of_day = pl.col(TIME) - pl.col(TIME).dt.truncate("1d")
    return pl.concat(
        day.with_columns((START + timedelta(days=number) + of_day).alias(TIME))
        for number, day in enumerate(days)
    )
