"""An audit of served vectors: clean serving gives nothing, each planted fault gets its name.

`Served` is a second, slow implementation of serving: of all rows visible at a request's moment the
newest event is served while it is younger than its view's time to live.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import catalog, ingest, layout
from feature_repo import store as stores
from mlplatform.contracts import OnlineLayout
from mlplatform.contracts.skew import SkewReport
from monitoring import skew
from monitoring.replay import Replay

START: Final = datetime(2013, 1, 1, tzinfo=UTC)
END: Final = START + timedelta(days=4)
NOON: Final = START + timedelta(days=3, hours=18)
EVENT: Final = "event_timestamp"
KNOWN: Final = "created_timestamp"


@pytest.fixture(scope="module")
def code() -> catalog.UseCaseCode:
    found = catalog.load("flight_delay")

    def first_days(_: datetime, end: datetime) -> dict[str, pl.DataFrame]:
        return found.read(START, min(end, END))

    return replace(found, read=first_days)


@pytest.fixture(scope="module")
def online() -> OnlineLayout:
    return layout.load("flight_delay")


@pytest.fixture(scope="module")
def raw(code: catalog.UseCaseCode) -> dict[str, pl.DataFrame]:
    return code.read(START, END)


def store_until(raw: Mapping[str, pl.DataFrame], folder: Path, end: datetime) -> Any:
    store = stores.open_store(str(folder))
    stores.apply(store)
    ingest.write_features("flight_delay", store, raw, end)
    return store


@pytest.fixture(scope="module")
def store(raw: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return store_until(raw, tmp_path_factory.mktemp("offline"), END)


@dataclass(frozen=True)
class Served:
    """What requests were given: rows by view with the moment from which they were online."""

    code: catalog.UseCaseCode
    layout: OnlineLayout
    requests: pl.DataFrame
    rows: dict[str, pl.DataFrame]
    request: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    clock: timedelta = timedelta(0)
    """What clients add to the time of a request."""
    vectors: Callable[[pl.DataFrame], pl.DataFrame] = field(default=lambda frame: frame)
    reasons: tuple[str, ...] = ()

    def log(self) -> pl.DataFrame:
        joined, times = self.requests, []
        stated = self.requests[EVENT] + self.clock
        stale = [pl.lit(reason) for reason in self.reasons]
        for group in self.layout.groups:
            for view in group.views:
                names = [item.name for item in view.fields]
                found = newest(self.requests, self.rows[view.name], list(group.keys), names)
                age = stated - found["event"]
                dead = (age > timedelta(seconds=view.ttl_seconds or 1e9)) | found["event"].is_null()
                times.append(found["event"].alias(view.name))
                joined = joined.hstack(
                    found.select(pl.when(~pl.Series(dead)).then(pl.col(n)).alias(n) for n in names)
                )
                if view.name in self.code.spec.serving.required_views:
                    said = pl.Series(dead)
                    stale.append(pl.when(said).then(pl.lit(f"stale:{view.name}")))
        joined = joined.with_columns(stated.alias(EVENT))
        computed = (self.request or self.code.request)(
            {name: joined[name].to_numpy() for name in self.code.request_inputs}
        )
        joined = joined.with_columns(pl.Series(name, v) for name, v in computed.items())
        names = [name for group in self.code.groups.values() for name in group]
        vectors = self.vectors(
            joined.select(pl.col(n).cast(pl.Float32).fill_null(float("nan")) for n in names)
        )
        fields = list(self.code.spec.serving.request)
        bodies = [
            json.dumps(
                {**row, "scheduled_arrival": int(row["scheduled_arrival"].timestamp() * 1e6)}
            )
            for row in joined.select(fields).iter_rows(named=True)
        ]
        return joined.select(
            "request_id",
            event_time=pl.col(EVENT),
            request=pl.Series(bodies),
            service=pl.lit(self.layout.service),
            features=pl.Series(vectors.to_numpy().tolist(), dtype=pl.List(pl.Float32)),
            feature_times=pl.concat_list(pl.Series(t) for t in times),
            reasons=pl.concat_list(stale or [pl.lit(None, pl.String)]).list.drop_nulls(),
        )

    def change(self, view: str, **columns: pl.Expr) -> "Served":
        return replace(self, rows={**self.rows, view: self.rows[view].with_columns(**columns)})


def newest(
    requests: pl.DataFrame, rows: pl.DataFrame, keys: list[str], names: list[str]
) -> pl.DataFrame:
    asked = requests.select(*keys, EVENT).with_row_index("__row")
    past = rows.select(*keys, *names, event=EVENT, visible="visible", known=KNOWN)
    best = (
        asked.join(past, on=keys)
        .filter(pl.col("visible") <= pl.col(EVENT))
        .sort("event", "known")
        .unique("__row", keep="last")
    )
    return asked.join(best, on="__row", how="left", maintain_order="left").select("event", *names)


@pytest.fixture(scope="module")
def served(code: catalog.UseCaseCode, online: OnlineLayout, raw: dict[str, pl.DataFrame]) -> Served:
    labels = code.labels(raw).filter(pl.col(EVENT) >= START + timedelta(days=2))
    rows = {
        name: compute(raw).filter(pl.col(KNOWN) <= END).with_columns(visible=KNOWN)
        for name, compute in code.batch.items()
    }
    return Served(code, online, labels.gather_every(4), rows)


@pytest.fixture
def audit(
    code: catalog.UseCaseCode, online: OnlineLayout, store: Any
) -> Callable[[Served], SkewReport]:
    return lambda served: skew.audit(code, online, store, served.log())


def causes(report: SkewReport) -> dict[str, str]:
    return {item.feature: item.cause for item in report.features}


def findings(report: SkewReport) -> dict[str, str]:
    return {view.view: view.finding for view in report.views if view.finding != "in_step"}


def test_clean_serving_is_reported_as_clean(
    audit: Callable[[Served], SkewReport], served: Served
) -> None:
    report = audit(served)

    assert ("no_skew", (), {}, 0) == (
        report.verdict,
        report.features,
        findings(report),
        report.mismatched_rows,
    )
    assert report.rows == served.requests.height > 300
    assert all(view.rows > 0 for view in report.views)


@pytest.mark.parametrize("since", [timedelta(minutes=40), timedelta(hours=12)], ids=str)
def test_a_stopped_materializer_is_named_with_the_moment(
    audit: Callable[[Served], SkewReport], served: Served, since: timedelta
) -> None:
    last = END - timedelta(hours=2) - since
    stop = pl.when(pl.col(KNOWN) <= last).then(KNOWN)

    report = audit(served.change("origin_congestion", visible=stop))
    view = next(view for view in report.views if view.view == "origin_congestion")

    assert "stopped" == view.finding
    assert view.since is not None
    assert timedelta(0) <= last - view.since < timedelta(minutes=20)
    assert {"origin_congestion": "stopped"} == findings(report)
    assert {"stale"} == set(causes(report).values())
    assert all(item.view == "origin_congestion" for item in report.features)
    assert report.verdict == "skew"


def test_a_slow_materializer_lags_and_its_lag_is_measured(
    audit: Callable[[Served], SkewReport], served: Served
) -> None:
    late = pl.col(KNOWN) + timedelta(minutes=20)

    report = audit(served.change("origin_congestion", visible=late))
    view = next(view for view in report.views if view.view == "origin_congestion")

    assert {"origin_congestion": "lagging"} == findings(report)
    assert {"stale"} == set(causes(report).values())
    assert view.median_lag_seconds is not None
    assert 900 <= view.median_lag_seconds <= 1800


def test_what_was_served_before_it_counts_as_known_is_late_data(
    audit: Callable[[Served], SkewReport], served: Served
) -> None:
    report = audit(served.change("origin_weather", visible=pl.col(EVENT)))

    assert {"origin_weather": "ahead"} == findings(report)
    assert {"late_data"} == set(causes(report).values())
    assert "temp" in causes(report)


def test_a_previous_leg_that_came_late_also_explains_what_is_computed_from_it(
    audit: Callable[[Served], SkewReport], served: Served
) -> None:
    late = pl.col(KNOWN) + timedelta(hours=3)

    found = causes(audit(served.change("aircraft_leg", visible=late)))

    assert "stale" == found["leg_slack_minutes"] == found["previous_arrival_delay"]
    assert {"stale"} == set(found.values())


def test_answers_that_said_that_features_were_late_are_filled_and_no_skew(
    audit: Callable[[Served], SkewReport], served: Served
) -> None:
    emptied = replace(
        served,
        vectors=lambda frame: frame.with_columns(
            pl.when(pl.int_range(pl.len()) < 20)
            .then(float("nan"))
            .otherwise(pl.all())
            .cast(pl.Float32)
            .name.keep()
        ),
    ).log()
    logged = emptied.with_columns(
        reasons=pl.when(pl.int_range(pl.len()) < 20)
        .then(pl.lit(["features_late"]))
        .otherwise("reasons")
    )

    report = audit_log(audit, served, logged)

    assert {"default_fill"} == set(causes(report).values())
    assert all(item.announced == item.mismatched for item in report.features)
    assert ("no_skew", 20) == (report.verdict, report.mismatched_rows)


def audit_log(
    audit: Callable[[Served], SkewReport], served: Served, logged: pl.DataFrame
) -> SkewReport:
    class Logged(Served):
        def log(self) -> pl.DataFrame:
            return logged

    return audit(Logged(served.code, served.layout, served.requests, served.rows))


def half(frame: pl.DataFrame, name: str) -> pl.Series:
    return pl.Series(name, frame[name].to_numpy().astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("feature", "value", "cause", "detail"),
    [
        ("temp", (pl.col("temp") - 32) / 1.8, "transform", "served = 0.5556 * offline - 17.78"),
        ("distance_miles", pl.col("distance_miles") * 1.609344, "transform", "served = 1.609 *"),
        ("humid", pl.col("humid").sqrt(), "transform", ""),
        ("wind_speed", pl.col("wind_speed").floor(), "type", ""),
        ("carrier_late_rate_7d", pl.col("carrier_late_rate_7d") * (1 + 2e-7), "type", ""),
        ("waiting", pl.lit(float("nan")), "default_fill", ""),
        ("leg_gap_minutes", pl.col("leg_gap_minutes").fill_nan(0.0), "default_fill", ""),
    ],
    ids=["unit", "kilometres", "curve", "integer", "rounding", "column of nulls", "null to zero"],
)
def test_a_value_that_no_row_explains_is_named_by_its_numbers(
    audit: Callable[[Served], SkewReport],
    served: Served,
    feature: str,
    value: pl.Expr,
    cause: str,
    detail: str,
) -> None:
    planted = replace(
        served,
        vectors=lambda frame: frame.with_columns(value.cast(pl.Float32).alias(feature)),
    )

    report = audit(planted)

    assert {feature: cause} == causes(report)
    assert detail in report.features[0].detail
    assert ("skew", {}) == (report.verdict, findings(report))


def test_half_precision_is_a_type(audit: Callable[[Served], SkewReport], served: Served) -> None:
    planted = replace(served, vectors=lambda frame: frame.with_columns(half(frame, "pressure")))

    assert {"pressure": "type"} == causes(audit(planted))


def test_a_declared_default_in_a_whole_column_is_named_as_one(
    code: catalog.UseCaseCode, online: OnlineLayout, store: Any, served: Served
) -> None:
    serving = code.spec.serving.model_copy(update={"defaults": {"temp": 50.0}})
    spec = code.spec.model_copy(update={"serving": serving})
    planted = replace(
        served, vectors=lambda frame: frame.with_columns(pl.lit(50.0, pl.Float32).alias("temp"))
    )

    report = skew.audit(replace(code, spec=spec), online, store, planted.log())

    assert {"temp": "default_fill"} == causes(report)


def test_serving_that_takes_utc_for_local_time_is_a_time_shift_of_five_hours(
    audit: Callable[[Served], SkewReport], served: Served
) -> None:
    """New York is five hours behind in January."""

    def in_utc(columns: Mapping[str, Any]) -> dict[str, Any]:
        shifted = {**columns, EVENT: columns[EVENT] + np.timedelta64(5, "h")}
        wrong = served.code.request(shifted)
        right = served.code.request(columns)
        return {**right, "departure_hour": wrong["departure_hour"]}

    report = audit(replace(served, request=in_utc))

    assert {"departure_hour": "time_shift"} == causes(report)
    assert "as if event_timestamp were +5 h" in report.features[0].detail


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_feed_that_writes_local_times_is_recognised_by_right_values_at_wrong_times(
    audit: Callable[[Served], SkewReport], served: Served, hours: int
) -> None:
    """Its values differ only where the wrong time expires them; the times say it all."""
    report = audit(
        served.change("route_delay", **{EVENT: pl.col(EVENT) + timedelta(hours=hours)}).change(
            "carrier_delay", **{EVENT: pl.col(EVENT) + timedelta(hours=hours)}
        )
    )
    shifts = {view.view: view.shift_hours for view in report.views if view.shift_hours}

    assert {"carrier_delay": hours} == {k: v for k, v in shifts.items() if k != "route_delay"}
    assert {"time_shift"} >= set(causes(report).values()) - {"stale"}
    assert report.verdict == "skew"


@pytest.mark.parametrize("hours", [-5, 5])
def test_clients_that_send_local_times_are_recognised_by_views_that_are_off_alike(
    audit: Callable[[Served], SkewReport], served: Served, hours: int
) -> None:
    few = served.requests.filter(pl.col(EVENT) < END - timedelta(hours=8))

    report = audit(replace(served, requests=few, clock=timedelta(hours=hours)))
    shifts = {view.view: view.shift_hours for view in report.views if view.shift_hours}

    assert {"origin_weather", "origin_congestion"} <= set(shifts)
    assert {-hours} == set(shifts.values())
    assert "time_shift" == causes(report)["temp"]


def test_a_history_that_ends_too_early_proves_nothing(
    code: catalog.UseCaseCode,
    online: OnlineLayout,
    raw: dict[str, pl.DataFrame],
    served: Served,
    tmp_path: Path,
) -> None:
    store = store_until(raw, tmp_path, END - timedelta(hours=20))

    report = skew.audit(code, online, store, served.log())

    assert "inconclusive" == report.verdict
    assert "history_behind" == findings(report)["origin_congestion"]
    assert "bring it up to the last request" in report.reason


def test_rows_that_cannot_be_compared_are_counted_and_nothing_left_is_inconclusive(
    code: catalog.UseCaseCode, online: OnlineLayout, store: Any, served: Served
) -> None:
    logged = served.log().head(6)
    row = pl.int_range(pl.len())
    none = pl.lit([], pl.List(pl.Float32))
    odd = logged.with_columns(
        features=pl.when(row < 2)
        .then(none)
        .when(row == 2)
        .then(pl.col("features").list.head(3))
        .otherwise("features"),
        service=pl.when(row > 2).then(pl.lit("flight_delay_v9")).otherwise("service"),
    )

    report = skew.audit(code, online, store, odd)

    assert {"no_vector": 2, "other_service": 3, "other_width": 1} == report.left_out
    assert ("inconclusive", 0, None) == (report.verdict, report.rows, report.window)


FEATURES: Final = ("temp", "waiting", "departure_hour")


@functools.cache
def parts() -> tuple[catalog.UseCaseCode, OnlineLayout]:
    return catalog.load("flight_delay"), layout.load("flight_delay")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_as_many_cells_are_reported_as_differ_and_none_if_none_does(data: Any) -> None:
    """Random vectors on equal times: only values can differ."""
    code, online = parts()
    rows = data.draw(st.integers(1, 12))
    value = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6, width=32))
    cells = st.lists(st.lists(value, min_size=3, max_size=3), min_size=rows, max_size=rows)
    offline = np.array(data.draw(cells), dtype=np.float32)
    served = offline.copy()
    planted = data.draw(
        st.sets(st.tuples(st.integers(0, rows - 1), st.integers(0, 2)), max_size=10)
    )
    for row, place in planted:
        old = served[row, place]
        served[row, place] = 1.0 if np.isnan(old) else old * 2 + 1 if old != -1 else 7.0
    times = np.full((rows, len(online.views)), 10**15, dtype=np.int64)
    moments = pl.Series([datetime(2001, 9, 9, 1, 50, tzinfo=UTC)] * rows)
    inputs = {
        name: np.full(rows, np.datetime64("2001-09-09T01:50")) for name in code.request_inputs
    }
    inputs["distance"] = np.ones(rows)
    replayed = Replay(
        rows=pl.DataFrame(
            {
                "request_id": [str(row) for row in range(rows)],
                "event_time": moments,
                "reasons": pl.Series([[]] * rows, dtype=pl.List(pl.String)),
            }
        ),
        features=FEATURES,
        served=served,
        offline=offline,
        held=offline,
        inputs=inputs,
        online_us=times,
        offline_us=times,
        found=np.ones(times.shape, dtype=np.bool_),
        left_out={},
    )

    report = skew.report(code, online, replayed)

    expected = {
        name: sum(1 for _, place in planted if place == number)
        for number, name in enumerate(FEATURES)
    }
    assert {k: v for k, v in expected.items() if v} == {
        item.feature: item.mismatched for item in report.features
    }
    assert all(sum(item.causes.values()) == item.mismatched for item in report.features)
    assert ("skew" if planted else "no_skew") == report.verdict
