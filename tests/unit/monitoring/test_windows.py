"""Windows are cut alike by everybody, and none is judged before its time."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from monitoring.windows import due, evidence, holding, matured, windows

START = datetime(2013, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LENGTHS = st.sampled_from([0.25, 1, 6, 24, 36, 168])
MOMENTS = st.datetimes(
    min_value=datetime(1969, 6, 1),  # noqa: DTZ001  (the zone is the strategy's)
    max_value=datetime(2031, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(hours=LENGTHS, since=MOMENTS, stretch=st.timedeltas(timedelta(0), timedelta(days=40)))
def test_windows_follow_each_other_and_fill_the_stretch_but_for_less_than_one_at_each_end(
    hours: float, since: datetime, stretch: timedelta
) -> None:
    length = timedelta(hours=hours)
    assume(stretch >= 2 * length)
    found = windows(hours, since, since + stretch)

    assert all(one.end - one.start == length for one in found)
    assert all(a.end == b.start for a, b in pairwise(found))
    assert timedelta(0) <= found[0].start - since < length
    assert timedelta(0) <= since + stretch - found[-1].end < length


@given(hours=LENGTHS, one=MOMENTS, other=MOMENTS)
def test_windows_are_the_same_whoever_cuts(hours: float, one: datetime, other: datetime) -> None:
    length = timedelta(hours=hours)
    offset = holding(hours, one).start - holding(hours, other).start

    assert timedelta(0) == offset % length
    assert holding(hours, one).start <= one < holding(hours, one).end


@pytest.mark.parametrize(
    ("after", "now", "days"),
    [
        pytest.param(0, 0, [], id="nothing has ended"),
        pytest.param(0, 23, [], id="the first is not over"),
        pytest.param(0, 24, [0], id="it is over"),
        pytest.param(0, 80, [0, 1, 2], id="an outage of three"),
        pytest.param(12, 80, [1, 2], id="traffic began within a window"),
        pytest.param(0, 240, [7, 8, 9], id="more than one call judges"),
        pytest.param(48, 24, [], id="a clock went back"),
    ],
)
def test_windows_are_due_when_they_have_ended_since_the_last_one(
    after: float, now: float, days: list[int]
) -> None:
    found = due(24, START + after * HOUR, START + now * HOUR, most=3)

    assert [START + number * 24 * HOUR for number in days] == [one.start for one in found]


@given(hours=LENGTHS, delay=st.floats(0, 100), by=MOMENTS)
def test_the_matured_window_is_the_newest_whose_labels_are_due(
    hours: float, delay: float, by: datetime
) -> None:
    length, wait = timedelta(hours=hours), timedelta(hours=delay)
    found = matured(hours, delay, by)

    assert found.end + wait <= by < found.end + length + wait
    assert found == holding(hours, found.start)


@pytest.mark.parametrize(
    ("hours", "days"), [pytest.param(1, 7, id="seven days"), pytest.param(48, 14, id="7 windows")]
)
def test_evidence_ends_with_its_window(hours: float, days: int) -> None:
    window = holding(hours, START)
    found = evidence(window)

    assert window.end == found.end
    assert timedelta(days=days) == found.end - found.start
