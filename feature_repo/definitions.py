"""What Feast knows: the objects that the use cases declare, gathered from their `features` modules.

`feast apply` and `feast ui` read this module, and only this one (.feastignore). Feast takes the
objects that it finds at module level, so they are put there under `<usecase>__<name>`. A new use
case or feature changes nothing here. It refuses two different objects of one kind and name: the
registry would keep the last one.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from feast import Entity, FeatureService, FeatureView
from feast.data_source import DataSource

from feature_repo import catalog, layout
from mlplatform.errors import SpecError

KINDS: Final = (DataSource, Entity, FeatureView, FeatureService)
"""What a use case may declare. No on-demand views: Feast pickles their code into the registry."""


def gather(modules: Mapping[str, object]) -> dict[str, Any]:
    """Return the Feast objects at the top of each module, by `<usecase>__<attribute>`.

    Args:
        modules: Use case → its `features` module.

    Raises:
        SpecError: Two use cases declare different objects of the same kind and name.
    """
    found: dict[str, Any] = {}
    owners: dict[tuple[type, str], tuple[str, Any]] = {}
    for usecase, module in modules.items():
        for attribute, value in vars(module).items():
            if not isinstance(value, KINDS):
                continue
            kind = next(kind for kind in KINDS if isinstance(value, kind))
            owner, other = owners.setdefault((kind, value.name), (usecase, value))
            if other is not value:
                raise SpecError(
                    f"{kind.__name__} {value.name} is declared by usecases/{owner} and again by "
                    f"usecases/{usecase}: rename one, or import it from the other"
                )
            if value not in found.values():  # one object may be shared, or have two names
                found[f"{usecase}__{attribute}"] = value
    return found


def declared() -> dict[str, Any]:
    """Return the Feast objects of all use cases, views with their place in the online store."""
    return layout.stamp(
        gather(
            {name: importlib.import_module(f"usecases.{name}.features") for name in catalog.names()}
        )
    )


globals().update(declared())
