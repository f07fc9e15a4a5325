"""What is broken in a window's data is named, and what only differs is not called broken."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from feature_repo.profile.reference import Reference
from mlplatform.contracts.watch import Wholeness
from monitoring.whole import check
from tests.unit.monitoring.feed import (
    DAY,
    LAYOUT,
    SPEC,
    START,
    changed,
    reference,
    sound,
    stopped,
    window,
)

TODAY = 42
"""A Monday, after the reference."""

Broken = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module", name="known")
def _known() -> Reference:
    return reference()


def judged(known: Reference, rows: pl.DataFrame, before: pl.DataFrame | None = None) -> Wholeness:
    yesterday = sound(TODAY - 1) if before is None else before
    return check(SPEC, LAYOUT, known, rows, window(TODAY), yesterday)


def hour(rows: pl.DataFrame) -> pl.Series:
    return rows["event_time"].dt.hour()


def test_days_like_those_of_the_reference_are_whole(known: Reference) -> None:
    days = range(TODAY, TODAY + 20)

    verdicts = {
        day: check(SPEC, LAYOUT, known, sound(day), window(day), sound(day - 1)) for day in days
    }

    assert {} == {day: one.faults for day, one in verdicts.items() if one.verdict != "whole"}


@pytest.mark.parametrize(
    ("kind", "subject", "broken"),
    [
        pytest.param("volume", "requests", lambda rows: rows.clear(), id="no request"),
        pytest.param("volume", "requests", lambda rows: rows[::2], id="one of two"),
        pytest.param(
            "volume",
            "requests",
            lambda rows: pl.concat(
                rows.with_columns(pl.col("request_id", "entity") + f"-{copy}") for copy in range(3)
            ),
            id="three times as many",
        ),
        pytest.param(
            "gap", "requests", lambda rows: rows.filter(~hour(rows).is_in([14, 15])), id="two hours"
        ),
        pytest.param(
            "duplicates",
            "requests",
            lambda rows: pl.concat(
                [rows, rows.filter(hour(rows) == 15).with_columns(pl.col("request_id") + "-again")]
            ),
            id="an hour under other ids",
        ),
        pytest.param(
            "duplicates",
            "requests",
            lambda rows: pl.concat([rows, rows.filter(hour(rows) < 13)]),
            id="rows twice",
        ),
        pytest.param(
            "stale",
            "weather",
            lambda rows: stopped(rows, 0, START + TODAY * DAY + timedelta(hours=13)),
            id="weather stops at one",
        ),
        pytest.param(
            "stale",
            "leg",
            lambda rows: stopped(rows, 1, START + TODAY * DAY + timedelta(hours=13)),
            id="legs stop, and are young enough still",
        ),
        pytest.param(
            "stale",
            "leg",
            lambda rows: stopped(rows, 1, START + (TODAY - 3) * DAY),
            id="legs stopped days ago",
        ),
        pytest.param(
            "schema",
            "requests",
            lambda rows: rows.with_columns(pl.col("features").list.head(5)),
            id="short vectors",
        ),
        pytest.param(
            "schema",
            "requests",
            lambda rows: rows.with_columns(service=pl.lit("service_v2")),
            id="another feature service",
        ),
        pytest.param(
            "schema",
            "requests",
            lambda rows: rows.with_columns(pl.col("request").str.head(30)),
            id="requests cut short",
        ),
        pytest.param(
            "schema",
            "gap",
            lambda rows: changed(rows, "gap", lambda x: np.where(x > 100, np.inf, x)),
            id="infinite",
        ),
        pytest.param(
            "nulls",
            "distance",
            lambda rows: changed(rows, "distance", lambda _: np.nan),
            id="nulls",
        ),
        pytest.param(
            "nulls",
            "delay",
            lambda rows: changed(rows, "delay", lambda _: np.nan, since_hour=18),
            id="nulls since the evening",
        ),
        pytest.param(
            "defaults", "delay", lambda rows: changed(rows, "delay", lambda _: 0), id="zeros"
        ),
        pytest.param(
            "defaults",
            "distance",
            lambda rows: changed(rows, "distance", lambda _: 744, since_hour=18),
            id="a usual value since the evening",
        ),
        pytest.param(
            "defaults",
            "rain",
            lambda rows: changed(rows, "rain", lambda _: -1),
            id="another constant than the usual one",
        ),
        pytest.param(
            "unit", "temp", lambda rows: changed(rows, "temp", lambda x: (x - 32) / 1.8), id="°C"
        ),
        pytest.param(
            "unit",
            "temp",
            lambda rows: changed(rows, "temp", lambda x: (x - 32) / 1.8, since_hour=18),
            id="°C since the evening",
        ),
        pytest.param(
            "unit",
            "distance",
            lambda rows: changed(rows, "distance", lambda x: x * 1.609344),
            id="km",
        ),
        pytest.param(
            "unit", "wind", lambda rows: changed(rows, "wind", lambda x: x * 1.609344), id="km/h"
        ),
        pytest.param(
            "unit", "gap", lambda rows: changed(rows, "gap", lambda x: x * 60), id="seconds"
        ),
    ],
)
def test_a_fault_is_named_by_its_kind_and_what_it_is_in_and_by_nothing_else(
    known: Reference, kind: str, subject: str, broken: Broken
) -> None:
    found = judged(known, broken(sound(TODAY)))

    assert ("fault", [(kind, subject)]) == (
        found.verdict,
        [(one.kind, one.subject) for one in found.faults],
    )


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda rows: changed(rows, "temp", lambda x: (x - 32) / 1.8), id="°C"),
        pytest.param(lambda rows: changed(rows, "gap", lambda x: x * 60), id="seconds"),
        pytest.param(lambda rows: changed(rows, "distance", lambda _: 744), id="a constant"),
        pytest.param(lambda rows: rows[::2], id="one of two"),
    ],
)
def test_a_fault_is_still_one_on_its_second_day_and_without_a_day_before(
    known: Reference, broken: Broken
) -> None:
    rows = broken(sound(TODAY))

    second = judged(known, rows, broken(sound(TODAY - 1)))
    first = check(SPEC, LAYOUT, known, rows, window(TODAY), None)

    assert ["fault", "fault"] == [second.verdict, first.verdict]


@pytest.mark.parametrize(
    "moved",
    [
        pytest.param(lambda rows: changed(rows, "delay", lambda x: x + 0.2 * 30), id="mean"),
        pytest.param(
            lambda rows: changed(rows, "distance", lambda x: 1500 + (x - 1500) * 1.3**0.5),
            id="variance",
        ),
        pytest.param(
            lambda rows: changed(
                rows, "delay", lambda x: np.where(np.arange(len(x)) % 9, x, np.nan)
            ),
            id="twice as many nulls",
        ),
        pytest.param(
            lambda rows: changed(rows, "gap", lambda x: np.where(np.arange(len(x)) % 33, x, 400)),
            id="a tail",
        ),
        pytest.param(
            lambda rows: changed(rows, "flag", lambda x: 1 - x), id="two categories swapped"
        ),
        pytest.param(lambda _: sound(TODAY, warmer=6), id="a warm day"),
        pytest.param(lambda _: sound(TODAY, warmer=40), id="summer at once"),
        pytest.param(
            lambda rows: rows.with_columns(pl.col("event_time") - timedelta(hours=1)).filter(
                pl.col("event_time") >= START + TODAY * DAY
            ),
            id="clocks put back",
        ),
        pytest.param(lambda rows: rows[: int(rows.height * 0.9)], id="an early night"),
        pytest.param(lambda rows: pl.concat([rows, rows[:5]]), id="five clients that tried again"),
        pytest.param(lambda rows: changed(rows, "temp", np.round), id="rounded"),
    ],
)
def test_what_may_be_the_world_is_no_fault(known: Reference, moved: Broken) -> None:
    found = judged(known, moved(sound(TODAY)))

    assert ("whole", ()) == (found.verdict, found.faults)


def test_where_most_features_were_not_read_the_window_tells_nothing(known: Reference) -> None:
    rows = changed(sound(TODAY), "distance", lambda _: 744, since_hour=12)
    unread = pl.when(hour(rows) >= 12).then(pl.lit(["features_down"])).otherwise("reasons")

    found = judged(known, rows.with_columns(reasons=unread))

    assert "inconclusive" == found.verdict
    assert found.reason.startswith("infrastructure: in ")
    assert "features_down" in found.reason


def test_a_few_answers_without_features_are_left_out_and_counted(known: Reference) -> None:
    rows = changed(sound(TODAY), "distance", lambda _: 744, since_hour=20)
    unread = pl.when(hour(rows) >= 20).then(pl.lit(["features_late"])).otherwise("reasons")

    found = judged(known, rows.with_columns(reasons=unread))

    assert "whole" == found.verdict
    assert f"in {(hour(rows) >= 20).sum()} more the features were not read" in found.reason


def test_a_challenger_with_another_feature_service_is_no_fault(known: Reference) -> None:
    rows = sound(TODAY)
    other = pl.col("request_id").str.ends_with("7")
    rows = rows.with_columns(
        arm=pl.when(other).then(pl.lit("challenger")).otherwise("arm"),
        service=pl.when(other).then(pl.lit("service_v2")).otherwise("service"),
    )

    assert "whole" == judged(known, rows).verdict


def test_a_small_use_case_tells_nothing_rather_than_a_fault() -> None:
    few = reference(rows=12)

    found = check(SPEC, LAYOUT, few, sound(TODAY, rows=12), window(TODAY), None)

    assert ("inconclusive", ()) == (found.verdict, found.faults)
    assert "too few" in found.reason


def test_a_reference_of_a_few_windows_says_so_and_no_requests_are_a_fault_all_the_same() -> None:
    short = reference(range(5))

    some = check(SPEC, LAYOUT, short, sound(TODAY), window(TODAY), None)
    none = check(SPEC, LAYOUT, short, sound(TODAY).clear(), window(TODAY), None)

    assert "inconclusive" == some.verdict
    assert "the reference holds 5 windows" in some.reason
    assert ["volume"] == [one.kind for one in none.faults]


def test_no_requests_in_an_hour_that_is_always_quiet_are_no_fault() -> None:
    hourly = reference(hours=1)
    quiet, busy = (
        window(TODAY).model_copy(
            update={
                "start": START + TODAY * DAY + timedelta(hours=at),
                "end": START + TODAY * DAY + timedelta(hours=at + 1),
            }
        )
        for at in (4, 15)
    )
    none = sound(TODAY).clear()

    assert "inconclusive" == check(SPEC, LAYOUT, hourly, none, quiet, None).verdict
    assert "fault" == check(SPEC, LAYOUT, hourly, none, busy, None).verdict
