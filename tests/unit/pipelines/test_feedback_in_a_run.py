"""The first two tasks of a run on real flights, before and after these were served and reviewed."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from feature_repo import catalog, ingest, predictions
from feature_repo.labels import ORIGIN
from mlplatform.contracts import Decision, TrainingSet
from mlplatform.contracts.review import ReviewItem
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from pipelines import artifacts, tasks
from pipelines.decisions import decisions
from pipelines.journal import Journal

USECASE: Final = "flight_delay"
AS_OF: Final = datetime(2013, 1, 6, 12, tzinfo=UTC)


class Runs:
    """Runs of the first two tasks in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"sqlite:///{root}/ledger.db"

    def validate(self, name: str) -> None:
        moment = AS_OF.isoformat()
        tasks.validate(USECASE, moment, name, str(self.root / name / "report"))

    def run(self, name: str) -> TrainingSet:
        """Run both tasks and record them."""
        moment = AS_OF.isoformat()
        self.validate(name)
        tasks.build_training_set(USECASE, moment, name, str(self.root / name / "set"))
        for row in decisions(USECASE, name, self.journal(name), state="x", error="", now=AS_OF):
            Ledger(self.url).append(row)
        return artifacts.read_training_set(self.root / name / "set")

    def journal(self, name: str) -> dict[str, Any]:
        return Journal(str(self.root), USECASE, name).read()

    def recorded(self) -> Decision:
        entry = Ledger(self.url).last(USECASE, "training_set")
        assert entry is not None
        return entry.decision

    def size_rule(self, name: str) -> str:
        report = json.dumps(self.journal(name)["validate"]["report"]["results"])
        (rule,) = (one for one in json.loads(report) if "as many known labels" in one["rule"])
        return str(rule["observed"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("runs")
    found = Runs(root)
    logger = logging.getLogger("mlplatform")
    before = logger.handlers[:], logger.propagate, logger.level
    ingest.land(USECASE, str(root), AS_OF)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPLATFORM_DATA_ROOT", str(root))
        patch.setenv("MLPLATFORM_ARCHIVE_ROOT", str(root / "predictions"))
        patch.setenv("MLPLATFORM_LEDGER_URL", found.url)
        yield found
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def served(runs: Runs, flights: pl.DataFrame) -> None:
    """Archive answers to flights; they were given without sound features."""
    rows = flights.select(
        "request_id",
        gateway=pl.lit("g"),
        sequence=pl.int_range(1, pl.len() + 1),
        usecase=pl.lit(USECASE),
        event_time="event_timestamp",
        received_at="event_timestamp",
        arm=pl.lit("champion"),
        degraded=pl.lit(value=True),
        fallback=pl.lit(value=False),
        reasons=pl.lit(["stale:origin_weather"]),
    )
    nothing = [pl.lit(None).alias(name) for name in predictions.SCHEMA if name not in rows.columns]
    hour = runs.root / "predictions" / USECASE / "date=2013-01-03" / "hour=00"
    hour.mkdir(parents=True)
    every = (
        rows.with_columns(nothing).select(*predictions.SCHEMA).cast(pl.Schema(predictions.SCHEMA))
    )
    every.write_parquet(hour / predictions.part_name(0, 0))


# pandas says so inside Great Expectations of any pattern with a group.
@pytest.mark.filterwarnings("ignore:This pattern is interpreted as a regular expression")
def test_the_next_training_set_takes_in_what_people_said_and_leaves_out_what_was_degraded(
    runs: Runs,
) -> None:
    flights = catalog.load(USECASE).labels(ingest.read_raw(USECASE, str(runs.root), AS_OF))
    diverted = flights.filter(pl.col("late").is_null())["request_id"][0]
    degraded = flights.filter(pl.col("late").is_not_null()).head(40)

    first = runs.run("first")
    served(runs, degraded)
    store = ReviewStore(runs.url)
    store.add([queued(diverted)])
    store.answer(USECASE, diverted, 1, reviewer="ada", now=AS_OF - timedelta(hours=1))
    second = runs.run("second")
    runs.validate("third")

    rows = pl.read_parquet(second.path)
    assert (0, 0) == (first.degraded_rows, first.reviewed_rows)
    assert (40, 1) == (second.degraded_rows, second.reviewed_rows)
    assert first.rows - 40 + 1 == second.rows == rows.height
    assert [diverted] == rows.filter(pl.col(ORIGIN) == "review")["request_id"].to_list()
    assert rows.join(degraded, on="request_id", how="semi").is_empty()
    assert {"degraded_rows": 40, "reviewed_rows": 1}.items() <= runs.recorded().evidence.items()

    names = ("first", "second", "third")
    identities = [runs.journal(name)["validate"]["identity"] for name in names]
    assert identities[0] != identities[1] == identities[2]
    # What the source delivered is compared with what it delivered, not with what was learnt from.
    assert f"{first.rows:,} known labels against {first.rows:,} before" in runs.size_rule("third")


def queued(name: str) -> ReviewItem:
    return ReviewItem(
        usecase=USECASE,
        request_id=name,
        event_time=datetime(2013, 1, 1, tzinfo=UTC),
        entity=name,
        request="{}",
        version=1,
        score=0.5,
        decision=True,
        reason="sampled",
        queued_at=datetime(2013, 1, 2, tzinfo=UTC),
    )
