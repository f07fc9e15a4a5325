"""What follows from the specs for the chart."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from deploy import values
from deploy.values import clock_shift, gateways, rendered
from feature_repo import catalog
from mlplatform.errors import SettingsError

NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)
RECORDING = (datetime(2013, 1, 1, 10, 15, tzinfo=UTC), datetime(2014, 1, 1, 4, 59, tzinfo=UTC))


@pytest.mark.parametrize(("peak", "number"), [(1, 2), (200, 2), (201, 3), (1000, 6)])
def test_gateways_hold_the_peak_while_one_of_them_is_drained(peak: float, number: int) -> None:
    assert number == gateways(peak)


def test_the_use_cases_are_those_of_the_repository() -> None:
    specs = [catalog.spec(name) for name in catalog.names()]

    written = yaml.safe_load(rendered(specs, 0))

    assert list(catalog.names()) == [usecase["name"] for usecase in written["usecases"]]
    assert "settings" not in written


def test_the_same_specs_give_the_same_bytes() -> None:
    specs = [catalog.spec("flight_delay")]

    assert rendered(specs, -5) == rendered(specs, -5)
    assert {"clockShiftSeconds": -5} == yaml.safe_load(rendered(specs, -5))["settings"]


def test_a_repository_without_a_use_case_cannot_be_deployed() -> None:
    with pytest.raises(SettingsError, match="no use case to deploy"):
        rendered([], 0)


def test_a_recording_is_lived_through_after_its_first_quarter_at_this_time_of_day() -> None:
    lives = NOW + timedelta(seconds=clock_shift([RECORDING], NOW))

    assert datetime(2013, 4, 2, 15, 30, tzinfo=UTC) == lives


def test_data_of_today_are_not_shifted() -> None:
    assert 0 == clock_shift([(NOW - timedelta(days=400), NOW - timedelta(days=2)), None], NOW)


def test_a_missing_file_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "IMAGES", tmp_path / "images.yaml")

    with pytest.raises(SettingsError, match=r"images\.yaml.*`make images`"):
        values.files("minimal")


def test_the_last_file_that_says_something_is_what_the_chart_is_told(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    one.write_text("redis: {enabled: false, maxMemory: 1gb}\n")
    two.write_text("postgres: {enabled: false}\n")
    three.write_text("redis: {maxMemory: 2gb}\n")

    assert values.setting([one, two, three], "redis", "enabled") is False
    assert "2gb" == values.setting([one, two, three], "redis", "maxMemory")
    assert values.setting([], "redis", "enabled") is True
    assert values.setting([], "no", "such", "key") is None


def test_ones_own_values_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGES", "USECASES"):
        (tmp_path / name).touch()
        monkeypatch.setattr(values, name, tmp_path / name)
    own = tmp_path / "own.yaml"
    own.touch()

    files = values.files("minimal", [own])

    assert ["minimal-values.yaml", "IMAGES", "USECASES", "own.yaml"] == [f.name for f in files]
