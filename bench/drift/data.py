"""Days of rows to watch: real flights, or drawn; and the shifts that are planted in them.

Real days are drawn at random from the year without replacement, so that none differs from the
others by more than days do: a season is no change here. The first month is left out: the trailing
windows of its features are still filling.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

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


@dataclass(frozen=True)
class Days:
    """A reference and days like it.

    Attributes:
        name: Where they come from.
        reference: With times, day after day.
        windows: Days that are not in the reference.
    """

    name: str
    reference: pl.DataFrame
    windows: tuple[pl.DataFrame, ...]


def flights(path: Path, rng: np.random.Generator) -> tuple[Days, Days]:
    """Return two halves of a year's days, each the other's reference.

    Args:
        path: `rows.parquet` of a training set of `flight_delay`.
        rng: Draws the halves.
    """
    rows = pl.read_parquet(path)
    features = rows.columns[rows.columns.index("hour") + 1 :]
    kept = ["carrier", "origin", *(name for name in features if name not in _CLOCK)]
    rows = rows.select(pl.col(TIME) - _MORNING, *kept).with_columns(day=pl.col(TIME).dt.date())
    parts = rows.sort(TIME).partition_by("day", include_key=False, maintain_order=True)
    parts = parts[_WARM_UP:-1]
    order = rng.permutation(len(parts))
    halves = [[parts[at] for at in order[first::2]] for first in (0, 1)]
    return tuple(  # type: ignore[return-value]  # of two
        Days("flights", _one_after_another(mine), tuple(others))
        for mine, others in (halves, halves[::-1])
    )


def drawn(rng: np.random.Generator, reference: int = 100, windows: int = 300) -> Days:
    """Return days of independent rows: light and heavy tails, whole numbers, categories, nulls."""
    days = [_drawn_day(rng) for _ in range(reference + windows)]
    return Days("drawn", _one_after_another(days[:reference]), tuple(days[reference:]))


def _drawn_day(rng: np.random.Generator) -> pl.DataFrame:
    gaps = rng.gamma(2, 30, ROWS)
    gaps[rng.random(ROWS) < 0.06] = np.nan
    return pl.DataFrame(
        {
            TIME: [START + timedelta(days=float(one)) for one in np.sort(rng.random(ROWS))],
            "normal": rng.normal(size=ROWS),
            "uniform": rng.random(ROWS),
            "exponential": rng.exponential(size=ROWS),
            "lognormal": rng.lognormal(0, 1, ROWS),
            "count": rng.poisson(20, ROWS).astype(float),
            "gap": gaps,
            "carrier": rng.choice(list("ABCDEFGH"), ROWS, p=np.arange(8, 0, -1) / 36),
            "flag": rng.random(ROWS) < 0.05,
        }
    )


def _one_after_another(days: list[pl.DataFrame]) -> pl.DataFrame:
    """Return days under new dates, in their order."""
    of_day = pl.col(TIME) - pl.col(TIME).dt.truncate("1d")
    return pl.concat(
        day.with_columns((START + timedelta(days=number) + of_day).alias(TIME))
        for number, day in enumerate(days)
    )


Plant = Callable[[pl.DataFrame, str, pl.DataFrame, np.random.Generator], pl.DataFrame]


def _mean(
    day: pl.DataFrame, name: str, known: pl.DataFrame, _: np.random.Generator
) -> pl.DataFrame:
    return day.with_columns(pl.col(name) + 0.2 * _std(known, name))


def _variance(
    day: pl.DataFrame, name: str, known: pl.DataFrame, _: np.random.Generator
) -> pl.DataFrame:
    mean = known[name].fill_nan(None).mean()
    return day.with_columns((mean + (pl.col(name) - mean) * np.sqrt(1.3)).alias(name))


def _swap(
    day: pl.DataFrame, name: str, known: pl.DataFrame, _: np.random.Generator
) -> pl.DataFrame:
    counts = known[name].value_counts(sort=True)[name].to_list()
    first, other = counts[0], counts[3 if len(counts) > 3 else -1]
    return day.with_columns(pl.col(name).replace({first: other, other: first}))


def _nulls(
    day: pl.DataFrame, name: str, known: pl.DataFrame, rng: np.random.Generator
) -> pl.DataFrame:
    values = known[name].fill_nan(None)
    share = values.null_count() / len(values)
    lost = pl.Series(rng.random(day.height) < share / (1 - share))
    return day.with_columns(pl.when(~lost).then(name))


def _tail(
    day: pl.DataFrame, name: str, known: pl.DataFrame, rng: np.random.Generator
) -> pl.DataFrame:
    far = float(known[name].fill_nan(None).mean()) + 5 * _std(known, name)  # type: ignore[arg-type]
    return day.with_columns(
        pl.when(pl.Series(rng.random(day.height) > 0.03)).then(name).otherwise(far).alias(name)
    )


def _std(known: pl.DataFrame, name: str) -> float:
    return float(known[name].fill_nan(None).std())  # type: ignore[arg-type]  # numbers


PLANTS: Final[Mapping[str, Plant]] = {
    "mean + 0.2 standard deviations": _mean,
    "variance x 1.3": _variance,
    "two categories swapped": _swap,
    "null share x 2": _nulls,
    "3 % of rows at + 5 standard deviations": _tail,
}

_SHIFTS: Final = tuple(PLANTS)
_OF_NUMBERS: Final = (_SHIFTS[0], _SHIFTS[1], _SHIFTS[4])
WHERE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "drawn": dict.fromkeys(
        _OF_NUMBERS, ("normal", "uniform", "exponential", "lognormal", "count", "gap")
    )
    | {_SHIFTS[2]: ("carrier",), _SHIFTS[3]: ("gap",)},
    "flights": dict.fromkeys(
        _OF_NUMBERS, ("distance_miles", "scheduled_minutes", "departure_hour", "temp", "waiting")
    )
    | {_SHIFTS[2]: ("carrier",), _SHIFTS[3]: ("pressure", "waiting_minutes")},
}
"""Where each shift is planted. In the flights the first three columns differ from row to row; the
weather (`temp`, `pressure`) and the queue (`waiting`) belong to a day."""
