"""The fallback rules beside what happened: they may be coarse, not wrong."""

from datetime import UTC, datetime

import numpy as np
import polars as pl

from usecases.flight_delay import rules, sources


def test_the_rules_give_the_share_of_late_flights_by_the_hour() -> None:
    raw = sources.read(datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 2, tzinfo=UTC))
    labels = sources.labels(raw).filter(pl.col("late").is_not_null())
    scored = labels.with_columns(
        score=rules.score({"event_timestamp": labels["event_timestamp"].to_numpy()})
    )
    hours = scored.group_by("hour").agg(pl.col("late").mean(), pl.col("score").mean(), n=pl.len())

    off = hours.filter(pl.col("n") > 10_000).select((pl.col("late") - pl.col("score")).abs().max())
    assert off.item() < 0.06
    assert abs(labels["late"].to_numpy().mean() - scored["score"].to_numpy().mean()) < 0.03


def test_a_time_before_dawn_counts_as_the_first_hour() -> None:
    night = np.array(
        ["2013-07-01T05:00", "2013-07-02T03:30"], dtype="datetime64[us]"
    )  # 1:00, 23:30

    assert np.allclose(rules.score({"event_timestamp": night}), [0.10, 0.39])
