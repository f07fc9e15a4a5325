"""Landing raw events and writing features: again, in steps, after an interruption."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from feature_repo import catalog, ingest, store
from mlplatform.errors import DataError, ServiceError, SpecError
from usecases.flight_delay import features, sources

# The last week of January and the first of February: two monthly parts, 12,000 flights.
FIRST = datetime(2013, 1, 25, tzinfo=UTC)
LAST = datetime(2013, 2, 8, 12, tzinfo=UTC)
USECASE = "flight_delay"


@pytest.fixture(autouse=True)
def short_year(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the source begin in late January, so that a test lands thousands of rows, not 336,776."""
    read = sources.read

    def later(start: datetime, end: datetime) -> dict[str, pl.DataFrame]:
        return read(max(start, FIRST), max(end, FIRST + timedelta(seconds=1)))

    monkeypatch.setattr(sources, "read", later)


def opened(root: Path) -> Any:
    opened_store = store.open_store(str(root))
    store.apply(opened_store)
    return opened_store


def rows_of(root: Path, view: str) -> pl.DataFrame:
    parts = sorted((root / "offline" / USECASE / view).glob("part-*.parquet"))
    return pl.concat([pl.read_parquet(part) for part in parts]).sort(pl.all())


def test_landing_writes_each_event_once_a_part_for_each_month(tmp_path: Path) -> None:
    added = ingest.land(USECASE, str(tmp_path), LAST)
    landed = ingest.read_raw(USECASE, str(tmp_path), LAST)
    expected = sources.read(FIRST, LAST)
    parts = [part.name for part in sorted((tmp_path / "raw" / USECASE / "flights").iterdir())]

    assert {name: table.height for name, table in expected.items()} == added
    for name, table in expected.items():
        assert_frame_equal(table, landed[name])
    assert [
        "part-20130101T000000000000Z-20130201T000000000000Z.parquet",
        "part-20130201T000000000000Z-20130208T120000000000Z.parquet",
    ] == parts


def test_landing_again_adds_nothing_and_rewrites_nothing(tmp_path: Path) -> None:
    ingest.land(USECASE, str(tmp_path), LAST)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    added = ingest.land(USECASE, str(tmp_path), LAST)
    earlier = ingest.land(USECASE, str(tmp_path), LAST - timedelta(days=3))

    assert {"flights": 0, "weather": 0} == added == earlier
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_landing_in_steps_gives_what_landing_at_once_gives(tmp_path: Path) -> None:
    for hours in (30, 31, 24 * 7 + 5, 24 * 10):
        ingest.land(USECASE, str(tmp_path / "steps"), FIRST + timedelta(hours=hours, minutes=7))
    ingest.land(USECASE, str(tmp_path / "steps"), LAST)
    ingest.land(USECASE, str(tmp_path / "once"), LAST)
    steps, once = (
        ingest.read_raw(USECASE, str(tmp_path / name), LAST) for name in ("steps", "once")
    )

    for name in sources.TABLES:
        assert_frame_equal(once[name], steps[name])


def test_an_interrupted_landing_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = pl.DataFrame.write_parquet, []

    def stops_at_the_third_part(rows: pl.DataFrame, path: Path) -> None:
        calls.append(path)
        write(rows, path)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", stops_at_the_third_part)
        with pytest.raises(KeyboardInterrupt):
            ingest.land(USECASE, str(tmp_path), LAST)
    whole = sources.read(FIRST, LAST)
    added = ingest.land(USECASE, str(tmp_path), LAST)
    landed = ingest.read_raw(USECASE, str(tmp_path), LAST)

    # Both flight parts were there; the weather's first was written but never given its name.
    assert {"flights": 0, "weather": whole["weather"].height} == added
    for name, table in whole.items():
        assert_frame_equal(table, landed[name])


def test_raw_events_are_those_before_the_time_of_the_run(tmp_path: Path) -> None:
    ingest.land(USECASE, str(tmp_path), LAST)
    moment = FIRST + timedelta(days=3)
    raw = ingest.read_raw(USECASE, str(tmp_path), moment)

    assert sources.read(FIRST, moment)["flights"].height == raw["flights"].height


def test_features_in_steps_are_those_computed_at_once(tmp_path: Path) -> None:
    steps, once = tmp_path / "steps", tmp_path / "once"
    total = dict.fromkeys(features.BATCH, 0)
    moments = [FIRST + timedelta(days=day, minutes=13 * day) for day in (1, 4, 8)]
    step_store = opened(steps)
    for moment in (*moments, LAST):
        ingest.land(USECASE, str(steps), moment)
        raw = ingest.read_raw(USECASE, str(steps), moment)
        for name, count in ingest.write_features(USECASE, step_store, raw, moment).items():
            total[name] += count
    ingest.land(USECASE, str(once), LAST)
    raw = ingest.read_raw(USECASE, str(once), LAST)
    added = ingest.write_features(USECASE, opened(once), raw, LAST)

    assert added == total
    for view, count in added.items():
        rows = rows_of(once, view)

        assert 0 < count == rows.height
        assert_frame_equal(rows, rows_of(steps, view))
        assert (rows["created_timestamp"] <= LAST).all()


def test_writing_features_again_adds_nothing_and_rewrites_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest.land(USECASE, str(tmp_path), LAST)
    raw = ingest.read_raw(USECASE, str(tmp_path), LAST)
    opened_store = opened(tmp_path)
    ingest.write_features(USECASE, opened_store, raw, LAST)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    with caplog.at_level(logging.INFO, logger="mlplatform.features"):
        again = ingest.write_features(USECASE, opened_store, raw, LAST)

    assert dict.fromkeys(features.BATCH, 0) == again
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    assert len(features.BATCH) == sum("flight_delay: 0 rows of" in line for line in caplog.messages)


def test_a_table_that_was_never_landed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no raw flights in .*: land the source's events"):
        ingest.read_raw(USECASE, str(tmp_path), LAST)


def test_a_damaged_part_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = ingest.raw_folder(USECASE, str(tmp_path), "flights")
    folder.mkdir(parents=True)
    (folder / "part-1-20130201T000000000000Z.parquet").write_bytes(b"no parquet")

    with pytest.raises(DataError, match=r"raw flights in .* cannot be read"):
        ingest.read_raw(USECASE, str(tmp_path), LAST)


def test_a_column_that_one_part_lacks_is_null_there(tmp_path: Path) -> None:
    """Validation then tells how many rows lack it, instead of a stack trace from the reader."""
    ingest.land(USECASE, str(tmp_path), LAST)
    folder = ingest.raw_folder(USECASE, str(tmp_path), "flights")
    first, second = sorted(folder.iterdir())
    january = pl.read_parquet(first)
    january.drop("tailnum").write_parquet(first)
    raw = ingest.read_raw(USECASE, str(tmp_path), LAST)["flights"]
    known = pl.read_parquet(second)["tailnum"]

    assert january.height + known.null_count() == raw["tailnum"].null_count()


@pytest.mark.parametrize("unreadable", ["renamed", "undeclared"])
def test_a_source_without_the_declared_event_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    read = sources.read

    def changed(start: datetime, end: datetime) -> dict[str, pl.DataFrame]:
        tables = read(start, end)
        flights = tables["flights"].rename({"scheduled_departure": "departs"})
        return tables | {"flights": flights}

    if unreadable == "renamed":
        monkeypatch.setattr(sources, "read", changed)
    else:
        monkeypatch.setattr(sources, "TABLES", ("flights", "weather", "planes"))
    message = {
        "renamed": r"table flights has no column scheduled_departure",
        "undeclared": r"table planes is not declared under data\.tables",
    }[unreadable]

    with pytest.raises(DataError, match=message):
        ingest.land(USECASE, str(tmp_path), LAST)


def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    naive = LAST.replace(tzinfo=None)
    for ask in (ingest.land, ingest.read_raw):
        with pytest.raises(DataError, match=r"has no zone: write it in UTC"):
            ask(USECASE, str(tmp_path), naive)


def test_an_unknown_use_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no use case 'nothing'"):
        ingest.land("nothing", str(tmp_path), LAST)


def test_features_of_views_that_were_never_applied_are_refused(tmp_path: Path) -> None:
    bare = store.open_store(str(tmp_path))
    raw = sources.read(FIRST, LAST)

    with pytest.raises(ServiceError, match=r"feature view origin_weather: .*apply the definitions"):
        ingest.write_features(USECASE, bare, raw, LAST)


def test_a_training_set_comes_out_of_the_store_label_by_label(tmp_path: Path) -> None:
    ingest.land(USECASE, str(tmp_path), LAST)
    raw = ingest.read_raw(USECASE, str(tmp_path), LAST)
    opened_store = opened(tmp_path)
    ingest.write_features(USECASE, opened_store, raw, LAST)
    labels = catalog.load(USECASE).labels(raw)
    joined = store.join_features(opened_store, "flight_delay_v1", labels)
    helpers = [field.name for view in features.VIEWS for field in view.features]

    assert_frame_equal(labels, joined.select(labels.columns))
    assert labels.columns + helpers == joined.columns
    assert 0.9 < 1 - joined["waiting"].null_count() / joined.height
