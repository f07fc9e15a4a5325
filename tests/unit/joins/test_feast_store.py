"""The store behind real Feast: definitions applied, batches written, training sets read back."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from feature_repo.offline_store import AsofOfflineStore, AsofOfflineStoreConfig
from mlplatform.errors import DataError, PlatformError

DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
TIME: Final = pl.Datetime("us", "UTC")
ACCOUNT: Final = Entity(name="account", join_keys=["account_id"], value_type=ValueType.INT64)
ROUTE: Final = Entity(name="place", join_keys=["place"], value_type=ValueType.STRING)


def at(hour: float) -> datetime:
    return DAY + timedelta(hours=hour)


def activity(**changes: Any) -> FeatureView:
    fields: dict[str, Any] = {
        "name": "activity",
        "entities": [ACCOUNT],
        "ttl": timedelta(hours=6),
        "schema": [
            Field(name="account_id", dtype=Int64),
            Field(name="amount", dtype=Float32),
            Field(name="count", dtype=Int64),
            Field(name="last_seen", dtype=UnixTimestamp),
        ],
        "source": FileSource(
            name="activity_source",
            path="bank/activity",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    }
    return FeatureView(**(fields | changes))


def weather() -> FeatureView:
    """No creation time, and a column that goes by another name in the files."""
    return FeatureView(
        name="weather",
        entities=[ROUTE],
        schema=[Field(name="place", dtype=String), Field(name="wind", dtype=Float32)],
        source=FileSource(
            name="weather_source",
            path="bank/weather",
            timestamp_field="seen",
            field_mapping={"wind_speed": "wind"},
        ),
    )


Open = Callable[..., FeatureStore]


@pytest.fixture
def open_store(tmp_path: Path) -> Open:
    def opened(*objects: Any, **settings: Any) -> FeatureStore:
        store = FeatureStore(
            config=RepoConfig(
                project="bank",
                provider="local",
                registry=str(tmp_path / "registry.db"),
                offline_store=AsofOfflineStoreConfig(root=str(tmp_path / "offline"), **settings),
                online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
                entity_key_serialization_version=3,
            )
        )
        views = objects or (activity(), weather())
        store.apply([ACCOUNT, ROUTE, *views])
        return store

    return opened


def rows(*values: tuple[int | None, float, float, float]) -> pl.DataFrame:
    """Rows of account, event hour, creation hour, amount."""
    return pl.DataFrame(
        {
            "account_id": pl.Series([row[0] for row in values], dtype=pl.Int64),
            "event_timestamp": pl.Series([at(row[1]) for row in values], dtype=TIME),
            "created_timestamp": pl.Series([at(row[2]) for row in values], dtype=TIME),
            "amount": [row[3] for row in values],
            "count": pl.Series([1] * len(values), dtype=pl.Int32),
            "last_seen": pl.Series([at(row[1]) for row in values], dtype=TIME),
        }
    )


def write(store: FeatureStore, name: str, frame: pl.DataFrame) -> None:
    AsofOfflineStore.offline_write_batch(
        store.config, store.get_feature_view(name), frame.to_arrow(), None
    )


def asked(*labels: tuple[int | None, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "account_id": pd.array([label[0] for label in labels], dtype="Int64"),
            "event_timestamp": pd.to_datetime([at(label[1]) for label in labels]),
        }
    )


def amounts(store: FeatureStore, labels: pd.DataFrame) -> list[float | None]:
    job = store.get_historical_features(labels, ["activity:amount"])
    found: list[float | None] = job.to_arrow()["amount"].to_pylist()
    return found


def parts(store: FeatureStore) -> dict[str, bytes]:
    folder = Path(store.config.offline_store.root) / "bank" / "activity"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_training_set_holds_what_was_known_with_all_label_columns(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0), (1, 2, 5, 20.0), (2, 0, 0, 30.0)))
    write(
        store,
        "weather",
        pl.DataFrame(
            {
                "place": ["JFK", "LGA"],
                "seen": pl.Series([at(0), at(1)], dtype=TIME),
                "wind_speed": [7.0, 8.0],
            }
        ),
    )
    labels = asked((2, 6), (1, 3), (1, 3), (1, 6), (2, 6.5), (None, 3), (3, 3)).assign(
        place=pd.Series(["JFK", "JFK", "LGA", None, "EWR", "LGA", "LGA"], dtype=object),
        note=list("gfedcba"),
    )

    table = store.get_historical_features(
        labels, ["activity:amount", "activity:count", "weather:wind"]
    ).to_arrow()

    assert ["account_id", "event_timestamp", "place", "note", "amount", "count", "wind"] == (
        table.column_names
    )
    assert list("gfedcba") == table["note"].to_pylist()
    assert [2, 1, 1, 1, 2, None, 3] == table["account_id"].to_pylist()
    assert [30.0, 10.0, 10.0, 20.0, None, None, None] == table["amount"].to_pylist()
    assert [1, 1, 1, 1, None, None, None] == table["count"].to_pylist()
    assert [7.0, 7.0, 8.0, None, None, 8.0, 8.0] == table["wind"].to_pylist()


def test_features_have_the_types_that_the_view_declares(open_store: Open) -> None:
    store = open_store()
    refs = ["activity:amount", "activity:count", "activity:last_seen", "weather:wind"]
    labels = asked((1, 3)).assign(place="JFK")
    declared = [pa.float32(), pa.int64(), pa.timestamp("us", "UTC"), pa.float32()]

    empty = store.get_historical_features(labels, refs).to_arrow()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    filled = store.get_historical_features(labels, refs).to_arrow()

    assert declared == empty.schema.types[3:]
    assert declared == filled.schema.types[3:]
    assert [pa.int64(), pa.timestamp("us", "UTC"), pa.string()] == filled.schema.types[:3]


def test_a_backfilled_row_changes_nothing_before_it_was_known(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    before = amounts(store, asked((1, 3), (1, 9)))

    write(store, "activity", rows((1, 2, 8, 99.0)))
    job = AsofOfflineStore.get_historical_features(
        store.config,
        [store.get_feature_view("activity")],
        ["activity:amount"],
        asked((1, 3), (1, 9)),
        store.registry,
        "bank",
        filter_by_created_timestamp=False,
    )

    assert [10.0, None] == before  # at hour 9 the only row is 8 hours old
    assert [10.0, None] == amounts(store, asked((1, 3), (1, 9)))
    assert [99.0, None] == job.to_arrow()["amount"].to_pylist()
    assert [99.0] == amounts(store, asked((1, 8)))


def test_knowledge_time_can_be_switched_off_for_a_store(open_store: Open) -> None:
    store = open_store(filter_by_created_timestamp=False)
    write(store, "activity", rows((1, 1, 1, 10.0), (1, 2, 8, 99.0)))
    switched_on = store.get_historical_features(
        asked((1, 3)), ["activity:amount"], filter_by_created_timestamp=True
    )

    assert [99.0] == amounts(store, asked((1, 3)))
    assert [10.0] == switched_on.to_arrow()["amount"].to_pylist()


def test_writing_a_batch_again_adds_nothing(open_store: Open) -> None:
    store = open_store()
    batch = rows((1, 1, 1, 10.0), (2, 0, 0, 30.0))
    write(store, "activity", batch)
    first = parts(store)

    write(store, "activity", batch)
    write(store, "activity", batch.select(reversed(batch.columns)))
    write(store, "activity", batch.clear())

    assert first == parts(store)
    assert 1 == len(first)


def test_a_new_batch_is_a_new_part_and_leaves_the_old_bytes_alone(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    first = parts(store)

    write(store, "activity", rows((1, 2, 2, 20.0)))
    second = parts(store)

    assert 2 == len(second)
    assert first == {name: second[name] for name in first}
    assert [20.0] == amounts(store, asked((1, 3)))


def test_among_equal_rows_of_two_parts_the_one_written_last_wins(open_store: Open) -> None:
    store = open_store()
    for amount in (3.0, 1.0, 2.0):
        write(store, "activity", rows((1, 1, 1, amount)))

    folder = Path(store.config.offline_store.root) / "bank" / "activity"
    for path in folder.iterdir():  # copies lose their times; the order of writing stays
        os.utime(path, (0, 0))

    assert [2.0] == amounts(store, asked((1, 3)))


def test_a_part_that_appeared_half_is_not_read(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    folder = Path(store.config.offline_store.root) / "bank" / "activity"
    (folder / ".part-0123.parquet.partial").write_bytes(b"PAR1")

    assert [10.0] == amounts(store, asked((1, 3)))


def test_a_damaged_part_is_named(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    folder = Path(store.config.offline_store.root) / "bank" / "activity"
    (folder / "part-bad.parquet").write_bytes(b"not a part")

    with pytest.raises(DataError, match=r"part-bad\.parquet is not a readable Parquet part"):
        amounts(store, asked((1, 3)))


def test_a_feature_declared_later_is_null_in_older_parts(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    grown = activity()
    grown = activity(schema=[*grown.schema, Field(name="risk", dtype=Float32)])
    store.apply([grown])
    write(store, "activity", rows((2, 1, 1, 20.0)).with_columns(risk=0.5))

    job = store.get_historical_features(asked((1, 2), (2, 2)), ["activity:risk", "activity:amount"])

    assert [None, 0.5] == job.to_arrow()["risk"].to_pylist()
    assert [10.0, 20.0] == job.to_arrow()["amount"].to_pylist()


def test_a_part_from_elsewhere_need_not_be_sorted(open_store: Open) -> None:
    store = open_store()
    folder = Path(store.config.offline_store.root) / "bank" / "activity"
    folder.mkdir(parents=True)
    shuffled = rows((2, 1, 1, 20.0), (1, 2, 2, 12.0), (2, 0, 0, 10.0), (1, 1, 1, 11.0))
    shuffled.write_parquet(folder / "export.parquet")

    assert [12.0, 20.0, 11.0] == amounts(store, asked((1, 3), (2, 3), (1, 1)))


def test_full_feature_names_and_aliases_keep_two_uses_of_a_view_apart(open_store: Open) -> None:
    service = FeatureService(
        name="flight_v1",
        features=[
            weather().with_name("origin").with_join_key_map({"place": "from"}),
            weather().with_name("destination").with_join_key_map({"place": "to"}),
        ],
    )
    store = open_store(weather(), service)
    write(
        store,
        "weather",
        pl.DataFrame(
            {
                "place": ["JFK", "LGA"],
                "seen": pl.Series([at(0), at(0)], dtype=TIME),
                "wind_speed": [7.0, 8.0],
            }
        ),
    )
    labels = pd.DataFrame(
        {
            "from": ["JFK", "LGA"],
            "to": ["LGA", "EWR"],
            "event_timestamp": pd.to_datetime([at(1), at(1)]),
        }
    )

    table = store.get_historical_features(labels, service, full_feature_names=True).to_arrow()

    assert [7.0, 8.0] == table["origin__wind"].to_pylist()
    assert [8.0, None] == table["destination__wind"].to_pylist()


def test_a_view_without_rows_is_an_empty_history_with_a_warning(
    open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()

    found = amounts(store, asked((1, 3)))

    assert [None] == found
    assert "feature view activity has no rows in bank/activity yet" in caplog.text


def test_online_values_are_the_latest_ones_that_training_would_see(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0), (1, 2, 2, 20.0), (None, 2, 2, 0.0)))
    write(store, "activity", rows((1, 2, 2, 21.0), (2, 1, 1, 30.0)))

    store.materialize(at(-1), at(9), feature_views=["activity", "weather"])
    online = store.get_online_features(
        ["activity:amount"], [{"account_id": 1}, {"account_id": 2}]
    ).to_dict()

    assert [21.0, 30.0] == online["amount"]


def test_pulling_the_latest_rows_gives_one_of_each_key_in_the_time_span(open_store: Open) -> None:
    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0), (1, 2, 2, 20.0), (1, 3, 3, 30.0)))
    write(store, "activity", rows((None, 2, 2, 0.0), (2, 0, 0, 1.0), (1, 2, 2, 21.0)))

    job = AsofOfflineStore.pull_latest_from_table_or_query(
        store.config,
        store.get_feature_view("activity").batch_source,
        ["account_id"],
        ["amount"],
        "event_timestamp",
        "created_timestamp",
        at(1),
        at(2),
    )

    table = job.to_arrow()
    assert [1] == table["account_id"].to_pylist()
    assert [21.0] == table["amount"].to_pylist()
    assert [at(2)] == table["event_timestamp"].to_pylist()


def test_a_saved_dataset_comes_back_whole(open_store: Open, tmp_path: Path) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    store = open_store()
    write(store, "activity", rows((1, 1, 1, 10.0)))
    job = store.get_historical_features(asked((1, 3), (1, 3), (None, 4)), ["activity:amount"])
    path = tmp_path / "saved" / "set.parquet"

    job.persist(SavedDatasetFileStorage(path=str(path)))

    assert [10.0, 10.0, None] == pl.read_parquet(path)["amount"].to_list()
    with pytest.raises(DataError, match="lies at"):
        job.persist(SavedDatasetFileStorage(path=str(path)))
    job.persist(SavedDatasetFileStorage(path=str(path)), allow_overwrite=True)


def test_the_job_describes_what_was_asked_for(open_store: Open) -> None:
    store = open_store()

    metadata = store.get_historical_features(asked((1, 3), (1, 5)), ["activity:amount"]).metadata

    assert ["activity:amount"] == metadata.features
    assert ["account_id"] == metadata.keys
    assert (at(3), at(5)) == (metadata.min_event_timestamp, metadata.max_event_timestamp)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda frame: frame.drop("amount"), r"missing columns \['amount'\]", id="missing"
        ),
        pytest.param(
            lambda frame: frame.with_columns(more=1), r"unknown columns \['more'\]", id="unknown"
        ),
        pytest.param(
            lambda frame: frame.with_columns(amount=pl.lit("much")),
            "column amount does not fit its declared type float",
            id="text for a number",
        ),
        pytest.param(
            lambda frame: frame.with_columns(count=pl.lit(1.5)),
            "column count does not fit its declared type int64",
            id="a fraction for an integer",
        ),
        pytest.param(
            lambda frame: frame.with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)),
            "event_timestamp in rows for feature view activity has no time zone",
            id="no zone",
        ),
        pytest.param(
            lambda frame: frame.with_columns(
                created_timestamp=pl.lit(None, dtype=pl.Datetime("us", "UTC"))
            ),
            "created_timestamp has 1 nulls",
            id="unknown creation",
        ),
    ],
)
def test_a_batch_that_is_not_what_the_view_declares_is_refused(
    open_store: Open, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    store = open_store()

    with pytest.raises(DataError, match=message):
        write(store, "activity", change(rows((1, 1, 1, 10.0))))

    assert not (Path(store.config.offline_store.root) / "bank").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param("SELECT 1", "found SQL", id="SQL"),
        pytest.param(None, "found no entity rows", id="none"),
        pytest.param(
            pd.DataFrame({"account_id": [1]}), "need a timestamp column", id="without a time"
        ),
        pytest.param(
            pd.DataFrame({"account_id": [1], "event_timestamp": ["2024-01-01"]}),
            "not a timestamp",
            id="time as text",
        ),
        pytest.param(
            pd.DataFrame({"account_id": [1, "a"], "event_timestamp": [at(1), at(1)]}),
            "mixes types",
            id="mixed types",
        ),
        pytest.param(
            asked((1, 3)).assign(amount=1.0), r"would write \['amount'\]", id="a column twice"
        ),
    ],
)
def test_entity_rows_that_would_be_guessed_at_are_refused(
    open_store: Open, labels: Any, message: str
) -> None:
    store = open_store()

    with pytest.raises(DataError, match=message):
        store.get_historical_features(labels, ["activity:amount"]).to_arrow()


def test_times_without_a_zone_are_refused_when_feast_leaves_them_alone(open_store: Open) -> None:
    store = open_store()
    naive = asked((1, 3)).assign(
        event_timestamp=lambda frame: frame.event_timestamp.dt.tz_localize(None)
    )

    with pytest.raises(DataError, match="event_timestamp in the entity rows has no time zone"):
        AsofOfflineStore.get_historical_features(
            store.config,
            [store.get_feature_view("activity")],
            ["activity:amount"],
            naive,
            store.registry,
            "bank",
        )


def test_feature_logs_are_refused(open_store: Open) -> None:
    store = open_store()

    with pytest.raises(PlatformError, match="the gateway logs"):
        AsofOfflineStore.write_logged_features(
            store.config, pa.table({}), object(), None, store.registry
        )


def test_the_columns_of_a_source_are_those_of_its_newest_part(open_store: Open) -> None:
    store = open_store()
    source = store.get_feature_view("activity").batch_source
    with pytest.raises(DataError, match="holds no rows yet"):
        AsofOfflineStore().get_table_column_names_and_types_from_data_source(store.config, source)

    write(store, "activity", rows((1, 1, 1, 10.0)))
    store.write_to_offline_store("activity", rows((1, 2, 2, 20.0)).to_pandas())

    assert [20.0] == amounts(store, asked((1, 3)))
