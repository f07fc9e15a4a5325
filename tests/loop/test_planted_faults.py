"""Faults planted in the source stop the run with their own message, before a model is made."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pytest

from tests.loop.platform_copy import AS_OF, Platform

pytestmark = pytest.mark.loop


@dataclass(frozen=True)
class Fault:
    """What the source delivers instead of `flights`, and what must be said of it."""

    code: str
    says: str


FAULTS = {
    "stale data": Fault(
        "flights.filter(pl.col('scheduled_departure') < datetime(2013, 2, 25, tzinfo=UTC))",
        r"flights: .*at most 48 h",
    ),
    "a set 30 % smaller": Fault(
        "flights.filter(pl.int_range(pl.len()) % 10 < 7)",
        r"labels: .*80%.*, 70%",
    ),
    "a dropped column": Fault("flights.drop('tailnum')", r"flights: .*tailnum"),
    "10 % null keys": Fault(
        "flights.with_columns(flight_key=pl.when(pl.int_range(pl.len()) % 10 > 0)"
        ".then('flight_key'))",
        r"flights: flight_key .*\(10\.0%\)",
    ),
    "a duplicated day": Fault(
        "pl.concat([flights, flights.filter(pl.col('scheduled_departure').dt.date()"
        " == datetime(2013, 2, 20).date())])",
        r"flights: flight_key names one row; 1,896 of",
    ),
}

PLANT = """

_whole = read


def read(start, end):
    from datetime import UTC

    tables = _whole(start, end)
    flights = tables["flights"]
    return {{**tables, "flights": {code}}}
"""

LEAK = """

def _leak(raw: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    from usecases.flight_delay.sources import labels

    known = labels(raw).filter(pl.col("label_timestamp") > pl.col("event_timestamp"))
    return known.select(
        "flight_key",
        "event_timestamp",
        created_timestamp="label_timestamp",
        leak=pl.col("late").cast(pl.Float32),
    )


flight_leak = _view(
    "flight_leak", [flight], timedelta(hours=1), "-", [Field(name="leak", dtype=Float32)]
)
SERVICE = FeatureService(name="flight_delay_v1", features=[*VIEWS, flight_leak])
BATCH = {**BATCH, "flight_leak": _leak}
GROUPS = {**GROUPS, "leak": ("leak",)}
"""
"""The label itself as a feature: about the flight's departure, known when it has landed."""


@pytest.mark.parametrize("name", FAULTS)
def test_broken_data_stops_the_run_by_name(
    name: str, registered: Platform, new_platform: Callable[[str], Platform]
) -> None:
    platform = new_platform("fault")
    platform.root.mkdir()
    shutil.copy(registered.root / "ledger.db", platform.root)  # a run came before this one
    platform.append("sources.py", PLANT.format(code=FAULTS[name].code))
    result = platform.demo()

    assert 1 == result.returncode, result.stdout
    assert "failed" == platform.summary.verdict
    assert re.search(FAULTS[name].says, platform.summary.reason), platform.summary.reason
    assert platform.summary.model is None
    assert "train" not in platform.summary.seconds
    assert [] == platform.processes()


def test_a_label_leak_is_kept_out_by_knowledge_time_and_stops_the_run(
    new_platform: Callable[[str], Platform],
) -> None:
    platform = new_platform("leak")
    platform.append("features.py", LEAK)
    result = platform.demo()

    assert 1 == result.returncode, result.stdout
    assert "leak: no value was known at any of" in platform.summary.reason
    assert platform.summary.model is None
    assert "train" not in platform.summary.seconds

    by_event_time, by_knowledge = leaked_shares(platform)
    assert 1.0 == by_event_time  # by event time alone the feature is the label
    assert 0.0 == by_knowledge


def leaked_shares(platform: Platform) -> tuple[float, float]:
    """Share of labels that the planted feature gives away, without and with knowledge time."""
    from feature_repo.ingest import read_raw
    from feature_repo.store import open_store
    from usecases.flight_delay.sources import labels

    root = str(platform.root / "data")
    store = open_store(root)
    moment = datetime.fromisoformat(AS_OF).astimezone(UTC)
    rows = labels(read_raw("flight_delay", root, moment)).filter(
        pl.col("label_timestamp") > pl.col("event_timestamp"), pl.col("label_timestamp") <= moment
    )
    shares = []
    for known_only in (False, True):
        store.config.offline_store.filter_by_created_timestamp = known_only
        job = store.get_historical_features(
            entity_df=rows.select("flight_key", "event_timestamp").to_pandas(),
            features=["flight_leak:leak"],
        )
        leak = pl.DataFrame(job.to_arrow())["leak"]
        given_away = (leak == rows["late"]).fill_null(value=False).to_list()
        shares.append(sum(given_away) / rows.height)
    return shares[0], shares[1]
