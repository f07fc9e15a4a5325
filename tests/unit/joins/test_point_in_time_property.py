"""The join against a brute-force oracle in plain Python loops, over generated histories.

Times are drawn from a handful of hours so that ties, late rows and expired rows are common, keys
from values that collide when they are put together as text.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.asof import History, leaders
from feature_repo.history import FramePiece, Piece, View
from feature_repo.pit import join

EXAMPLES: Final = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "joins"))
START: Final = datetime(2024, 3, 30, 18, tzinfo=UTC)  # Berlin's clocks change 7 hours later
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")


class Row(NamedTuple):
    """One row of history; `key` as many values as the view has keys."""

    key: tuple[Any, ...]
    event: datetime | None
    created: datetime | None
    value: int


class Label(NamedTuple):
    """One label row."""

    numbers: tuple[int | None, int | None]
    texts: tuple[str | None, str | None]
    time: datetime | None


class Case(NamedTuple):
    """One view and its history, part by part in the order of writing."""

    keys: tuple[str, ...]
    has_created: bool
    known_only: bool
    ttl: timedelta | None
    parts: list[list[Row]]


def oracle(label: Label, case: Case) -> int | None:
    """Return the value that was known at the label's time, by looking at every row."""
    by_name = dict(zip(("n1", "n2", "t1", "t2"), [*label.numbers, *label.texts], strict=True))
    wanted = tuple(by_name[name] for name in case.keys)
    best: tuple[datetime, datetime, int] | None = None
    for row in (row for part in case.parts for row in part):
        if None in wanted or row.key != wanted or not is_known(row, label.time, case):
            continue
        # A missing creation time is the oldest; among equals the one written last wins.
        created = (row.created if case.has_created else None) or datetime.min.replace(tzinfo=UTC)
        event = row.event or START
        if best is None or (event, created) >= best[:2]:
            best = (event, created, row.value)
    if best is None or label.time is None:
        return None
    if case.ttl and label.time - best[0] > case.ttl:
        return None
    return best[2]


def is_known(row: Row, time: datetime | None, case: Case) -> bool:
    if time is None or row.event is None or row.event > time:
        return False
    if not (case.has_created and case.known_only):
        return True
    return row.created is not None and row.created <= time


hours = st.integers(0, 8)
times = hours.map(lambda hour: START + timedelta(hours=hour))
ends = st.sampled_from([timedelta(0), timedelta(microseconds=1), -timedelta(microseconds=1)])
label_times = st.builds(lambda time, more: time + more, times, ends)
# Few values, so that keys have many rows; (1, 12) and (11, 2), ("a", "bc") and ("ab", "c") collide
# as text.
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "n1": st.sampled_from([1, 1, 11, 1, 11, None]),
    "n2": st.sampled_from([12, 12, 2, 12, 2, None]),
    "t1": st.sampled_from(["a", "a", "ab", "a", "ab", None]),
    "t2": st.sampled_from(["bc", "bc", "c", "bc", "c", None]),
}
labels_of = st.builds(
    Label,
    st.tuples(VALUES["n1"], VALUES["n2"]),
    st.tuples(VALUES["t1"], VALUES["t2"]),
    st.one_of(label_times, label_times, label_times, st.none()),
)
maybe_times = hours.map(lambda hour: START + timedelta(hours=hour) if hour else None)
ttls = st.sampled_from([None, timedelta(0), timedelta(hours=1), timedelta(hours=3)])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    keys = draw(st.sampled_from([("n1",), ("t1",), ("n1", "n2"), ("t1", "t2"), ("n1", "t2"), ()]))
    values = [VALUES[name] for name in keys]
    count = iter(range(10_000))
    row = st.builds(
        Row, st.tuples(*values), maybe_times, maybe_times, st.builds(lambda: next(count))
    )
    parts = draw(st.lists(st.lists(row, max_size=16), max_size=3))
    return Case(keys, draw(st.booleans()), draw(st.booleans()), draw(ttls), parts)


@st.composite
def label_lists(draw: st.DrawFn) -> list[Label]:
    labels = draw(st.lists(labels_of, max_size=12))
    again = draw(st.lists(st.sampled_from(labels), max_size=3)) if labels else []
    return [*labels, *again]


def in_zone(times: Sequence[datetime | None], zone: str) -> pl.Series:
    utc = pl.Series(list(times), dtype=pl.Datetime("us", "UTC"))
    return utc.dt.convert_time_zone(zone)


def frame_of(part: list[Row], case: Case, zone: str) -> pl.DataFrame:
    columns: dict[str, Any] = {
        name: pl.Series(
            [row.key[place] for row in part],
            dtype=pl.Int64 if name.startswith("n") else pl.String,
        )
        for place, name in enumerate(case.keys)
    }
    columns["happened"] = in_zone([row.event for row in part], zone)
    if case.has_created:
        columns["known"] = in_zone([row.created for row in part], zone)
    columns["value"] = pl.Series([row.value for row in part], dtype=pl.Int64)
    return pl.DataFrame(columns)


def label_frame(labels: list[Label], zone: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "n1": pl.Series([label.numbers[0] for label in labels], dtype=pl.Int64),
            "n2": pl.Series([label.numbers[1] for label in labels], dtype=pl.Int64),
            "t1": pl.Series([label.texts[0] for label in labels], dtype=pl.String),
            "t2": pl.Series([label.texts[1] for label in labels], dtype=pl.String),
            "event_timestamp": in_zone([label.time for label in labels], zone),
        }
    )


def view_of(case: Case, name: str) -> View:
    return View(
        name=name,
        keys={key: key for key in case.keys},
        features={"value": name},
        event="happened",
        created="known" if case.has_created else None,
        ttl=case.ttl,
        known_only=case.known_only,
    )


@pytest.mark.timeout(3600)  # HYPOTHESIS_PROFILE=thorough takes minutes
@EXAMPLES
@given(
    labels=label_lists(),
    views=st.lists(cases(), min_size=1, max_size=3),
    zones=st.tuples(st.sampled_from(ZONES), st.sampled_from(ZONES)),
)
def test_every_value_equals_the_oracles(
    labels: list[Label], views: list[Case], zones: tuple[str, str]
) -> None:
    frame = label_frame(labels, zones[0])
    histories: list[tuple[View, list[Piece]]] = [
        (
            view_of(case, f"view{number}"),
            [FramePiece(frame_of(part, case, zones[1])) for part in case.parts],
        )
        for number, case in enumerate(views)
    ]

    joined = join(frame, histories)

    assert frame.equals(joined.select(frame.columns), null_equal=True)
    for number, case in enumerate(views):
        expected = [oracle(label, case) for label in labels]
        assert expected == joined[f"view{number}"].to_list()


@pytest.mark.timeout(3600)  # HYPOTHESIS_PROFILE=thorough takes minutes
@EXAMPLES
@given(labels=label_lists(), case=cases(), seed=st.randoms(use_true_random=False))
def test_how_rows_are_spread_over_pieces_does_not_matter(
    labels: list[Label], case: Case, seed: Any
) -> None:
    whole = case._replace(parts=[[row for part in case.parts for row in part]])
    cuts = sorted(seed.randint(0, len(whole.parts[0])) for _ in range(3))
    bounds = [0, *cuts, len(whole.parts[0])]
    spread = [whole.parts[0][low:high] for low, high in pairwise(bounds)]
    frame = label_frame(labels, "UTC")
    view = view_of(case, "value_then")

    together = join(frame, [(view, [FramePiece(frame_of(whole.parts[0], case, "UTC"))])])
    apart = join(frame, [(view, [FramePiece(frame_of(part, case, "UTC")) for part in spread])])

    assert together.to_dicts() == apart.to_dicts()


@pytest.mark.timeout(3600)  # HYPOTHESIS_PROFILE=thorough takes minutes
@EXAMPLES
@given(
    lengths=st.lists(st.integers(1, 6), max_size=5),
    values=st.lists(st.integers(-3, 3), min_size=30, max_size=30),
    scale=st.sampled_from([1, 2**61]),
)
def test_the_leader_of_a_row_is_the_last_row_with_the_running_maximum(
    lengths: list[int], values: list[int], scale: int
) -> None:
    size = sum(lengths)
    event = np.array(values[:size], dtype=np.int64) * scale
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int64) if lengths else np.array([], np.int64)
    expected = []
    for start, length in zip(starts, lengths, strict=True):
        for row in range(start, start + length):
            prefix = range(start, row + 1)
            expected.append(max(prefix, key=lambda at: (event[at], at)))

    found = leaders(History(event, event, event, starts))

    assert expected == (list(range(size)) if found is None else found.tolist())
