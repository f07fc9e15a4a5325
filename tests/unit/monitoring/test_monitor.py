"""A window judged from end to end: real parts throughout, on drawn days in a real archive."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlplatform.contracts import Interval
from mlplatform.contracts.retrain import Cause, Finding
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import DataError, ModelError, ServiceError
from mlplatform.ledger import Ledger
from monitoring import estimate, kept
from monitoring.champion import Watched
from monitoring.monitor import Monitor
from monitoring.rounds import record
from tests.unit.monitoring.days import (
    CODE,
    DAY,
    FEATURES,
    LAYOUT,
    archive,
    day,
    known,
    labels,
    moved,
    traffic,
)

NAME = CODE.spec.name


@pytest.fixture(scope="module")
def version() -> Watched:
    return known()


@dataclass
class Place:
    """An archive, a ledger and a monitor over them."""

    root: Path
    watched: Callable[[int], Watched]
    known: pl.DataFrame = field(default_factory=lambda: labels(traffic(0)))
    pages: int = 0
    history: Callable[[datetime], Any] | None = None

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.root}/ledger.db")

    @property
    def out(self) -> Path:
        return self.root / "out"

    def fill(self, days: int) -> None:
        """Archive the first days, and know their labels."""
        rows = [traffic(number) for number in range(days)]
        for number, one in enumerate(rows):
            archive(self.root / "archive", number, one)
        self.known = labels(pl.concat(rows))

    def put(self, number: int, rows: pl.DataFrame) -> None:
        archive(self.root / "archive", number, rows)

    def judge(self, number: int, *, late: timedelta = timedelta(0)) -> WindowReport:
        monitor = Monitor(
            CODE,
            LAYOUT,
            self.root / "archive",
            self.out,
            lambda _, now: self.known.filter(pl.col("label_timestamp") <= now),
            self.ledger,
            self.watched,
            self.history,
            self.pages,
        )
        report = monitor.judge(day(number), day(number).end + late)
        record(self.ledger, report)
        monitor.keep(report)
        return report

    def recorded(self) -> list[tuple[str, str]]:
        return [(e.decision.key, e.decision.reason) for e in self.ledger.entries(NAME, "monitor")]


@pytest.fixture
def place(tmp_path: Path, version: Watched) -> Place:
    return Place(tmp_path, lambda _: version)


def finding(report: WindowReport, watch: str) -> Finding:
    (found,) = (one for one in report.findings if one.watch == watch)
    return found


def causes(report: WindowReport) -> list[Cause]:
    return [one.cause for one in report.findings]


def test_a_day_like_the_reference_is_healthy_in_both_watches(place: Place) -> None:
    place.fill(8)
    report = place.judge(7)

    assert ["healthy", "healthy"] == causes(report)
    assert day(7) == finding(report, "inputs").window
    assert day(6) == finding(report, "performance").window  # labels are due after a day
    assert ["ok", "unknown", "ok"] == [layer.verdict for layer in report.layers]


def test_a_window_that_is_judged_again_gives_the_same_findings_and_no_further_rows(
    place: Place,
) -> None:
    place.fill(7)
    for number in range(5, 7):
        place.judge(number)
    rows = place.recorded()
    first = kept.one(place.out, NAME, day(6))
    again = place.judge(6, late=3 * DAY)

    assert first is not None
    stripped = [
        [one.model_dump(exclude={"judged_at"}) for one in report.findings]
        for report in (first, again)
    ]
    assert stripped[0] == stripped[1]
    assert rows == place.recorded()
    assert 2 == len(kept.newest(place.out, NAME, 99))


def test_a_feature_that_moved_is_named(place: Place) -> None:
    place.put(0, moved(traffic(0), "temp", 2.0))
    found = finding(place.judge(0), "inputs")

    assert ("input_drift", ("temp",)) == (found.cause, found.blamed)


def test_scores_that_moved_alone_are_output_drift(place: Place) -> None:
    rows = traffic(0)
    place.put(0, rows.with_columns(score=pl.col("score") ** 0.3))

    assert "output_drift" == finding(place.judge(0), "inputs").cause


def test_scores_of_the_rules_and_of_other_versions_are_not_those_of_the_champion(
    place: Place,
) -> None:
    rows = traffic(0)
    others = pl.int_range(pl.len()) % 3 == 0
    place.put(
        0,
        rows.with_columns(
            version=pl.when(others).then(2).otherwise("version"),
            arm=pl.when(others).then(pl.lit("challenger")).otherwise("arm"),
            score=pl.when(others).then(1.0).otherwise("score"),
        ),
    )

    report = place.judge(0)

    assert (1, "healthy") == (report.version, finding(report, "inputs").cause)


def test_vectors_that_were_not_read_are_not_compared(place: Place) -> None:
    rows = traffic(0)
    late, nothing = pl.int_range(pl.len()) % 3 == 0, [float("nan")] * len(FEATURES)
    place.put(
        0,
        rows.with_columns(
            features=pl.when(late).then(nothing).otherwise("features"),
            reasons=pl.when(late).then(["features_late"]).otherwise("reasons"),
            degraded=late,
        ),
    )
    report = place.judge(0)

    assert report.drift is not None
    assert 100 == report.drift.rows
    assert "inconclusive" == finding(report, "inputs").cause  # thresholds are those of 150 rows


def test_a_feature_view_that_stopped_is_a_data_fault_and_no_drift(place: Place) -> None:
    view, features = LAYOUT.views[0], [item.name for item in LAYOUT.views[0].fields]
    place.put(0, traffic(0))
    rows = traffic(1)
    vectors = np.array(rows["features"].to_list(), dtype=np.float32)
    for name in features:
        if name in FEATURES:
            vectors[:, FEATURES.index(name)] = 2.5
    times = np.array(rows["feature_times"].to_list())
    times[:, 0] = day(0).start
    place.put(1, traffic(1, features=vectors.tolist(), feature_times=times.tolist()))
    found = finding(place.judge(1), "inputs")

    assert "data_fault" == found.cause
    assert view.name in found.blamed


def test_a_window_without_a_request_is_a_data_fault_of_the_champion_before(place: Place) -> None:
    place.fill(2)
    place.judge(1)
    report = place.judge(2)

    assert 1 == report.version
    assert "data_fault" == finding(report, "inputs").cause
    assert "requests" in finding(report, "inputs").blamed


def test_where_no_model_ever_answered_nothing_can_be_said(place: Place) -> None:
    report = place.judge(0)

    assert (None, ["inconclusive"]) == (report.version, causes(report))
    assert "no model has answered" in report.whole.reason


def test_a_model_without_thresholds_is_inconclusive_and_says_why(place: Place) -> None:
    few = known(days=10)
    place.put(0, traffic(0))
    report = replace(place, watched=lambda _: few).judge(0)

    assert ["inconclusive"] == causes(report)
    assert report.drift is not None
    assert few.reference.profile.uncalibrated in report.drift.reason


def test_a_version_that_cannot_be_trusted_is_no_measure_but_its_labels_count(place: Place) -> None:
    def refuse(_: int) -> Watched:
        raise ModelError("the signature is not ours: register it again")

    place.fill(8)
    report = replace(place, watched=refuse).judge(7)

    assert "inconclusive" == finding(report, "inputs").cause
    assert "the signature is not ours" in finding(report, "inputs").why
    assert report.performance is not None
    assert report.performance.cohort.measured


def test_a_service_that_is_away_is_an_error_and_leaves_nothing(place: Place) -> None:
    def away(_: int) -> Watched:
        raise ServiceError("the registry is away")

    place.put(0, traffic(0))
    with pytest.raises(ServiceError, match="registry is away"):
        replace(place, watched=away).judge(0)

    assert () == kept.newest(place.out, NAME, 99)
    assert [] == place.recorded()


def test_a_damaged_archive_is_inconclusive(place: Place) -> None:
    place.put(0, traffic(0))
    (part,) = (place.root / "archive").rglob("*.parquet")
    part.write_bytes(b"PAR1 is not all that it takes")
    report = place.judge(0)

    assert ["inconclusive"] == causes(report)
    assert "cannot be read" in report.whole.reason


def test_a_window_that_has_not_ended_is_refused(place: Place) -> None:
    with pytest.raises(DataError, match="judge it when it has ended"):
        place.judge(0, late=timedelta(seconds=-1))


def test_a_loss_names_the_metric(place: Place, version: Watched) -> None:
    better = Interval(estimate=0.9, low=0.89, high=0.91)
    promised = version.evaluation.model_copy(update={"metrics": {"pr_auc": better}})
    place.fill(8)
    report = replace(place, watched=lambda _: replace(version, evaluation=promised)).judge(7)
    found = finding(report, "performance")

    assert ("performance_loss", ("pr_auc",)) == (found.cause, found.blamed)
    assert "trouble" == report.layers[2].verdict


def test_labels_that_come_late_make_performance_inconclusive_until_they_are_there(
    place: Place,
) -> None:
    place.fill(8)
    complete = place.known
    late = pl.col("label_timestamp") + 2 * DAY
    place.known = complete.with_columns(label_timestamp=late)
    before, after = place.judge(7), place.judge(7, late=2 * DAY)

    assert "inconclusive" == finding(before, "performance").cause
    assert "healthy" == finding(after, "performance").cause
    verdicts = [key.rpartition("/")[2] for key, _ in place.recorded()]
    assert ["healthy", "inconclusive", "healthy"] == verdicts


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda found: pl.concat([found, found]), id="each twice"),
        pytest.param(lambda found: found.drop("late"), id="no label"),
        pytest.param(lambda found: found.drop("request_id"), id="no request"),
    ],
)
def test_labels_that_cannot_be_used_are_inconclusive(
    place: Place, broken: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    place.fill(3)
    place.known = broken(place.known)
    report = place.judge(2)

    assert ["healthy", "inconclusive"] == causes(report)
    assert "labels cannot be used" in finding(report, "performance").why


def test_a_shadow_is_measured_beside_the_champion_on_the_same_requests(place: Place) -> None:
    place.fill(8)
    for number in range(8):
        rows = traffic(number)
        noise = np.random.default_rng(number).random(rows.height)
        shadow = rows.with_columns(
            arm=pl.lit("shadow"),
            version=pl.lit(2, pl.Int64),
            sequence=pl.col("sequence") + 5000,
            score=pl.Series(noise),
        )
        place.put(number, pl.concat([rows, shadow]))
    report = place.judge(7)

    assert report.pair is not None
    assert (1, 2, "worse") == (report.pair.champion, report.pair.challenger, report.pair.verdict)
    assert ["healthy", "healthy"] == causes(report)  # its rows are nobody's answers


def test_what_was_estimated_is_judged_when_the_labels_are_there(place: Place) -> None:
    place.fill(3)
    reports = [place.judge(number) for number in range(3)]
    said = reports[1].estimate
    looked = reports[2].hindsight

    assert reports[0].hindsight is None
    assert looked is not None
    assert said == looked.estimate
    assert looked.realised is not None
    assert day(1) == looked.realised.cohort.window
    past = estimate.kept(place.out, NAME, 1)
    assert [True, True, False] == [item.realised is not None for item in past]
    place.judge(1)  # again: what came true of the day stays
    assert past == estimate.kept(place.out, NAME, 1)


def test_vectors_are_audited_where_there_is_a_history(place: Place, tmp_path: Path) -> None:
    from feature_repo import store as stores

    asked: list[datetime] = []

    def history(until: datetime) -> Any:
        asked.append(until)
        store = stores.open_store(str(tmp_path / "offline"))
        stores.apply(store)
        return store

    place.put(0, traffic(0))
    report = replace(place, history=history).judge(0)

    assert [day(0).end] == asked
    assert report.skew is not None
    assert 150 == report.skew.rows
    garbled = traffic(1, request=["{"] * 150)
    place.put(1, garbled)
    found = replace(place, history=history).judge(1)
    assert found.skew is not None
    assert "inconclusive" == found.skew.verdict
    assert "data_fault" == finding(found, "inputs").cause


def test_a_history_that_cannot_be_made_leaves_the_rest_of_the_judgement(place: Place) -> None:
    def damaged(_: datetime) -> Any:
        raise DataError("no raw table flights")

    place.put(0, traffic(0))
    report = replace(place, history=damaged).judge(0)

    assert report.skew is not None
    assert "no raw table flights" in report.skew.reason
    assert "healthy" == finding(report, "inputs").cause


def test_a_page_is_drawn_in_place_of_older_ones(place: Place) -> None:
    pages = [kept.folder(place.out, NAME, day(number)) / kept.PAGE for number in range(2)]
    for page in pages:
        page.parent.mkdir(parents=True)
        page.write_text("an older page")
    place.put(1, traffic(1))
    report = replace(place, pages=1).judge(1)

    assert [False, True] == [page.exists() for page in pages]
    assert str(pages[1]) == report.page
    assert "an older page" != pages[1].read_text()
