"""The times that commands look from."""

import argparse
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from local.moments import default_moment, moment_of

MIDNIGHT = datetime(2013, 8, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2013-08-02", "2013-08-02T00:00:00Z", "2013-08-02T02:00+02:00"], ids=str
)
def test_a_time_without_a_zone_is_utc_and_any_other_is_turned_into_it(text: str) -> None:
    found = moment_of(text)

    assert (MIDNIGHT, timedelta()) == (found, found.utcoffset())


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="'yesterday' is no time: write 2013-"):
        moment_of("yesterday")


def code(*times: datetime) -> Any:
    """A use case whose predictions were made at these times."""
    labels = pl.DataFrame(
        {"event_timestamp": times}, schema={"event_timestamp": pl.Datetime("us", "UTC")}
    )
    return SimpleNamespace(read=lambda _start, _end: {}, labels=lambda _: labels)


def test_by_default_it_is_the_last_midnight_of_the_first_quarter_of_the_sources_time() -> None:
    first = datetime(2013, 1, 1, 10, tzinfo=UTC)

    assert datetime(2013, 1, 4, tzinfo=UTC) == default_moment(
        code(first, first + timedelta(days=12), first + timedelta(days=1))
    )


def test_what_the_source_knows_of_the_future_does_not_count() -> None:
    now = datetime.now(UTC)
    found = default_moment(code(now - timedelta(days=12), now + timedelta(days=1000)))

    assert timedelta(days=8) < now - found < timedelta(days=11)


def test_of_a_source_without_predictions_it_is_now() -> None:
    assert datetime.now(UTC) - default_moment(code()) < timedelta(minutes=1)
