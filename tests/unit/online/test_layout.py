"""From declarations to places: what is stamped, what is refused by name, what stays the same."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, String

from feature_repo import layout, store
from mlplatform.errors import SpecError
from tests.unit.online.conftest import declare


def small(name: str, entities: list[Entity], *fields: Field) -> FeatureView:
    keys = [Field(name=one.join_key, dtype=String) for one in entities]
    source = FileSource(path=f"x/{name}", timestamp_field="event_timestamp")
    return FeatureView(name=name, entities=entities, schema=[*keys, *fields], source=source)


CITY = Entity(name="city", value_type=ValueType.STRING)
SPEED = Field(name="speed", dtype=Float32)
TEXT = Field(name="district", dtype=String)


def of(view: FeatureView, *, projected: Any = None) -> Any:
    service = FeatureService(name="s", features=[view if projected is None else projected])
    return layout.of_service(service, {view.name: view}, "p")


def test_the_flights_layout_has_a_group_for_each_set_of_keys_and_views_by_name() -> None:
    found = layout.load("flight_delay")

    assert "flight_delay_v1" == found.service
    assert [
        (("carrier",), ["carrier_delay"]),
        (("dest", "origin"), ["route_delay"]),
        (("origin",), ["origin_congestion", "origin_weather"]),
        (("tailnum",), ["aircraft_leg"]),
    ] == [(group.keys, [view.name for view in group.views]) for group in found.groups]
    assert timedelta(hours=4).total_seconds() == found.groups[2].views[1].ttl_seconds


def test_an_unknown_use_case_is_refused() -> None:
    with pytest.raises(SpecError, match="no use case 'nothing'"):
        layout.load("nothing")


def test_a_text_feature_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="feature view roads: district is String, which the online"):
        of(small("roads", [CITY], SPEED, TEXT))


def test_a_view_without_an_entity_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="feature view roads has no entity"):
        of(small("roads", [], SPEED))


def test_a_view_under_an_alias_is_refused_by_name() -> None:
    view = small("roads", [CITY], SPEED)

    with pytest.raises(SpecError, match="feature view roads has an alias"):
        of(view, projected=view.with_name("streets"))


def test_a_service_with_an_unknown_view_is_refused_by_name() -> None:
    view = small("roads", [CITY], SPEED)

    with pytest.raises(SpecError, match="feature view roads is not declared"):
        layout.of_service(FeatureService(name="s", features=[view]), {}, "p")


def test_stamping_leaves_the_declared_views_alone_and_gives_each_its_places() -> None:
    objects = declare()
    stamped = layout.stamp(objects)
    ride, rating = (layout.placements(stamped[name]) for name in ("ride", "rating"))

    assert {} == objects["ride"].tags
    assert stamped["rider"] is objects["rider"]
    assert [ride[0].fingerprint] == [place.fingerprint for place in rating]
    assert (0, rating[0].section.size) == (rating[0].section.offset, ride[0].section.offset)


def test_a_view_in_two_services_is_written_to_a_string_of_each() -> None:
    objects = declare()
    alone = FeatureService(name="rides_v1", features=[objects["ride"]])
    stamped = layout.stamp({**objects, "alone": alone})

    assert 2 == len(layout.placements(stamped["ride"]))
    assert 1 == len(layout.placements(stamped["rating"]))


def test_a_service_that_cannot_be_packed_gives_its_views_no_place_and_stops_nothing() -> None:
    roads = small("roads", [CITY], SPEED, TEXT)
    service = FeatureService(name="batch_only", features=[roads])
    stamped = layout.stamp({**declare(), "roads": roads, "batch_only": service})

    assert () == layout.placements(stamped["roads"])
    assert 1 == len(layout.placements(stamped["ride"]))


def test_a_tag_that_somebody_else_wrote_is_refused() -> None:
    view = small("roads", [CITY], SPEED)
    view.tags = {layout.TAG: "somewhere"}

    with pytest.raises(SpecError, match="feature view roads: tag packed is 'somewhere'"):
        layout.placements(view)


def test_the_registry_keeps_the_places_and_applying_again_changes_nothing(tmp_path: Path) -> None:
    objects = list(layout.stamp(declare()).values())
    opened = store.open_store(str(tmp_path))
    opened.apply(objects)
    first = opened.get_feature_view("ride")
    opened.apply(list(layout.stamp(declare()).values()))
    again = opened.get_feature_view("ride")

    assert layout.placements(first) == layout.placements(again)
    assert first == again
    assert first.current_version_number == again.current_version_number
