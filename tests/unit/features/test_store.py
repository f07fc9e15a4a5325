"""The Feast repository: what is gathered, applied, and refused; Feast's own command line."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml
from feast import Entity, FeatureStore, FeatureView, RepoConfig, ValueType

from feature_repo import definitions, store
from mlplatform.errors import DataError, ServiceError, SpecError
from usecases.flight_delay import features

REPO = Path(str(definitions.__file__)).parent
VIEWS = ("aircraft_leg", "carrier_delay", "origin_congestion", "origin_weather", "route_delay")


def entity(name: str, description: str = "") -> Entity:
    return Entity(name=name, value_type=ValueType.STRING, description=description)


def test_definitions_hold_every_declared_object_at_module_level() -> None:
    found = [value for value in vars(definitions).values() if isinstance(value, definitions.KINDS)]
    declared = [value for value in vars(features).values() if isinstance(value, definitions.KINDS)]
    views = [value for value in found if isinstance(value, FeatureView)]

    assert 11 == len(declared)
    assert {(type(value), value.name) for value in declared} <= {
        (type(value), value.name) for value in found
    }
    # A view says where it lies in the online store, and is otherwise as declared.
    assert [set(view.tags) - {"packed"} for view in features.VIEWS] == [
        set(view.tags) - {"packed"} for view in views
    ]
    assert all("packed" in view.tags for view in views)
    assert all("packed" not in view.tags for view in features.VIEWS)


def test_two_objects_of_one_name_in_two_use_cases_are_refused() -> None:
    modules = {
        "first": SimpleNamespace(city=entity("city")),
        "second": SimpleNamespace(town=entity("city", "another one")),
    }

    with pytest.raises(SpecError, match=r"Entity city is declared by usecases/first and again by"):
        definitions.gather(modules)


def test_an_object_that_use_cases_share_is_gathered_once() -> None:
    city = entity("city")
    modules = {"first": SimpleNamespace(city=city), "second": SimpleNamespace(city=city, n=1)}

    assert {"first__city": city} == definitions.gather(modules)


def test_applying_twice_gives_the_same_registry(tmp_path: Path) -> None:
    opened = store.open_store(str(tmp_path))

    assert VIEWS == store.apply(opened)
    assert VIEWS == store.apply(store.open_store(str(tmp_path)))
    assert ["flight_delay_v1"] == [item.name for item in opened.list_feature_services()]


def test_what_is_no_longer_declared_leaves_the_registry(tmp_path: Path) -> None:
    opened = store.open_store(str(tmp_path))
    old = FeatureView(
        name="old",
        entities=[features.carrier],
        schema=features.carrier_delay.schema,
        source=features.carrier_delay.batch_source,
    )
    opened.apply([features.carrier, old])
    known = [view.name for view in opened.list_feature_views()]

    assert ["old"] == known
    assert VIEWS == store.apply(opened)


def test_a_damaged_registry_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"\xff no registry")

    with pytest.raises(ServiceError, match=r"(cannot be opened|apply failed)"):
        store.apply(store.open_store(str(tmp_path)))


def test_a_contradiction_between_use_cases_is_passed_on_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contradicts() -> dict[str, Any]:
        raise SpecError("two of one name")

    monkeypatch.setattr(definitions, "declared", contradicts)

    with pytest.raises(SpecError, match="two of one name"):
        store.apply(store.open_store(str(tmp_path)))


def test_a_service_that_was_never_applied_is_refused(tmp_path: Path) -> None:
    bare = store.open_store(str(tmp_path))

    with pytest.raises(ServiceError, match=r"flight_delay_v1: the join failed: .*apply the def"):
        store.join_features(bare, "flight_delay_v1", pl.DataFrame())


def test_labels_without_a_key_are_refused_by_name(tmp_path: Path) -> None:
    opened = store.open_store(str(tmp_path))
    store.apply(opened)
    labels = pl.DataFrame(
        {"origin": ["EWR"], "event_timestamp": [datetime(2013, 5, 1, tzinfo=UTC)]}
    )

    with pytest.raises(DataError, match=r"the labels lack carrier, dest, tailnum"):
        store.join_features(opened, "flight_delay_v1", labels)


def test_a_join_that_loses_a_label_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = store.open_store(str(tmp_path))
    store.apply(opened)
    row = {"origin": "EWR", "dest": "BOS", "carrier": "UA", "tailnum": "N1"}
    labels = pl.DataFrame([row | {"event_timestamp": datetime(2013, 5, 1, tzinfo=UTC)}])
    lost = SimpleNamespace(to_arrow=lambda: labels.clear().to_arrow())
    monkeypatch.setattr(FeatureStore, "get_historical_features", lambda *_, **__: lost)

    with pytest.raises(DataError, match=r"returned 0 rows for 1 labels"):
        store.join_features(opened, "flight_delay_v1", labels)


def test_the_yaml_configures_what_the_code_configures(tmp_path: Path) -> None:
    text = yaml.safe_load((REPO / "feature_store.yaml").read_text())
    written = RepoConfig(**text, repo_path=REPO)
    coded = store.open_store(str(tmp_path), "redis://localhost:6379/0").config

    for part in (
        "project",
        "provider",
        "entity_key_serialization_version",
        "online_store",
        "batch_engine_config",
    ):
        assert getattr(coded, part) == getattr(written, part), part
    assert type(coded.offline_store) is type(written.offline_store)
    assert "../build/demo/data/registry.db" == written.registry.path
    assert "../build/demo/data/offline" == written.offline_store.root


def test_the_yamls_registry_creates_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "feature_repo"
    repo.mkdir()
    monkeypatch.chdir(repo)  # Feast resolves the registry's path against it
    text = yaml.safe_load((REPO / "feature_store.yaml").read_text())

    assert [] == FeatureStore(config=RepoConfig(**text)).list_feature_views()
    assert (tmp_path / "build/demo/data/registry.db").is_file()


def test_feast_reads_definitions_and_no_other_module() -> None:
    from feast.repo_operations import get_repo_files

    assert [REPO / "definitions.py"] == get_repo_files(REPO)


def test_feasts_own_apply_works_in_a_fresh_clone(tmp_path: Path) -> None:
    """The real command, in a copy of the folder, without any `build` folder beside it."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("__pycache__"))
    ran = subprocess.run(
        [sys.executable, "-m", "feast.cli.cli", "apply"],
        cwd=repo,
        env={"PYTHONPATH": str(REPO.parent), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    applied = store.open_store(str(tmp_path / "build/demo/data"))

    assert 0 == ran.returncode, ran.stderr
    assert list(VIEWS) == sorted(view.name for view in applied.list_feature_views())
