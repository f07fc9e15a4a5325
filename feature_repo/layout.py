"""From what use cases declare to how it lies in the online store: layouts and placements.

A layout belongs to a feature service: its views in groups that share their join keys, each group
one string per entity (`feature_repo.packed`). A route carries the layouts of its models, so that a
gateway knows them without Feast. A placement is the same seen from a view: in which strings its
rows are written, and where. A view has one for each service that it is in; `stamp` puts them on
the views as a Feast tag, so that the registry carries them to whoever writes.

It refuses what a packed value cannot hold, by name: text features, views without keys, and views
that a service renames.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from feature_repo import packed
from mlplatform.contracts import OnlineField, OnlineGroup, OnlineLayout, OnlineType, OnlineView
from mlplatform.errors import SpecError

_LOG: Final = logging.getLogger("mlplatform.features")

TAG: Final = "packed"
"""Feast tag of a view: its placements, `<group fingerprint>@<offset>` with commas between."""

_TYPES: Final[Mapping[str, OnlineType]] = {
    "Float32": "float32",
    "Float64": "float64",
    "Int32": "int32",
    "Int64": "int64",
    "Bool": "bool",
    "UnixTimestamp": "timestamp",
}
_KEY_TYPES: Final = ("String", "Int32", "Int64")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a view's rows are written.

    Attributes:
        fingerprint: Of the group's string.
        section: The view's place in it.
    """

    fingerprint: str
    section: packed.Section

    def key(self, project: str, entity: bytes) -> bytes:
        """Return the Redis key of an entity's string."""
        return packed.prefix(project, self.fingerprint) + entity


def load(usecase: str) -> OnlineLayout:
    """Return the layout of the feature service that a use case's spec names.

    Raises:
        SpecError: No such use case or service, or the service cannot be packed.
    """
    from feast import FeatureService, FeatureView

    from feature_repo import catalog, definitions
    from feature_repo.store import PROJECT

    wanted = catalog.spec(usecase).feature_service
    objects = list(definitions.declared().values())
    views = {item.name: item for item in objects if isinstance(item, FeatureView)}
    for item in objects:
        if isinstance(item, FeatureService) and item.name == wanted:
            return of_service(item, views, PROJECT)
    raise SpecError(
        f"use case {usecase}: feature service {wanted} is not declared: add it to "
        f"usecases/{usecase}/features.py or correct feature_service in usecase.yaml"
    )


def of_service(service: Any, views: Mapping[str, Any], project: str) -> OnlineLayout:
    """Return the layout of a Feast feature service; all fields of its views are in it.

    Args:
        service: `feast.FeatureService`.
        views: Name → `feast.FeatureView`; at least those of the service.
        project: Feast's project.

    Raises:
        SpecError: A view is unknown, renamed or without keys, or a type cannot be packed.
    """
    return OnlineLayout(project=project, service=service.name, groups=_groups(service, views))


def _groups(service: Any, views: Mapping[str, Any]) -> tuple[OnlineGroup, ...]:
    groups: dict[tuple[str, ...], list[OnlineView]] = {}
    for projection in service.feature_view_projections:
        if projection.name not in views:
            raise SpecError(
                f"feature service {service.name}: feature view {projection.name} is not declared"
            )
        if projection.name_alias or projection.join_key_map:
            raise SpecError(
                f"feature service {service.name}: feature view {projection.name} has an alias or "
                "other join keys in it: declare a feature view of its own"
            )
        view = views[projection.name]
        groups.setdefault(_keys(view), []).append(online_view(view))
    return tuple(
        OnlineGroup(keys=keys, views=tuple(sorted(held, key=lambda view: view.name)))
        for keys, held in sorted(groups.items())
    )


def online_view(view: Any) -> OnlineView:
    """Return a `feast.FeatureView` as it lies in a packed value.

    Raises:
        SpecError: A type cannot be packed.
    """
    fields = []
    for field in view.features:
        dtype = _TYPES.get(str(field.dtype))
        if dtype is None:
            raise SpecError(
                f"feature view {view.name}: {field.name} is {field.dtype}, which the online store "
                f"cannot pack: use one of {', '.join(_TYPES)}"
            )
        fields.append(OnlineField(name=field.name, dtype=dtype))
    if not fields:
        raise SpecError(f"feature view {view.name} has no features: nothing to serve")
    ttl = view.ttl.total_seconds() if view.ttl else None
    return OnlineView(name=view.name, ttl_seconds=ttl or None, fields=tuple(fields))


def stamp(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objects with the placements of each feature view as a tag on a copy of it.

    A service that cannot be packed gives its views no place: it may be for training and batches
    only. Whoever wants to serve it is refused by `of_service`.

    Args:
        objects: Feast objects by any name; those that are no views stay as they are.
    """
    from feast import FeatureService, FeatureView

    views = {item.name: item for item in objects.values() if isinstance(item, FeatureView)}
    tags: dict[str, set[str]] = {}
    for item in objects.values():
        if not isinstance(item, FeatureService):
            continue
        try:
            groups = _groups(item, views)
        except SpecError as error:
            _LOG.info("not placed in the online store: %s", error)
            continue
        for group in groups:
            for section in packed.sections(group):
                where = f"{packed.fingerprint(group)}@{section.offset}"
                tags.setdefault(section.view.name, set()).add(where)
    stamped = dict(objects)
    for name, item in objects.items():
        if isinstance(item, FeatureView) and item.name in tags:
            marked = copy.copy(item)
            marked.tags = {**item.tags, TAG: ",".join(sorted(tags[item.name]))}
            stamped[name] = marked
    return stamped


def placements(view: Any) -> tuple[Placement, ...]:
    """Return where a stamped `feast.FeatureView` is written; none when no service has it.

    Raises:
        SpecError: The tag is not one that `stamp` wrote.
    """
    found = []
    for where in filter(None, view.tags.get(TAG, "").split(",")):
        fingerprint, _, offset = where.partition("@")
        if not offset.isdecimal():
            raise SpecError(
                f"feature view {view.name}: tag {TAG} is {where!r}: it is written by "
                "feature_repo.layout.stamp and by nobody else"
            )
        found.append(Placement(fingerprint, packed.section(online_view(view), int(offset))))
    return tuple(found)


def _keys(view: Any) -> tuple[str, ...]:
    columns = {column.name: str(column.dtype) for column in view.entity_columns}
    keys = tuple(sorted(key for key in view.join_keys if not key.startswith("__dummy")))
    if not keys:
        raise SpecError(f"feature view {view.name} has no entity: a packed value needs a key")
    for key in keys:
        if columns.get(key) not in _KEY_TYPES:
            raise SpecError(
                f"feature view {view.name}: key {key} is {columns.get(key)}: use one of "
                f"{', '.join(_KEY_TYPES)}"
            )
    return keys
