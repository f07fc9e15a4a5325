"""What is kept is what a scrape shows; what is not there, or cannot be read, is not made up."""

import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text

from feature_repo import predictions
from mlplatform.contracts import Decision, Window
from mlplatform.contracts.drift import ColumnDrift, DriftReport, DriftStatistic
from mlplatform.contracts.model import Interval
from mlplatform.contracts.performance import Cohort, Estimate, Measurement, MetricLoss, Performance
from mlplatform.contracts.watch import DataFault, LayerHealth, Vital, Wholeness, WindowReport
from mlplatform.errors import ServiceError
from mlplatform.ledger import Ledger
from monitoring import kept
from monitoring.exporter import Exporter, newest_reports, serve, sources
from monitoring.gauges import METRICS, Samples
from monitoring.requests import RequestStore
from serving.rollout import machine
from serving.rollout.store import RolloutStore
from tests.unit.monitoring.signals import USECASE, at, finding, reach
from tests.unit.serving.rollout import builders as rollouts

SOURCES = {"reports", "trigger", "rollout", "runs", "archive", "reviews", "ledger"}
Scrape = Callable[[], dict[tuple[str, frozenset[tuple[str, str]]], float]]


class Place:
    """Where everything of one platform is kept."""

    def __init__(self, root: Path) -> None:
        self.out, self.archive = root / "monitoring", root / "predictions"
        self.database = root / "ledger.db"
        self.url = f"sqlite:///{self.database}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def scrape(place: Place) -> Iterator[Scrape]:
    """Scrapes over HTTP as Prometheus does."""
    exporter = Exporter({USECASE: sources(USECASE, place.url, place.out, place.archive)})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serve(exporter, "127.0.0.1", 0) as port:

        def read() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
            with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                found = answer.read().decode()
            return {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(found)
                for sample in family.samples
            }

        yield read


def value(found: Any, name: str, /, **labels: str) -> float | None:
    key = (f"mlplatform_{name}", frozenset({"usecase": USECASE, **labels}.items()))
    result: float | None = found.get(key)
    return result


def hour(start: float, **values: Any) -> WindowReport:
    window = Window(start=at(start), end=at(start + 1))
    common = {"usecase": USECASE, "window": window, "judged_at": at(start + 2), "version": 2}
    whole = Wholeness(window=window, rows=7, verdict="whole", reason="all there")
    return WindowReport.model_validate(common | {"findings": (), "whole": whole} | values)


def performance(start: float) -> Performance:
    window = Window(start=at(start), end=at(start + 1))
    live = Measurement(metric="pr_auc", value=0.41, interval=None)
    loss = MetricLoss(
        metric="pr_auc", accepted=0.05, registered=Interval(estimate=0.5, low=0.48, high=0.52),
        live=live, loss=None, verdict="loss",
    )  # fmt: skip
    cohort = Cohort(
        window=window, as_of=at(start + 2), requests=10, open=2, unlabelled=2, measured=6
    )
    return Performance(
        usecase=USECASE, version=2, cohort=cohort, metrics=(live,), losses=(loss,), verdict="loss",
        reason="worse",
    )  # fmt: skip


def test_where_nothing_is_kept_all_sources_are_up_and_nothing_is_made_up(scrape: Scrape) -> None:
    found = scrape()

    up = {dict(labels)["source"] for (name, labels) in found if name.endswith("source_up")}
    assert SOURCES == up
    others = {name for name, _ in found} - {"mlplatform_monitor_source_up"}
    assert {"mlplatform_review_waiting", "mlplatform_ledger_intact", "mlplatform_ledger_rows"} == (
        others
    )
    assert (1, 0, 0) == (
        value(found, "ledger_intact"),
        value(found, "ledger_rows"),
        value(found, "review_waiting"),
    )


def test_the_newest_window_of_each_watch_is_shown_by_its_cause(
    place: Place, scrape: Scrape
) -> None:
    kept.write(place.out, hour(1, findings=(finding(1, "data_fault", "temp"),)))
    loss = finding(0, "performance_loss", "pr_auc")
    kept.write(place.out, hour(2, findings=(finding(2, "healthy"), loss)))
    found = scrape()

    shown = {
        (dict(labels)["watch"], dict(labels)["cause"]): count
        for (name, labels), count in found.items()
        if name == "mlplatform_monitor_finding"
    }
    assert {("inputs", "healthy"), ("performance", "performance_loss")} == {
        key for key, count in shown.items() if count
    }
    assert 0 == shown["inputs", "data_fault"]
    end = value(found, "monitor_window_end_timestamp_seconds", watch="inputs")
    assert at(3).timestamp() == end


def test_what_was_measured_in_windows_is_shown(place: Place, scrape: Scrape) -> None:
    window = Window(start=at(3), end=at(4))
    column = ColumnDrift(
        column="temp", method="wasserstein", verdict="drift", reason="moved", distance=0.4,
        statistics=(DriftStatistic(sign="mean", value=80, usual=60, excess=1.7),),
        threshold=0.2, rows=7, null_share=0, reference_null_share=0,
    )  # fmt: skip
    layer = LayerHealth(
        layer="infrastructure", verdict="trouble",
        vitals=(Vital(name="p99_ms", value=80, limit=40, ok=False, why="80 ms"),),
    )  # fmt: skip
    estimate = Estimate(
        usecase=USECASE, version=2, cohort=Cohort(window=window, as_of=at(5), requests=7),
        metrics=(Measurement(metric="pr_auc", value=0.47, interval=None),),
        verdict="no_loss", reason="as usual",
    )  # fmt: skip
    fault = DataFault(kind="unit", subject="temp", why="in Celsius")
    kept.write(place.out, hour(2, performance=performance(1)))
    kept.write(
        place.out,
        hour(
            3,
            drift=DriftReport(
                window=window, rows=7, verdict="drift", reason="temp", columns=(column,)
            ),
            whole=Wholeness(window=window, rows=7, verdict="fault", reason="unit", faults=(fault,)),
            layers=(layer,),
            estimate=estimate,
        ),
    )  # fmt: skip
    found = scrape()
    drift = {"column": "temp", "method": "wasserstein"}
    metric = {"metric": "pr_auc", "version": "2"}
    vital = {"layer": "infrastructure", "name": "p99_ms"}

    for name, labels, expected in (
        ("monitor_rows", {}, 7),
        ("monitor_fault", {"kind": "unit", "subject": "temp"}, 1),
        ("monitor_drift_distance", drift, 0.4),
        ("monitor_drift_threshold", drift, 0.2),
        ("monitor_drift_excess", {"column": "temp"}, 1.7),
        ("monitor_drifted", {"column": "temp"}, 1),
        ("monitor_layer_ok", {"layer": "infrastructure"}, 0),
        ("monitor_vital", vital, 80),
        ("monitor_vital_limit", vital, 40),
        ("monitor_vital_ok", vital, 0),
        ("monitor_estimate", metric, 0.47),
        ("monitor_performance", metric, 0.41),
        ("monitor_performance_registered", metric, 0.5),
        ("monitor_performance_accepted", metric, 0.05),
        ("monitor_maturity", {}, 0.8),
        ("monitor_unlabelled_share", {}, 0.25),
    ):
        assert expected == value(found, name, **labels), name


def test_the_trigger_and_the_newest_run_are_shown(place: Place, scrape: Scrape) -> None:
    RequestStore(place.url).write(reach("submitted"), revision=0)
    ledger = Ledger(place.url)
    for number, verdict in enumerate(("registered", "failed")):
        ledger.append(
            Decision(
                key=f"run {number}", usecase=USECASE, kind="run", subject=str(number),
                verdict=verdict, reason="as told", actor="test", at=at(number),
            )
        )  # fmt: skip
    found = scrape()

    assert 1 == value(found, "trigger_phase", phase="submitted")
    assert 0 == value(found, "trigger_phase", phase="ready")
    assert at(3).timestamp() == value(found, "trigger_phase_since_timestamp_seconds")
    assert 0 == value(found, "trigger_without_gain")
    assert 1 == value(found, "training_last", verdict="failed")
    assert None is value(found, "training_last", verdict="registered")
    assert 2 == value(found, "ledger_rows")


@pytest.mark.parametrize(("errors", "frozen"), [(0.004, 0), (0.04, 1)], ids=["well", "both bad"])
def test_a_rollout_that_waits_for_both_versions_is_frozen(
    place: Place, scrape: Scrape, errors: float, frozen: int
) -> None:
    started, now = rollouts.reach("canary")
    seen = rollouts.shown(started, now, errors=errors, champion_errors=errors)
    rollout, _ = machine.advance(started, rollouts.evidence(started, seen), now)
    RolloutStore(place.url).write(rollout, revision=0)
    found = scrape()

    assert "canary" == rollout.phase
    assert 1 == value(found, "rollout_phase", version="4", phase="canary")
    assert frozen == value(found, "rollout_frozen")
    entered = value(found, "rollout_entered_timestamp_seconds")
    assert rollout.entered_at.timestamp() == entered


def test_a_ledger_that_was_edited_is_broken_and_not_away(place: Place) -> None:
    ledger = Ledger(place.url)
    for number in range(2):
        ledger.append(
            Decision(
                key=str(number), usecase=USECASE, kind="gate", subject="a", verdict="accepted",
                reason="better", actor="test", at=at(0),
            )
        )  # fmt: skip
    engine = create_engine(place.url)
    with engine.begin() as connection:
        for (name,) in connection.execute(
            text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ).all():
            connection.execute(text(f"DROP TRIGGER {name}"))
        connection.execute(text("UPDATE ledger_entries SET prev_hash = hash WHERE seq = 2"))
    engine.dispose()
    exporter = Exporter({USECASE: sources(USECASE, place.url, place.out, place.archive)})
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in exporter.collect()
        for sample in family.samples
    }

    assert 0 == value(found, "ledger_intact")
    assert 1 == value(found, "monitor_source_up", source="ledger")
    assert None is value(found, "ledger_rows")


def test_a_report_that_cannot_be_read_hides_nothing_else(place: Place, scrape: Scrape) -> None:
    path = kept.write(place.out, hour(1))
    path.write_text("{")
    RequestStore(place.url).write(reach("ready"), revision=0)
    found = scrape()

    assert 0 == value(found, "monitor_source_up", source="reports")
    assert None is value(found, "monitor_rows")
    assert 1 == value(found, "trigger_phase", phase="ready")


def test_the_age_of_the_archive_is_that_of_its_newest_file(place: Place, scrape: Scrape) -> None:
    for number, name in enumerate(("date=2013-07-01/hour=01", "date=2013-07-01/hour=02")):
        folder = place.archive / USECASE / name
        folder.mkdir(parents=True)
        path = folder / predictions.part_name(number, number)
        path.touch()
        os.utime(path, (1000 + number, 1000 + number))
    (place.archive / USECASE / "date=2013-07-01" / "hour=03").mkdir()

    assert 1001 == value(scrape(), "archive_newest_timestamp_seconds")


def test_reports_are_read_back_to_the_newest_that_knows_labels(place: Place) -> None:
    for start in range(6):
        known = performance(0) if start in {1, 3} else None
        kept.write(place.out, hour(start, performance=known))

    starts = [report.window.start for report in newest_reports(place.out, USECASE)]
    assert [at(3), at(4), at(5)] == starts


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_takes_its_own_labels_only(name: str) -> None:
    samples = Samples()
    labels = dict.fromkeys(METRICS[name][1], "a")
    samples.add(USECASE, name, 1, **labels)
    samples.add(USECASE, name, 2, **labels)

    with pytest.raises(KeyError, match="has the labels"):
        samples.add(USECASE, name, 1, **labels, other="b")

    ((family,),) = [[*samples.families()]]
    assert [2] == [sample.value for sample in family.samples]


def test_a_port_that_is_taken_is_said() -> None:
    with (
        serve(Exporter({}), "127.0.0.1", 0) as port,
        pytest.raises(ServiceError, match=str(port)),
        serve(Exporter({}), "127.0.0.1", port),
    ):
        pass
